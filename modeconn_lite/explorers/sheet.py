"""A map of the loss over a sheet, with a marker to move."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..data import Dataset, Split
from ..evaluation import survey_grid, surveys_of
from ..look import look
from ..sheets import Sheet
from .base import Control, Explorer
from .charts import Map
from .markup import figure, readout, short, shown
from .sources import Kernel, Points, Route, Sight
from .views import Album, view_of

FORMS = {
    "u": 2,
    "v": 2,
    "test accuracy": "%",
    "test loss": 3,
    "train accuracy": "%",
    "train loss": 3,
}


class SheetExplorer(Explorer):
    """A map of the loss over a sheet, with a marker to drag or to steer by the arrow keys.

    Parameters
    ----------
    network, data, images, title, statistics
        As for `PathExplorer`.
    sheet : Sheet
        The surface; its marks are drawn.
    points : int
        The grid has `points` × `points` of them.
    paths : dict of str to polylines
        What to draw over it, such as {"line": [(0.0, 0.0), (1.0, 0.0)]}, in the sheet's
        coordinates.

    Attributes
    ----------
    survey, train_survey : Survey
        What the sheet looks like on test and train split.

    Examples
    --------
    >>> from modeconn_lite import SheetExplorer, data, triangle, zoo
    >>> corners = triangle(*zoo.load("digits")[:3])
    >>> SheetExplorer(zoo.network("digits"), corners, data.load("digits"), points=5)
    SheetExplorer(triangle, 5×5 points, accuracy 0.22 to 0.98)
    """

    def __init__(
        self,
        network: nn.Module,
        sheet: Sheet,
        data: Dataset,
        *,
        points: int = 31,
        images: int = 6,
        title: str | None = None,
        paths: Mapping[str, Sequence[tuple[float, float]]] | None = None,
        statistics: Split | None = None,
    ) -> None:
        self.points, self.sheet, self.names = points, sheet, [sheet.name]
        self.device = next(iter(sheet.anchors[0].values())).device
        self.title = title or f"Test loss over the {sheet.name}"
        self.view = view_of(data, images, bars=False)
        self.kinds = ("base", "sheet", "curves", self.view.kind)
        statistics = statistics or data.train
        self.kernel = Kernel(network, [sheet], data, statistics, self.view)
        # Decision regions at every point would be too heavy for a page.
        asked = self.view.x if isinstance(self.view, Album) else None
        u, v, places, on = _grid_through_marks(sheet, points)
        splits = data.train, data.test
        seen = look(network, sheet, places[on], splits, statistics=statistics, asked=asked)
        self.train_survey, self.survey = surveys_of(sheet.name, splits, u, v, on, seen)
        figures = {}
        for name, found in (("test", self.survey), ("train", self.train_survey)):
            figures |= {f"{name} loss": found.loss.flatten()}
            figures |= {f"{name} accuracy": found.accuracy.flatten()}
        codes = torch.zeros(len(on), 0, dtype=torch.uint8)
        if asked is not None:
            chosen = self.view.choose([seen])
            there = self.view.encode(places[on], replace(seen, said=seen.said[:, chosen]))
            codes = there.new_zeros(len(on), *there.shape[1:])
            codes[on] = there
        self.css = self.view.css
        self.source = Points([Route({"v": v, "u": u}, figures, codes)])
        self.map = Map(sheet, self.survey, paths or {})

    def __repr__(self) -> str:
        seen = self.survey.accuracy[~self.survey.accuracy.isnan()]
        return (
            f"SheetExplorer({self.sheet.name}, {self.points}×{self.points} points,"
            f" accuracy {seen.min():.2f} to {seen.max():.2f})"
        )

    def _repr_html_(self) -> str:
        sight = self.source.at(0, self._start()[::-1])
        v, u = sight.place
        said = self.view.html(sight.code) if sight.code.numel() else ""
        body = (
            f'<div class="mc-stage"><div class="mc-left">{self.map.html((u, v), pad=True)}</div>'
            f'<div class="mc-right">{self._readout(u, v, sight)}{said}</div></div>'
        )
        marks = list(self.sheet.marks.values()) or [(u, v)]
        data: dict[str, Any] = {
            "forms": FORMS,
            "extent": self.sheet.extent,
            "home": self._nearest(*marks[0]),
            "end": self._nearest(*marks[min(1, len(marks) - 1)]),
            "source": self.source.json(),
        }
        if sight.code.numel():
            data["view"] = {"kind": self.view.kind} | self.view.json
        table = self._table()
        return figure(self.kinds, self.title, body, self._caption(), table, data, self.css)

    def _nearest(self, u: float, v: float) -> list[int]:
        """Row and column of the grid."""
        axes = self.source.routes[0].axes
        return [int((axes[name] - x).abs().argmin()) for name, x in (("v", v), ("u", u))]

    def _table(self) -> tuple[list[str], list[tuple]]:
        """The loss at some of the points, for pages without scripts."""
        some = slice(None, None, max(1, self.points // 10))
        rows = [
            (f"{v:.3g}", *("–" if loss is None else f"{loss:.3g}" for loss in short(row)))
            for v, row in zip(self.survey.v[some], self.survey.loss[some, some], strict=True)
        ]
        head = ["test loss at v (down), u (across)", *(f"{u:.3g}" for u in self.survey.u[some])]
        return head, rows

    def _readout(self, u: float, v: float, sight: Sight) -> str:
        values = {"u": u, "v": v, **sight.figures}
        return readout({name: shown(values[name], FORMS[name]) for name in FORMS if name in values})

    def _start(self) -> tuple[float, float]:
        u0, u1, v0, v1 = self.sheet.extent
        return next(iter(self.sheet.marks.values()), ((u0 + u1) / 2, (v0 + v1) / 2))

    def _caption(self) -> str:
        loss = self.survey.loss[~self.survey.loss.isnan()]
        return (
            f"Every point of the map is a network. Light is low: the test loss goes from"
            f" {loss.min():.2f} to {loss.max():.2f} nats, lines join points of equal loss. Drag the"
            " marker, or choose it and use the arrow keys."
            f" {self.view.caption if isinstance(self.view, Album) else ''}"
        )

    def controls(self) -> list[Control]:
        (u0, u1, v0, v1), (u, v) = self.sheet.extent, self._start()
        return [Control("u", u0, u1, u), Control("v", v0, v1, v)]

    def picture(self, place: Sequence[float], chosen: Mapping[str, int]) -> str:
        u, v = place
        if self.sheet.inside is not None and not self.sheet.inside(torch.tensor([[u, v]])).all():
            return self.map.html((u, v)) + "<p>There is no point of the sheet here.</p>"
        sight = self.kernel.at(0, (u, v))
        return (
            f'<div class="mc-stage"><div class="mc-left">{self.map.html((u, v))}</div>'
            f'<div class="mc-right">{self._readout(u, v, sight)}{self.view.html(sight.code)}</div>'
            "</div>"
        )


def _grid_through_marks(sheet: Sheet, points: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Axes u and v, all places, (points², 2), and which lie on the sheet.

    An even grid, of which the nearest lines were moved so that it goes exactly through the sheet's
    marks, and so also along straight lines between marks of equal u or v.
    """
    u, v, places, on = survey_grid(sheet, points)
    for axis, coordinates in zip((u, v), zip(*sheet.marks.values(), strict=True), strict=False):
        free, (first, last) = torch.ones(points, dtype=torch.bool), axis[[0, -1]].tolist()
        for x in (x for x in dict.fromkeys(coordinates) if first <= x <= last):
            k = int((axis - x).abs().where(free, torch.inf).argmin())
            axis[k], free[k] = x, False
    u, v = u.sort().values, v.sort().values
    places = torch.cartesian_prod(v, u).flip(1)
    return u, v, places, on if sheet.inside is None else sheet.inside(places)
