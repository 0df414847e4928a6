"""What a network is made of, and what that tells of it before it runs."""

from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrize

from .checks import check_network
from .networks import HeConv2d, ResidualBlock

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
# What runs the same in training mode as in evaluation.
_KNOWN = {nn.Sequential, ResidualBlock, *LINEAR, *HOMOGENEOUS, *POINTWISE}
_MODELESS = _KNOWN - {nn.Dropout, nn.Dropout2d}
# Some embeddings write into their weights; recurrent layers keep them in a second place.
_NOT_PLAIN = (nn.Embedding, nn.EmbeddingBag, nn.RNNBase)
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
    elif module._modules and kind in _KNOWN and kind is not nn.Sequential:
        return "holds modules that its class has no use for"
    return ""


def is_plain(module: nn.Module) -> bool:
    """Whether a module and all in it are torch's or ours and nothing else: they keep no state."""
    return not any(oddity(m) or isinstance(m, _NOT_PLAIN) for m in module.modules())


def traits(network: nn.Module) -> dict[Any, Any]:
    """Its `facts`, among them some that can be seen at once.

    "shared" are other names of parameters that have several, as where one layer is used twice;
    "places", where parameters stand, each place once, with the parameter's name. It is "plain" as
    `is_plain` says; a module may work "in place". It is "harmless" to call it with other weights
    if it is plain, in evaluation mode, and has no buffers and no layer that is used twice.
    """
    known = facts(check_network(network))
    if "harmless" not in known:
        first = {name for name, _ in network.named_parameters()}
        every = [name for name, _ in network.named_parameters(remove_duplicate=False)]
        known["shared"] = [name for name in every if name not in first]
        known["places"] = _places(network)
        known["plain"] = is_plain(network)
        known["in place"] = any(getattr(m, "inplace", False) for m in network.modules())
        calm = all(type(m) in _MODELESS or not m.training for m in network.modules())
        buffers = next(network.buffers(), None) is not None
        known["harmless"] = known["plain"] and calm and not known["shared"] and not buffers
    return known


def chain(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """The stages a network runs one after another, as (name of its parameters, module).

    Nested `nn.Sequential`s are unrolled. Any other module is one stage, whatever happens inside,
    so that every network is a chain: at worst, of length one. Networks that share a parameter
    between stages stay whole, for a stage alone would not know about the other.
    """
    return [("", network)] if traits(network)["shared"] else unrolled(network)


def unrolled(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """`chain` for a network of which it is known that it shares no parameters."""
    children = network._modules  # named_children() would skip a repeated ReLU
    if type(network) is not nn.Sequential or oddity(network) or None in children.values():
        return [("", network)]
    stages = []
    for name, child in children.items():
        assert child is not None
        if type(child) is nn.Sequential:
            stages += [(f"{name}.{inner}".strip("."), m) for inner, m in unrolled(child)]
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
