"""A neuron is a row: the view of a network that permutes, mutes, swaps and rescales its neurons.

`layout.hidden_layers` derives from the network itself which slices of which tensors belong to the
same neuron (for a convnet: to the same filter). Everything here is indexing along those slices.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .layout import BATCH_NORMS, Hidden, Slice, hidden_layers
from .weights import Weights

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
    "with_butterflies",
]

Orders = Mapping[str, Tensor | Sequence[int]]


def butterflies(weights: Weights, layer: Hidden) -> Tensor:
    """One row for each neuron: what it receives and owns, then what reads it. Shape (n, D).

    For a layer of a plain MLP: [incoming weights | bias | outgoing weights].

    Parameters
    ----------
    weights : Weights
        Slices of the layer in tensors that are not among them are left out.
    layer : Hidden
        One of `hidden_layers`.
    """
    return torch.cat(
        [_by_neuron(weights[s.tensor], s, layer.size) for s in _own(weights, layer)], 1
    )


def with_butterflies(weights: Weights, layer: Hidden, rows: Tensor) -> Weights:
    """The inverse of `butterflies`: weights with this layer's neurons replaced by these rows.

    Raises
    ------
    ValueError
        If the rows do not have the shape (n, D) that `butterflies` gives.
    """
    places = _own(weights, layer)
    widths = [weights[s.tensor].numel() // layer.size for s in places]
    if rows.shape != (layer.size, sum(widths)):
        raise ValueError(
            f"layer {layer.name!r} needs butterflies of shape {(layer.size, sum(widths))},"
            f" not {tuple(rows.shape)}"
        )
    changed = dict(weights)
    for s, part in zip(places, rows.split(widths, dim=1), strict=True):
        changed[s.tensor] = _from_neuron(part, s, weights[s.tensor].shape)
    return changed


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
        If a name is no hidden layer, or an order no permutation of its neurons.

    Notes
    -----
    One gather a tensor.
    """
    return reordered(hidden_layers(network), weights, orders)


def reordered(layers: Sequence[Hidden], weights: Weights, orders: Orders) -> Weights:
    """`permute` for a network whose hidden layers are known: for those who do it many times."""
    known = {layer.name: layer for layer in layers}
    index: dict[str, list[Tensor | None]] = {}
    for name, order in orders.items():
        layer = _named(known, name)
        order = torch.as_tensor(order, dtype=torch.int64).cpu()
        if order.shape != (layer.size,) or not torch.equal(
            order.sort().values, torch.arange(layer.size)
        ):
            raise ValueError(f"the order of layer {name!r} is no permutation of {layer.size}")
        for s in _own(weights, layer):
            columns = order[:, None] * s.each + torch.arange(s.each)  # (n, each)
            index.setdefault(s.tensor, [None, None])[s.axis] = columns.reshape(-1)
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


def swap(network: nn.Module, weights: Weights, name: str, i: int, j: int) -> Weights:
    """Exchange neurons i and j of one hidden layer; the function stays the same.

    Raises
    ------
    ValueError
        If the name is no hidden layer, or a neuron is not there.
    """
    size = _named({layer.name: layer for layer in hidden_layers(network)}, name).size
    if not (0 <= i < size and 0 <= j < size):
        raise ValueError(f"layer {name!r} has neurons 0 to {size - 1}; there is no {max(i, j)}")
    order = torch.arange(size)
    order[[i, j]] = order[[j, i]]
    return permute(network, weights, {name: order})


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
        If a name is no hidden layer, nothing is kept, or a neuron is not there.
    """
    layers = {layer.name: layer for layer in hidden_layers(network)}
    changed = dict(weights)
    for name, chosen in kept.items():
        layer = _named(layers, name)
        chosen = torch.as_tensor(chosen, dtype=torch.int64).cpu().unique()
        if not len(chosen) or chosen[0] < 0 or chosen[-1] >= layer.size:
            raise ValueError(
                f"keep between 1 and {layer.size} neurons of layer {name!r}, numbered from 0 to"
                f" {layer.size - 1}; got {chosen.tolist()}"
            )
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
        If a name is no hidden layer, its activation is not homogeneous, or a factor is not
        positive.
    """
    layers = {layer.name: layer for layer in hidden_layers(network)}
    changed = dict(weights)
    norms = {name for name, module in network.named_modules() if isinstance(module, BATCH_NORMS)}
    for name, factor in factors.items():
        layer = _named(layers, name)
        factor = torch.as_tensor(factor, dtype=torch.float64)
        if not layer.homogeneous:
            raise ValueError(f"layer {name!r} has an activation through which no factor passes")
        if factor.shape != (layer.size,) or not (factor > 0).all():
            raise ValueError(f"layer {name!r} needs {layer.size} positive factors")
        own = {s.tensor.rpartition(".")[0] for s in layer.slices if s.axis == 0} & norms
        for s in layer.slices:
            module, _, key = s.tensor.rpartition(".")
            if s.axis == 1:
                changed[s.tensor] = _times(changed[s.tensor], s, 1 / factor)
            elif key in ("weight", "bias") and (not own or module in own):
                changed[s.tensor] = _times(changed[s.tensor], s, factor)
    return changed


def _named(layers: dict[str, Hidden], name: str) -> Hidden:
    if name not in layers:
        raise ValueError(f"no hidden layer {name!r}; this network has {tuple(layers)}")
    return layers[name]


def _own(weights: Weights, layer: Hidden) -> list[Slice]:
    """The layer's slices among these weights; running statistics may or may not be there."""
    return [s for s in layer.slices if s.tensor in weights]


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
