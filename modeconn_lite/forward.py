"""Outputs of a network at many points of a path, for little more than the price of one.

Four observations make it cheap. Along a mix of anchors the first layer that moves is a mix too,
W(t) x = sum_k c_k(t) W_k x, so it is computed once per anchor and not once per point. Layers
below it stand still and are computed once. Where only the last layer moves, the outputs
themselves are a mix. And neurons that nothing reads may move unseen. Images are walked in chunks
that stay in cache.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from .data import Split
from .layout import hidden_layers
from .networks import batch_norms, chain, for_evaluation
from .paths import AnyPath, FunctionPath
from .sheets import Sheet
from .weights import Weights, check_weights, mix

CHUNK_FLOATS = (524_288, 67_108_864)  # activations of a chunk of images, on CPU (cache) and GPU
BATCH = 500  # images at a time through a network that is no chain
POINT_FLOATS = 16_000_000  # weights of the points that are held at once: 64 megabytes

Part = tuple[Tensor, slice, Tensor]  # which points, which images, outputs (P, n, classes)


@torch.no_grad()
def outputs(
    network: nn.Module,
    path: AnyPath | Sheet,
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
        If weights and network do not fit, or there is no input or no point.

    Examples
    --------
    >>> import torch
    >>> from modeconn_lite import fresh_weights, outputs, segment
    >>> network = torch.nn.Linear(4, 3)
    >>> line = segment(fresh_weights(network, 0), fresh_weights(network, 1))
    >>> outputs(network, line, [0.0, 0.5, 1.0], torch.ones(2, 4)).shape
    torch.Size([3, 2, 3])
    """
    if not len(x) or not len(t):
        raise ValueError(f"{len(x)} inputs at {len(t)} points: at least one of each is needed")
    parts = list(sweep(network, path, torch.as_tensor(t, dtype=torch.float64), x, statistics))
    result = parts[0][2].new_empty(len(t), len(x), *parts[0][2].shape[2:])
    for at, images, out in parts:
        result[at, images] = out
    return result


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
    """
    points = (path(*point.reshape(-1).tolist()) for point in t)
    if isinstance(path, FunctionPath) or batch_norms(network):
        for i, weights in enumerate(points):
            if note is not None:
                note(weights)
            out = _whole_network(network, weights, x, statistics)
            yield torch.tensor([i]), slice(0, len(x)), out[None]
        return
    for anchor in path.anchors:
        check_weights(anchor, like=network, name=f"the weights of {path.name!r}")
    if note is not None:
        for weights in points:
            note(weights)
    example = next(iter(path.anchors[0].values()))
    network, x = for_evaluation(network, example), x.to(example)
    mixture = path.mixture(t)  # (T, K)
    for rows, active in _runs(mixture):
        anchors = [path.anchors[k] for k in active]
        yield from _run_of_points(network, anchors, mixture[rows][:, active], rows, x)


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
    network: nn.Module, anchors: list[Weights], c: Tensor, rows: Tensor, x: Tensor
) -> Iterator[Part]:
    """Outputs over a run of points that all mix the same anchors with coefficients c: (P, K)."""
    stages = [_Stage(name, module) for name, module in chain(network)]
    in_place = not all(stage.plain for stage in stages)
    if not in_place:
        anchors = _without_unread(network, anchors)
    affine = bool(((c.sum(1) - 1).abs() < 1e-9).all())  # what all anchors share then stands still
    still = {k for k in anchors[0] if affine and all(_same(anchors[0][k], w[k]) for w in anchors)}
    first = next((i for i, stage in enumerate(stages) if not still >= stage.keys), len(stages))
    linear = first < len(stages) and stages[first].linear
    below, above = stages[:first], stages[first + linear :]

    keys = {key for stage in above for key in stage.keys}
    shared = {key: anchors[0][key] for key in keys & still}
    moving = [{key: w[key] for key in keys - still} for w in anchors]
    size = sum(value.numel() for value in moving[0].values())
    for few in torch.arange(len(c)).split(max(1, POINT_FLOATS // max(size, 1))):  # p of P points
        coefficients = c[few] if linear else torch.ones(len(few), 1)  # (p, K) or (p, 1)
        uppers = [shared | mix(ck, moving) if moving[0] else shared for ck in c[few].tolist()]
        for images in _chunks(stages, anchors[0], x):
            # A layer that works in place must not reach the caller's images.
            h = _run(below, anchors[0], x[images].clone() if in_place else x[images])  # (n, …)
            parts = [stages[first](w, h) for w in anchors] if linear else [h]  # K or 1 × (n, …)
            if above:
                room = torch.empty_like(parts[0])  # every point's mix is written here in turn
                out = torch.empty(0)
                for i, ck in enumerate(coefficients.tolist()):
                    result = _run(above, uppers[i], _mix_into(room, ck, parts))  # (n, classes)
                    out = out if i else result.new_empty(len(few), *result.shape)  # (p, n, classes)
                    out[i] = result
            else:
                out = torch.einsum("pk,k...->p...", coefficients.to(h), torch.stack(parts))
            yield rows[few], images, out


def _without_unread(network: nn.Module, anchors: list[Weights]) -> list[Weights]:
    """Anchors in which neurons stand still that no output depends on in any of them.

    A neuron is unread if all its readers have zero weight for it, or are unread themselves.
    """
    try:
        layers = hidden_layers(network) if len(anchors) > 1 else []
    except ValueError:  # a network whose neurons are not understood: nothing is known to be unread
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


class _Stage:
    """One module of the chain, called with weights from outside."""

    def __init__(self, name: str, module: nn.Module) -> None:
        self.module = module
        self.names = {key: f"{name}.{key}".strip(".") for key, _ in module.named_parameters()}
        self.keys = set(self.names.values())
        # A leaf that does what its class says: no hooks, no reparametrisation, nothing in place.
        hooks = module._forward_hooks or module._forward_pre_hooks
        self.plain = not (hooks or list(module.children()) or getattr(module, "inplace", False))
        forward = type(module).forward
        self.dense = self.plain and forward is nn.Linear.forward
        self.linear = self.dense or (self.plain and forward is nn.Conv2d.forward)

    def __call__(self, weights: Weights, h: Tensor) -> Tensor:
        if not self.names:
            return self.module(h)
        own = {key: weights[name] for key, name in self.names.items()}
        if self.dense:  # the same as below, without its overhead of some 30 microseconds
            return F.linear(h, own["weight"], own.get("bias"))
        return functional_call(self.module, own, (h,))


def _run(stages: list[_Stage], weights: Weights, h: Tensor) -> Tensor:
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


def _chunks(stages: list[_Stage], weights: Weights, x: Tensor) -> Iterator[slice]:
    """Slices of the images, so few at a time that a layer's activations stay in cache."""
    h, widest = x[:1].clone(), x[:1].numel()
    for stage in stages:
        h = stage(weights, h)
        widest = max(widest, h.numel())
    step = max(CHUNK_FLOATS[x.device.type != "cpu"] // widest, 16)
    if any(stage.keys and not stage.plain for stage in stages):
        step = min(step, BATCH)  # what happens inside may be much wider
    for start in range(0, len(x), step):
        yield slice(start, min(start + step, len(x)))


def _whole_network(
    network: nn.Module, weights: Weights, x: Tensor, statistics: Split | None
) -> Tensor:
    """Outputs of any module for one weight vector, BatchNorm statistics recomputed."""
    check_weights(weights, like=network)
    example = next(iter(weights.values()))
    x = x.to(example)
    if batch_norms(network):
        network = copy.deepcopy(network).to(example)
        images = x if statistics is None else statistics.x.to(example)
        _recompute_statistics(network.eval(), weights, images)
    network = for_evaluation(network, example)
    parts = x.tensor_split(math.ceil(len(x) / BATCH))  # clones: layers may work in place
    return torch.cat([functional_call(network, weights, (part.clone(),)) for part in parts])


def _recompute_statistics(network: nn.Module, weights: Weights, x: Tensor) -> None:
    """One pass in training mode that leaves in each BatchNorm the mean over all images.

    Changes the buffers of `network`, which is a copy of the caller's.
    """
    norms = [m for m in network.modules() if getattr(m, "running_mean", None) is not None]
    for module in norms:
        module.reset_running_stats()  # type: ignore[operator]
        module.train()
    seen = 0
    for part in x.tensor_split(math.ceil(len(x) / BATCH)):  # even parts: none of one image
        seen += len(part)
        for module in norms:
            module.momentum = len(part) / seen  # type: ignore[assignment]
        functional_call(network, weights, (part.clone(),))
    for module in norms:
        module.eval()
