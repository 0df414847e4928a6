"""A slider from A to B."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from html import escape
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from ..data import Dataset, Split
from ..evaluation import Profile, profiles_of
from ..look import Seen, look
from ..paths import AnyPath, FunctionPath, as_path
from ..tables import percent
from ..times import grid
from ..weights import Weights, check_weights, distance
from .base import Control, Explorer
from .charts import BESIDE, Chart
from .markup import buttons, figure, readout, shown
from .sources import Kernel, Points, Route, Sight
from .views import View, view_of

FORMS = {
    "t": 3,
    "test accuracy": "%",
    "test loss": 3,
    "train accuracy": "%",
    "train loss": 3,
}


class PathExplorer(Explorer):
    """A slider from A to B: loss and accuracy, and what the network says, along each path.

    Parameters
    ----------
    network : nn.Module
        The architecture; its own weights play no part.
    paths : path or function of t, or several
        All join the same A and B.
    data : Dataset
        Train and test split, of images or of points of the plane.
    points : int
        How many evenly spaced points are evaluated; the paths' knots are added.
    images : int
        How many test images are shown: the first of each class, then the second of each.
    span : two float
        First and last t; beyond (0, 1) only where the domain of every path allows it.
    title : str, optional
        Heading of the picture.
    ends : two str
        What the ends are called.
    guess : "loss" or "accuracy", optional
        Hide the curves on the page until the reader has guessed this one for the first path;
        they then appear as far as one has walked.
    series : str, optional
        What the paths differ in, if they are a series, such as "images": a second slider chooses
        among them then, and their names are its values.
    statistics : Split, optional
        Images for BatchNorm's running statistics; `data.train` if not given.

    Attributes
    ----------
    profiles : list of (Profile, Profile)
        For each path its train and test profile, at the very points of the slider.

    Raises
    ------
    ValueError
        If there is no path, the span lacks an end or leaves a path's domain, the paths join
        different ends, or the data are neither images nor points of the plane.

    Notes
    -----
    Every point is evaluated once: a path that is a plain function is called once for each.

    Examples
    --------
    >>> from modeconn_lite import PathExplorer, data, segment, zoo
    >>> a, b = zoo.load("digits")[:2]
    >>> PathExplorer(zoo.network("digits"), segment(a, b), data.load("digits"), points=21)
    PathExplorer(linear, 21 points, worst accuracy 0.52, barrier 1.36 nats)
    """

    def __init__(
        self,
        network: nn.Module,
        paths: AnyPath | Callable[[float], Weights] | Sequence[AnyPath],
        data: Dataset,
        *,
        points: int = 41,
        images: int = 12,
        span: tuple[float, float] = (0.0, 1.0),
        title: str | None = None,
        ends: tuple[str, str] = ("A", "B"),
        guess: str | None = None,
        series: str | None = None,
        statistics: Split | None = None,
    ) -> None:
        if guess not in (None, "loss", "accuracy"):
            raise ValueError(f"guess must be 'loss', 'accuracy' or None, not {guess!r}")
        self.guess, self.series = guess, series
        given = paths if isinstance(paths, Sequence) else [paths]
        self.routes = [remembering_ends(as_path(path)) for path in given]
        check_routes(self.routes, span)
        if points < 2:
            raise ValueError(f"a slider needs at least 2 points, not {points}")
        self.device = next(iter(self.routes[0](0.0).values())).device
        self.points, self.span, self.ends = points, span, ends
        self.names = [path.name for path in self.routes]
        self.title = title or f"From {ends[0]} to {ends[1]}: {', '.join(self.names)}"
        self.view = self._view(data, images)
        extra = ("guess",) if guess else ()
        self.kinds = ("base", "path", "curves", *extra, self.view.kind)
        statistics = statistics or data.train
        self.kernel = Kernel(network, self.routes, data, statistics, self.view)
        self.profiles: list[tuple[Profile, Profile]] = []
        splits, even = (data.train, data.test), torch.linspace(*span, points, dtype=torch.float64)
        times, found = [], []
        for path in self.routes:
            # A knot that is on the grid but for rounding takes its place.
            far = (even[:, None] - torch.tensor(path.knots).double()).abs().amin(1) >= 1e-9
            times.append(grid(even[far], path.knots))
            options = {"statistics": statistics, "asked": self.view.x, "note": self.view.note}
            found.append(look(network, path, times[-1], splits, **options))
        self.source = Points(self._routes(splits, times, found))
        self.css = self.view.css
        self.charts = {of: self._chart(of, self.profiles) for of in ("loss", "accuracy")}
        self.standing: dict[str, Chart] = {}

    def _chart(self, of: str, profiles: Sequence[tuple[Any, Any]]) -> Chart:
        return Chart(of, profiles, self.names, self.ends, self.span, self.series is not None)

    def _view(self, data: Dataset, images: int) -> View:
        return view_of(data, images)

    def _routes(
        self, splits: Sequence[Split], times: Sequence[Tensor], found: Sequence[Seen]
    ) -> list[Route]:
        """What was seen, as profiles and as points for the page."""
        chosen, routes = self.view.choose(found), []
        for name, t, seen in zip(self.names, times, found, strict=True):
            train, test = profiles_of(name, splits, t, seen)
            self.profiles.append((train, test))
            figures = {"test loss": test.loss, "test accuracy": test.accuracy}
            figures |= {"train loss": train.loss, "train accuracy": train.accuracy}
            codes = self.view.encode(t, replace(seen, said=seen.said[:, chosen]))
            routes.append(Route({"t": t}, figures, codes))
        return routes

    def __repr__(self) -> str:
        clauses = [
            f"worst accuracy {test.worst_accuracy:.2f}, barrier {test.barrier():.2f} nats"
            for _, test in self.profiles
        ]
        if len(clauses) == 1:
            return f"{type(self).__name__}({self.names[0]}, {self.points} points, {clauses[0]})"
        pairs = zip(self.names, clauses, strict=True)
        return f"{type(self).__name__}({self.points} points; {'; '.join(map(': '.join, pairs))})"

    def still(self) -> str:
        """Nothing is left to guess where the live face stands."""
        return self._html(guess=None)

    def _repr_html_(self) -> str:
        return self._html(self.guess)

    def _html(self, guess: str | None) -> str:
        first = 0.0 if self.series is None else 0.5  # the second slider has something to change
        sight, (a, b) = self.source.at(0, (first,)), self.ends
        times = self.source.routes[0].axes["t"]
        start = int((times - first).abs().argmin())
        stops = [f"{self.charts['loss'].x(t):.4g}%" for t in (0, 1)]
        slider = (
            f'<div class="mc-slider" style="--mc-from:{stops[0]};--mc-to:{stops[1]}">'
            f'<input type="range" min="0" max="{len(times) - 1}" value="{start}" step="1"'
            f' autocomplete="off" aria-label="{escape(f"t: {a} is 0, {b} is 1")}">'
            f"{self._ticks()}</div>"
        )
        charts = "".join(
            chart.html(sight, hidden=k > 0) for k, chart in enumerate(self.charts.values())
        )
        body = (
            f'<div class="mc-tools">{buttons("curve", {of: of for of in self.charts}, "Curve")}'
            f"{self._chooser()}</div>"
            f'<div class="mc-stage"><div class="mc-left">{charts}{slider}<div class="mc-foot">'
            '<button type="button" class="mc-button mc-play"><span>Walk</span></button>'
            f'{self._readout(sight)}</div></div><div class="mc-right">'
            f"{self._beside(sight, 0)}</div></div>"
        )
        data = {
            "span": self.span,
            "forms": FORMS,
            "beside": BESIDE,
            "charts": {of: c.json() for of, c in (self.charts | self.standing).items()},
            "view": {"kind": self.view.kind} | self.view.json,
            "source": self.source.json(),
        }
        kinds = [kind for kind in self.kinds if kind != "guess" or guess]
        if guess:
            data["guess"] = {"of": guess, "at": (0.25, 0.5, 0.75), "ends": self.ends}
        table = self._table()
        return figure(kinds, self.title, body, self._caption(), table, data, self.css)

    def _chooser(self) -> str:
        """Buttons for the paths, or a slider over a series of them."""
        if len(self.names) == 1:
            return ""
        if self.series is None:
            return buttons("path", {str(k): n for k, n in enumerate(self.names)}, "Path")
        return (
            f'<label class="mc-dial"><span>{escape(self.series)}</span><input type="range" min="0"'
            f' max="{len(self.names) - 1}" value="0" step="1" autocomplete="off"'
            f' data-values="{escape("|".join(self.names))}"><b>{escape(self.names[0])}</b></label>'
        )

    def _beside(self, sight: Sight, route: int) -> str:
        """What stands beside the curves."""
        return self.view.html(sight.code)

    def _table(self) -> tuple[list[str], list[tuple]]:
        """All figures at all points, for pages without scripts."""
        rows = []
        names = ["train loss", "train accuracy", "test loss", "test accuracy"]
        for name, route in zip(self.names, self.source.json()["routes"], strict=True):
            columns = (route["figures"][of] for of in names)
            rows += [(name, *row) for row in zip(route["axes"]["t"], *columns, strict=True)]
        return ["path", "t", *names], rows

    def _readout(self, sight: Sight) -> str:
        values = {"t": sight.place[0], **sight.figures}
        return readout({name: shown(values[name], FORMS[name]) for name in FORMS if name in values})

    def _ticks(self) -> str:
        """What is written under the axis of t."""
        marks = [(0.0, self.ends[0], "mc-a"), (0.5, "0.5", ""), (1.0, self.ends[1], "mc-b")]
        marks += [(t, f"{t:g}".replace("-", "−"), "") for t in self.span if t not in (0, 1)]
        ticks = "".join(
            f'<span class="{style}" style="left:{self.charts["loss"].x(t):.4g}%">'
            f"{escape(label)}</span>"
            for t, label, style in marks
        )
        return f'<div class="mc-ticks" aria-hidden="true">{ticks}</div>'

    def _caption(self) -> str:
        test = self.profiles[0][1]
        ends = [
            f"{name} answers {percent(float(test.accuracy[(test.t - t).abs().argmin()]))}"
            for t, name in enumerate(self.ends)
        ]
        said = f"{' and '.join(ends)} of the test images correctly."
        if self.series is None:  # else the second slider is there to find out
            said += f" The lowest accuracy between them: {', '.join(self._lowest())}."
        return f"{said} {self.view.caption}"

    def _lowest(self) -> list[str]:
        """The lowest test accuracy of each path, and where it is."""
        lowest = []
        for name, (_, test) in zip(self.names, self.profiles, strict=True):
            between = (test.t >= 0) & (test.t <= 1)
            i = int(test.accuracy.where(between, torch.tensor(2.0).double()).argmin())
            on = f" on “{name}”" if len(self.names) > 1 else ""
            lowest.append(f"{percent(float(test.accuracy[i]))} at t = {float(test.t[i]):.2f}{on}")
        return lowest

    def controls(self) -> list[Control]:
        return [Control(f"t from {self.ends[0]} to {self.ends[1]}", *self.span, 0.5)]

    def choices(self) -> Mapping[str, Sequence[str]]:
        paths = {self.series or "path": self.names} if len(self.names) > 1 else {}
        return {"curve": list(self.charts)} | paths

    def picture(self, place: Sequence[float], chosen: Mapping[str, int]) -> str:
        route = chosen.get(self.series or "path", 0)
        sight = self.kernel.at(route, place)
        chart = list(self.charts.values())[chosen.get("curve", 0)]
        return (
            f'<div class="mc-stage"><div class="mc-left">{chart.html(sight, route)}'
            f'<div class="mc-slider">{self._ticks()}</div>{self._readout(sight)}</div>'
            f'<div class="mc-right">{self._beside(sight, route)}</div></div>'
        )


def remembering_ends(path: AnyPath) -> AnyPath:
    """A plain function's ends are asked for by many; they are made once."""
    if not isinstance(path, FunctionPath):
        return path
    end = cache(path.function)
    return replace(path, function=lambda t: dict(end(t)) if t in (0.0, 1.0) else path.function(t))


def check_routes(paths: Sequence[AnyPath], span: tuple[float, float]) -> None:
    """Refuse paths that cannot be walked over the span or do not join the same ends."""
    if not paths:
        raise ValueError("there is no path to walk; give at least one")
    if not (-inf < span[0] <= 0 and 1 <= span[1] < inf):
        raise ValueError(f"span {span} must reach from 0 or below to 1 or above")
    ends: list[Weights] = []
    for path in paths:
        low, high = path.domain
        if span[0] < low or span[1] > high:
            raise ValueError(
                f"span {span} leaves the domain of path {path.name!r}, {low:g} ≤ t ≤ {high:g};"
                " choose a smaller span"
            )
        mine = [path(0.0), path(1.0)]
        ends = ends or mine
        for end, here, first in zip("AB", mine, ends, strict=True):
            check_weights(here, like=first, name=f"end {end} of path {path.name!r}")
            gap = distance(here, first)
            if gap > 1e-5 * (1 + distance(*ends)):
                raise ValueError(
                    f"path {path.name!r} misses the {end} of path {paths[0].name!r} by {gap:.3g};"
                    " all paths must join the same two networks"
                )
