"""Loss and accuracy along a path or over a sheet, in one call."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from .chains import SweptPath
from .checks import check_choice, check_split, check_splits, check_whole
from .data import Split
from .look import Seen, look
from .paths import AnyPath, FunctionPath, Path, as_path
from .sheets import Sheet, check_sheet
from .times import grid
from .weights import Weights

Baseline = Literal["linear", "mean", "max"]


@dataclass(frozen=True)
class Profile:
    """What a path looks like on one split.

    Attributes
    ----------
    name, split : str
        What was looked at, and on which split.
    t : Tensor, shape (T,), float64
        Sorted times.
    travelled : Tensor, shape (T,), float64
        Euclidean length from the first of them.
    loss : Tensor, shape (T,), float64
        Mean cross-entropy in nats.
    correct : Tensor, shape (T,), int64
        Number of correct answers, out of `count`.
    count : int
        Number of images.
    """

    name: str
    split: str
    t: Tensor
    travelled: Tensor
    loss: Tensor
    correct: Tensor
    count: int

    @property
    def accuracy(self) -> Tensor:
        """Fraction of correct answers: shape (T,), float64."""
        return self.correct.double() / self.count

    @property
    def worst_accuracy(self) -> float:
        """Lowest accuracy between the ends."""
        return float(self.accuracy[self._between].min())

    @property
    def worst_loss(self) -> float:
        """Highest loss between the ends, in nats."""
        return float(self.loss[self._between].max())

    @property
    def length(self) -> float:
        """Euclidean length between the ends."""
        along = self.travelled[self._between]
        return float(along[-1] - along[0])

    @property
    def mean_loss(self) -> float:
        """Mean loss per unit of length between the ends, in nats: t need not be arc length."""
        along, loss = self.travelled[self._between], self.loss[self._between]
        if along[-1] == along[0]:
            return float(loss[0])
        return float(torch.trapezoid(loss, along) / (along[-1] - along[0]))

    def barrier(self, baseline: Baseline = "linear", *, of: Literal["loss", "error"] = "loss"):
        """How far the path rises above its ends; never below zero.

        Parameters
        ----------
        baseline : str
            What the ends are worth at t. "linear": (1 − t) L(0) + t L(1) [1]_; "mean": their
            mean [2]_; "max": the worse one [3]_.
        of : str
            "loss" gives nats, "error" the fraction of wrong answers.

        Raises
        ------
        ValueError
            If there is no such baseline or quantity.

        References
        ----------
        .. [1] Entezari et al., The Role of Permutation Invariance in Linear Mode Connectivity of
           Neural Networks, 2022.
        .. [2] Frankle et al., Linear Mode Connectivity and the Lottery Ticket Hypothesis, 2020.
        .. [3] Kuditipudi et al., Explaining Landscape Connectivity of Low-cost Solutions for
           Multilayer Nets, 2019.
        """
        check_choice(of, "of", ("loss", "error"))
        check_choice(baseline, "baseline", ("linear", "mean", "max"))
        values = self.loss if of == "loss" else 1 - self.accuracy
        t, values = self.t[self._between], values[self._between]
        first, last = values[0], values[-1]
        if baseline == "linear":
            base = (1 - t) * first + t * last
        elif baseline == "mean":
            base = (first + last) / 2
        else:
            base = torch.maximum(first, last)
        return max(float((values - base).max()), 0.0)

    @property
    def _between(self) -> Tensor:
        return (self.t >= 0) & (self.t <= 1)

    def __repr__(self) -> str:
        return (
            f"Profile({self.name} on {self.split}, {len(self.t)} points,"
            f" worst accuracy {self.worst_accuracy:.2f}, barrier {self.barrier():.2f} nats)"
        )


@dataclass(frozen=True)
class Survey:
    """What a sheet looks like on one split, over a grid of points.

    Attributes
    ----------
    name, split : str
        What was looked at, and on which split.
    u, v : Tensor, shapes (U,) and (V,), float64
        The grid's axes.
    loss, accuracy : Tensor, shape (V, U), float64
        Mean cross-entropy in nats, fraction of correct answers; nan outside the sheet.
    """

    name: str
    split: str
    u: Tensor
    v: Tensor
    loss: Tensor
    accuracy: Tensor

    def __repr__(self) -> str:
        low, high = self.accuracy.nan_to_num(2.0).min(), self.accuracy.nan_to_num(-1.0).max()
        return (
            f"Survey({self.name} on {self.split}, {len(self.u)}×{len(self.v)} points,"
            f" accuracy {float(low):.2f} to {float(high):.2f})"
        )


class Score(NamedTuple):
    """How a network does on a split: mean cross-entropy in nats, fraction of correct answers."""

    loss: float
    accuracy: float


def profile(
    network: nn.Module,
    path: AnyPath | Callable[[float], Weights],
    split: Split,
    points: int | Sequence[float] | Tensor = 61,
    *,
    refine: int = 0,
    statistics: Split | None = None,
) -> Profile:
    """Loss and accuracy of a network along a path.

    Parameters
    ----------
    network : nn.Module
        The architecture; its own weights play no part and are not touched.
    path : path, or function of t in [0, 1] that gives Weights
    split : Split
        The images and labels. They follow the weights' device and precision.
    points : int or times
        How many evenly spaced points, or the points themselves. The path's knots are always
        added, and the ends with them.
    refine : int
        How often to look again half-way to both neighbours of the highest loss found, so that a
        peak between two points does not escape.
    statistics : Split, optional
        For networks with BatchNorm, the images on which running statistics are recomputed at
        every point; `split` itself if not given.

    Raises
    ------
    ValueError
        If weights, network and split do not fit, the path has no point at a given t, a loss along
        the path is not finite, or something of another kind is given.

    Notes
    -----
    For a mix of K anchors, about K forward passes of the first moving layer, and T of the layers
    above it. A plain function of t is called once for each point; with `refine` all its points
    are held in memory meanwhile.

    Examples
    --------
    >>> from modeconn_lite import data, profile, segment, zoo
    >>> a, b = zoo.load("digits")[:2]
    >>> profile(zoo.network("digits"), segment(a, b), data.load("digits").test)
    Profile(linear on digits test, 61 points, worst accuracy 0.52, barrier 1.36 nats)
    """
    check_split(split)
    (seen,) = profiles(network, path, [split], points, refine=refine, statistics=statistics)
    return seen


def profiles(
    network: nn.Module,
    path: AnyPath | Callable[[float], Weights],
    splits: Sequence[Split],
    points: int | Sequence[float] | Tensor = 61,
    *,
    refine: int = 0,
    statistics: Split | None = None,
) -> list[Profile]:
    """The profile on each of several splits; see `profile`.

    The weights at each point are made once for all, which counts where they are costly. A peak is
    looked for with `refine` on the first split.

    Raises
    ------
    ValueError
        As `profile`; if there is no split; if they differ in the number of classes.
    """
    path, splits = as_path(path), check_splits(splits)
    check_whole(refine, "refine")
    path = _remembering(path) if refine else path
    t = grid(points, path.knots)
    if not torch.as_tensor(points).numel():
        raise ValueError("points is empty; give times, or say how many")
    seen = look(network, path, t, splits, statistics=statistics)
    loss, correct, travelled = seen.loss, seen.correct, seen.travelled
    for _ in range(refine):
        inside = (t >= 0) & (t <= 1)
        peak = int(loss[0].where(inside, -torch.inf).argmax())
        near = t[max(peak - 1, 0) : peak + 2]
        more = look(network, path, (near[1:] + near[:-1]) / 2, splits, statistics=statistics)
        t, order = torch.cat([t, (near[1:] + near[:-1]) / 2]).sort()
        loss = torch.cat([loss, more.loss], 1)[:, order]
        correct = torch.cat([correct, more.correct], 1)[:, order]
    if refine:
        travelled = path.travelled(t)
    return profiles_of(
        path.name, splits, t, replace(seen, loss=loss, correct=correct, travelled=travelled)
    )


def _remembering(path: AnyPath) -> AnyPath:
    """The same path; where it is a plain function, called once for each point."""
    if not isinstance(path, FunctionPath) or isinstance(path, SweptPath):
        return path
    parts = tuple(replace(part, path=_remembering(part.path)) for part in path.parts)
    return replace(path, function=cache(path.function), parts=parts)


def profiles_of(name: str, splits: Sequence[Split], t: Tensor, seen: Seen) -> list[Profile]:
    """What was seen at the times t, shape (T,), as a profile for each split."""
    return [
        Profile(name, split.name, t, seen.travelled, nats, right, len(split))
        for split, nats, right in zip(splits, seen.loss, seen.correct, strict=True)
    ]


def survey(
    network: nn.Module,
    sheet: Sheet,
    split: Split,
    points: int = 31,
    *,
    statistics: Split | None = None,
) -> Survey:
    """Loss and accuracy over a `points` × `points` grid of a sheet; see `profile`.

    Raises
    ------
    ValueError
        If there are fewer than two points a side, no point of the grid lies on the sheet, or as
        `profile`.

    Examples
    --------
    >>> from modeconn_lite import data, survey, triangle, zoo
    >>> corners = triangle(*zoo.load("digits")[:3])
    >>> survey(zoo.network("digits"), corners, data.load("digits").test, 5)
    Survey(triangle on digits test, 5×5 points, accuracy 0.22 to 0.98)
    """
    check_split(split)
    (seen,) = surveys(network, sheet, [split], points, statistics=statistics)
    return seen


def surveys(
    network: nn.Module,
    sheet: Sheet,
    splits: Sequence[Split],
    points: int = 31,
    *,
    statistics: Split | None = None,
) -> list[Survey]:
    """The survey on each of several splits, every point evaluated once for all."""
    u, v, places, on = survey_grid(sheet, points)
    seen = look(network, sheet, places[on], splits, statistics=statistics)
    return surveys_of(sheet.name, splits, u, v, on, seen)


def survey_grid(sheet: Sheet, points: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Axes u and v, shape (points,), all places, (points², 2), and which lie on the sheet."""
    points = check_whole(points, "points", low=2)
    u0, u1, v0, v1 = check_sheet(sheet).extent
    u = torch.linspace(u0, u1, points, dtype=torch.float64)
    v = torch.linspace(v0, v1, points, dtype=torch.float64)
    places = torch.cartesian_prod(v, u).flip(1)
    on = sheet.holds(places)
    if not on.any():
        raise ValueError(f"no point of the grid lies on {sheet.name!r}; change its extent")
    return u, v, places, on


