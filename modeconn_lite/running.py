"""Running a network that is somebody else's, with any weights, and leaving it as it was."""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .anatomy import is_plain, traits
from .checks import describe


def replica(
    network: nn.Module, like: Tensor | None = None, sharing: Iterable[nn.Module] = ()
) -> nn.Module:
    """A copy in evaluation mode to do with as one likes, but for its parameters.

    Parameters are not copied: they are there to be replaced by weights. Buffers are, and follow
    `like`. Modules that are `sharing` are taken as they are.
    """
    memo: dict[int, Any] = {id(p): p for p in network.parameters()}
    memo |= {id(module): module for module in sharing}
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
        self.network, self.known = network, traits(network)
        self.ready = network if self.known["harmless"] else replica(network, like)
        self.places: dict[str, str] = self.known["places"]
        self.strange: bool = not self.known["plain"]
        self.in_place: bool = self.known["in place"] or self.strange
        every = self.ready.modules() if self.strange else ()
        self.stateless = [m for m in every if not (m._modules or m._buffers) and is_plain(m)]

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
        module = self.ready
        if self.strange:
            self.refuse_what_holds_on(given, x)
            # It may write into what it gets, and remember what it got: a new copy for each call.
            given = {key: w.clone() for key, w in given.items()}
        if self.strange or prepare:
            module = replica(self.ready, sharing=() if prepare else self.stateless)
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
        known = self.known
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
            seen, names = set(todo), set()
            while todo:
                node = todo.pop()
                leaf = getattr(node, "variable", None)
                if isinstance(leaf, nn.Parameter):  # what it was given are none
                    names.add(own.get(id(leaf), "a parameter of another network"))
                more = {after for after, _ in getattr(node, "next_functions", ())} - seen
                seen |= more
                todo |= more
            known["holds on"] = min(names, default="")
        if known["holds on"]:
            raise ValueError(
                f"{_called('', self.network)} uses {known['holds on']!r} as it is, whatever weights"
                " it is given: a forward or hook holds on to the network itself; write it as a"
                " method that uses `self`"
            )


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
