"""Layers that move and layers that follow: what is missed beside loss, for a series of paths."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from html import escape
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import check_list
from ..data import Dataset, Split
from ..look import Seen
from ..methods.adjustment import BREAKPOINTS, connect_adjusted
from ..methods.least_squares import RIDGE
from ..weights import Weights, apply
from .path import PathExplorer
from .sources import Route, Sight
from .views import View

LISTENED = 2000  # images of each split on which the outputs are compared with A's


@dataclass(frozen=True)
class Missed:
    """How far the outputs along a path are from A's: ‖Z − Z_A‖ / ‖Z_A‖ at times t, both (T,)."""

    t: Tensor
    residual: Tensor


class Ways:
    """How far each layer has gone from A, as bars, in lengths of its way from A to B.

    A code holds 32-bit floats: the residual on test images, then the way of each layer.
    """

    kind, css = "ways", ""

    def __init__(self, network: nn.Module, a: Weights, b: Weights, train: Tensor, test: Tensor):
        self.x = torch.cat([train[:LISTENED], test[:LISTENED]])
        self.fitted, self.test = len(train[:LISTENED]), slice(len(train[:LISTENED]), None)
        self.outputs = apply(network, a, self.x).cpu()
        self.a, self.layers = a, [key for key, w in a.items() if w.dim() > 1]
        self.whole = [float((b[key] - a[key]).norm()) for key in self.layers]
        self.reach = 1.0
        self.caption = (
            "Residual: how far the outputs are from A’s, relatively. Bars: how far each layer is"
            " from A, in units of the way from A to B; the mark is where B is, in distance."
        )

    def note(self, weights: Weights) -> Tensor:
        """Relative ways, shape (layers,); zero for a layer that A and B share."""
        ways = zip(self.layers, self.whole, strict=True)
        return torch.tensor([float((weights[k] - self.a[k]).norm()) / (w or 1.0) for k, w in ways])

    def missed(self, said: Tensor, images: slice) -> Tensor:
        """The residual of outputs (T, images, classes) on some of the images: shape (T,)."""
        wanted = self.outputs[images]
        gap = (said[:, images] - wanted).double().norm(dim=(1, 2))
        return gap / wanted.double().norm().clamp(min=1e-300)

    def choose(self, seen: Sequence[Seen]) -> Tensor:
        self.reach = max(1.0, *(float(ways.max()) for s in seen for ways in s.noted))
        return torch.arange(len(self.x))

    def encode(self, t: Tensor, seen: Seen) -> Tensor:
        missed = self.missed(seen.said, self.test)[:, None]  # (T, 1)
        numbers = torch.cat([missed, torch.stack(seen.noted)], 1).float()
        return numbers.contiguous().view(torch.uint8)

    @property
    def json(self) -> dict[str, Any]:
        return {"reach": self.reach}

    def html(self, code: Tensor) -> str:
        bars = "".join(
            f'<li><span title="{escape(key)}">W<sub>{k}</sub></span>'
            f'<span class="mc-way-track" style="--mc-b-at:{100 / self.reach:.4g}%">'
            f'<i style="width:{min(100 * way / self.reach, 100):.4g}%"></i></span>'
            f"<b>{way:.2f}</b></li>"
            for k, (key, way) in enumerate(
                zip(self.layers, code.clone().view(torch.float32).tolist()[1:], strict=True), 1
            )
        )
        return (
            f'<p class="mc-key"><b>way from A</b> of each layer</p><ul class="mc-ways">{bars}</ul>'
        )


class AdjustmentExplorer(PathExplorer):
    """Two sliders: along a path of weight adjustment, and over how it was solved for.

    Beside loss and accuracy stands the residual, on test images and on the images that were
    fitted, and how far each layer has gone.

    Parameters
    ----------
    network, a, b : as for `methods.adjustment.connect_adjusted`
    data : Dataset
        Readers are solved for on its training images.
    images, ridge : as for `connect_adjusted`; one of them several
        What the second slider changes: numbers of images, or ridges.
    kind, breakpoints : as for `connect_adjusted`
        Paths end at B, by transport at its copy.
    options
        As for `PathExplorer`.

    Raises
    ------
    ValueError
        As `connect_adjusted` and `PathExplorer`; if neither `images` nor `ridge` are several, or
        both are.

    Examples
    --------
    >>> from modeconn_lite import data, zoo
    >>> from modeconn_lite.explorers import AdjustmentExplorer
    >>> a, b = zoo.load("digits-wide")[:2]
    >>> digits, network = data.load("digits"), zoo.network("digits-wide")
    >>> AdjustmentExplorer(network, a, b, digits, images=(50, 1297), points=5).names
    ['50', '1,297']
    """

    def __init__(
        self,
        network: nn.Module,
        a: Weights,
        b: Weights,
        data: Dataset,
        *,
        images: int | Sequence[int] | None = None,
        ridge: float | Sequence[float] = RIDGE,
        kind: str = "linear",
        breakpoints: int | None = BREAKPOINTS,
        **options: Any,
    ) -> None:
        several = [
            [value] if value is None or isinstance(value, int | float) else value
            for value in (images, ridge)
        ]
        counts = check_list(several[0], "images", "numbers of images")
        ridges = check_list(several[1], "ridge", "numbers")
        if (len(counts) > 1) == (len(ridges) > 1):
            raise ValueError("give two or more numbers of images, or ridges, for the second slider")
        connect = partial(connect_adjusted, kind=kind, breakpoints=breakpoints, undo=False)
        paths = [
            replace(
                connect(network, a, b, data.train, images=count, ridge=each),
                name=f"{each:g}" if len(ridges) > 1 else f"{count:,}",
            )
            for count in counts
            for each in ridges
        ]
        self.fitted = [count or len(data.train) for count in counts for _ in ridges]
        self.network = network
        series = "ridge" if len(ridges) > 1 else "images fitted"
        super().__init__(network, paths, data, series=series, **options)
        self.standing = {"residual": self._chart("residual", self.missed)}

    def _view(self, data: Dataset, images: int) -> View:
        train, first = data.train.x[: max(self.fitted)], self.routes[0]
        self.ways = Ways(self.network, first(0.0), first(1.0), train, data.test.x)
        return self.ways

    def _routes(
        self, splits: Sequence[Split], times: Sequence[Tensor], found: Sequence[Seen]
    ) -> list[Route]:
        routes = super()._routes(splits, times, found)
        ways, self.missed = self.ways, []
        for t, seen, count in zip(times, found, self.fitted, strict=True):
            fitted = ways.missed(seen.said, slice(0, min(count, ways.fitted)))
            self.missed.append((Missed(t, fitted), Missed(t, ways.missed(seen.said, ways.test))))
        return [
            replace(route, figures=route.figures | {"test residual": test.residual})
            for route, (_, test) in zip(routes, self.missed, strict=True)
        ]

    def _beside(self, sight: Sight, route: int) -> str:
        missed = float(sight.code[:4].clone().view(torch.float32))
        sight = replace(sight, figures=sight.figures | {"test residual": missed})
        return self.standing["residual"].html(sight, route) + self.view.html(sight.code)
