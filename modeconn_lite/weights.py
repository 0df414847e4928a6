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
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from .checks import check_inputs, check_list, check_network, check_number, check_whole
from .files import BLANK, BadFile, Damaged, check_file, check_seal, seal, write_whole
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


def check_device(value: Any, name: str = "device") -> torch.device:
    """A device that this machine has and that torch can use."""
    try:
        device = torch.device(value)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"{name} cannot be {value!r}: {reason}; 'cpu' always can") from error
    if device.type == "meta":
        raise ValueError(f"{name} cannot be 'meta': tensors there have no values; 'cpu' can")
    return device


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
    check_whole(seed, "seed", high=2**63 - 1)
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
        For what is no dictionary or an empty one; an integer tensor (a buffer such as BatchNorm's
        `num_batches_tracked`), a complex, sparse, quantised or meta tensor; a value that is not
        finite; a layer that is missing or too many; or a shape that differs. The message names
        the layer and both shapes.
    """
    _check_kinds(weights, name)
    _check_values(weights, name)
    if isinstance(like, nn.Module):
        _check_form(weights, dict(like.named_parameters()), name, type(like).__name__)
    elif like is not None:
        _check_kinds(like, "the other weights")
        _check_form(weights, like, name, "the other weights")
        for key, value in like.items():
            ours, theirs = weights[key], value
            if ours.dtype != theirs.dtype or ours.device != theirs.device:
                raise ValueError(
                    f"{name}[{key!r}] is {ours.dtype} on {ours.device}, the other weights are"
                    f" {theirs.dtype} on {theirs.device}; use weights.to() on one of them"
                )
    return weights


def _check_kinds(weights: Any, name: str) -> None:
    """A dictionary of plain tensors of real numbers. This looks at no number: it costs nothing."""
    if not isinstance(weights, dict) or not weights:
        kind = "an empty one" if weights == {} else f"a {type(weights).__name__}"
        raise ValueError(
            f"{name} must be a non-empty dict of tensors, not {kind}; see weights_of(network)"
        )
    for key, value in weights.items():
        if not isinstance(key, str):
            raise ValueError(f"{name} has the key {key!r}; keys are names of parameters")
        if not isinstance(value, Tensor):
            raise ValueError(f"{name}[{key!r}] is {type(value).__name__}, not a tensor")
        plain = value.layout is torch.strided and not value.is_meta
        if plain and value.is_floating_point() and value.element_size() > 1:
            continue
        where = f"{name}[{key!r}] is"
        if value.is_meta:
            raise ValueError(f"{where} on the meta device: it has a shape and no values; load some")
        if value.layout is not torch.strided:
            raise ValueError(f"{where} sparse ({value.layout}); use .to_dense()")
        if value.is_quantized:
            raise ValueError(f"{where} quantised ({value.dtype}); use .dequantize()")
        if value.is_complex():
            raise ValueError(f"{where} complex ({value.dtype}); this package works with real ones")
        if value.is_floating_point():
            raise ValueError(f"{where} {value.dtype}, which torch cannot compute with; use .half()")
        raise ValueError(
            f"{where} {value.dtype}, not a floating-point tensor. Buffers are no weights:"
            " use weights_of(network) instead of network.state_dict()"
        )


def _check_values(weights: Weights, name: str) -> None:
    """No value but finite ones."""
    if all_finite(weights):
        return
    for key, value in weights.items():
        bad = int((~torch.isfinite(value)).sum())
        if bad:
            raise ValueError(
                f"{name}[{key!r}] holds {bad} values that are not finite;"
                " retrain with a smaller learning rate or drop these weights"
            )


@torch.no_grad()
def all_finite(weights: Weights) -> bool:
    """Whether no value is NaN or infinite. Sums are looked at first: that is fastest."""
    try:
        if math.isfinite(sum(value.sum().item() for value in weights.values())):
            return True
        return all(bool(torch.isfinite(value).all()) for value in weights.values())
    except RuntimeError as error:
        if "vmap" not in str(error):
            raise
        return True  # under `torch.func.vmap` values are not to be had


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
    _check_kinds(weights, "weights")
    return torch.cat([value.reshape(-1) for value in weights.values()])


def from_vector(vector: Tensor, like: Weights) -> Weights:
    """The inverse of `to_vector` for weights shaped as `like`."""
    _check_kinds(like, "like")
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
    _check_kinds(a, "a")
    _check_kinds(b, "b")
    _check_form(b, a, "b", "a")
    for key, value in a.items():
        if value.device != b[key].device:
            raise ValueError(
                f"a[{key!r}] is on {value.device}, b's on {b[key].device}; use weights.to()"
            )


def _number(value: float, what: str, a: Weights, b: Weights) -> float:
    """What was computed from a and b. Only if it is not finite, we look for the reason in them."""
    if not math.isfinite(value):
        _check_values(a, "a")
        _check_values(b, "b")
        raise ValueError(f"{what} of these weights overflows; scale them down")
    return value


def to(weights: Weights, target: torch.device | torch.dtype | str) -> Weights:
    """The same weights on another device or in another precision.

    Raises
    ------
    ValueError
        If there is no such device, or the precision holds no such numbers.
    """
    _check_kinds(weights, "weights")
    if isinstance(target, torch.dtype):
        if not target.is_floating_point or target.itemsize < 2:
            raise ValueError(f"weights cannot be {target}; choose torch.float32 or the like")
    else:
        target = check_device(target, "target")
    moved = {key: value.to(target) for key, value in weights.items()}
    if not all_finite(moved):
        _check_values(weights, "weights")
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


def save(weights: Weights, file: str | FilePath, metadata: dict[str, str] | None = None) -> None:
    """Write weights as safetensors, all or nothing: a reader never sees half a file.

    Parameters
    ----------
    weights : Weights
    file : path
        Its folder is made if it is not there.
    metadata : dict of str to str, optional
        Stored beside the tensors, their order, and a checksum of it all.

    Raises
    ------
    ValueError
        If these are no weights, or the metadata no strings.
    OSError
        If the file cannot be written, as on a full disk; the message names it.
    """
    file = check_file(file)
    check_weights(weights)
    about = dict(metadata) if isinstance(metadata, Mapping) else {} if metadata is None else None
    if about is None or not all(isinstance(word, str) for item in about.items() for word in item):
        raise ValueError(f"metadata must map strings to strings, not {metadata!r}")
    if about.keys() & {"order", "sha256"}:
        raise ValueError("metadata cannot hold 'order' or 'sha256': `save` puts its own there")
    # Cloned: tensors that share memory, as those of `from_vector` do, cannot be written.
    tensors = {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in weights.items()
    }
    # The format sorts its tensors; a network's order is worth keeping.
    about |= {"order": json.dumps(list(weights)), "sha256": BLANK}
    write_whole(seal(safetensors.torch.save(tensors, about)), file)


def load(file: str | FilePath) -> Weights:
    """Read what `save` wrote, on the CPU; or a safetensors file from elsewhere.

    Raises
    ------
    ValueError
        If the file is damaged, be it by one bit; the message names it. Only files from elsewhere,
        which have no checksum, are taken as they are.
    FileNotFoundError
        If there is none.
    """
    return read(file)[0]


def read(file: str | FilePath) -> tuple[Weights, dict[str, str]]:
    """What `save` wrote: weights, on the CPU, and metadata.

    Raises
    ------
    Damaged
        If it was ours and is no longer sound.
    BadFile
        If it is nothing that can be read at all.
    """
    file = check_file(file)
    content = file.read_bytes()  # what is parsed is the very bytes whose checksum was verified
    try:
        end = 8 + int.from_bytes(content[:8], "little")
        about = json.loads(content[8:end]).get("__metadata__", {})
        # Both are in every file of ours, so that one damaged name cannot hide the other.
        if about.keys() & {"order", "sha256"}:
            check_seal(content)
        tensors = safetensors.torch.load(content)
        order = json.loads(about.get("order", "null"))
        weights = {key: tensors[key] for key in order or tensors}
    except (SafetensorError, ValueError, LookupError, TypeError, AttributeError) as error:
        if len(content) < 32 or b"__metadata__" in content[:64] or b'"sha256"' in content[:65536]:
            raise Damaged(file, f"is damaged ({_reason(error)})") from error
        raise BadFile(file, "is no readable safetensors file") from error
    return weights, {key: about[key] for key in about if key not in ("order", "sha256")}


def _reason(error: Exception) -> str:
    """In a few words."""
    return "wrong checksum" if str(error) == "wrong checksum" else "unreadable or cut short"
