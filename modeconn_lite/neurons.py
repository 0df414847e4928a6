"""A neuron is a row: the view of a network that permutes, mutes, swaps and rescales its neurons.

`hidden_layers` derives from the network itself which slices of which tensors belong to the same
neuron (for a convnet: to the same filter). Everything else here is indexing along those slices.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .networks import ResidualBlock, chain
from .weights import Weights

# Modules that act on each channel alone. The first kind commutes with positive scaling as well.
HOMOGENEOUS = (
    nn.ReLU,
    nn.LeakyReLU,
    nn.Identity,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.AdaptiveAvgPool2d,
    nn.Dropout,
    nn.Dropout2d,
    nn.Flatten,
)
POINTWISE = (
    *(nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.SELU, nn.CELU, nn.Mish, nn.Softplus),
    *(nn.Softsign, nn.Hardtanh, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.LogSigmoid),
)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass(frozen=True)
class Slice:
    """Where a layer's neurons stand in one tensor.

    axis 0: what a neuron receives or owns; axis 1: what reads it, `block` columns for each neuron
    (after a flattened convolution, one for every pixel).
    """

    tensor: str
    axis: int
    block: int = 1


@dataclass(eq=False)
class Hidden:
    """One hidden layer: neurons or filters that share one order.

    Attributes
    ----------
    name : of the layer that computes it (the first one, for a residual stream).
    size : number of neurons.
    slices : every place where they stand; a residual stream has many.
    homogeneous : whether positive factors pass through to the readers, as through ReLU.
    """

    name: str
    size: int
    slices: list[Slice] = field(default_factory=list, repr=False)
    homogeneous: bool = True

    @property
    def incoming(self) -> list[str]:
        """Tensors with one row for each neuron: weights, biases, BatchNorm's vectors."""
        return [s.tensor for s in self.slices if s.axis == 0]

    @property
    def outgoing(self) -> list[Slice]:
        """Slices of the layers that read the neurons."""
        return [s for s in self.slices if s.axis == 1]


def hidden_layers(network: nn.Module) -> list[Hidden]:
    """The hidden layers of an MLP, a convnet or a residual MLP, in order.

    Raises
    ------
    ValueError
        For anything that is not understood; the message names the layer.
    """
    layers: list[Hidden] = []
    stream: Hidden | None = None  # the neurons that flow at this point; None: the inputs
    for name, module in chain(network):
        if isinstance(module, nn.Linear | nn.Conv2d):
            stream = _read_and_start(name, module, stream, layers)
        elif isinstance(module, BATCH_NORMS):
            _check_owner(name, module, stream)
            owned = ("weight", "bias", "running_mean", "running_var")
            stream.slices += [Slice(f"{name}.{key}", 0) for key in owned]  # type: ignore[union-attr]
        elif isinstance(module, ResidualBlock):
            _check_owner(name, module, stream)
            inner = _read_and_start(f"{name}.enter", module.enter, stream, layers)
            inner.slices.append(Slice(f"{name}.leave.weight", 1))
            stream.slices += _rows(f"{name}.leave", module.leave)  # type: ignore[union-attr]
        elif isinstance(module, POINTWISE):
            if stream is not None:
                stream.homogeneous = False
        elif not isinstance(module, HOMOGENEOUS) or (
            isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) != (1, -1)
        ):
            raise ValueError(
                f"layer {name or type(network).__name__!r} is {type(module).__name__}, whose"
                " neurons are not understood; use nn.Sequential of Linear, Conv2d, BatchNorm,"
                " pooling, dropout, Flatten, activations and ResidualBlock"
            )
    return [layer for layer in layers if layer is not stream]  # outputs keep their order


def _read_and_start(
    name: str, module: nn.Linear | nn.Conv2d, stream: Hidden | None, layers: list[Hidden]
) -> Hidden:
    """Let a linear layer read the stream, and start the stream of its own neurons."""
    if isinstance(module, nn.Conv2d):
        inputs, size = module.in_channels, module.out_channels
        if module.groups != 1:
            raise ValueError(f"layer {name!r} has {module.groups} groups; only one is understood")
    else:
        inputs, size = module.in_features, module.out_features
    if stream is not None:
        block, rest = divmod(inputs, stream.size)
        if rest or (block > 1 and isinstance(module, nn.Conv2d)):
            raise ValueError(
                f"layer {name!r} reads {inputs} inputs, but layer {stream.name!r} has"
                f" {stream.size} neurons, and no whole number of inputs for each"
            )
        stream.slices.append(Slice(f"{name}.weight", 1, block))
    started = Hidden(name, size, _rows(name, module))
    layers.append(started)
    return started


def _rows(name: str, module: nn.Linear | nn.Conv2d) -> list[Slice]:
    keys = ("weight",) if module.bias is None else ("weight", "bias")
    return [Slice(f"{name}.{key}", 0) for key in keys]


def _check_owner(name: str, module: nn.Module, stream: Hidden | None) -> None:
    if stream is None:
        raise ValueError(
            f"layer {name!r} ({type(module).__name__}) stands before any neurons; move it behind"
            " the first Linear or Conv2d layer"
        )


def butterflies(weights: Weights, layer: Hidden) -> Tensor:
    """One row for each neuron: what it receives and owns, then what reads it. Shape (n, D).

    For a layer of a plain MLP: [incoming weights | bias | outgoing weights].
    """
    return torch.cat(
        [_by_neuron(weights[s.tensor], s, layer.size) for s in _own(weights, layer)], 1
    )


def with_butterflies(weights: Weights, layer: Hidden, rows: Tensor) -> Weights:
    """The inverse of `butterflies`: weights with this layer's neurons replaced by these rows."""
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


def permute(
    network: nn.Module, weights: Weights, orders: Mapping[str, Tensor | Sequence[int]]
) -> Weights:
    """Reorder hidden neurons: neuron `orders[name][i]` of layer `name` moves to place i.

    The function of the network stays the same. Running statistics of BatchNorm are reordered too
    if they are among `weights`. Layers that are not named stay as they are. One gather a tensor.

    Raises
    ------
    ValueError
        If a name is no hidden layer, or an order no permutation of its neurons.
    """
    layers = {layer.name: layer for layer in hidden_layers(network)}
    index: dict[str, list[Tensor | None]] = {}
    for name, order in orders.items():
        layer = _named(layers, name)
        order = torch.as_tensor(order, dtype=torch.int64).cpu()
        if order.shape != (layer.size,) or not torch.equal(
            order.sort().values, torch.arange(layer.size)
        ):
            raise ValueError(f"the order of layer {name!r} is no permutation of {layer.size}")
        for s in _own(weights, layer):
            columns = order[:, None] * s.block + torch.arange(s.block)
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
    """Exchange neurons i and j of one hidden layer; the function stays the same."""
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
    factor = factor.to(tensor).repeat_interleave(s.block)
    return tensor * factor.view([-1 if axis == s.axis else 1 for axis in range(tensor.dim())])
