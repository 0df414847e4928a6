"""One evaluation of each point of a path gives everything that anyone wants to know of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from .chains import SweptPath
from .checks import check_inputs_like, check_network, check_split, check_splits, describe
from .data import Split
from .forward import sweep
from .paths import AnyPath, FunctionPath, Path, joined_lengths, pieces
from .sheets import Sheet
from .times import from_steps
from .weights import Weights, check_weights, distance


@dataclass(frozen=True)
class Seen:
    """What was seen at T points, on S splits.

    Attributes
    ----------
    loss : Tensor, shape (S, T), float64
        Mean cross-entropy in nats.
    correct : Tensor, shape (S, T), int64
        Number of correct answers.
    said : Tensor, shape (T, images, classes)
        Outputs for the images that were asked about, on the CPU.
    travelled : Tensor, shape (T,), float64
        Euclidean length from the first point of a path; zero on a sheet.
    noted : list of T
        What `note` returned at each point.
    """

    loss: Tensor
    correct: Tensor
    said: Tensor
    travelled: Tensor
    noted: list[Any]


@torch.no_grad()
def look(
    network: nn.Module,
    path: AnyPath | Sheet,
    t: Tensor,
    splits: Sequence[Split],
    *,
    statistics: Split | None = None,
    asked: Tensor | None = None,
    note: Callable[[Weights], Any] | None = None,
) -> Seen:
    """Look at each point of a path or sheet once; a plain function of t is called T times.

    Parameters
    ----------
    network, path, statistics
        As for `evaluation.profile`; BatchNorm's statistics default to those of the first split.
    t : Tensor, shape (T,) or (T, 2), float64
        The points: sorted times, or places on a sheet.
    splits : one Split or several, with the same classes
    asked : Tensor, shape (images, …), optional
        More inputs, of which the outputs are wanted.
    note : function of Weights, optional
        Is shown the weights at each point.

    Raises
    ------
    ValueError
        If one of them is of another kind, splits differ in the number of classes or the shape of
        inputs, the weights do not fit the network, it has fewer outputs than there are classes,
        or a loss is not finite.
    """
    check_network(network)
    if not isinstance(path, Path | FunctionPath | Sheet):
        raise ValueError(f"a path or a Sheet is needed, not {describe(path)}")
    splits = check_splits(splits)
    first = splits[0]
    if statistics is not None:
        check_inputs_like(check_split(statistics, "statistics"), first)
    inputs = [split.x for split in splits] + ([] if asked is None else [asked])
    x = first.x if len(inputs) == 1 else torch.cat([part.to(first.x) for part in inputs])
    tally = _Tally(splits, inputs, len(t))
    noted: list[Any] = [None] * len(t) if note is not None else []
    walked = []
    for piece, times, rows in pieces(path, t):
        walk = None
        if isinstance(piece, FunctionPath) and not isinstance(piece, SweptPath):
            walk = _Walk(network, piece, times)
        marks: list[Any] = []

        def arrive(weights: Weights, walk: _Walk | None = walk, marks: list[Any] = marks) -> None:
            if walk is not None:
                walk.arrive(weights)
            if note is not None:
                marks.append(note(weights))

        watched = arrive if walk is not None or note is not None else None
        for at, images, out in sweep(network, piece, times, x, statistics or first, watched):
            tally.add(rows[at], images, out)
        for row, mark in zip(rows.tolist(), marks, strict=False):
            noted[row] = mark
        walked.append((rows, piece, times, walk))
    for nats, split in zip(tally.loss, splits, strict=True):
        nats /= len(split)
    _check_finite(tally.loss, t, path.name, splits)
    travelled = torch.zeros(len(t), dtype=torch.float64)
    if not isinstance(path, Sheet):
        lengths = [
            (rows, from_steps(walk.steps) if walk else piece.travelled(times))
            for rows, piece, times, walk in walked
        ]
        travelled = joined_lengths(path, t, lengths)
    return Seen(tally.loss, tally.correct, tally.said, travelled, noted)


class _Tally:
    """Losses, correct answers and outputs, as they come in."""

    def __init__(self, splits: Sequence[Split], inputs: Sequence[Tensor], points: int) -> None:
        self.splits, self.inputs, self.points = splits, inputs, points
        self.ends = list(accumulate(map(len, inputs)))
        self.loss = torch.zeros(len(splits), points, dtype=torch.float64)
        self.correct = torch.zeros(len(splits), points, dtype=torch.int64)
        self.said = torch.zeros(points, 0, 0)

    def add(self, at: Tensor, images: slice, out: Tensor) -> None:
        """Add a part of a `sweep`."""
        _check_classes(out, self.splits[0])
        for k, (part, end) in enumerate(zip(self.inputs, self.ends, strict=True)):
            start = end - len(part)
            low, high = max(images.start, start), min(images.stop, end)
            if low >= high:
                continue
            own = out[:, low - images.start : high - images.start]  # (P or 1, n, classes)
            if k == len(self.splits):
                if not self.said.numel():
                    self.said = torch.empty(self.points, len(part), out.shape[-1])
                self.said[at, low - start : high - start] = own.float().cpu()
                continue
            y = self.splits[k].y[low - start : high - start].to(own.device).expand(len(own), -1)
            nats, right = _judged(own, y)
            self.loss[k].index_add_(0, at, nats.sum(1, dtype=torch.float64).cpu().expand(len(at)))
            self.correct[k].index_add_(0, at, right.sum(1).cpu().expand(len(at)))


def _judged(out: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of outputs (P, n, classes), and whether their largest is that of y: (P, n).

    As torch's cross_entropy and argmax, which take four times as long for ten classes: here they
    come first in memory.
    """
    z = out.movedim(-1, 0).contiguous()
    z = z - z.amax(0)  # (classes, P, n), the largest at zero
    own = z.gather(0, y[None])[0]
    nats = z.exp().sum(0).log() - own
    right = own == 0
    if int((z == 0).sum()) > right.numel():  # where two are the largest, the first counts
        right = out.argmax(-1) == y
    return nats, right


