"""When to look at a path: its times, its knots, and the words for the pieces between them."""

from collections.abc import Sequence
from itertools import pairwise
from math import inf
from numbers import Integral
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import check_list, check_number, check_numbers, check_whole, check_word, describe


class HasTimes(Protocol):
    """A path, as far as this module needs to know."""

    @property
    def name(self) -> str: ...
    @property
    def knots(self) -> Sequence[float]: ...
    @property
    def domain(self) -> tuple[float, float]: ...
    @property
    def labels(self) -> Sequence[str]: ...


def grid(points: int | Sequence[float] | Tensor, knots: Sequence[float] = (0.0, 1.0)) -> Tensor:
    """Times at which to look at a path: sorted, float64, the knots among them and exact.

    Parameters
    ----------
    points : int or times
        How many evenly spaced times from 0 to 1, or the times themselves. One that misses a knot
        by rounding gives way to it.

    Raises
    ------
    ValueError
        If it is neither, fewer than two points, or a time is not finite.
    """
    if isinstance(points, Integral):
        count = check_whole(points, "points", low=2)
        points = torch.linspace(0, 1, count, dtype=torch.float64)
    t = as_times(points, "points")
    if not t.dim():
        raise ValueError(
            f"points must be a whole number or a list of times, not {describe(points)}"
        )
    if not torch.isfinite(t).all():
        raise ValueError(f"points must be finite times, not {t.tolist()}")
    bends = torch.tensor(list(knots), dtype=torch.float64)
    beside = (t[:, None] - bends).abs().min(1).values > 1e-12
    return torch.cat([t[beside], bends]).unique()


def from_steps(steps: Sequence[float] | Tensor) -> Tensor:
    """Length travelled to each of T points, from the T − 1 lengths between them: shape (T,)."""
    lengths = torch.as_tensor(steps, dtype=torch.float64)
    return F.pad(lengths, (1, 0)).cumsum(0)


def as_times(t: Any, name: str = "t") -> Tensor:
    """One time or a list of them, float64, on the CPU."""
    times = check_numbers(t, name, "a number or a list of them")
    if times.dim() > 1:
        raise ValueError(f"{name} must be a list of times, not of shape {tuple(times.shape)}")
    return times


def times_of(t: Any, path: HasTimes) -> Tensor:
    """Check that every t lies in the path's domain; rounding may miss an end by 1e-9."""
    times = as_times(t)
    low, high = path.domain
    wrong = ~(torch.isfinite(times) & (times >= low - 1e-9) & (times <= high + 1e-9))
    if wrong.any():
        raise ValueError(
            f"path {path.name!r} has no point at t = {times[wrong][0].item():g};"
            f" it is defined for {low:g} ≤ t ≤ {high:g}"
        )
    return times.clamp(low, high)


def one_time(t: Any, path: HasTimes) -> Tensor:
    """One t, shape (1,)."""
    times = times_of(t, path)
    if times.numel() != 1:
        raise ValueError(f"path {path.name!r} gives the weights at one t, not at {len(times)}")
    return times.reshape(1)


def sorted_times(t: Any, path: HasTimes) -> Tensor:
    """One t or more, rising."""
    times = times_of(t, path).reshape(-1)
    if not len(times) or (times.diff() < 0).any():
        raise ValueError(f"lengths need sorted times, at least one, not {describe(t)}")
    return times


def check_pieces(path: HasTimes) -> None:
    """Knots that run from 0 to 1 within the domain, and a label for each piece or none."""
    name = check_word(path.name, "the name of a path")
    given = path.knots.tolist() if isinstance(path.knots, Tensor) else path.knots
    knots = check_list(given, f"the knots of {name!r}", "times", least=0)
    knots = tuple(check_number(knot, f"each knot of {name!r}") for knot in knots)
    if len(knots) < 2 or knots[0] != 0 or knots[-1] != 1 or any(a >= b for a, b in pairwise(knots)):
        raise ValueError(f"the knots of {name!r} must rise from 0 to 1, not {knots}")
    labels = check_list(path.labels, f"the labels of {name!r}", "words", least=0)
    if labels and len(labels) != len(knots) - 1:
        raise ValueError(f"{name!r} has {len(knots) - 1} pieces and {len(labels)} labels")
    for label in labels:
        check_word(label, f"each label of {name!r}")
    low, high = check_list(path.domain, f"the domain of {name!r}", "times", least=2, most=2)
    for end in low, high:
        if end not in (-inf, inf):
            check_number(end, f"each end of the domain of {name!r}")
    if not (low <= 0 and high >= 1):
        raise ValueError(f"the domain of {name!r} must hold all t from 0 to 1, not {low} to {high}")
    # Tuples: nobody can change them afterwards.
    object.__setattr__(path, "knots", knots)
    object.__setattr__(path, "labels", labels)
    object.__setattr__(path, "domain", (low, high))
