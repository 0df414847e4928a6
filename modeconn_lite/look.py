"""One evaluation of each point of a path gives everything that anyone wants to know of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import check_inputs_like, check_network, check_split, check_splits, describe
from .data import Split
from .forward import sweep
from .paths import AnyPath, FunctionPath, Path
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
    first, noted = splits[0], []
    if statistics is not None:
        check_inputs_like(check_split(statistics, "statistics"), first)
    walk = _Walk(network, path, t) if isinstance(path, FunctionPath) else None

    def arrive(weights: Weights) -> None:
        if walk is not None:
            walk.arrive(weights)
        if note is not None:
            noted.append(note(weights))

    watched = arrive if walk is not None or note is not None else None
    inputs = [split.x for split in splits] + ([] if asked is None else [asked])
    x = first.x if len(inputs) == 1 else torch.cat([part.to(first.x) for part in inputs])
    ends = list(accumulate(map(len, inputs)))
    shape = len(splits), len(t)
    loss, correct = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.int64)
    said = torch.zeros(len(t), 0, 0)
    for at, images, out in sweep(network, path, t, x, statistics or first, watched):
        _check_classes(out, first)
        for k, (part, end) in enumerate(zip(inputs, ends, strict=True)):
            start = end - len(part)
            low, high = max(images.start, start), min(images.stop, end)
            if low >= high:
                continue
            own = out[:, low - images.start : high - images.start]  # (P, n, classes)
            if k == len(splits):
                said = said if said.numel() else torch.empty(len(t), len(part), out.shape[-1])
                said[:, low - start : high - start].index_copy_(0, at, own.float().cpu())
                continue
            y = splits[k].y[low - start : high - start].to(own.device).expand(len(own), -1)
            nats = F.cross_entropy(own.flatten(0, 1), y.flatten(), reduction="none").view_as(y)
            loss[k].index_add_(0, at, nats.sum(1, dtype=torch.float64).cpu())
            correct[k].index_add_(0, at, (own.argmax(-1) == y).sum(1).cpu())
    for nats, split in zip(loss, splits, strict=True):
        nats /= len(split)
    _check_finite(loss, t, path.name, splits)
    if isinstance(path, Path) and len(t) > 1:
        travelled = path.travelled(t)
    else:
        travelled = from_steps([0.0] * (len(t) - 1) if walk is None else walk.steps)
    return Seen(loss, correct, said, travelled, noted)


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
