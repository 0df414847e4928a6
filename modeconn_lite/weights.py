"""Weights are data: a dictionary of tensors, named as `network.named_parameters()` names them.

A network is an `nn.Module` used for its architecture alone. `apply` runs it with any weights and
changes neither; nothing in this package writes into a caller's module or tensors.

Examples
--------
>>> import torch
>>> from modeconn_lite import Weights, apply
>>> weights: Weights = {"weight": torch.eye(2), "bias": torch.ones(2)}
>>> apply(torch.nn.Linear(2, 2), weights, torch.tensor([[3.0, 4.0]]))
tensor([[4., 5.]])
"""

import copy
import math
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .checks import (
    all_finite,
    check_device,
    check_finite,
    check_form,
    check_inputs,
    check_kinds,
    check_list,
    check_network,
    check_number,
    check_weights,
    check_whole,
)
from .running import Runner

Weights = dict[str, Tensor]


def default_device() -> torch.device:
    """`$MODECONN_DEVICE` if set, else the GPU if there is one, else the CPU.

    Raises
    ------
    ValueError
        If the variable holds no device's name.

    Examples
    --------
    >>> from modeconn_lite import default_device
    >>> default_device().type in ("cpu", "cuda", "mps")
    True
    """
    name = os.environ.get("MODECONN_DEVICE")
    try:
        return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise ValueError(f"$MODECONN_DEVICE is {name!r}; set it to cpu, cuda or mps") from error


def weights_of(network: nn.Module) -> Weights:
    """A detached copy of a network's parameters, frozen ones too.

    Raises
    ------
    ValueError
        If this is no network, or one whose lazy layers were never run.

    Examples
    --------
    >>> import torch
    >>> from modeconn_lite import weights_of
    >>> {name: tuple(w.shape) for name, w in weights_of(torch.nn.Linear(4, 3)).items()}
    {'weight': (3, 4), 'bias': (3,)}
    """
    check_network(network)
    _refuse_lazy(network)
    return {name: p.detach().clone() for name, p in network.named_parameters()}


def copy_of(network: nn.Module) -> nn.Module:
    """A deep copy of a network.

    Raises
    ------
    ValueError
        If it cannot be copied, as when `weight_norm` of torch.nn.utils made a weight a result.
    """
    check_network(network)
    _refuse_lazy(network)
    try:
        return copy.deepcopy(network)
    except Exception as error:
        raise ValueError(
            f"this {type(network).__name__} cannot be copied ({str(error).split('. ')[0]});"
            " take computed weights out of it, with torch.nn.utils.remove_weight_norm or the like"
        ) from error


def _refuse_lazy(network: nn.Module) -> None:
    """Parameters of lazy layers have no shape yet."""
    for name, p in network.named_parameters():
        if nn.parameter.is_lazy(p):
            raise ValueError(f"{name!r} has no shape yet; run the network once on an example")


def fresh_weights(network: nn.Module, seed: int) -> Weights:
    """New initial weights, drawn with each layer's own `reset_parameters` under `seed`.

    The draw happens on the CPU, so a seed means the same weights on every device; the caller's
    random state is left as it was.

    Parameters
    ----------
    network : nn.Module
        The architecture; it is not changed.
    seed : int
        From 0 to 2⁶³ − 1.

    Raises
    ------
    ValueError
        If a layer has parameters but no `reset_parameters`, or one that does not draw them all:
        all seeds would share them.

    Examples
    --------
    >>> import torch
    >>> from modeconn_lite import distance, fresh_weights
    >>> network = torch.nn.Linear(4, 3)
    >>> distance(fresh_weights(network, 0), fresh_weights(network, 0))
    0.0
    >>> distance(fresh_weights(network, 0), fresh_weights(network, 1)) > 0.5
    True
    """
    check_whole(seed, "seed")
    new = copy_of(network)
    if any(p.is_meta for p in new.parameters()):
        new = new.to_empty(device="cpu")
    new = new.cpu()
    with torch.no_grad():
        for p in new.parameters():
            if p.is_floating_point():
                p.fill_(math.nan)  # what is NaN in the end was not drawn
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(seed))  # torch.manual_seed would reach GPUs as well
        for name, module in new.named_modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
            elif module._parameters:
                raise ValueError(
                    f"layer {name!r} ({type(module).__name__}) has parameters of its own and no"
                    " reset_parameters(); define one, or start from your own weights"
                )
    weights = weights_of(new)
    for key, value in weights.items():
        if value.isnan().any():
            raise ValueError(
                f"no reset_parameters() draws all of {key!r}: all seeds would share it; draw it"
                " there, or start from your own weights"
            )
    return weights


