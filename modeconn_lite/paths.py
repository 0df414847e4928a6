"""Paths in weight space. Almost every one is a mix of anchors,

    path(t) = sum_k c_k(t) · anchor_k,

and keeps anchors and coefficients in sight, so that evaluation can use that a network's first
layer is linear in its weights. What is no mix is a plain function of t.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import comb, inf, pi
from typing import Any

import torch
from torch import Tensor, nn

from .checks import check_list, check_whole, describe
from .times import check_pieces, from_steps, grid, one_time, sorted_times, times_of
from .weights import Weights, check_weights, combined, distance, inner

Coefficients = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Path:
    """A path through weight space that is a mix of anchors.

    Parameters
    ----------
    anchors : sequence of Weights
        The K weight vectors that are mixed.
    coefficients : function
        Maps t, shape (T,), float64, to the coefficients, shape (T, K).
    name : str
        How figures and tables call the path.
    knots : sequence of float
        Where the path starts, bends and ends; profiles always include them.
    domain : pair of float
        The smallest and largest t at which the path is defined.
    labels : sequence of str
        A word for each piece between two knots, or none at all.

    Raises
    ------
    ValueError
        If anchors do not fit each other, knots do not rise from 0 to 1, there is not one label
        for each piece, or one of them is of another kind. Coefficients of another shape or that
        are not finite are refused when a point is asked for.

    Examples
    --------
    >>> import torch
    >>> from modeconn_lite import Path
    >>> a, b = {"w": torch.zeros(2)}, {"w": torch.ones(2)}
    >>> slow_start = Path((a, b), lambda t: torch.stack([1 - t**2, t**2], 1), "slow start")
    >>> slow_start(0.5)
    {'w': tensor([0.2500, 0.2500])}
    """

    anchors: Sequence[Weights]
    coefficients: Coefficients
    name: str = "path"
    knots: Sequence[float] = (0.0, 1.0)
    domain: tuple[float, float] = (0.0, 1.0)
    labels: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_pieces(self)
        check_mix(self.anchors, self.coefficients, self.name)

    def mixture(self, t: Sequence[float] | Tensor) -> Tensor:
        """Coefficients of the anchors at each t: shape (T, K), float64, on the CPU."""
        # Rounded, so that at a knot the other anchors count for nothing rather than for 1e-17.
        times = times_of(t, self).reshape(-1)
        rows = rows_at(self.coefficients, times, len(self.anchors), self.name)
        return rows.round(decimals=13)

    def __call__(self, t: float) -> Weights:
        """Weights at t. At a knot whose mix is a single anchor, that anchor to the bit."""
        return combined(self.mixture(one_time(t, self))[0], self.anchors)

    def corners(self) -> list[Weights]:
        """The weights at the knots."""
        return [self(t) for t in self.knots]

    def length(self, points: int = 1001) -> float:
        """Euclidean length from t = 0 to t = 1, by chords between `points` times and the knots."""
        times = grid(check_whole(points, "points", low=2), self.knots)
        return float(self.travelled(times)[-1])

    def travelled(self, t: Sequence[float] | Tensor) -> Tensor:
        """Length travelled from the first of the sorted times to each of them: shape (T,).

        Chord lengths come from inner products of anchors, of those that a step changes together:
        at most K² of them, some 2 K for a polychain, whatever T.
        """
        times = sorted_times(t, self)
        if len(times) == 1:
            return from_steps([])
        steps = self.mixture(times).diff(dim=0)  # (T − 1, K)
        changed = (steps != 0).double()
        gram = torch.zeros(len(self.anchors), len(self.anchors), dtype=torch.float64)  # (K, K)
        for k, m in (changed.T @ changed).triu().nonzero().tolist():
            gram[k, m] = gram[m, k] = inner(self.anchors[k], self.anchors[m])
        squared = ((steps @ gram) * steps).sum(1)  # (T − 1,)
        return from_steps(squared.clamp(min=0).sqrt())

    def __repr__(self) -> str:
        return f"Path({self.name}, {len(self.anchors)} anchors, {len(self.knots) - 1} pieces)"


@dataclass(frozen=True)
class FunctionPath:
    """A path that is no mix of anchors: a plain function of t, with the same knots and domain.

    Parameters
    ----------
    function : function of t that gives Weights
    name, knots, domain, labels
        As for `Path`.
    parts : sequence of Part
        The paths of which it is joined, if it is: whoever looks at many points looks at theirs.

    Raises
    ------
    ValueError
        If it is no function of t alone, or one of the others is not as for `Path`. What is no
        dictionary of tensors is refused when a point is asked for.

    Examples
    --------
    >>> import torch
    >>> from modeconn_lite import FunctionPath
    >>> circle = FunctionPath(lambda t: {"w": torch.tensor([torch.pi * t]).cos()}, "circle")
    >>> circle(1.0)
    {'w': tensor([-1.])}
    """

    function: Callable[[float], Weights] = field(repr=False)
    name: str = "path"
    knots: Sequence[float] = (0.0, 1.0)
    domain: tuple[float, float] = (0.0, 1.0)
    labels: Sequence[str] = ()
    parts: Sequence["Part"] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        check_pieces(self)
        _check_function(self.function)

    def __call__(self, t: float) -> Weights:
        """Weights at t, whatever the function gives."""
        time = float(one_time(t, self))
        weights = self.function(time)
        if not isinstance(weights, dict) or not weights:
            raise ValueError(
                f"path {self.name!r} gives {describe(weights)} at t = {time:g}; its function must"
                " return Weights, a dict of tensors"
            )
        return weights

    def corners(self) -> list[Weights]:
        """The weights at the knots."""
        return [self(t) for t in self.knots]

    def length(self, points: int = 101) -> float:
        """Euclidean length from t = 0 to t = 1, by chords; each costs a call of the function."""
        times = grid(check_whole(points, "points", low=2), self.knots)
        return float(self.travelled(times)[-1])

    def travelled(self, t: Sequence[float] | Tensor) -> Tensor:
        """Length travelled from the first of the sorted times to each of them: shape (T,)."""
        times = sorted_times(t, self)
        if self.parts:
            own = [(rows, path.travelled(at)) for path, at, rows in pieces(self, times)]
            return joined_lengths(self, times, own)
        before, *others = times.tolist()
        steps, here = [], self(before)
        for time in others:
            last, here = here, self(time)
            steps.append(distance(last, here))
        return from_steps(steps)


AnyPath = Path | FunctionPath


@dataclass(frozen=True)
class Part:
    """A path as a part of a longer one.

    Attributes
    ----------
    path : path
    start : float
        The longer path's t at which it starts.
    share : float
        How much of the longer path's t it takes; negative if it is walked backwards.
    """

    path: AnyPath
    start: float
    share: float

    def __call__(self, t: float) -> Weights:
        """Weights at the longer path's t."""
        return self.path(min(max((t - self.start) / self.share, 0.0), 1.0))


