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
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.func import functional_call

from .networks import for_evaluation

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

    Examples
    --------
    >>> import torch
    >>> from modeconn_lite import weights_of
    >>> {name: tuple(w.shape) for name, w in weights_of(torch.nn.Linear(4, 3)).items()}
    {'weight': (3, 4), 'bias': (3,)}
    """
    return {name: p.detach().clone() for name, p in network.named_parameters()}


def fresh_weights(network: nn.Module, seed: int) -> Weights:
    """New initial weights, drawn with each layer's own `reset_parameters` under `seed`.

    The draw happens on the CPU, so a seed means the same weights on every device; the caller's
    random state is left as it was.

    Raises
    ------
    ValueError
        If a layer has parameters but no `reset_parameters`: all seeds would share them.

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
    new = copy.deepcopy(network).cpu()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach GPUs as well
        for name, module in new.named_modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
            elif module._parameters:
                raise ValueError(
                    f"layer {name!r} ({type(module).__name__}) has parameters of its own and no"
                    " reset_parameters(); define one, or start from your own weights"
                )
    return weights_of(new)


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
        If the weights do not fit the network.

    Examples
    --------
    >>> import torch
    >>> from modeconn_lite import apply, fresh_weights
    >>> network = torch.nn.Linear(4, 3)
    >>> apply(network, fresh_weights(network, 0), torch.ones(2, 4)).shape
    torch.Size([2, 3])
    """
    _check_form(weights, dict(network.named_parameters()), "weights", type(network).__name__)
    return functional_call(for_evaluation(network, next(iter(weights.values()))), weights, (x,))


def check_weights(
    weights: Weights,
    *,
    like: "Weights | nn.Module | None" = None,
    name: str = "weights",
) -> Weights:
    """Return `weights` if they are sound and fit `like`, else say what is wrong.

    Parameters
    ----------
    weights : Weights
    like : Weights or nn.Module, optional
        What they must fit in names and shapes; other weights in precision and device too.
    name : str
        What messages call the weights.

    Raises
    ------
    ValueError
        For an empty dictionary, an integer tensor (a buffer such as BatchNorm's
        `num_batches_tracked`), a value that is not finite, a layer that is missing or too many,
        or a shape that differs. The message names the layer and both shapes.
    """
    if not isinstance(weights, dict) or not weights:
        raise ValueError(f"{name} must be a non-empty dict of tensors; see weights_of(network)")
    for key, value in weights.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"{name}[{key!r}] is {kind}, not a floating-point tensor. Buffers are no weights:"
                " use weights_of(network) instead of network.state_dict()"
            )
        if not torch.isfinite(value).all():
            bad = int((~torch.isfinite(value)).sum())
            raise ValueError(
                f"{name}[{key!r}] holds {bad} values that are not finite;"
                " retrain with a smaller learning rate or drop these weights"
            )
    if isinstance(like, nn.Module):
        _check_form(weights, dict(like.named_parameters()), name, type(like).__name__)
    elif like is not None:
        _check_form(weights, like, name, "the other weights")
        for key, value in like.items():
            ours, theirs = weights[key], value
            if ours.dtype != theirs.dtype or ours.device != theirs.device:
                raise ValueError(
                    f"{name}[{key!r}] is {ours.dtype} on {ours.device}, the other weights are"
                    f" {theirs.dtype} on {theirs.device}; use weights.to() on one of them"
                )
    return weights


def _check_form(weights: Weights, wanted: Mapping[str, Tensor], name: str, whose: str) -> None:
    """Same names, same shapes."""
    if weights.keys() != wanted.keys():
        missing = [key for key in wanted if key not in weights]
        extra = [key for key in weights if key not in wanted]
        raise ValueError(
            f"{name} do not fit {whose}: missing {missing or 'nothing'}, unknown {extra or 'none'}."
            " Both must come from the same architecture"
        )
    for key, value in wanted.items():
        if value.shape != weights[key].shape:
            raise ValueError(
                f"{name}[{key!r}] has shape {tuple(weights[key].shape)} where {whose} has"
                f" {tuple(value.shape)}. Both must come from the same architecture"
            )


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
        If there are no anchors, not one coefficient for each, a coefficient that is not finite,
        or anchors that differ in names or shapes.

    Examples
    --------
    >>> import torch
    >>> from modeconn_lite import mix
    >>> mix([0.25, 0.75], [{"w": torch.zeros(2)}, {"w": torch.tensor([4.0, 8.0])}])
    {'w': tensor([3., 6.])}
    """
    if not anchors or len(coefficients) != len(anchors):
        raise ValueError(f"{len(coefficients)} coefficients for {len(anchors)} anchors")
    pairs = [(float(c), w) for c, w in zip(coefficients, anchors, strict=True)]
    for k, (c, w) in enumerate(pairs):
        _check_form(w, anchors[0], f"anchor {k}", "anchor 0")
        if not math.isfinite(c):
            raise ValueError(f"the coefficient of anchor {k} is {c}")
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
    return torch.cat([value.reshape(-1) for value in weights.values()])


def from_vector(vector: Tensor, like: Weights) -> Weights:
    """The inverse of `to_vector` for weights shaped as `like`."""
    sizes = [value.numel() for value in like.values()]
    if vector.shape != (sum(sizes),):
        raise ValueError(f"a vector of shape ({sum(sizes)},) is needed, not {tuple(vector.shape)}")
    parts = vector.split(sizes)
    return {key: part.view_as(like[key]) for key, part in zip(like, parts, strict=True)}


def inner(a: Weights, b: Weights) -> float:
    """Inner product of two weight vectors, summed in double precision."""
    _check_form(b, a, "b", "a")
    return sum(float((a[key].detach().double() * b[key].detach().double()).sum()) for key in a)


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
    return norm(mix((1.0, -1.0), (a, b)))


def to(weights: Weights, target: torch.device | torch.dtype | str) -> Weights:
    """The same weights on another device or in another precision."""
    return {key: value.to(target) for key, value in weights.items()}


def stack(many: Sequence[Weights]) -> Weights:
    """Several networks' weights as one dictionary of tensors of shape (networks, …)."""
    return {key: torch.stack([w[key] for w in many]) for key in many[0]}


def unstack(stacked: Weights) -> list[Weights]:
    """The inverse of `stack`."""
    count = len(next(iter(stacked.values())))
    return [{key: value[i].clone() for key, value in stacked.items()} for i in range(count)]


def save(weights: Weights, file: str | FilePath, metadata: dict[str, str] | None = None) -> None:
    """Write weights as safetensors, all or nothing: a reader never sees half a file.

    Parameters
    ----------
    weights : Weights
    file : path
        Its folder is made if it is not there.
    metadata : dict of str to str, optional
        Stored beside the tensors and their order.
    """
    file = FilePath(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        tensors = {key: value.detach().cpu().contiguous() for key, value in weights.items()}
        # The format sorts its tensors; a network's order is worth keeping.
        save_file(tensors, part, (metadata or {}) | {"order": json.dumps(list(weights))})
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)


def load(file: str | FilePath) -> Weights:
    """Read what `save` wrote, on the CPU.

    Raises
    ------
    ValueError
        If the file is damaged; the message names it.
    """
    try:
        with safe_open(file, "pt") as opened:
            order = json.loads((opened.metadata() or {}).get("order", "null"))
            return {key: opened.get_tensor(key) for key in order or opened.keys()}
    except SafetensorError as error:
        raise ValueError(f"{file} is no readable safetensors file; delete and remake it") from error
