"""The book's architectures, and what is known of any network before it runs.

Weights live outside (see `weights`); a network here is an architecture with some initial values.
Whoever runs one takes care that it is left as it was: `Runner` does.
"""

import copy
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrize

from .checks import check_list, check_network, check_number, check_whole, describe


class HeConv2d(nn.Conv2d):
    """A convolution initialised as in the VGG experiments: normal, variance 2 / (k² · out)."""

    def reset_parameters(self) -> None:
        fan_out = self.kernel_size[0] * self.kernel_size[1] * self.out_channels
        nn.init.normal_(self.weight, std=(2 / fan_out) ** 0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class ResidualBlock(nn.Module):
    """x + W₂ relu(W₁ x + b₁) + b₂: two linear layers around which the input is carried.

    Its input and its result have shape (images, width).

    Parameters
    ----------
    width : int
        Of the stream that is carried.
    hidden : int
        Neurons between the two layers.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.enter = nn.Linear(width, hidden)
        self.leave = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.leave(self.enter(x).relu())


def mlp(sizes: Sequence[int], *, bias: bool = True) -> nn.Sequential:
    """A fully connected ReLU network, e.g. `mlp((64, 64, 64, 64, 10))`: three hidden layers.

    Parameters
    ----------
    sizes : sequence of int
        Input width, hidden widths, number of classes. Images are flattened.
    bias : bool
        Whether the linear layers have biases.

    Raises
    ------
    ValueError
        If there are fewer than two widths, or one is no positive whole number.
    """
    sizes = check_list(sizes, "sizes", "widths", least=2)
    sizes = [check_whole(width, f"sizes[{k}]", low=1) for k, width in enumerate(sizes)]
    layers: list[nn.Module] = [nn.Flatten()]
    for width_in, width_out in pairwise(sizes):
        layers += [nn.Linear(width_in, width_out, bias=bias), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def residual_mlp(
    inputs: int, classes: int, *, width: int = 64, hidden: int = 64, blocks: int = 2
) -> nn.Sequential:
    """A small residual MLP: a linear layer in, `blocks` residual blocks, a linear layer out.

    Parameters
    ----------
    inputs, classes : int
        Widths of the input, which is flattened, and of the output.
    width, hidden, blocks : int
        Of the residual stream, of each block's hidden layer, and how many blocks.

    Raises
    ------
    ValueError
        If one is no positive whole number; there may be no block.
    """
    sizes = {"inputs": inputs, "classes": classes, "width": width, "hidden": hidden}
    for name, size in sizes.items():
        check_whole(size, name, low=1)
    check_whole(blocks, "blocks")
    body = [ResidualBlock(width, hidden) for _ in range(blocks)]
    return nn.Sequential(
        nn.Flatten(), nn.Linear(inputs, width), *body, nn.ReLU(), nn.Linear(width, classes)
    )


def cnn3(channels: int = 32, *, side: int = 28, classes: int = 10) -> nn.Sequential:
    """Three 3×3 'same' convolutions and a linear layer, without biases and pooling [1]_.

    Input: shape (images, 1, side, side).

    Parameters
    ----------
    channels : int
        Filters of each convolution.
    side : int
        Height and width of an image.
    classes : int

    Raises
    ------
    ValueError
        If one is no positive whole number.

    References
    ----------
    .. [1] Kuditipudi et al., Explaining Landscape Connectivity of Low-cost Solutions for
       Multilayer Nets, 2019.
    """
    for name, size in {"channels": channels, "side": side, "classes": classes}.items():
        check_whole(size, name, low=1)
    layers: list[nn.Module] = []
    for width_in in (1, channels, channels):
        layers += [nn.Conv2d(width_in, channels, 3, padding=1, bias=False), nn.ReLU()]
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(channels * side * side, classes, bias=False)
    )


def conv2fc1(classes: int = 10) -> nn.Sequential:
    """Conv2FC1 [1]_: two 5×5 convolutions, then a linear layer 3136 → classes.

    Input: shape (images, 3, 32, 32).

    References
    ----------
    .. [1] Anokhin and Yarotsky, Low-loss Connection of Weight Vectors: Distribution-based
       Approaches, 2020.
    """
    check_whole(classes, "classes", low=1)
    layers: list[nn.Module] = []
    for width_in, width_out in ((3, 32), (32, 64)):
        conv = HeConv2d(width_in, width_out, 5, padding=2)
        layers += [conv, nn.ReLU(), nn.MaxPool2d(3, stride=2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 7 * 7, classes))


VGG_BLOCKS = {
    11: ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    16: ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
}


def vgg(depth: int = 16, *, classes: int = 10, dropout: float = 0.5) -> nn.Sequential:
    """VGG-11 or VGG-16 for 32×32 images, without BatchNorm [1]_.

    Input: shape (images, 3, 32, 32). The classifier is 512-512-512-classes with dropout before
    its first two linear layers while training; evaluation leaves nothing out.

    Parameters
    ----------
    depth : int
        11 or 16 layers with weights.
    classes : int
    dropout : float
        The share of neurons that is left out.

    Raises
    ------
    ValueError
        If the depth is another, or one of the others is out of range.

    References
    ----------
    .. [1] Garipov et al., Loss Surfaces, Mode Connectivity, and Fast Ensembling of DNNs, 2018.
    """
    if check_whole(depth, "depth") not in VGG_BLOCKS:
        raise ValueError(f"depth must be one of {tuple(VGG_BLOCKS)}, not {depth}")
    check_whole(classes, "classes", low=1)
    check_number(dropout, "dropout", low=0, high=1)
    layers: list[nn.Module] = []
    width_in = 3
    for block in VGG_BLOCKS[depth]:
        for width_out in block:
            layers += [HeConv2d(width_in, width_out, 3, padding=1), nn.ReLU()]
            width_in = width_out
        layers.append(nn.MaxPool2d(2))
    layers.append(nn.Flatten())
    for _ in range(2):
        layers += [nn.Dropout(dropout), nn.Linear(512, 512), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(512, classes))


# --- What is known of a network ------------------------------------------------------------------

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
LINEAR = (nn.Linear, nn.Conv2d, HeConv2d)
_OURS = (HeConv2d, ResidualBlock)
DROPOUTS = (nn.Dropout, nn.Dropout2d)
# What runs the same in training mode as in evaluation.
_MODELESS = {nn.Sequential, ResidualBlock, *LINEAR, *HOMOGENEOUS, *POINTWISE} - {*DROPOUTS}
# What takes the place of a class's own method or parameter in one of its instances.
_SHADOWS = {"forward", "_conv_forward", "_call_impl", "_wrapped_call_impl", "weight", "bias"}
_VALUES = (bool, int, float, str, tuple, type(None))
_FACTS: WeakKeyDictionary[nn.Module, tuple[list[Any], dict[Any, Any]]] = WeakKeyDictionary()


def facts(network: nn.Module) -> dict[Any, Any]:
    """What has been found out about this network; it is forgotten when the network changes.

    A change is one of modules, their settings, hooks, or the shapes of parameters: whatever the
    numbers in them, the facts stay.
    """
    form = _form(network)
    try:
        known = _FACTS.get(network)
        if known is None or known[0] != form:
            known = _FACTS[network] = (form, {})
    except TypeError:  # it cannot be hashed
        return {}
    return known[1]


def _form(network: nn.Module) -> list[Any]:
    """Everything about a network but its numbers, in a list to be compared."""
    form: list[Any] = [bool(_global_hooks())]
    seen: set[int] = set()

    def visit(module: nn.Module) -> None:
        form.append(id(module))
        if id(module) in seen:
            return
        seen.add(id(module))
        own = vars(module)
        form.append(type(module))
        form.extend([value for value in own.values() if type(value) in _VALUES])
        form.extend(map(id, (*module._forward_hooks.values(), *module._forward_pre_hooks.values())))
        form.append(not _SHADOWS.isdisjoint(own))
        for key, p in module._parameters.items():
            form.extend((key, id(p), None if p is None else p.shape))
        form.extend(map(id, module._buffers.values()))
        for key, child in module._modules.items():
            form.append(key)
            if child is not None:
                visit(child)

    try:
        visit(network)
    except RuntimeError as error:  # the shape of a parameter that has none
        lazy = [name for name, p in network.named_parameters() if nn.parameter.is_lazy(p)]
        if not lazy:
            raise
        raise ValueError(
            f"{lazy[0]!r} has no shape yet; run the network once on an example"
        ) from error
    return form


def _global_hooks() -> bool:
    return bool(torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks)


def oddity(module: nn.Module) -> str:
    """Why a module may not compute what torch's class of its name does, or nothing."""
    kind = type(module)
    if module._forward_hooks or module._forward_pre_hooks:
        return (
            "has forward hooks, as weight_norm, spectral_norm and pruning set them: what it"
            " computes is not known; remove them"
        )
    if _global_hooks():
        return "runs under global forward hooks; remove them"
    if parametrize.is_parametrized(module):
        return (
            "has parametrized weights, so its neurons are no rows of them;"
            " use torch.nn.utils.parametrize.remove_parametrizations"
        )
    if kind not in _OURS and not kind.__module__.startswith("torch.nn.modules."):
        known = (b for b in kind.__mro__ if b in _OURS or b.__module__.startswith("torch.nn.mod"))
        base = next(known)
        if base is not nn.Module:
            return f"is of a class derived from {base.__name__}, and may compute something else"
        return "is no module of torch.nn"
    if not _SHADOWS.isdisjoint(vars(module)):
        return "has a forward, weight or bias of its own that is not that of its class"
    if kind in LINEAR and (
        module._parameters.keys() != {"weight", "bias"} or module._parameters["weight"] is None
    ):
        return f"keeps other parameters than weight and bias: {list(module._parameters)}"
    if kind is ResidualBlock:
        inside = module._modules
        if [*inside] != ["enter", "leave"] or any(
            child is None or type(child) is not nn.Linear or oddity(child)
            for child in inside.values()
        ):
            return "holds something else than two plain Linear layers"
    elif module._modules and (kind in _MODELESS or kind in DROPOUTS) and kind is not nn.Sequential:
        return "holds modules that its class has no use for"
    return ""


def is_plain(module: nn.Module) -> bool:
    """Whether a module is one of torch's or ours and nothing else, so that it keeps no state.

    Embeddings are left out: some write into their weights.
    """
    return not oddity(module) and not isinstance(module, nn.Embedding | nn.EmbeddingBag)


def shared_parameters(network: nn.Module) -> list[str]:
    """Other names of parameters that have several, as where one layer is used twice."""
    known = facts(network)
    if "shared" not in known:
        first = {name for name, _ in network.named_parameters()}
        every = [name for name, _ in network.named_parameters(remove_duplicate=False)]
        known["shared"] = [name for name in every if name not in first]
    return known["shared"]


def chain(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """The stages a network runs one after another, as (name of its parameters, module).

    Nested `nn.Sequential`s are unrolled. Any other module is one stage, whatever happens inside,
    so that every network is a chain: at worst, of length one. Networks that share a parameter
    between stages stay whole, for a stage alone would not know about the other.
    """
    if shared_parameters(network):
        return [("", network)]
    return _unroll(network)


def _unroll(network: nn.Module) -> list[tuple[str, nn.Module]]:
    children = network._modules  # named_children() would skip a repeated ReLU
    if type(network) is not nn.Sequential or oddity(network) or None in children.values():
        return [("", network)]
    stages = []
    for name, child in children.items():
        assert child is not None
        if type(child) is nn.Sequential:
            stages += [(f"{name}.{inner}".strip("."), m) for inner, m in _unroll(child)]
        else:
            stages.append((name, child))
    return stages


def batch_norms(network: nn.Module) -> list[str]:
    """Names of the layers that keep statistics of the images they have seen.

    Raises
    ------
    ValueError
        For one that normalises over a batch and keeps none: what it computes depends on which
        images come together. For one that keeps them in a way of its own.
    """
    known = facts(check_network(network))
    if "norms" not in known:
        known["norms"] = list(_norms(network))
    return known["norms"]


def _norms(network: nn.Module) -> Iterator[str]:
    for name, module in network.named_modules():
        ours = isinstance(module, nn.modules.batchnorm._NormBase)
        if getattr(module, "running_mean", None) is not None:
            if not ours:
                raise ValueError(
                    f"layer {name!r} ({type(module).__name__}) keeps running statistics that are"
                    " not understood; use torch's BatchNorm"
                )
            yield name
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ValueError(
                f"layer {name!r} keeps no running statistics, so an image's output depends on its"
                " company; use track_running_stats=True"
            )


# --- Running a network that is somebody else's ---------------------------------------------------


def for_evaluation(network: nn.Module, like: Tensor) -> nn.Module:
    """The network with dropout off and buffers where `like` is, to be called as a function.

    The network itself, if that can do it no harm: if it consists of modules that keep no state,
    none of them used twice. Otherwise a copy: `torch.func.functional_call` leaves its weights in
    a module that is used twice, and a forward may write what it likes.

    Raises
    ------
    ValueError
        If it must be copied and cannot be; the message names the layer.
    """
    known = facts(check_network(network))
    if "harmless" not in known:
        known["harmless"] = (
            not shared_parameters(network)
            and all(is_plain(m) for m in network.modules())
            and all(type(m) in _MODELESS or not m.training for m in network.modules())
            and next(network.buffers(), None) is None
        )
    return network if known["harmless"] else replica(network, like)


def replica(network: nn.Module, like: Tensor | None = None) -> nn.Module:
    """A copy in evaluation mode to do with as one likes, but for its parameters.

    Parameters are not copied: they are there to be replaced by weights. Buffers are, and follow
    `like`.
    """
    memo: dict[int, Any] = {id(p): p for p in network.parameters()}
    for module in network.modules():
        for value in (*vars(module).values(), *module._buffers.values()):
            if isinstance(value, Tensor) and not value.is_leaf:  # computed by a hook, and will be
                memo[id(value)] = value.detach().clone()
    try:
        copied = copy.deepcopy(network, memo).eval()
    except Exception as error:
        name, module = _culprit(network)
        raise ValueError(
            f"layer {name!r} ({type(module).__name__}) cannot be copied, and the network itself"
            f" must not be changed ({_first_line(error)}); take out of it what cannot be copied"
        ) from error
    if like is not None:
        for module in copied.modules():
            for key, buffer in module._buffers.items():
                if buffer is not None and buffer.is_floating_point():
                    module._buffers[key] = buffer.to(like)
    return copied


def _culprit(network: nn.Module) -> tuple[str, nn.Module]:
    """The innermost module that cannot be copied."""
    for name, module in reversed(list(network.named_modules())):
        try:
            copy.deepcopy(module, {id(p): p for p in network.parameters()})
        except Exception:
            return name, module
    return "", network


class Runner:
    """Runs a network with any weights, and leaves it and all that it is given as they were.

    Parameters
    ----------
    network : nn.Module
        The architecture, in whatever mode; dropout is off.
    like : Tensor
        Buffers follow its device and precision.
    """

    def __init__(self, network: nn.Module, like: Tensor) -> None:
        self.network, self.ready = network, for_evaluation(network, like)
        known = facts(network)
        if "places" not in known:
            known["places"] = _places(network)
            known["strange"] = not all(is_plain(m) for m in network.modules())
            known["in place"] = any(getattr(m, "inplace", False) for m in network.modules())
        self.places: dict[str, str] = known["places"]
        self.strange: bool = known["strange"]
        self.in_place: bool = known["in place"] or self.strange

    def __call__(self, weights: dict[str, Tensor], x: Tensor, prepare: Any = None) -> Tensor:
        """Outputs for inputs x: shape (images, …).

        Parameters
        ----------
        weights : Weights
            Also buffers, if those of the network are to be replaced.
        x : Tensor, shape (images, …)
        prepare : function of a module, optional
            Is shown the copy that is going to run, and may set hooks.

        Raises
        ------
        ValueError
            If the network fails on inputs of this shape, or gives no row for each of them.
        """
        given = {place: weights[name] for place, name in self.places.items()}
        given |= {key: weights[key] for key in weights.keys() - given.keys()}
        if self.strange:
            self.refuse_what_holds_on(given, x)
            # It may write into what it gets, and remember what it got: a new copy for each call.
            given = {key: w.clone() for key, w in given.items()}
        module = replica(self.ready) if self.strange or prepare else self.ready
        if prepare:
            prepare(module)
        try:
            inputs = x.clone() if self.in_place else x
            out = functional_call(module, given, (inputs,), tie_weights=False)
        except (torch.cuda.OutOfMemoryError, Warning):
            raise
        except Exception as error:
            complaint = _complaint(self.ready, given, x)
            if not complaint:  # it was what `prepare` set that failed
                raise
            raise ValueError(complaint) from error
        if not isinstance(out, Tensor):
            raise ValueError(
                f"{_called('', self.network)} gives {describe(out)}; outputs must be one tensor"
            )
        if out.shape[:1] != x.shape[:1]:
            raise ValueError(
                f"{_called('', self.network)} gives outputs of shape {tuple(out.shape)} for x of"
                f" shape {tuple(x.shape)}; each of the {len(x)} inputs needs a row (for a single"
                " input, use x[None])"
            )
        return out

    def refuse_what_holds_on(self, given: dict[str, Tensor], x: Tensor) -> None:
        """Refuse a forward or hook that reaches the network's own weights, even from a copy.

        As `network.forward = lambda x: network.head(x)` does: this is a closure, and no copy of
        the network changes what it holds. What it uses is found in the graph of its outputs.
        """
        known = facts(self.network)
        if "holds on" not in known:
            own = {id(p): name for name, p in self.network.named_parameters()}
            try:
                with torch.enable_grad():
                    others = {key: w.detach().clone() for key, w in given.items()}
                    few, copied = x[:2].detach().clone(), replica(self.ready)
                    out = functional_call(copied, others, (few,), tie_weights=False)
                todo = {out.grad_fn}
            except Exception:  # it fails, or stands inside torch.func: nothing can be seen
                todo = set()
            seen, used = set(todo), set()
            while todo:
                node = todo.pop()
                used.add(id(getattr(node, "variable", None)))
                more = {after for after, _ in getattr(node, "next_functions", ())} - seen
                seen |= more
                todo |= more
            known["holds on"] = next((name for key, name in own.items() if key in used), "")
        if known["holds on"]:
            raise ValueError(
                f"{_called('', self.network)} uses its own {known['holds on']!r}, whatever weights"
                " it is given: a forward or hook holds on to the network itself; write it as a"
                " method that uses `self`"
            )


def _places(network: nn.Module) -> dict[str, str]:
    """Every place where a parameter stands, each once, with the parameter's name."""
    names: dict[int, str] = {}
    found = {}
    for prefix, module in network.named_modules():
        for key, p in module._parameters.items():
            if p is not None:
                place = f"{prefix}.{key}" if prefix else key
                found[place] = names.setdefault(id(p), place)
    return found


def _complaint(network: nn.Module, given: dict[str, Tensor], x: Tensor) -> str:
    """Which layer fails on which inputs, and what it wants; nothing, if none does."""
    one = next(iter(given.values()), x)
    if (x.dtype, x.device) != (one.dtype, one.device):
        return (
            f"x is {x.dtype} on {x.device}, the weights are {one.dtype} on {one.device};"
            " use x.to() or weights.to()"
        )
    entered: list[tuple[str, nn.Module, Any]] = []
    copied = replica(network)
    for name, module in copied.named_modules():

        def enter(m: nn.Module, args: tuple[Any, ...], name: str = name) -> None:
            entered.append((name, m, args[0] if args else None))

        def leave(*_: Any) -> None:
            entered.pop()

        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave)
    try:
        functional_call(copied, given, (x.clone(),), tie_weights=False)
    except Exception as error:
        name, module, came = entered[-1] if entered else ("", network, x)
        shape = tuple(came.shape) if isinstance(came, Tensor) else describe(came)
        wants = _wants(module, came) if isinstance(came, Tensor) else ""
        if wants:
            return f"{_called(name, module)} takes inputs of shape {wants}, not {shape}"
        return f"{_called(name, module)} fails on inputs of shape {shape}: {_first_line(error)}"
    return ""


def _wants(module: nn.Module, came: Tensor) -> str:
    """The shape that a layer takes, if that is not what came."""
    n: Any = getattr(module, "in_features", None) or getattr(module, "in_channels", None)
    n = n or getattr(module, "num_features", None)
    kind = type(module).__name__
    if isinstance(module, nn.Linear):
        return f"(images, {n})" if came.shape[-1:] != (n,) else ""
    if kind.endswith("Conv2d") or kind in ("BatchNorm2d", "Dropout2d") or "Pool2d" in kind:
        fits = came.dim() == 4 and n in (None, came.shape[1])
        return "" if fits else f"(images, {n or 'channels'}, height, width)"
    if kind == "BatchNorm1d":
        return f"(images, {n})" if came.dim() not in (2, 3) or came.shape[1] != n else ""
    return ""


def _called(name: str, module: nn.Module) -> str:
    kind = type(module).__name__
    return f"layer {name!r} ({kind})" if name else f"this {kind}"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
