"""Outputs of a network at many points of a path, for little more than the price of one.

Four observations make it cheap. Along a mix of anchors the first layer that moves is a mix too,
W(t) x = sum_k c_k(t) W_k x, so it is computed once per anchor and not once per point. Layers
below it stand still and are computed once. Where only the last layer moves, the outputs
themselves are a mix. And neurons that nothing reads may move unseen. Images are walked in chunks
that stay in cache.

All this trusts a reading of the network, which is tried first: see `_as_chain`.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from .anatomy import LINEAR, batch_norms, chain, facts, is_plain, traits, unrolled
from .chains import SweptPath
from .checks import check_inputs, check_network, check_numbers, check_split
from .data import Split
from .neurons import tried_layers
from .paths import AnyPath, FunctionPath, as_path, pieces
from .running import Runner, replica
from .sheets import Sheet
from .weights import Weights, check_weights, combined

CHUNK_FLOATS = (524_288, 67_108_864)  # activations of a chunk of images, on CPU (cache) and GPU
BATCH = 500  # images at a time through a network that is no chain
POINT_FLOATS = 16_000_000  # weights of the points that are held at once: 64 megabytes
# Activations of a layer while statistics are taken: as many images at a time as memory allows.
STATISTICS_FLOATS = (33_554_432, 268_435_456)

# Which P points, which n images, their outputs (P, n, classes), or (1, n, classes) for them all.
Part = tuple[Tensor, slice, Tensor]


@torch.no_grad()
def outputs(
    network: nn.Module,
    path: AnyPath | Sheet | Callable[[float], Weights],
    t: Sequence[float] | Tensor,
    x: Tensor,
    *,
    statistics: Split | None = None,
) -> Tensor:
    """Outputs of the network for inputs x at each t, or at each (u, v) of a sheet.

    Parameters
    ----------
    network : nn.Module
        The architecture; its own weights play no part and are not touched.
    path : path or sheet
        Or a function of t that gives Weights.
    t : T times, or points of a sheet, shape (T, 2)
    x : Tensor, shape (images, …)
        They follow the weights' device and precision.
    statistics : Split, optional
        For networks with BatchNorm, the images on which running statistics are recomputed at
        every point; x itself if not given.

    Returns
    -------
    Tensor, shape (T, images, classes)

    Raises
    ------
    ValueError
        If weights, inputs and network do not fit, or there is no input or no point.

    Notes
    -----
    Statistics are those of one pass in training mode over all the images at once, if their
    activations fit into memory. Otherwise it is several passes, over parts drawn in a fixed
    random order, the variance between them counted; a part's own statistics then stand in for
    those of all, which changes losses by some 1e-3. Their cost: one forward pass over the images
    at every point.

    Examples
    --------
    >>> import torch
    >>> from modeconn_lite import fresh_weights, outputs, segment
    >>> network = torch.nn.Linear(4, 3)
    >>> line = segment(fresh_weights(network, 0), fresh_weights(network, 1))
    >>> outputs(network, line, [0.0, 0.5, 1.0], torch.ones(2, 4)).shape
    torch.Size([3, 2, 3])
    """
    check_network(network)
    path = path if isinstance(path, Sheet) else as_path(path)
    points, x = _points(t, path), check_inputs(x)
    if statistics is not None:
        check_split(statistics, "statistics")
    parts = list(sweep(network, path, points, x, statistics))
    result = parts[0][2].new_empty(len(points), len(x), *parts[0][2].shape[2:])
    for at, images, out in parts:
        result[at, images] = out
    return result


def _points(t: Any, path: AnyPath | Sheet) -> Tensor:
    """Points of a path, shape (T,), or of a sheet, shape (T, 2)."""
    what = "pairs (u, v)" if isinstance(path, Sheet) else "times"
    points = check_numbers(t, "t", f"a list of {what}")
    wanted = 2 if isinstance(path, Sheet) else 1
    if points.dim() != wanted or (wanted == 2 and points.shape[1] != 2):
        raise ValueError(f"t must be a list of {what}, not of shape {tuple(points.shape)}")
    if not len(points):
        raise ValueError("there is no point to look at; give at least one")
    return points


def sweep(
    network: nn.Module,
    path: AnyPath | Sheet,
    t: Tensor,
    x: Tensor,
    statistics: Split | None,
    note: Callable[[Weights], None] | None = None,
) -> Iterator[Part]:
    """Outputs at every point, some points and a chunk of images at a time.

    Callers switch gradients off: a generator must not do it for them.

    Parameters
    ----------
    network, path, x, statistics
        As for `outputs`.
    t : Tensor, shape (T,) or (T, 2), float64
    note : function of Weights, optional
        Is shown the weights at each point, in order. A path that is a plain function is called
        once for each, whether they are noted or not.

    Yields
    ------
    Part
        Indices of P points, shape (P,), a slice of n images, and outputs, shape (P, n, classes).
        Outputs of shape (1, n, classes) are those of all P.
    """
    if isinstance(path, FunctionPath) and path.parts:
        for part, times, rows in pieces(path, t):
            for at, images, out in sweep(network, part, times, x, statistics, note):
                yield rows[at], images, out
        return
    norms = batch_norms(network)
    if isinstance(path, SweptPath) and not norms:
        if note is not None:
            for time in t.tolist():
                note(path(time))
        yield from path.chain.outputs(network, t, x)
        return
    if isinstance(path, FunctionPath) or norms:
        yield from _one_by_one(network, path, t, x, statistics if norms else None, note)
        return
    for anchor in path.anchors:
        check_weights(anchor, like=network, name=f"the weights of {path.name!r}")
    if note is not None:
        for point in t:
            note(path(*point.reshape(-1).tolist()))
    example = next(iter(path.anchors[0].values()))
    x = x.to(example)
    stages = Stages(network, path.anchors[0], x)
    mixture = path.mixture(t)  # (T, K)
    for rows, active in _runs(mixture):
        anchors = [path.anchors[k] for k in active]
        if len(rows) == 1:  # to mix the weights costs less than a pass for each anchor
            weights = combined(mixture[rows[0], active], anchors)
            for images, out in stages.outputs(weights, x):
                yield rows, images, out[None]
        else:
            yield from _run_of_points(stages, anchors, mixture[rows][:, active], rows, x)


def _one_by_one(
    network: nn.Module,
    path: AnyPath | Sheet,
    t: Tensor,
    x: Tensor,
    statistics: Split | None,
    note: Callable[[Weights], None] | None,
) -> Iterator[Part]:
    """Outputs where the weights of each point are needed by themselves."""
    norms, stages, runner = batch_norms(network), None, None
    for i, point in enumerate(t):
        weights = path(*point.reshape(-1).tolist())
        if note is not None:
            note(weights)
        check_weights(weights, like=network)
        example = next(iter(weights.values()))
        x = x.to(example)
        if norms:
            runner = runner or _WithStatistics(network, example)
            images = x if statistics is None else statistics.x.to(example)
            found = runner.outputs(weights, x, images)
        else:
            stages = stages or Stages(network, weights, x)
            found = stages.outputs(weights, x)
        for images, out in found:
            yield torch.tensor([i]), images, out[None]


def _runs(mixture: Tensor) -> Iterator[tuple[Tensor, list[int]]]:
    """Runs of points that mix the same anchors: (indices of the points, indices of the anchors).

    A point with fewer anchors, such as a knot, joins the run beside it.
    """
    rows: list[int] = []
    active: set[int] = set()
    for i, row in enumerate(mixture):
        here = set(row.nonzero()[:, 0].tolist())
        if rows and not (here <= active or active <= here):
            yield torch.tensor(rows), sorted(active)
            rows, active = [], set()
        rows.append(i)
        active |= here
    yield torch.tensor(rows), sorted(active) or [0]


def _run_of_points(
    stages: "Stages", anchors: list[Weights], c: Tensor, rows: Tensor, x: Tensor
) -> Iterator[Part]:
    """Outputs over a run of points that all mix the same anchors with coefficients c: (P, K)."""
    anchors = stages.without_unread(anchors, x)
    affine = bool(((c.sum(1) - 1).abs() < 1e-9).all())  # what all anchors share then stands still
    still = {k for k in anchors[0] if affine and all(_same(anchors[0][k], w[k]) for w in anchors)}
    chained = stages.chain
    first = next((i for i, stage in enumerate(chained) if not still >= stage.keys), len(chained))
    linear = first < len(chained) and chained[first].linear
    below, above = chained[:first], chained[first + linear :]

    keys = {key for stage in above for key in stage.keys}
    shared = {key: anchors[0][key] for key in keys & still}
    moving = [{key: w[key] for key in keys - still} for w in anchors]
    size = sum(value.numel() for value in moving[0].values())
    for few in torch.arange(len(c)).split(max(1, POINT_FLOATS // max(size, 1))):  # p of P points
        coefficients = c[few] if linear else torch.ones(len(few), 1)  # (p, K) or (p, 1)
        uppers = [shared | combined(ck, moving) if moving[0] else shared for ck in c[few].tolist()]
        for images in stages.chunks(len(x)):
            h = run_stages(below, anchors[0], stages.own(x[images]))  # (n, …)
            parts = [chained[first](w, h) for w in anchors] if linear else [h]  # K or 1 × (n, …)
            if above:
                room = torch.empty_like(parts[0])  # every point's mix is written here in turn
                out = torch.empty(0)
                for i, ck in enumerate(coefficients.tolist()):
                    mixed = _mix_into(room, ck, parts)
                    result = run_stages(above, uppers[i], mixed)  # (n, classes)
                    out = out if i else result.new_empty(len(few), *result.shape)  # (p, n, classes)
                    out[i] = result
            else:
                out = torch.einsum("pk,k...->p...", coefficients.to(h), torch.stack(parts))
            yield rows[few], images, out


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
        self.step = max(CHUNK_FLOATS[x.device.type != "cpu"] // widest, 16)
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
    whole, widest = _alone(runner, weights, x), few[0].numel()
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


def _alone(runner: Runner, weights: Weights, x: Tensor) -> Tensor:
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

    def __call__(self, weights: Weights, h: Tensor) -> Tensor:
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


def _same(a: Tensor, b: Tensor) -> bool:
    return a is b or torch.equal(a, b)


def _mix_into(room: Tensor, coefficients: list[float], parts: list[Tensor]) -> Tensor:
    """sum_k c_k part_k, written into `room`."""
    if len(parts) == 2 and abs(sum(coefficients) - 1) < 1e-12:
        return torch.lerp(parts[0], parts[1], coefficients[1], out=room)
    torch.mul(parts[0], coefficients[0], out=room)
    for c, part in zip(coefficients[1:], parts[1:], strict=True):
        room.add_(part, alpha=c)
    return room


class _WithStatistics:
    """A network with BatchNorm, run with statistics that belong to the weights."""

    def __init__(self, network: nn.Module, example: Tensor) -> None:
        self.network, self.norms = network, batch_norms(network)
        self.runner = Runner(network, example)
        self.tried = False

    def outputs(
        self, weights: Weights, x: Tensor, images: Tensor
    ) -> Iterator[tuple[slice, Tensor]]:
        """Outputs for x, statistics being those of `images`: some images at a time."""
        state = weights | self.statistics(weights, images)
        if not self.tried:
            _alone(self.runner, state, x)
            self.tried = True
        for start in range(0, len(x), BATCH):
            part = slice(start, min(start + BATCH, len(x)))
            yield part, self.runner(state, x[part])

    def statistics(self, weights: Weights, images: Tensor) -> Weights:
        """Running means and variances, as one pass over all images in training mode leaves them.

        If there are too many for one pass: those of several parts, pooled.
        """
        norms = {name: self.network.get_submodule(name) for name in self.norms}
        flat = next((n for n, m in norms.items() if isinstance(m, nn.BatchNorm1d)), None)
        if len(images) == 1 and flat is not None:
            raise ValueError(
                f"one image has no variance for layer {flat!r} to normalise by; give more with"
                " statistics="
            )
        seen: dict[tuple[str, int], list[tuple[int, Tensor, Tensor]]] = {}
        uses: Counter[str] = Counter()  # of a layer in one pass: it may stand in several places

        def note(name: str, module: Any, given: tuple[Tensor, ...], out: Tensor) -> None:
            vectors = (module.running_mean, module.running_var)  # of this part: momentum is 1
            mean, variance = (v.to(torch.float64, copy=True) for v in vectors)
            count = given[0].numel() // given[0].shape[1]
            seen.setdefault((name, uses[name]), []).append((count, mean, variance))
            uses[name] += 1

        def set_hooks(copied: nn.Module) -> None:
            for name in norms:
                module: Any = copied.get_submodule(name)
                module.reset_running_stats()
                module.momentum = 1.0
                module.train().register_forward_hook(partial(note, name))

        for part in self.parts(weights, images):
            uses.clear()
            self.runner(weights, part, set_hooks)
        found: Weights = {}
        for name, module in norms.items():
            between = isinstance(module, nn.modules.batchnorm._BatchNorm)
            each = [_pooled(parts, between) for (n, _), parts in seen.items() if n == name]
            for key, vectors in zip(("mean", "var"), zip(*each, strict=True), strict=False):
                mean = torch.stack(vectors).mean(0).to(images)
                found[f"{name}.running_{key}".strip(".")] = mean
        return found

    def parts(self, weights: Weights, images: Tensor) -> Iterator[Tensor]:
        """All the images at once, or even parts of them in an order that is no order."""
        known, key = facts(self.network), ("widest", *images.shape[1:])
        if key not in known:
            known[key] = self.widest(weights, images[:1])
        room = STATISTICS_FLOATS[images.device.type != "cpu"]
        count = math.ceil(len(images) / max(room // known[key], BATCH))
        if count == 1:
            yield images
            return
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        for rows in order.tensor_split(count):  # even: none of one image
            yield images[rows.to(images.device)]

    def widest(self, weights: Weights, image: Tensor) -> int:
        """The most numbers that a module gives for one image."""
        sizes = [image.numel()]

        def note(module: nn.Module, given: Any, out: Any) -> None:
            if isinstance(out, Tensor):
                sizes.append(out.numel())

        def set_hooks(copied: nn.Module) -> None:
            for module in copied.modules():
                module.register_forward_hook(note)

        self.runner(weights, image, set_hooks)
        return max(sizes)


def _pooled(parts: list[tuple[int, Tensor, Tensor]], between: bool) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance of all, from those of parts; with the variance between them."""
    counts = torch.tensor([count for count, _, _ in parts], dtype=torch.float64)
    shares = (counts / counts.sum()).to(parts[0][1].device)
    means, variances = (torch.stack(vectors) for vectors in list(zip(*parts, strict=True))[1:])
    mean = shares @ means  # (n,)
    if not between or len(parts) == 1:
        return mean, shares @ variances
    counts = counts.to(mean.device)
    squares = (counts - 1) @ variances + counts @ (means - mean).square()
    return mean, squares / (counts.sum() - 1)