def pieces(path: Any, t: Tensor) -> Iterator[tuple[Any, Tensor, Tensor]]:
    """What a path is joined of, down to what is not: (path, its own times, which of t they are).

    Parameters
    ----------
    path : path
        Or a sheet, which is not joined of anything.
    t : Tensor, shape (T,), float64, sorted
    """
    if not isinstance(path, FunctionPath) or not path.parts:
        yield path, t, torch.arange(len(t))
        return
    ends = torch.tensor([max(part.start, part.start + part.share) for part in path.parts][:-1])
    which = torch.bucketize(t, ends.double(), right=True)
    for k, part in enumerate(path.parts):
        rows = (which == k).nonzero()[:, 0]
        if not len(rows):
            continue
        own = (t[rows] - part.start) / part.share
        own = own.clamp(0, 1).where((t[rows] >= 0) & (t[rows] <= 1), own)
        if part.share < 0:
            rows, own = rows.flip(0), own.flip(0)
        for deepest, times, inside in pieces(part.path, own):
            yield deepest, times, rows[inside]


def joined_lengths(path: AnyPath, t: Tensor, own: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Length travelled along a joined path to each t: shape (T,).

    Parameters
    ----------
    path : path
    t : Tensor, shape (T,), float64, sorted
    own : sequence of (which of t, length travelled to each)
        Of each of its `pieces`. Chords lead from one to the next.
    """
    steps = torch.full((len(t) - 1,), torch.nan, dtype=torch.float64)
    for rows, along in own:
        steps[torch.minimum(rows[1:], rows[:-1])] = along.diff()
    for i in steps.isnan().nonzero()[:, 0].tolist():
        steps[i] = distance(path(float(t[i])), path(float(t[i + 1])))
    return from_steps(steps)


def as_path(path: AnyPath | Callable[[float], Weights]) -> AnyPath:
    """The path itself; a plain function of t as a `FunctionPath`.

    Raises
    ------
    ValueError
        If it is neither.
    """
    if isinstance(path, Path | FunctionPath):
        return path
    return FunctionPath(path, getattr(path, "__name__", "path"))


def segment(a: Weights, b: Weights, *, name: str = "linear") -> Path:
    """The straight line (1 − t) a + t b. It goes on beyond both ends, so any t is allowed.

    Parameters
    ----------
    a, b : Weights
        Where t is 0 and where it is 1.

    Raises
    ------
    ValueError
        If a and b differ in names, shapes, precision or device.

    Examples
    --------
    >>> import torch
    >>> from modeconn_lite import segment
    >>> line = segment({"w": torch.zeros(2)}, {"w": torch.tensor([3.0, 4.0])})
    >>> line(0.5), round(line.length(), 6)
    ({'w': tensor([1.5000, 2.0000])}, 5.0)
    """
    check_weights(b, like=check_weights(a, name="a"), name="b")
    return Path((a, b), lambda t: torch.stack([1 - t, t], 1), name, domain=(-inf, inf))


def polychain(
    points: Sequence[Weights], *, name: str = "polychain", labels: Sequence[str] = ()
) -> Path:
    """Straight lines through the given weights in turn, equal time for each.

    sum_j max(0, 1 − |t (n − 1) − j|) w_j [1]_. Only the two ends of the piece that t is on have a
    coefficient other than zero.

    Parameters
    ----------
    points : sequence of two Weights or more
    labels : sequence of str
        A word for each line, or none at all.

    Raises
    ------
    ValueError
        If there are fewer than two points, or they do not fit each other.

    References
    ----------
    .. [1] Garipov et al., Loss Surfaces, Mode Connectivity, and Fast Ensembling of DNNs, 2018.

    Examples
    --------
    >>> import torch
    >>> from modeconn_lite import polychain
    >>> corners = [{"w": torch.tensor(p)} for p in ([0.0, 0.0], [3.0, 0.0], [3.0, 4.0])]
    >>> path = polychain(corners)
    >>> path(0.75), round(path.length(), 6), path.knots
    ({'w': tensor([3., 2.])}, 7.0, (0.0, 0.5, 1.0))
    """
    points = check_list(points, "points", "Weights", least=2)
    last = len(points) - 1
    nodes = torch.arange(last + 1, dtype=torch.float64)

    def coefficients(t: Tensor) -> Tensor:
        return (1 - (t[:, None] * last - nodes).abs()).clamp(min=0)

    knots = tuple(j / last for j in range(last + 1))
    return Path(points, coefficients, name, knots, labels=labels)


def bezier(points: Sequence[Weights], *, name: str = "Bézier") -> Path:
    """The Bézier curve with these control points; it passes through the first and the last.

    Coefficients are Bernstein's: binom(n, j) tʲ (1 − t)ⁿ⁻ʲ for n + 1 points.

    Raises
    ------
    ValueError
        If there are fewer than two points, or they do not fit each other.

    Examples
    --------
    >>> import torch
    >>> from modeconn_lite import bezier
    >>> bezier([{"w": torch.tensor([x])} for x in (0.0, 1.0, 0.0)])(0.5)
    {'w': tensor([0.5000])}
    """
    points = check_list(points, "points", "Weights", least=2)
    n = len(points) - 1

    def coefficients(t: Tensor) -> Tensor:
        return torch.stack([comb(n, j) * t**j * (1 - t) ** (n - j) for j in range(n + 1)], 1)

    return Path(points, coefficients, name)


def quarter_turn(a: Weights, b: Weights, centre: Weights, *, name: str = "arc") -> Path:
    """A quarter of the ellipse about a centre: μ + cos(πt/2) (a − μ) + sin(πt/2) (b − μ).

    Raises
    ------
    ValueError
        If the three do not fit each other.

    Examples
    --------
    >>> import torch
    >>> from modeconn_lite.paths import quarter_turn
    >>> east, north, origin = ({"w": torch.tensor(p)} for p in ([1.0, 0], [0, 1.0], [0.0, 0]))
    >>> quarter_turn(east, north, origin)(0.5)
    {'w': tensor([0.7071, 0.7071])}
    """

    def coefficients(t: Tensor) -> Tensor:
        # Sines of both, so that at either end the other coefficients are zero to the bit.
        cos, sin = (pi / 2 * (1 - t)).sin(), (pi / 2 * t).sin()
        return torch.stack([cos, sin, 1 - cos - sin], 1)

    return Path((a, b, centre), coefficients, name)


def check_mix(anchors: Sequence[Weights], coefficients: Coefficients, name: str) -> None:
    """Refuse to mix no anchors at all, or such as do not fit each other."""
    anchors = check_list(anchors, f"the anchors of {name!r}", "Weights")
    for k, anchor in enumerate(anchors):
        check_weights(anchor, like=anchors[0], name=f"anchor {k} of {name!r}")
    if not callable(coefficients) or isinstance(coefficients, type):
        raise ValueError(
            f"the coefficients of {name!r} must be a function, not {describe(coefficients)}"
        )


def rows_at(coefficients: Coefficients, points: Tensor, count: int, name: str) -> Tensor:
    """Coefficients at each of P points, shape (P, count), float64, on the CPU."""
    rows = _rows(coefficients(points), points, count, name)
    if len(points) == count > 1:  # then a shape does not tell rows from columns
        _rows(coefficients(points[:1]), points[:1], count, name)
    return rows


def _rows(found: Any, points: Tensor, count: int, name: str) -> Tensor:
    shape = len(points), count
    if not isinstance(found, Tensor) or found.shape != shape:
        came = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else describe(found)
        raise ValueError(
            f"the coefficients of {name!r} have {came} where {shape} is needed:"
            " a row for each point, in it a number for each anchor"
        )
    if found.is_complex() or found.dtype == torch.bool:
        raise ValueError(f"the coefficients of {name!r} must be real numbers, not {found.dtype}")
    if not torch.isfinite(found).all():
        where = points[~torch.isfinite(found).all(1).cpu()][0].tolist()
        raise ValueError(f"the coefficients of {name!r} are not finite at {where}")
    return found.detach().to("cpu", torch.float64)


def _check_function(function: Any) -> None:
    """A function of t alone. What it gives is seen when it is called."""
    hint = "; of weights alone, see evaluate" if isinstance(function, dict) else ""
    if isinstance(function, type | nn.Module) or not callable(function):
        raise ValueError(
            "a path is a Path or a function of t that gives Weights, not"
            f" {describe(function)}{hint}"
        )
    try:
        inspect.signature(function).bind(0.0)
    except TypeError as error:
        raise ValueError(
            f"a path is a function of t alone; {describe(function)} cannot be called with one"
            f" number: {error}"
        ) from error
    except ValueError:  # something of C that does not say what it takes
        pass
