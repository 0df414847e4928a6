"""Loss and accuracy along a path or over a sheet, in one call."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .data import Split
from .forward import blocks
from .paths import AnyPath, FunctionPath, Path, Sheet, grid
from .weights import Weights

Baseline = Literal["linear", "mean", "max"]


@dataclass(frozen=True)
class Profile:
    """What a path looks like on one split.

    Attributes
    ----------
    t, travelled, loss, accuracy : shape (T,), float64. Time, Euclidean length from the start,
        mean cross-entropy in nats, fraction of correct answers.
    correct, count : correct answers at each t, shape (T,), out of `count` images.
    """

    name: str
    split: str
    t: Tensor = field(repr=False)
    travelled: Tensor = field(repr=False)
    loss: Tensor = field(repr=False)
    correct: Tensor = field(repr=False)
    count: int = field(repr=False)

    @property
    def accuracy(self) -> Tensor:
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
        baseline : what the ends are worth at t. "linear": (1 − t) L(0) + t L(1), as Entezari et
            al. (2022); "mean": their mean, as Frankle et al. (2020); "max": the worse one, as
            Kuditipudi et al. (2019).
        of : "loss" gives nats, "error" the fraction of wrong answers.
        """
        values = self.loss if of == "loss" else 1 - self.accuracy
        if of not in ("loss", "error"):
            raise ValueError(f"of must be 'loss' or 'error', not {of!r}")
        t, values = self.t[self._between], values[self._between]
        first, last = values[0], values[-1]
        if baseline == "linear":
            base = (1 - t) * first + t * last
        elif baseline == "mean":
            base = (first + last) / 2
        elif baseline == "max":
            base = torch.maximum(first, last)
        else:
            raise ValueError(f"baseline must be 'linear', 'mean' or 'max', not {baseline!r}")
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
    u, v : shapes (U,) and (V,): the grid. loss, accuracy : shape (V, U); nan outside the sheet.
    """

    name: str
    split: str
    u: Tensor = field(repr=False)
    v: Tensor = field(repr=False)
    loss: Tensor = field(repr=False)
    accuracy: Tensor = field(repr=False)

    def __repr__(self) -> str:
        low, high = self.accuracy.nan_to_num(2.0).min(), self.accuracy.nan_to_num(-1.0).max()
        return (
            f"Survey({self.name} on {self.split}, {len(self.u)}×{len(self.v)} points,"
            f" accuracy {float(low):.2f} to {float(high):.2f})"
        )


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
    network : the architecture; its own weights play no part and are not touched.
    path : a path, or any function of t in [0, 1] that gives weights.
    split : the images and labels. They follow the weights' device and precision.
    points : how many evenly spaced points, or the points themselves. The path's knots are always
        added, and the ends with them.
    refine : how often to look again half-way to both neighbours of the highest loss found, so
        that a peak between two points does not escape.
    statistics : for networks with BatchNorm, the images on which running statistics are
        recomputed at every point; `split` itself if not given.

    Raises
    ------
    ValueError
        If weights and network do not fit, the path has no point at a given t, or a loss along
        the path is not finite.

    Notes
    -----
    For a mix of K anchors, about K forward passes of the first moving layer, and T of the layers
    above it.
    """
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
    """
    if not isinstance(path, Path | FunctionPath):
        path = FunctionPath(path, getattr(path, "__name__", "path"))
    t = grid(points, path.knots)
    loss, correct = _evaluate(network, path, t, splits, statistics)
    for _ in range(refine):
        inside = (t >= 0) & (t <= 1)
        peak = int(loss[0].where(inside, -torch.inf).argmax())
        near = t[max(peak - 1, 0) : peak + 2]
        more = (near[1:] + near[:-1]) / 2
        new_loss, new_correct = _evaluate(network, path, more, splits, statistics)
        t, order = torch.cat([t, more]).sort()
        loss = torch.cat([loss, new_loss], 1)[:, order]
        correct = torch.cat([correct, new_correct], 1)[:, order]
    travelled = path.travelled(t)
    return [
        Profile(path.name, split.name, t, travelled, nats, right, len(split))
        for split, nats, right in zip(splits, loss, correct, strict=True)
    ]


def survey(
    network: nn.Module,
    sheet: Sheet,
    split: Split,
    points: int = 31,
    *,
    statistics: Split | None = None,
) -> Survey:
    """Loss and accuracy over a `points` × `points` grid of a sheet; see `profile`."""
    if points < 2:
        raise ValueError(f"a survey needs at least 2 points a side, not {points}")
    u0, u1, v0, v1 = sheet.extent
    u = torch.linspace(u0, u1, points, dtype=torch.float64)
    v = torch.linspace(v0, v1, points, dtype=torch.float64)
    places = torch.cartesian_prod(v, u).flip(1)
    on = torch.ones(len(places), dtype=torch.bool) if sheet.inside is None else sheet.inside(places)
    loss = torch.full((len(places),), torch.nan, dtype=torch.float64)
    accuracy = loss.clone()
    (loss[on],), (correct,) = _evaluate(network, sheet, places[on], [split], statistics)
    accuracy[on] = correct.double() / len(split)
    shape = (points, points)
    return Survey(sheet.name, split.name, u, v, loss.view(shape), accuracy.view(shape))


def evaluate(
    network: nn.Module, weights: Weights, split: Split, *, statistics: Split | None = None
) -> tuple[float, float]:
    """Mean cross-entropy in nats and accuracy of one network with given weights."""
    here = Path((weights,), lambda t: torch.ones(len(t), 1, dtype=torch.float64), "point")
    start = torch.zeros(1, dtype=torch.float64)
    loss, correct = _evaluate(network, here, start, [split], statistics)
    return float(loss), float(correct) / len(split)


@torch.no_grad()
def _evaluate(
    network: nn.Module,
    path: AnyPath | Sheet,
    t: Tensor,
    splits: Sequence[Split],
    statistics: Split | None,
) -> tuple[Tensor, Tensor]:
    """Mean loss and correct answers on each split at each t: (S, T), (S, T)."""
    loss = torch.zeros(len(splits), len(t), dtype=torch.float64)
    correct = torch.zeros(len(splits), len(t), dtype=torch.int64)
    first, *others = splits
    x, labels = first.x, first.y
    if others:
        x = torch.cat([s.x.to(first.x) for s in splits])
        labels = torch.cat([s.y.to(first.y) for s in splits])
    ends = list(accumulate(len(s) for s in splits))
    for at, images, out in blocks(network, path, t, x, statistics or first):
        if out.shape[-1] < len(first.classes):
            raise ValueError(
                f"{first.name!r} has {len(first.classes)} classes, the network {out.shape[-1]}"
                " outputs; use a network with one output for each class"
            )
        y = labels[images].to(out.device).expand(len(out), -1)
        nats = F.cross_entropy(out.flatten(0, 1), y.flatten(), reduction="none").view_as(y)
        right = out.argmax(-1) == y
        for k, (split, end) in enumerate(zip(splits, ends, strict=True)):
            low, high = max(images.start, end - len(split)), min(images.stop, end)
            if low < high:
                own = slice(low - images.start, high - images.start)
                loss[k, at] += nats[:, own].sum(1, dtype=torch.float64).cpu()
                correct[k, at] += right[:, own].sum(1).cpu()
    bad = ~torch.isfinite(loss)
    if bad.any():
        k = int(bad.any(1).nonzero()[0])
        raise ValueError(
            f"{path.name!r} on {splits[k].name}: the loss is not finite at"
            f" t = {t[bad[k]][0].tolist()}; the weights there overflow"
        )
    return loss / torch.tensor([[len(s)] for s in splits]), correct