class _Walk:
    """What is known of a path that is a plain function only while it is walked."""

    def __init__(self, network: nn.Module, path: FunctionPath, t: Tensor) -> None:
        self.network, self.name, self.times = network, path.name, iter(t.tolist())
        self.shapes = {key: value.shape for key, value in network.named_parameters()}
        self.last: Weights | None = None
        self.steps: list[float] = []

    def arrive(self, weights: Weights) -> None:
        """Refuse what does not fit the network, by the name of the point; add up the length."""
        name = f"{self.name!r} at t = {next(self.times):g}"
        if {key: getattr(value, "shape", None) for key, value in weights.items()} != self.shapes:
            check_weights(weights, like=self.network, name=name)
        if self.last is not None:
            try:
                self.steps.append(distance(self.last, weights))
            except ValueError:  # something is not finite
                check_weights(weights, name=name)
                raise
        self.last = weights


def _check_classes(out: Tensor, split: Split) -> None:
    if out.dim() != 3:
        raise ValueError(
            f"the network gives outputs of shape {tuple(out.shape[2:])} for each input of"
            f" {split.name!r}; it must give a number for each class"
        )
    if out.shape[-1] < len(split.classes):
        raise ValueError(
            f"{split.name!r} has {len(split.classes)} classes, the network {out.shape[-1]}"
            " outputs; use a network with one output for each class"
        )


def _check_finite(loss: Tensor, t: Tensor, name: str, splits: Sequence[Split]) -> None:
    if torch.isfinite(loss).all():
        return
    bad = ~torch.isfinite(loss)
    k = int(bad.any(1).nonzero()[0])
    raise ValueError(
        f"{name!r} on {splits[k].name}: the loss is not finite at"
        f" t = {t[bad[k]][0].tolist()}; the weights there overflow"
    )
