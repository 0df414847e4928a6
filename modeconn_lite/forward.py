"""Outputs of a network at many points of a path, for little more than the price of one.

Four observations make it cheap. Along a mix of anchors the first layer that moves is a mix too,
W(t) x = sum_k c_k(t) W_k x, so it is computed once per anchor and not once per point. Layers
below it stand still and are computed once. Where only the last layer moves, the outputs
themselves are a mix. And neurons that nothing reads may move unseen. Images are walked in chunks
that stay in cache.

All this trusts a reading of the network, which is tried first: see `stages`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .anatomy import batch_norms
from .batch_statistics import WithStatistics
from .chains import Swept, SweptPath
from .checks import check_inputs, check_network, check_numbers, check_split
from .data import Split
from .paths import AnyPath, FunctionPath, as_path, pieces
from .sheets import Sheet
from .stages import Stages, run_stages
from .weights import Weights, check_weights, combined

POINT_FLOATS = 16_000_000  # weights of the points that are held at once: 64 megabytes
PART_FLOATS = 64_000_000  # what anchors gave for images, held where points take turns: 256 MB


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
) -> Iterator[Swept]:
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
    Swept
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
) -> Iterator[Swept]:
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
            runner = runner or WithStatistics(network, example)
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
) -> Iterator[Swept]:
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
    turns = torch.arange(len(c)).split(max(1, POINT_FLOATS // max(size, 1)))  # p of P points each

    def made() -> Iterator[_Made]:
        for images in stages.chunks(len(x)):
            h = run_stages(below, anchors[0], stages.own(x[images]))
            yield images, [chained[first](w, h) for w in anchors] if linear else [h]

    for held in [made()] if len(turns) == 1 else _held(made()):
        for few in turns:
            mixes = c[few].tolist()
            uppers = [shared | combined(ck, moving) if moving[0] else shared for ck in mixes]
            coefficients = c[few] if linear else torch.ones(len(few), 1)  # (p, K) or (p, 1)
            for images, parts in held:
                yield rows[few], images, _mixed_outputs(coefficients, parts, above, uppers)


# A chunk of n images, and what enters the mix: outputs of the first layer that moves with each
# anchor, K × (n, …), or its inputs, 1 × (n, …), if no mix of outputs is that layer's output.
_Made = tuple[slice, list[Tensor]]


def _mixed_outputs(
    coefficients: Tensor, parts: list[Tensor], above: Sequence[Any], uppers: list[Weights]
) -> Tensor:
    """Outputs at p points, (p, n, …): a mix of the parts, and the stages above with its weights."""
    if not above:
        return torch.einsum("pk,k...->p...", coefficients.to(parts[0]), torch.stack(parts))
    room = torch.empty_like(parts[0])  # every point's mix is written here in turn
    out = torch.empty(0)
    for i, ck in enumerate(coefficients.tolist()):
        result = run_stages(above, uppers[i], _mix_into(room, ck, parts))  # (n, classes)
        out = out if i else result.new_empty(len(uppers), *result.shape)
        out[i] = result
    return out


def _held(made: Iterator[_Made]) -> Iterator[list[_Made]]:
    """As many of them at a time as fit into `PART_FLOATS`."""
    held: list[_Made] = []
    floats = 0
    for images, parts in made:
        held.append((images, parts))
        floats += sum(part.numel() for part in parts)
        if floats >= PART_FLOATS:
            yield held
            held, floats = [], 0
    if held:
        yield held


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
