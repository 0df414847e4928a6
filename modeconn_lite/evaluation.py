"""Loss and accuracy along a path or over a sheet, in one call."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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
    if not isinstance(path, Path | FunctionPath):
        path = FunctionPath(path, getattr(path, "__name__", "path"))
    t = grid(points, path.knots)
    loss, correct = _evaluate(network, path, t, split, statistics)
    for _ in range(refine):
        inside = (t >= 0) & (t <= 1)
        peak = int(loss.where(inside, -torch.inf).argmax())
        near = t[max(peak - 1, 0) : peak + 2]
        more = (near[1:] + near[:-1]) / 2
        new_loss, new_correct = _evaluate(network, path, more, split, statistics)
        t, order = torch.cat([t, more]).sort()
        loss = torch.cat([loss, new_loss])[order]
        correct = torch.cat([correct, new_correct])[order]
    return Profile(path.name, split.name, t, path.travelled(t), loss, correct, len(split))


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
    loss[on], correct = _evaluate(network, sheet, places[on], split, statistics)
    accuracy[on] = correct.double() / len(split)
    shape = (points, points)
    return Survey(sheet.name, split.name, u, v, loss.view(shape), accuracy.view(shape))


def evaluate(
    network: nn.Module, weights: Weights, split: Split, *, statistics: Split | None = None
) -> tuple[float, float]:
    """Mean cross-entropy in nats and accuracy of one network with given weights."""
    here = Path((weights,), lambda t: torch.ones(len(t), 1, dtype=torch.float64), "point")
    loss, correct = _evaluate(network, here, torch.zeros(1, dtype=torch.float64), split, statistics)
    return float(loss), float(correct) / len(split)


@torch.no_grad()
def _evaluate(
    network: nn.Module,
    path: AnyPath | Sheet,
    t: Tensor,
    split: Split,
    statistics: Split | None,
) -> tuple[Tensor, Tensor]:
    """Mean loss, shape (T,), and correct answers, shape (T,), at each t."""
    loss = torch.zeros(len(t), dtype=torch.float64)
    correct = torch.zeros(len(t), dtype=torch.int64)
    labels = split.y
    for at, images, out in blocks(network, path, t, split.x, statistics or split):
        if out.shape[-1] < len(split.classes):
            raise ValueError(
                f"{split.name!r} has {len(split.classes)} classes, the network {out.shape[-1]}"
                " outputs; use a network with one output for each class"
            )
        y = labels[images].to(out.device).expand(len(out), -1)
        nats = F.cross_entropy(out.flatten(0, 1), y.flatten(), reduction="none").view_as(y)
        loss[at] += nats.sum(1, dtype=torch.float64).cpu()
        correct[at] += (out.argmax(-1) == y).sum(1).cpu()
    bad = ~torch.isfinite(loss)
    if bad.any():
        raise ValueError(
            f"{path.name!r} on {split.name}: the loss is not finite at t = {t[bad][0].tolist()};"
            " the weights there overflow"
        )
    return loss / len(split), correct
