"""Weights are data: a dictionary of tensors, named as `network.named_parameters()` names them.

A network is an `nn.Module` used for its architecture alone. `apply` runs it with any weights and
changes neither; nothing in this package writes into a caller's module or tensors.
"""

import copy
import os
from collections.abc import Sequence
from pathlib import Path as FilePath

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.func import functional_call

Weights = dict[str, Tensor]


def default_device() -> torch.device:
    """`$MODECONN_DEVICE` if set, else the GPU if there is one, else the CPU."""
    name = os.environ.get("MODECONN_DEVICE")
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def weights_of(network: nn.Module) -> Weights:
    """A detached copy of a network's trainable parameters."""
    return {name: p.detach().clone() for name, p in network.named_parameters()}


def fresh_weights(network: nn.Module, seed: int) -> Weights:
    """New initial weights, drawn with each layer's own `reset_parameters` under `seed`.

    The draw happens on the CPU, so a seed means the same weights on every device; the caller's
    random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        new = copy.deepcopy(network).cpu()
        for module in new.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
    return weights_of(new)


def apply(network: nn.Module, weights: Weights, x: Tensor) -> Tensor:
    """Outputs of `network` on `x` with these weights: shape (images, classes)."""
    return functional_call(network, weights, (x,))


def check_weights(
    weights: Weights,
    *,
    like: "Weights | nn.Module | None" = None,
    name: str = "weights",
) -> Weights:
    """Return `weights` if they are sound and fit `like`, else say what is wrong.

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
    if like is None:
        return weights
    wanted = dict(like.named_parameters()) if isinstance(like, nn.Module) else like
    whose = type(like).__name__ if isinstance(like, nn.Module) else "the other weights"
    missing = [key for key in wanted if key not in weights]
    extra = [key for key in weights if key not in wanted]
    if missing or extra:
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
    return weights


def mix(coefficients: Sequence[float] | Tensor, anchors: Sequence[Weights]) -> Weights:
    """The weighted sum of anchors, `sum_k c_k w_k`, tensor by tensor.

    Anchors whose coefficient is exactly zero cost nothing; a lone anchor with coefficient one is
    returned as it is, so that a path's ends are its anchors to the bit.
    """
    terms = [(float(c), w) for c, w in zip(coefficients, anchors, strict=True) if float(c) != 0.0]
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
    return sum(float((a[key].double() * b[key].double()).sum()) for key in a)


def norm(a: Weights) -> float:
    """Euclidean length of a weight vector."""
    return inner(a, a) ** 0.5


def distance(a: Weights, b: Weights) -> float:
    """Euclidean distance between two weight vectors."""
    return norm(mix((1.0, -1.0), (a, b)))


def to(weights: Weights, target: torch.device | torch.dtype | str) -> Weights:
    """The same weights on another device or in another precision."""
    return {key: value.to(target) for key, value in weights.items()}


def stack(many: Sequence[Weights]) -> Weights:
    """Several networks' weights as one dictionary with a leading network axis."""
    return {key: torch.stack([w[key] for w in many]) for key in many[0]}


def unstack(stacked: Weights) -> list[Weights]:
    """The inverse of `stack`."""
    count = len(next(iter(stacked.values())))
    return [{key: value[i].clone() for key, value in stacked.items()} for i in range(count)]


def save(weights: Weights, file: str | FilePath, metadata: dict[str, str] | None = None) -> None:
    """Write weights as safetensors, all or nothing: a reader never sees half a file."""
    file = FilePath(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        tensors = {key: value.detach().cpu().contiguous() for key, value in weights.items()}
        save_file(tensors, part, metadata)
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)


def load(file: str | FilePath) -> Weights:
    """Read what `save` wrote; a damaged file is a `ValueError` that names it."""
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is no readable safetensors file; delete and remake it") from error
