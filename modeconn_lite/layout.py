"""Which numbers belong to the same neuron: the hidden layers of a network, derived from itself."""

from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from torch import Tensor, nn

from .anatomy import HOMOGENEOUS, LINEAR, POINTWISE, chain, facts, oddity, traits
from .checks import check_network
from .networks import ResidualBlock

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_VECTORS = ("weight", "bias", "running_mean", "running_var")
_POOLING = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d, nn.Dropout2d)


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

    The outputs are no hidden layer: nothing reads them, and their order has a meaning. Inputs of
    a network that starts with a linear layer are taken to have shape (images, features); whoever
    has inputs at hand can try that with `neurons.tried_layers`.

    Raises
    ------
    ValueError
        For anything that is not understood exactly: other modules, classes derived from those
        that are, hooks, parametrized or shared weights, a layer that reads what another shape
        comes to. The message names the layer.

    Notes
    -----
    Derived once for each network, and again when it has changed.
    """
    known = facts(check_network(network))
    if "layers" not in known:
        try:
            known["layers"] = _Reader(network).layers()
        except ValueError as error:
            known["layers"] = str(error)
    found = known["layers"]
    if isinstance(found, str):
        raise ValueError(found)
    return [replace(layer, slices=list(layer.slices)) for layer in found]


class _Reader:
    """Follows the neurons through a network, stage by stage.

    `stream` holds those that flow at this point, None at the inputs. `form` is how they do:
    "features", one column each; "channels", one image each; "flat", the columns of flattened
    channels.
    """

    def __init__(self, network: nn.Module) -> None:
        self.found: list[Hidden] = []
        self.stream: Hidden | None = None
        self.form = "inputs"
        self.normed = self.carried = False  # whether a BatchNorm, or a block, has joined the stream
        shared = traits(network)["shared"]
        if shared:
            raise ValueError(
                f"{shared[0]!r} is another name of a parameter that is used twice: to reorder"
                " neurons in one place would do it in the other; give each layer its own"
            )
        for name, module in chain(network):
            self.name, self.module = name or type(network).__name__, module
            self.read(name, module)

    def layers(self) -> list[Hidden]:
        """All but the outputs, which keep their order."""
        return [layer for layer in self.found if layer is not self.stream]

    def refuse(self, why: str) -> NoReturn:
        raise ValueError(f"layer {self.name!r} ({type(self.module).__name__}) {why}")

    def read(self, name: str, module: nn.Module) -> None:
        strange = oddity(module)
        kinds = (*LINEAR, *HOMOGENEOUS, *POINTWISE, *BATCH_NORMS, ResidualBlock)
        if type(module) not in kinds and not isinstance(module, kinds):
            raise ValueError(
                f"layer {self.name!r} is {type(module).__name__}, whose neurons are not"
                f" understood{f' (it {strange})' if strange else ''}; use nn.Sequential of Linear,"
                " Conv2d, BatchNorm, pooling, dropout, Flatten, activations and ResidualBlock"
            )
        if strange:
            self.refuse(strange)
        if isinstance(module, nn.Linear | nn.Conv2d):
            self.read_linear(name, module)
        elif isinstance(module, BATCH_NORMS):
            self.read_norm(name, module)
        elif isinstance(module, ResidualBlock):
            self.read_block(name, module)
        elif isinstance(module, nn.Flatten):
            if (module.start_dim, module.end_dim) != (1, -1):
                self.refuse("must flatten all but the images: start_dim=1, end_dim=-1")
            self.form = "flat" if self.form == "channels" else self.form
        elif isinstance(module, _POOLING):
            if self.form not in ("inputs", "channels"):
                self.refuse(f"works on channels, but {self.coming()}")
            if getattr(module, "return_indices", False):
                self.refuse("returns indices too; use return_indices=False")
        elif isinstance(module, POINTWISE) and self.stream is not None:
            self.stream.homogeneous = False

    def coming(self) -> str:
        """What comes to this stage, in words."""
        assert self.stream is not None
        what = {"features": "features", "channels": "channels", "flat": "flattened channels"}
        return f"{what[self.form]} of layer {self.stream.name!r} come to it"

    def read_linear(self, name: str, module: nn.Linear | nn.Conv2d) -> None:
        """Let a linear layer read the stream, and start the stream of its own neurons."""
        size, inputs = self.shape_of(module)
        if isinstance(module, nn.Conv2d):
            if module.groups != 1:
                self.refuse(f"has {module.groups} groups; only one is understood")
            if self.form in ("features", "flat"):
                self.refuse(f"works on channels, but {self.coming()}")
        elif self.form == "channels":
            self.refuse(f"works on features, but {self.coming()}; put nn.Flatten() between")
        if self.stream is not None:
            each, rest = divmod(inputs, self.stream.size)
            if rest or not each or (each > 1 and self.form != "flat"):
                self.refuse(
                    f"reads {inputs} inputs, but layer {self.stream.name!r} has {self.stream.size}"
                    " neurons" + ("" if self.form != "flat" else ", and no whole number for each")
                )
            self.stream.slices.append(Slice(f"{name}.weight", 1, each))
        self.stream = Hidden(name, size, _rows(name, module))
        self.found.append(self.stream)
        self.form = "channels" if isinstance(module, nn.Conv2d) else "features"
        self.normed = self.carried = False

    def shape_of(self, module: nn.Module) -> tuple[int, int]:
        """Neurons and inputs of a linear layer, by its weights: attributes may be out of date."""
        weight, bias = module._parameters["weight"], module._parameters["bias"]
        assert weight is not None
        axes = 2 if isinstance(module, nn.Linear) else 4
        fits = weight.dim() == axes and (bias is None or bias.shape == weight.shape[:1])
        if not fits:
            self.refuse(
                f"has a weight of shape {tuple(weight.shape)} and a bias of shape"
                f" {None if bias is None else tuple(bias.shape)}, which is none of its kind"
            )
        return len(weight), weight.shape[1]

    def read_norm(self, name: str, module: Any) -> None:
        """Let a BatchNorm join the stream."""
        stream = self.owner()
        wanted = ("channels",) if isinstance(module, nn.BatchNorm2d) else ("features", "flat")
        if self.form not in wanted:
            self.refuse(f"normalises {' or '.join(wanted)}, but {self.coming()}")
        vectors = {key: getattr(module, key) for key in _VECTORS}
        there = {key: v for key, v in vectors.items() if isinstance(v, Tensor)}
        if {tuple(v.shape) for v in there.values()} | {(module.num_features,)} != {(stream.size,)}:
            self.refuse(
                f"normalises {module.num_features} features, but layer {stream.name!r} has"
                f" {stream.size} neurons; put it before nn.Flatten()"
            )
        self.form = "channels" if self.form == "channels" else "features"  # one pixel a channel
        stream.slices += [Slice(f"{name}.{key}", 0) for key in there]
        # Factors go into the last BatchNorm's weight; what joins the stream elsewhere gets none.
        if "weight" not in there or self.carried:
            stream.homogeneous = False
        self.normed = True

    def read_block(self, name: str, module: ResidualBlock) -> None:
        """Let a block read the stream and join it, and start and end that of its own neurons."""
        stream = self.owner()
        hidden, inputs = self.shape_of(module.enter)
        width, read = self.shape_of(module.leave)
        if self.form == "channels" or inputs != stream.size:
            self.refuse(f"carries {inputs} features, but {stream.size} {self.coming()}")
        if width != stream.size or read != hidden:
            self.refuse(f"reads {read} of {hidden} neurons, and adds {width} to {stream.size}")
        self.form, self.carried = "features", True
        stream.homogeneous &= not self.normed
        stream.slices.append(Slice(f"{name}.enter.weight", 1))
        inner = Hidden(f"{name}.enter", hidden, _rows(f"{name}.enter", module.enter))
        inner.slices.append(Slice(f"{name}.leave.weight", 1))
        self.found.append(inner)
        stream.slices += _rows(f"{name}.leave", module.leave)

    def owner(self) -> Hidden:
        """The neurons that a stage belongs to."""
        if self.stream is None:
            self.refuse(
                "stands before any neurons; move it behind the first Linear or Conv2d layer"
            )
        return self.stream


def _rows(name: str, module: nn.Linear | nn.Conv2d) -> list[Slice]:
    keys = ("weight",) if module.bias is None else ("weight", "bias")
    return [Slice(f"{name}.{key}", 0) for key in keys]
