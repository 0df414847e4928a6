"""Paths and sheets in weight space. Almost every one is a mix of anchors,

    path(t) = sum_k c_k(t) · anchor_k,

and keeps anchors and coefficients in sight, so that evaluation can use that a network's first
layer is linear in its weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import comb, inf
from numbers import Integral

import torch
from torch import Tensor

from .weights import Weights, check_weights, distance, inner, mix

Coefficients = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Path:
    """A path through weight space that is a mix of anchors.

    Parameters
    ----------
    anchors : the K weight vectors that are mixed.
    coefficients : maps t, shape (T,), float64, to the coefficients, shape (T, K).
    name : how figures and tables call the path.
    knots : where the path starts, bends and ends; profiles always include them.
    domain : the smallest and largest t at which the path is defined.
    """

    anchors: tuple[Weights, ...]
    coefficients: Coefficients = field(repr=False)
    name: str = "path"
    knots: tuple[float, ...] = (0.0, 1.0)
    domain: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        _check(self)

    def mixture(self, t: Sequence[float] | Tensor) -> Tensor:
        """Coefficients of the anchors at each t: shape (T, K), float64, on the CPU."""
        # Rounded, so that at a knot the other anchors count for nothing rather than for 1e-17.
        return self.coefficients(_times(t, self)).round(decimals=13)

    def __call__(self, t: float) -> Weights:
        """Weights at t. At a knot whose mix is a single anchor, that anchor to the bit."""
        return mix(self.mixture([t])[0], self.anchors)

    def length(self, points: int = 1001) -> float:
        """Euclidean length from t = 0 to t = 1, by chords between `points` times and the knots."""
        return float(self.travelled(grid(points, self.knots))[-1])

    def travelled(self, t: Sequence[float] | Tensor) -> Tensor:
        """Length travelled from the first of the sorted times to each of them: shape (T,).

        Chord lengths come from inner products of anchors, of those that a step changes together:
        at most K² of them, some 2 K for a polychain, whatever T.
        """
        steps = self.mixture(t).diff(dim=0)
        changed = (steps != 0).double()
        gram = torch.zeros(len(self.anchors), len(self.anchors), dtype=torch.float64)
        for k, m in (changed.T @ changed).triu().nonzero().tolist():
            gram[k, m] = gram[m, k] = inner(self.anchors[k], self.anchors[m])
        squared = ((steps @ gram) * steps).sum(1)
        return torch.cat([torch.zeros(1, dtype=torch.float64), squared.clamp(min=0).sqrt()]).cumsum(
            0
        )

    def __repr__(self) -> str:
        return f"Path({self.name}, {len(self.anchors)} anchors, {len(self.knots) - 1} pieces)"


@dataclass(frozen=True)
class FunctionPath:
    """A path that is no mix of anchors: a plain function of t, with the same knots and domain."""

    function: Callable[[float], Weights] = field(repr=False)
    name: str = "path"
    knots: tuple[float, ...] = (0.0, 1.0)
    domain: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        _check(self)

    def __call__(self, t: float) -> Weights:
        return self.function(float(_times([t], self)[0]))

    def length(self, points: int = 101) -> float:
        """Euclidean length from t = 0 to t = 1, by chords; each costs a call of the function."""
        return float(self.travelled(grid(points, self.knots))[-1])

    def travelled(self, t: Sequence[float] | Tensor) -> Tensor:
        """Length travelled from the first of the sorted times to each of them: shape (T,)."""
        times, total = _times(t, self), [0.0]
        before = self(float(times[0]))
        for time in times[1:].tolist():
            here = self(time)
            total.append(total[-1] + distance(before, here))
            before = here
        return torch.tensor(total, dtype=torch.float64)


AnyPath = Path | FunctionPath


@dataclass(frozen=True)
class Sheet:
    """A two-dimensional surface in weight space that is a mix of anchors.

    Parameters
    ----------
    anchors : the K weight vectors that are mixed.
    coefficients : maps points, shape (P, 2), float64, to the coefficients, shape (P, K).
    extent : (u from, u to, v from, v to), the part of the surface that is shown.
    marks : named points of the surface, such as {"A": (0.0, 0.0)}.
    inside : whether each point belongs to the sheet, shape (P,); None if all do.
    """

    anchors: tuple[Weights, ...]
    coefficients: Coefficients = field(repr=False)
    name: str = "sheet"
    extent: tuple[float, float, float, float] = (0.0, 1.0, 0.0, 1.0)
    marks: dict[str, tuple[float, float]] = field(default_factory=dict)
    inside: Callable[[Tensor], Tensor] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        _check(self)

    def mixture(self, points: Sequence[Sequence[float]] | Tensor) -> Tensor:
        """Coefficients of the anchors at each point: shape (P, K), float64.

        Raises
        ------
        ValueError
            If a point is not finite or lies outside a sheet that has a border.
        """
        p = torch.as_tensor(points, dtype=torch.float64).reshape(-1, 2)
        outside = ~torch.isfinite(p).all(1)
        if self.inside is not None:
            outside |= ~self.inside(p)
        if outside.any():
            raise ValueError(f"{self.name!r} has no point at (u, v) = {p[outside][0].tolist()}")
        return self.coefficients(p)

    def __call__(self, u: float, v: float) -> Weights:
        return mix(self.mixture([[u, v]])[0], self.anchors)


def segment(a: Weights, b: Weights, *, name: str = "linear") -> Path:
    """The straight line (1 − t) a + t b. It goes on beyond both ends, so any t is allowed."""
    check_weights(b, like=check_weights(a, name="a"), name="b")
    return Path((a, b), lambda t: torch.stack([1 - t, t], 1), name, domain=(-inf, inf))


def polychain(points: Sequence[Weights], *, name: str = "polychain") -> Path:
    """Straight lines through the given weights in turn, equal time for each.

    Garipov et al. (2018): sum_j max(0, 1 − |t (n − 1) − j|) w_j. Only the two ends of the piece
    that t is on have a coefficient other than zero.
    """
    if len(points) < 2:
        raise ValueError(f"a polychain needs at least two points, not {len(points)}")
    last = len(points) - 1
    nodes = torch.arange(last + 1, dtype=torch.float64)

    def coefficients(t: Tensor) -> Tensor:
        return (1 - (t[:, None] * last - nodes).abs()).clamp(min=0)

    return Path(tuple(points), coefficients, name, tuple(j / last for j in range(last + 1)))


def bezier(points: Sequence[Weights], *, name: str = "Bézier") -> Path:
    """The Bézier curve with these control points; it passes through the first and the last.

    Coefficients are Bernstein's: binom(n, j) tʲ (1 − t)ⁿ⁻ʲ for n + 1 points.
    """
    if len(points) < 2:
        raise ValueError(f"a Bézier curve needs at least two points, not {len(points)}")
    n = len(points) - 1

    def coefficients(t: Tensor) -> Tensor:
        return torch.stack([comb(n, j) * t**j * (1 - t) ** (n - j) for j in range(n + 1)], 1)

    return Path(tuple(points), coefficients, name)


def triangle(a: Weights, b: Weights, c: Weights, *, name: str = "triangle") -> Sheet:
    """The flat triangle (1 − u − v) a + u b + v c, for u, v ≥ 0 and u + v ≤ 1."""

    def coefficients(p: Tensor) -> Tensor:
        return torch.cat([1 - p.sum(1, keepdim=True), p], 1)

    def inside(p: Tensor) -> Tensor:
        return (p >= -1e-9).all(1) & (p.sum(1) <= 1 + 1e-9)

    marks = {"A": (0.0, 0.0), "B": (1.0, 0.0), "C": (0.0, 1.0)}
    return Sheet((a, b, c), coefficients, name, marks=marks, inside=inside)


def backward(path: AnyPath) -> AnyPath:
    """The same path walked from its end to its start."""
    low, high = path.domain
    knots = tuple(1 - t for t in reversed(path.knots))
    changes = {"knots": knots, "domain": (1 - high, 1 - low)}
    if isinstance(path, FunctionPath):
        return replace(path, function=lambda t: path.function(1 - t), **changes)
    return replace(path, coefficients=lambda t: path.coefficients(1 - t), **changes)


def concat(*paths: AnyPath, name: str = "path") -> AnyPath:
    """Walk several paths one after another; each piece between two knots takes equal time.

    The result is a mix if all the parts are, else a plain function of t.

    Raises
    ------
    ValueError
        If a path does not start where the one before it ends.
    """
    if not paths:
        raise ValueError("there is no path to walk; give at least one")
    for k, (one, two) in enumerate(pairwise(paths)):
        gap = distance(one(1.0), two(0.0))
        if gap > 1e-5 * (1 + two.length(points=2)):
            raise ValueError(
                f"path {k + 1} ({two.name!r}) starts at distance {gap:.3g} from the end of path {k}"
                f" ({one.name!r}); join them with a segment first"
            )
    pieces = [len(path.knots) - 1 for path in paths]
    total = sum(pieces)
    starts = [sum(pieces[:k]) / total for k in range(len(paths))]
    shares = [count / total for count in pieces]
    knots = [0.0]
    for path, start, share in zip(paths, starts, shares, strict=True):
        knots += [start + share * t for t in path.knots[1:]]
    knots[-1] = 1.0

    if not all(isinstance(path, Path) for path in paths):

        def function(t: float) -> Weights:
            k = max(k for k, start in enumerate(starts) if t >= start)
            return paths[k](min((t - starts[k]) / shares[k], 1.0))

        return FunctionPath(function, name, tuple(knots))

    mixes = [path for path in paths if isinstance(path, Path)]
    anchors: list[Weights] = []
    columns = []  # where each path's anchors stand in the common list
    for path in mixes:
        places = []
        for anchor in path.anchors:
            seen = [k for k, known in enumerate(anchors) if known is anchor]
            if not seen:
                anchors.append(anchor)
            places.append(seen[0] if seen else len(anchors) - 1)
        columns.append(torch.tensor(places))

    def coefficients(t: Tensor) -> Tensor:
        result = torch.zeros(len(t), len(anchors), dtype=torch.float64)
        which = torch.bucketize(t, torch.tensor(starts[1:], dtype=torch.float64), right=True)
        for k, path in enumerate(mixes):
            rows = (which == k).nonzero()[:, 0]
            local = ((t[rows] - starts[k]) / shares[k]).clamp(0, 1)
            part = path.coefficients(local)
            result[rows] = result[rows].index_add(1, columns[k], part)
        return result

    return Path(tuple(anchors), coefficients, name, tuple(knots))


def grid(points: int | Sequence[float] | Tensor, knots: Sequence[float] = (0.0, 1.0)) -> Tensor:
    """Times at which to look at a path: sorted, float64, the knots among them and exact.

    Parameters
    ----------
    points : how many evenly spaced times from 0 to 1, or the times themselves. One that misses a
        knot by rounding gives way to it.
    """
    if isinstance(points, Integral):
        if points < 2:
            raise ValueError(f"at least 2 points are needed to see a path, not {points}")
        points = torch.linspace(0, 1, int(points), dtype=torch.float64)
    t = torch.as_tensor(points, dtype=torch.float64, device="cpu").reshape(-1)
    if not torch.isfinite(t).all():
        raise ValueError(f"points must be finite times, not {t.tolist()}")
    bends = torch.tensor(list(knots), dtype=torch.float64)
    beside = (t[:, None] - bends).abs().min(1).values > 1e-12
    return torch.cat([t[beside], bends]).unique()


def _times(t: Sequence[float] | Tensor, path: AnyPath) -> Tensor:
    """Check that every t lies in the path's domain; rounding may miss an end by 1e-9."""
    times = torch.as_tensor(t, dtype=torch.float64, device="cpu").reshape(-1)
    low, high = path.domain
    wrong = ~(torch.isfinite(times) & (times >= low - 1e-9) & (times <= high + 1e-9))
    if wrong.any():
        raise ValueError(
            f"path {path.name!r} has no point at t = {times[wrong][0].item():g};"
            f" it is defined for {low:g} ≤ t ≤ {high:g}"
        )
    return times.clamp(low, high)


def _check(shape: AnyPath | Sheet) -> None:
    """Anchors that fit each other, knots that run from 0 to 1."""
    if not isinstance(shape, FunctionPath):
        if not shape.anchors:
            raise ValueError(f"{shape.name!r} has no anchors; a mix needs at least one")
        for k, anchor in enumerate(shape.anchors):
            check_weights(anchor, like=shape.anchors[0], name=f"anchor {k} of {shape.name!r}")
    if not isinstance(shape, Sheet):
        knots = shape.knots
        if knots[0] != 0 or knots[-1] != 1 or any(a >= b for a, b in pairwise(knots)):
            raise ValueError(f"the knots of {shape.name!r} must rise from 0 to 1, not {knots}")
