"""Paths walked one after another, or from their end to their start."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Literal, overload

import torch
from torch import Tensor

from .checks import check_choice
from .paths import AnyPath, Coefficients, FunctionPath, Part, Path, as_path
from .weights import Weights, check_weights, distance


@overload
def backward(path: Path) -> Path: ...
@overload
def backward(path: FunctionPath) -> FunctionPath: ...
def backward(path: AnyPath) -> AnyPath:
    """The same path walked from its end to its start.

    Examples
    --------
    >>> import torch
    >>> from modeconn_lite import backward, segment
    >>> backward(segment({"w": torch.zeros(1)}, {"w": torch.ones(1)}))(0.25)
    {'w': tensor([0.7500])}
    """
    path = as_path(path)
    low, high = path.domain
    changes = {
        "knots": tuple(1 - t for t in reversed(path.knots)),
        "domain": (1 - high, 1 - low),
        "labels": tuple(reversed(path.labels)),
    }
    if isinstance(path, FunctionPath):
        parts = (Part(path, 1.0, -1.0),)
        return FunctionPath(lambda t: path.function(1 - t), path.name, parts=parts, **changes)
    return replace(path, coefficients=lambda t: path.coefficients(1 - t), **changes)


@overload
def concat(*paths: Path, name: str = "path", equal: Literal["pieces", "paths"] = ...) -> Path: ...
@overload
def concat(
    *paths: AnyPath, name: str = "path", equal: Literal["pieces", "paths"] = ...
) -> AnyPath: ...
def concat(
    *paths: AnyPath, name: str = "path", equal: Literal["pieces", "paths"] = "pieces"
) -> AnyPath:
    """Walk several paths one after another.

    A part may be a plain function of t. The result is a mix if all the parts are, else a plain
    function of t. It keeps labels if any part has them.

    Parameters
    ----------
    *paths : paths
    name : str
    equal : str
        What takes equal time: all "pieces" between two knots, or all "paths".

    Raises
    ------
    ValueError
        If there is no path, or one does not start where the one before it ends.

    Examples
    --------
    >>> import torch
    >>> from modeconn_lite import concat, segment
    >>> a, b, c = ({"w": torch.tensor([float(k)])} for k in range(3))
    >>> concat(segment(a, b), segment(b, c))(0.75)
    {'w': tensor([1.5000])}
    """
    if len(paths) == 1 and isinstance(paths[0], list | tuple):
        raise ValueError("give the paths one by one: concat(*paths)")
    check_choice(equal, "equal", ("pieces", "paths"))
    paths = tuple(as_path(path) for path in paths)
    _check_joints(paths)
    pieces = [len(path.knots) - 1 for path in paths]
    counts = pieces if equal == "pieces" else [1] * len(paths)
    starts = [before / sum(counts) for before in accumulate(counts, initial=0)]
    parts = [
        Part(path, start, count / sum(counts))
        for path, start, count in zip(paths, starts, counts, strict=False)
    ]
    knots = [0.0]
    for part in parts:
        knots += [part.start + part.share * t for t in part.path.knots[1:]]
    knots[-1] = 1.0
    labels: tuple[str, ...] = ()
    if any(path.labels for path in paths):
        each = (path.labels or [""] * n for path, n in zip(paths, pieces, strict=True))
        labels = tuple(word for part in each for word in part)
    shape = {"name": name, "knots": tuple(knots), "labels": labels}

    mixes = [path for path in paths if isinstance(path, Path)]
    if len(mixes) == len(paths):
        shares = [part.share for part in parts]
        anchors, coefficients = _joined_mixes(mixes, starts, shares)
        return Path(anchors, coefficients, **shape)

    def function(t: float) -> Weights:
        return next(part for part in reversed(parts) if t >= part.start)(t)

    return FunctionPath(function, parts=tuple(parts), **shape)


def _check_joints(paths: Sequence[AnyPath]) -> None:
    if not paths:
        raise ValueError("there is no path to walk; give at least one")
    for k, (one, two) in enumerate(pairwise(paths), 1):
        end, start = one(1.0), two(0.0)
        check_weights(start, like=end, name=f"path {k + 1} ({two.name!r})")
        gap = distance(end, start)
        if gap > 1e-5 * (1 + two.length(points=2)):
            raise ValueError(
                f"path {k + 1} ({two.name!r}) starts at distance {gap:.3g} from the end of path {k}"
                f" ({one.name!r}); join them with a segment first"
            )


def _joined_mixes(
    mixes: Sequence[Path], starts: Sequence[float], shares: Sequence[float]
) -> tuple[tuple[Weights, ...], Coefficients]:
    """Common anchors of mixes walked one after another, and their coefficients."""
    known: dict[int, int] = {}  # identity of an anchor -> its place in the common list
    anchors: list[Weights] = []
    columns = []  # where each path's anchors stand in it
    for anchor in (anchor for path in mixes for anchor in path.anchors):
        if id(anchor) not in known:
            known[id(anchor)] = len(anchors)
            anchors.append(anchor)
    for path in mixes:
        columns.append(torch.tensor([known[id(anchor)] for anchor in path.anchors]))

    def coefficients(t: Tensor) -> Tensor:
        result = torch.zeros(len(t), len(anchors), dtype=torch.float64)
        inner_starts = torch.tensor(starts[1 : len(mixes)], dtype=torch.float64)
        which = torch.bucketize(t, inner_starts, right=True)
        for k, path in enumerate(mixes):
            rows = (which == k).nonzero()[:, 0]
            local = ((t[rows] - starts[k]) / shares[k]).clamp(0, 1)
            result[rows] = result[rows].index_add(1, columns[k], path.coefficients(local))
        return result

    return tuple(anchors), coefficients