def apply(network: nn.Module, weights: Weights, x: Tensor) -> Tensor:
    """Outputs of `network` on `x` with these weights, dropout off: shape (images, classes).

    BatchNorm uses the network's own running statistics; `evaluation` recomputes them.

    Parameters
    ----------
    network : nn.Module
        The architecture; its own weights play no part and are not touched.
    weights : Weights
    x : Tensor, shape (images, …)
        On the weights' device and in their precision.

    Raises
    ------
    ValueError
        If the weights do not fit the network or the inputs do not, or a value is not finite.

    Examples
    --------
    >>> import torch
    >>> from modeconn_lite import apply, fresh_weights
    >>> network = torch.nn.Linear(4, 3)
    >>> apply(network, fresh_weights(network, 0), torch.ones(2, 4)).shape
    torch.Size([2, 3])
    """
    check_weights(weights, like=check_network(network))
    return Runner(network, next(iter(weights.values())))(weights, _plain(x))


def _plain(x: Any) -> Tensor:
    """Inputs, checked as far as they have values: under `torch.func.vmap` they have none."""
    plain = isinstance(x, Tensor) and x.is_floating_point() and x.layout is torch.strided
    if plain and not x.is_meta and x.dim() and x.numel() and all_finite({"x": x}):
        return x
    return check_inputs(x, "x")


def mix(coefficients: Sequence[float] | Tensor, anchors: Sequence[Weights]) -> Weights:
    """The weighted sum of anchors, `sum_k c_k w_k`, tensor by tensor.

    Anchors whose coefficient is exactly zero cost nothing; a lone anchor with coefficient one is
    returned as it is, so that a path's ends are its anchors to the bit.

    Parameters
    ----------
    coefficients : K floats or Tensor, shape (K,)
    anchors : sequence of K Weights

    Raises
    ------
    ValueError
        If there are no anchors, not one coefficient for each, a coefficient or weight that is not
        finite, anchors that differ in names, shapes, precision or device, or if the sum overflows.

    Examples
    --------
    >>> import torch
    >>> from modeconn_lite import mix
    >>> mix([0.25, 0.75], [{"w": torch.zeros(2)}, {"w": torch.tensor([4.0, 8.0])}])
    {'w': tensor([3., 6.])}
    """
    anchors = check_list(anchors, "anchors", "weights", least=0)
    if isinstance(coefficients, Tensor):
        if coefficients.dim() != 1:
            shape = tuple(coefficients.shape)
            raise ValueError(f"coefficients have shape {shape}; {(len(anchors),)} is needed")
        coefficients = coefficients.tolist()
    coefficients = check_list(coefficients, "coefficients", "numbers", least=0)
    if not anchors or len(coefficients) != len(anchors):
        raise ValueError(f"{len(coefficients)} coefficients for {len(anchors)} anchors")
    for k, c in enumerate(coefficients):
        c = c.item() if isinstance(c, Tensor) and c.dim() == 0 else c
        check_number(c, f"the coefficient of anchor {k}")
    for k, w in enumerate(anchors):
        check_weights(w, like=anchors[0] if k else None, name=f"anchor {k}")
    mixed = combined(coefficients, anchors)
    if not all_finite(mixed):
        raise ValueError("the mix overflows; give smaller coefficients")
    return mixed


def combined(coefficients: Sequence[float] | Tensor, anchors: Sequence[Weights]) -> Weights:
    """`mix` where nothing is left to check: at every step of a path, say."""
    pairs = [(float(c), w) for c, w in zip(coefficients, anchors, strict=True)]
    terms = [(c, w) for c, w in pairs if c != 0.0]
    if not terms:
        return {key: torch.zeros_like(value) for key, value in anchors[0].items()}
    if len(terms) == 1 and terms[0][0] == 1.0:
        return dict(terms[0][1])
    (c0, first), *rest = terms
    total = {key: c0 * value for key, value in first.items()}
    for c, w in rest:
        for key, value in total.items():
            value.add_(w[key], alpha=c)
    return total


