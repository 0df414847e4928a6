"""A neuron is a row: the view of a network that permutes, mutes, swaps and rescales its neurons.

`layout.hidden_layers` derives from the network itself which slices of which tensors belong to the
same neuron (for a convnet: to the same filter). Everything here is indexing along those slices.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from .anatomy import facts
from .checks import check_indices, check_kinds, check_network, check_numbers, check_whole, describe
from .layout import BATCH_NORMS, Hidden, Slice, hidden_layers
from .running import Runner
from .weights import Weights, check_weights

__all__ = [
    "Hidden",
    "Slice",
    "butterflies",
    "hidden_layers",
    "mute",
    "permute",
    "reordered",
    "scale",
    "swap",
    "tried_layers",
    "with_butterflies",
]

Orders = Mapping[str, Tensor | Sequence[int]]


def tried_layers(network: nn.Module, x: Tensor) -> list[Hidden]:
    """The hidden layers, once the network has shown on inputs like x that it is understood.

    With random weights and inputs of the shape of x, all its neurons are reordered: the outputs
    must stay as they are, and each layer must give one number, or one image, for each neuron.

    Raises
    ------
    ValueError
        If they do not, the network is not understood, or it does not run on such inputs.

    Notes
    -----
    Three inputs pass through the network twice, once for each network and shape of inputs.
    """
    layers, known = hidden_layers(network), facts(network)
    key = ("tried", *x.shape[1:])
    if key not in known:
        known[key] = _trial(network, layers, x.shape[1:])
    if known[key]:
        raise ValueError(known[key])
    return layers


@torch.no_grad()
def _trial(network: nn.Module, layers: Sequence[Hidden], shape: torch.Size) -> str:
    """What is wrong with the layers of a network, for inputs of this shape, or nothing."""
    random = torch.Generator().manual_seed(0)

    def drawn(shape: Sequence[int], scale: float = 1.0) -> Tensor:
        return scale * torch.randn(tuple(shape), generator=random, dtype=torch.float64)

    state: Weights = {}
    for name, value in (*network.named_parameters(), *network.named_buffers()):
        if value.is_floating_point():
            state[name] = drawn(value.shape, max(math.prod(value.shape[1:]), 1) ** -0.5)
            if value.dim() == 1:  # so that not all ReLUs are silent, and variances positive
                state[name] = state[name].abs() + 0.1
    orders = {}
    for layer in layers:  # one round through all neurons: none keeps its place
        round_trip = torch.randperm(layer.size, generator=random)
        orders[layer.name] = torch.empty_like(round_trip)
        orders[layer.name][round_trip] = round_trip.roll(1)
    seen: dict[str, tuple[int, ...]] = {}

    def note(name: str, module: nn.Module, given: Any, out: Tensor) -> None:
        seen[name] = tuple(out.shape)

    def note_shapes(copied: nn.Module) -> None:
        for layer in layers:
            copied.get_submodule(layer.name).register_forward_hook(partial(note, layer.name))

    x, runner = drawn((3, *shape)), Runner(network, drawn(()))
    before = runner(state, x, note_shapes)
    for layer in layers:
        if len(seen[layer.name]) not in (2, 4) or seen[layer.name][1] != layer.size:
            return (
                f"layer {layer.name!r} gives outputs of shape {seen[layer.name]} for"
                f" {len(x)} inputs of shape {tuple(shape)}: its {layer.size} neurons have no axis"
                " of their own behind that of the images; flatten the inputs first"
            )
    after = runner(reordered(layers, state, orders), x)
    if torch.allclose(before, after, rtol=1e-7, atol=1e-7 * float(before.abs().max())):
        return ""
    return (
        f"the outputs of this {type(network).__name__} on inputs of shape {tuple(shape)} change"
        " when its hidden neurons are reordered, so it is not what it looks like"
    )


def _checked(network: nn.Module, weights: Weights, name: str = "weights") -> Weights:
    """Weights that fit the network; there may be buffers among them."""
    buffers = dict(check_network(network).named_buffers())
    if not isinstance(weights, dict) or not buffers.keys() & weights.keys():
        return check_weights(weights, like=network, name=name)
    check_weights({k: w for k, w in weights.items() if k not in buffers}, like=network, name=name)
    floats = {k: b for k, b in buffers.items() if k in weights and b.is_floating_point()}
    if floats:
        check_weights({k: weights[k] for k in floats}, name=name)
    for key, buffer in floats.items():
        if weights[key].shape != buffer.shape:
            raise ValueError(
                f"{name}[{key!r}] has shape {tuple(weights[key].shape)} where"
                f" {type(network).__name__} has {tuple(buffer.shape)}"
            )
    return weights


def butterflies(weights: Weights, layer: Hidden) -> Tensor:
    """One row for each neuron: what it receives and owns, then what reads it. Shape (n, D).

    For a layer of a plain MLP: [incoming weights | bias | outgoing weights].

    Parameters
    ----------
    weights : Weights
        Slices of the layer in tensors that are not among them are left out.
    layer : Hidden
        One of `hidden_layers`.

    Raises
    ------
    ValueError
        If no tensor of the layer is among the weights, or one has another shape.
    """
    places = _places(weights, layer)
    return torch.cat([_by_neuron(weights[s.tensor], s, layer.size) for s in places], 1)


def with_butterflies(weights: Weights, layer: Hidden, rows: Tensor) -> Weights:
    """The inverse of `butterflies`: weights with this layer's neurons replaced by these rows.

    Raises
    ------
    ValueError
        If the rows do not have the shape (n, D) that `butterflies` gives, or as there.
    """
    places = _places(weights, layer)
    widths = [weights[s.tensor].numel() // layer.size for s in places]
    if not isinstance(rows, Tensor) or not rows.is_floating_point():
        raise ValueError(f"rows must be a floating-point tensor, not {describe(rows)}")
    if rows.shape != (layer.size, sum(widths)):
        raise ValueError(
            f"layer {layer.name!r} needs butterflies of shape {(layer.size, sum(widths))},"
            f" not {tuple(rows.shape)}"
        )
    changed = dict(weights)
    for s, part in zip(places, rows.split(widths, dim=1), strict=True):
        changed[s.tensor] = _from_neuron(part, s, weights[s.tensor].shape)
    return changed


def best_order(gain: Tensor) -> Tensor:
    """The order that maximises sum_i gain[i, order[i]], exactly: shape (n,), on the CPU.

    A linear assignment problem, solved by SciPy in O(n³).

    Parameters
    ----------
    gain : Tensor, shape (n, n)
        What is gained where neuron j stands at place i.

    Raises
    ------
    ValueError
        If a gain is not finite.
    """
    if not torch.isfinite(gain).all():
        raise ValueError("what these neurons have in common overflows; scale the weights down")
    rows, columns = linear_sum_assignment(-gain.detach().double().cpu().numpy())
    order = torch.as_tensor(columns)
    assert torch.equal(order.sort().values, torch.as_tensor(rows)), "no bijection"
    return order


def permute(network: nn.Module, weights: Weights, orders: Orders) -> Weights:
    """Reorder hidden neurons: neuron `orders[name][i]` of layer `name` moves to place i.

    The function of the network stays the same. Running statistics of BatchNorm are reordered too
    if they are among `weights`. Layers that are not named stay as they are.

    Parameters
    ----------
    network : nn.Module
        The architecture.
    weights : Weights
    orders : dict of str to integers, shape (n,)
        For some hidden layers, a permutation of their n neurons.

    Raises
    ------
    ValueError
        If a name is no hidden layer, an order no permutation of its neurons, or the weights do
        not fit the network.

    Notes
    -----
    One gather a tensor.
    """
    return reordered(hidden_layers(network), _checked(network, weights), orders)


def reordered(layers: Sequence[Hidden], weights: Weights, orders: Orders) -> Weights:
    """`permute` for a network whose hidden layers are known: for those who do it many times."""
    known = {layer.name: layer for layer in layers}
    index: dict[str, list[Tensor | None]] = {}
    for name, order in _mapping(orders, "orders").items():
        layer = _named(known, name)
        order = check_indices(order, layer.size, f"the order of layer {name!r}", every=True)
        for s in _own(weights, layer):
            columns = order if s.each == 1 else _columns(order, s.each)  # (n · each,)
            index.setdefault(s.tensor, [None, None])[s.axis] = columns
    changed = dict(weights)
    for tensor, (rows, columns) in index.items():
        value = weights[tensor]
        if rows is not None and columns is not None:
            changed[tensor] = value[rows.to(value.device)[:, None], columns.to(value.device)]
        elif rows is not None:
            changed[tensor] = value[rows.to(value.device)]
        elif columns is not None:
            changed[tensor] = value[:, columns.to(value.device)]
    return changed


def _columns(order: Tensor, each: int) -> Tensor:
    """Columns of the neurons in this order, so many each: shape (n · each,)."""
    return (order[:, None] * each + torch.arange(each)).reshape(-1)


def swap(network: nn.Module, weights: Weights, name: str, i: int, j: int) -> Weights:
    """Exchange neurons i and j of one hidden layer; the function stays the same.

    Raises
    ------
    ValueError
        If the name is no hidden layer, a neuron is not there, or the weights do not fit.
    """
    layers = hidden_layers(network)
    size = _named({layer.name: layer for layer in layers}, name).size
    for key, neuron in {"i": i, "j": j}.items():
        check_whole(neuron, f"{key}, a neuron of layer {name!r},", high=size - 1)
    order = torch.arange(size)
    order[[i, j]] = order[[j, i]]
    return reordered(layers, _checked(network, weights), {name: order})


def mute(
    network: nn.Module,
    weights: Weights,
    kept: Mapping[str, Tensor | Sequence[int]],
    *,
    rescale: bool = True,
) -> Weights:
    """Let only the `kept` neurons of each named layer be read; the others become idle.

    Their outgoing weights are zero; those of the kept ones grow by n / kept, to make up for the
    missing. Biases and incoming weights stay, which is right for any activation. (Scaling the
    layer's own outputs instead, as some code does, needs a homogeneous network without biases.)

    Parameters
    ----------
    network : nn.Module
        The architecture.
    weights : Weights
    kept : dict of str to integers, shape (k,)
        For some hidden layers, which neurons go on being read.
    rescale : bool
        Whether to make up for the missing.

    Raises
    ------
    ValueError
        If a name is no hidden layer, nothing is kept, a neuron is not there or named twice, a
        mask is given instead of numbers, or the weights do not fit.
    """
    layers = {layer.name: layer for layer in hidden_layers(network)}
    changed = dict(_checked(network, weights))
    for name, chosen in _mapping(kept, "kept").items():
        layer = _named(layers, name)
        chosen = check_indices(chosen, layer.size, f"kept[{name!r}]")
        factor = torch.zeros(layer.size, dtype=torch.float64)
        factor[chosen] = layer.size / len(chosen) if rescale else 1.0
        for s in layer.outgoing:
            changed[s.tensor] = _times(changed[s.tensor], s, factor)
    return changed


def scale(
    network: nn.Module, weights: Weights, factors: Mapping[str, Tensor | Sequence[float]]
) -> Weights:
    """Multiply what neurons receive by positive factors and divide what reads them.

    Through ReLU and its kin the function stays the same. Biases scale with the incoming weights;
    behind BatchNorm, its own weight and bias scale and the layer before it need not.

    Parameters
    ----------
    network : nn.Module
        The architecture.
    weights : Weights
    factors : dict of str to floats, shape (n,)
        For some hidden layers, a positive factor for each neuron.

    Raises
    ------
    ValueError
        If a name is no hidden layer, no factor passes through it, a factor is not positive and
        finite in the weights' precision, as one over it must be, or the weights do not fit.
    """
    layers = {layer.name: layer for layer in hidden_layers(network)}
    changed = dict(_checked(network, weights))
    norms = {name for name, module in network.named_modules() if isinstance(module, BATCH_NORMS)}
    for name, factor in _mapping(factors, "factors").items():
        layer = _named(layers, name)
        if not layer.homogeneous:
            raise ValueError(
                f"layer {name!r} has an activation or normalisation through which no factor passes"
            )
        factor = _factors(factor, layer, next(iter(weights.values())))
        # Behind the first BatchNorm all is normalised again: only the last one's vectors count.
        own = [s.tensor.rpartition(".")[0] for s in layer.slices if s.axis == 0]
        last = next((module for module in reversed(own) if module in norms), None)
        for s in layer.slices:
            module, _, key = s.tensor.rpartition(".")
            if s.axis == 1:
                changed[s.tensor] = _times(changed[s.tensor], s, 1 / factor)
            elif key in ("weight", "bias") and last in (None, module):
                changed[s.tensor] = _times(changed[s.tensor], s, factor)
    return changed


def _factors(values: Any, layer: Hidden, like: Tensor) -> Tensor:
    """A factor for each neuron, such that it and its inverse are numbers as the weights are."""
    factor = check_numbers(values, f"the factors of layer {layer.name!r}", "numbers")
    stored = torch.stack([factor, 1 / factor]).to(like.dtype)
    if factor.shape != (layer.size,) or not (torch.isfinite(stored) & (stored > 0)).all():
        raise ValueError(
            f"layer {layer.name!r} needs {layer.size} positive factors, finite and no zero in"
            f" {like.dtype}, they and one over them"
        )
    return factor


def _mapping(values: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(values, Mapping):
        raise ValueError(
            f"{name} must be a dict from names of hidden layers, not {describe(values)}"
        )
    return values


def _named(layers: dict[str, Hidden], name: Any) -> Hidden:
    if not isinstance(name, str) or name not in layers:
        raise ValueError(f"no hidden layer {name!r}; this network has {tuple(layers)}")
    return layers[name]


def _places(weights: Weights, layer: Hidden) -> list[Slice]:
    """As `_own`, for what a caller gives: some slices at least."""
    if not isinstance(layer, Hidden):
        raise ValueError(f"layer must be one of hidden_layers(network), not {describe(layer)}")
    check_kinds(weights, "weights")
    places = _own(weights, layer)
    if not places:
        raise ValueError(f"nothing of layer {layer.name!r} is among these weights")
    return places


def _own(weights: Weights, layer: Hidden) -> list[Slice]:
    """The layer's slices among these weights; running statistics may or may not be there."""
    own = [s for s in layer.slices if s.tensor in weights]
    for s in own:
        shape = weights[s.tensor].shape
        if shape[s.axis : s.axis + 1] != (layer.size * s.each,):
            raise ValueError(
                f"the tensor {s.tensor!r} has shape {tuple(shape)}; the {layer.size} neurons of"
                f" layer {layer.name!r} need {layer.size * s.each} places on its axis {s.axis}"
            )
    return own


def _by_neuron(tensor: Tensor, s: Slice, size: int) -> Tensor:
    """A tensor as (neurons, everything that belongs to each)."""
    if s.axis == 0:
        return tensor.reshape(size, -1)
    return tensor.reshape(len(tensor), size, -1).transpose(0, 1).reshape(size, -1)


def _from_neuron(rows: Tensor, s: Slice, shape: torch.Size) -> Tensor:
    if s.axis == 0:
        return rows.reshape(shape)
    return rows.reshape(len(rows), shape[0], -1).transpose(0, 1).reshape(shape)


def _times(tensor: Tensor, s: Slice, factor: Tensor) -> Tensor:
    """The tensor with each neuron's slice multiplied by its factor."""
    factor = factor.to(tensor).repeat_interleave(s.each)
    return tensor * factor.view([-1 if axis == s.axis else 1 for axis in range(tensor.dim())])
