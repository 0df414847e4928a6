"""Which numbers belong to the same neuron: the hidden layers of a network, derived from itself."""

from dataclasses import dataclass, field

from torch import nn

from .networks import ResidualBlock, chain

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

    Attributes
    ----------
    tensor : str
        Name of the tensor.
    axis : int
        0 for what a neuron receives or owns, 1 for what reads it.
    each : int
        Columns for each neuron where axis is 1: after a flattened convolution one for every pixel.
    """

    tensor: str
    axis: int
    each: int = 1


@dataclass(eq=False)
class Hidden:
    """One hidden layer: neurons or filters that share one order.

    Attributes
    ----------
    name : str
        The name of the layer that computes it (the first one, for a residual stream).
    size : int
        Number of neurons.
    slices : list of Slice
        Every place where they stand; a residual stream has many.
    homogeneous : bool
        Whether positive factors pass through to the readers, as through ReLU.
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

    The outputs are no hidden layer: nothing reads them, and their order has a meaning.

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
        each, rest = divmod(inputs, stream.size)
        if rest or (each > 1 and isinstance(module, nn.Conv2d)):
            raise ValueError(
                f"layer {name!r} reads {inputs} inputs, but layer {stream.name!r} has"
                f" {stream.size} neurons, and no whole number of inputs for each"
            )
        stream.slices.append(Slice(f"{name}.weight", 1, each))
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