def to_vector(weights: Weights) -> Tensor:
    """All weights as one vector, shape (parameters,), in the dictionary's order."""
    check_kinds(weights, "weights")
    return torch.cat([value.reshape(-1) for value in weights.values()])


def from_vector(vector: Tensor, like: Weights) -> Weights:
    """The inverse of `to_vector` for weights shaped as `like`."""
    check_kinds(like, "like")
    sizes = [value.numel() for value in like.values()]
    if not isinstance(vector, Tensor) or not vector.is_floating_point():
        raise ValueError(f"a vector of {sum(sizes)} floats is needed, not {type(vector).__name__}")
    if vector.shape != (sum(sizes),):
        raise ValueError(f"a vector of shape ({sum(sizes)},) is needed, not {tuple(vector.shape)}")
    parts = vector.split(sizes)
    return {key: part.view_as(like[key]) for key, part in zip(like, parts, strict=True)}


def inner(a: Weights, b: Weights) -> float:
    """Inner product of two weight vectors, summed in double precision."""
    _check_pair(a, b)
    product = sum(float((a[k].detach().double() * b[k].detach().double()).sum()) for k in a)
    return _number(product, "the inner product", a, b)


def norm(a: Weights) -> float:
    """Euclidean length of a weight vector."""
    return inner(a, a) ** 0.5


def distance(a: Weights, b: Weights) -> float:
    """Euclidean distance between two weight vectors.

    Examples
    --------
    >>> import torch
    >>> from modeconn_lite import distance
    >>> distance({"w": torch.zeros(2)}, {"w": torch.tensor([3.0, 4.0])})
    5.0
    """
    _check_pair(a, b)
    step = combined((1.0, -1.0), (a, b))
    squared = sum(float(value.detach().double().square().sum()) for value in step.values())
    return _number(squared, "the distance", a, b) ** 0.5


def _check_pair(a: Weights, b: Weights) -> None:
    """Two weight vectors that fit each other and lie in one place."""
    check_kinds(a, "a")
    check_kinds(b, "b")
    check_form(b, a, "b", "a")
    for key, value in a.items():
        if value.device != b[key].device:
            raise ValueError(
                f"a[{key!r}] is on {value.device}, b's on {b[key].device}; use weights.to()"
            )


def _number(value: float, what: str, a: Weights, b: Weights) -> float:
    """What was computed from a and b. Only if it is not finite, we look for the reason in them."""
    if not math.isfinite(value):
        check_finite(a, "a")
        check_finite(b, "b")
        raise ValueError(f"{what} of these weights overflows; scale them down")
    return value


def to(weights: Weights, target: torch.device | torch.dtype | str) -> Weights:
    """The same weights on another device or in another precision.

    Raises
    ------
    ValueError
        If there is no such device, or the precision holds no such numbers.
    """
    check_kinds(weights, "weights")
    if isinstance(target, torch.dtype):
        if not target.is_floating_point or target.itemsize < 2:
            raise ValueError(f"weights cannot be {target}; choose torch.float32 or the like")
    else:
        target = check_device(target, "target")
    moved = {key: value.to(target) for key, value in weights.items()}
    if not all_finite(moved):
        check_finite(weights, "weights")
        raise ValueError(f"these weights do not fit into {target}; choose a wider type")
    return moved


def stack(many: Sequence[Weights]) -> Weights:
    """Several networks' weights as one dictionary of tensors of shape (networks, …).

    Raises
    ------
    ValueError
        If there are none, or they do not fit each other.
    """
    many = check_list(many, "weights to stack", "dicts, one for each network")
    for k, w in enumerate(many):
        check_weights(w, like=many[0] if k else None, name=f"weights {k}")
    return {key: torch.stack([w[key] for w in many]) for key in many[0]}


def unstack(stacked: Weights) -> list[Weights]:
    """The inverse of `stack`."""
    check_weights(stacked, name="stacked weights")
    counts = {value.shape[:1] for value in stacked.values()}
    if len(counts) != 1 or not next(iter(counts)) or not next(iter(counts))[0]:
        raise ValueError("stacked weights need a leading axis, of the same length for all tensors")
    (count,) = next(iter(counts))
    return [{key: value[i].clone() for key, value in stacked.items()} for i in range(count)]
