"""A network as a chain of stages, each of which is called with weights from outside.

That it is one is a reading of the network, which is tried before it is trusted: see `_as_chain`.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from .anatomy import LINEAR, chain, is_plain, traits, unrolled
from .neurons import tried_layers
from .running import Runner, replica
from .weights import Weights

CHUNK_FLOATS = (524_288, 67_108_864)  # activations of a chunk of images, on CPU (cache) and GPU
BATCH = 500  # images at a time through a network that is no chain


class Stages:
    """A network as a chain of stages, each of which is called with weights from outside.

    Parameters
    ----------
    network : nn.Module
    weights : Weights
        Weights like those to come.
    x : Tensor, shape (images, …)
        Inputs like those to come, where the weights are.
    """

    def __init__(self, network: nn.Module, weights: Weights, x: Tensor) -> None:
        self.network, example = network, next(iter(weights.values()))
        known = traits(network)
        kinds = {value.dtype: None for value in weights.values()}  # one, if they are sound
        key = ("chain", len(x) > 2, *x.shape[1:], *(kinds if len(kinds) > 1 else ()))
        ready = network if known["harmless"] else replica(network, example)
        free = known["plain"] and not known["shared"]
        self.chain = _chained(unrolled(ready) if free else chain(ready), example, free)
        if key not in known:  # remembered: whether it is a chain, and its widest activation
            known[key] = _as_chain(network, self.chain, weights, x)
        works, widest = known[key]
        if not works:
            self.chain = _chained([("", ready)], example, free)
        # A layer that works in place must not reach the caller's images.
        self.in_place = any(stage.in_place for stage in self.chain)
        # Large weights leave the cache whatever comes with them: then more images share a reading.
        largest = max(value.numel() for value in weights.values())
        self.step = max(CHUNK_FLOATS[x.device.type != "cpu"], largest // 4) // widest
        self.step = max(self.step, 16)
        if any(stage.keys and not stage.plain for stage in self.chain):
            self.step = min(self.step, BATCH)  # what happens inside may be much wider

    def chunks(self, count: int) -> Iterator[slice]:
        """Slices of the images, so few at a time that a layer's activations stay in cache."""
        for start in range(0, count, self.step):
            yield slice(start, min(start + self.step, count))

    def own(self, x: Tensor) -> Tensor:
        """Inputs that may be written into, if somebody does."""
        return x.clone() if self.in_place else x

    def outputs(self, weights: Weights, x: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Outputs for all the images with one weight vector, a chunk at a time."""
        for images in self.chunks(len(x)):
            yield images, run_stages(self.chain, weights, self.own(x[images]))

    def without_unread(self, anchors: list[Weights], x: Tensor) -> list[Weights]:
        """Anchors in which neurons stand still that no output depends on in any of them.

        A neuron is unread if all its readers have zero weight for it, or are unread themselves.
        """
        try:
            layers = tried_layers(self.network, x) if len(anchors) > 1 else []
        except ValueError:  # neurons that are not understood: nothing is known to be unread
            return anchors
        unread: dict[str, Tensor] = {}  # for a tensor, which of its rows
        anchors = [dict(w) for w in anchors]
        for layer in reversed(layers):
            used = torch.zeros(layer.size, dtype=torch.bool)
            for s, w in product(layer.outgoing, anchors):
                columns = w[s.tensor].reshape(len(w[s.tensor]), layer.size, -1) != 0
                seen = columns.any(2).cpu()
                used |= seen[~unread[s.tensor]].any(0) if s.tensor in unread else seen.any(0)
            if used.all():
                continue
            for tensor in layer.incoming:
                unread[tensor] = ~used
                first = anchors[0][tensor]
                rows = (~used).nonzero()[:, 0].to(first.device)
                for w in anchors[1:]:
                    if w[tensor] is not first:
                        w[tensor] = w[tensor].index_copy(0, rows, first[rows])
        return anchors


def _chained(stages: list[tuple[str, nn.Module]], example: Tensor, free: bool) -> list["_Stage"]:
    """The stages to be called; those that may know of one another are run as one.

    What is not torch's own may leave something behind for a later stage. So everything from the
    first such module to the last stays together. `free`: there is none, and nothing is shared.
    """
    groups = [[stage] for stage in stages]
    strange = [] if free else [i for i, (_, m) in enumerate(stages) if not is_plain(m)]
    if strange:
        low, high = strange[0], strange[-1] + 1
        groups[low:high] = [stages[low:high]]
    return [_Stage(group, example, free) for group in groups]


def _as_chain(
    network: nn.Module, stages: list["_Stage"], weights: Weights, x: Tensor
) -> tuple[bool, int]:
    """Whether stage after stage gives what the network gives, and numbers an image at its widest.

    Tried on two inputs with random weights: one stage may know of another's weights in ways that
    nobody sees from outside, and the network's own may be those given.
    """
    few, runner = x[:2], Runner(network, next(iter(weights.values())))
    whole, widest = alone(runner, weights, x), few[0].numel()
    random = torch.Generator().manual_seed(0)
    drawn = {key: torch.randn(w.shape, generator=random).to(w) for key, w in weights.items()}
    drawn = {key: w * max(math.prod(w.shape[1:]), 1) ** -0.5 for key, w in drawn.items()}
    try:
        whole = runner(drawn, few)
        h = few.clone()
        for stage in stages:
            h = stage(drawn, h)
            widest = max(widest, h[0].numel())
    except Exception:  # whatever it is that a stage misses without the others
        return False, max(widest, whole[0].numel(), 1)
    return _alike(h, whole), max(widest, 1)


def alone(runner: Runner, weights: Weights, x: Tensor) -> Tensor:
    """Outputs for two images, refused if a third one changes them, or if chance does."""
    pair, three = (runner(weights, x[:n]) for n in (2, 3))
    if not _alike(pair, three[: len(pair)]):
        raise ValueError(
            f"this {type(runner.network).__name__} gives an image other outputs in other company,"
            " or at random, so no loss of its own belongs to it; keep means and softmax over a"
            " batch, and dropout that is always on, out of its forward"
        )
    return pair


def _alike(one: Tensor, two: Tensor) -> bool:
    """Whether outputs are the same but for rounding."""
    share = max(1e-3, 4 * torch.finfo(two.dtype).eps) if two.is_floating_point() else 0.0
    near = share * float(two.abs().nan_to_num().max())
    return one.shape == two.shape and torch.allclose(one, two, share, near, equal_nan=True)


class _Stage:
    """One module of the chain, or several, called with weights from outside."""

    def __init__(self, modules: list[tuple[str, nn.Module]], example: Tensor, free: bool) -> None:
        if len(modules) == 1:
            ((name, self.module),) = modules
            prefixes = {"": name}
        else:
            self.module = nn.Sequential(*(module for _, module in modules))
            prefixes = {str(k): name for k, (name, _) in enumerate(modules)}
        # What the stage calls its parameters, and what the network calls them.
        self.names: dict[str, str] = {}
        for short, name in prefixes.items():
            inside = self.module.get_submodule(short)
            keys = inside._parameters if not inside._modules else dict(inside.named_parameters())
            for key in (key for key, p in keys.items() if p is not None):
                self.names[f"{short}.{key}".strip(".")] = f"{name}.{key}".strip(".")
        self.keys = set(self.names.values())
        # What keeps no state, and knows each parameter by one name, is called as it is.
        free = free or (is_plain(self.module) and not traits(self.module)["shared"])
        self.runner = None if free else Runner(self.module, example)
        every = [self.module, *self.module.modules()] if self.module._modules else [self.module]
        self.in_place = free and any(getattr(m, "inplace", False) for m in every)
        self.plain = free and len(every) == 1 and not self.in_place
        self.dense = self.plain and type(self.module) is nn.Linear
        self.linear = self.plain and type(self.module) in LINEAR
        self.pools = self.plain and type(self.module) is nn.MaxPool2d

    def __call__(self, weights: Weights, h: Tensor) -> Tensor:
        if self.pools and h.dim() == 4 and h.device.type == "cpu":
            # With channels last torch takes a tenth of the time, for the same numbers.
            return self.module(h.contiguous(memory_format=torch.channels_last)).contiguous()
        if not self.names and self.runner is None:
            return self.module(h)
        own = {key: weights[name] for key, name in self.names.items()}
        if self.runner is not None:
            return self.runner(own, h)
        if self.dense:  # the same as below, without its overhead of some 30 microseconds
            return F.linear(h, own["weight"], own.get("bias"))
        return functional_call(self.module, own, (h,), tie_weights=False)


def run_stages(stages: Sequence[_Stage], weights: Weights, h: Tensor) -> Tensor:
    for stage in stages:
        h = stage(weights, h)
    return h