def surveys_of(
    name: str, splits: Sequence[Split], u: Tensor, v: Tensor, on: Tensor, seen: Seen
) -> list[Survey]:
    """What was seen at those places of a grid that are `on` the sheet, as surveys."""
    found = []
    for split, nats, right in zip(splits, seen.loss, seen.correct, strict=True):
        loss, accuracy = torch.full((2, len(on)), torch.nan, dtype=torch.float64)
        loss[on], accuracy[on] = nats, right.double() / len(split)
        shape = len(v), len(u)
        found.append(Survey(name, split.name, u, v, loss.view(shape), accuracy.view(shape)))
    return found


def evaluate(
    network: nn.Module, weights: Weights, split: Split, *, statistics: Split | None = None
) -> Score:
    """Mean cross-entropy in nats and accuracy of one network with given weights.

    Raises
    ------
    ValueError
        As `profile`.

    Examples
    --------
    >>> from modeconn_lite import data, evaluate, zoo
    >>> score = evaluate(zoo.network("digits"), zoo.load("digits")[0], data.load("digits").test)
    >>> f"{score.loss:.2f} nats, {score.accuracy:.2f} correct"
    '0.05 nats, 0.98 correct'
    """
    check_split(split)
    here = Path((weights,), lambda t: torch.ones(len(t), 1, dtype=torch.float64), "weights")
    start = torch.zeros(1, dtype=torch.float64)
    seen = look(network, here, start, [split], statistics=statistics)
    return Score(float(seen.loss), float(seen.correct) / len(split))
