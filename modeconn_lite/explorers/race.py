"""Several paths from A to B walked in step, side by side."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from html import escape

import torch
from torch import nn

from ..checks import check_list
from ..data import Dataset, Split
from ..evaluation import Profile, profiles_of
from ..look import look
from ..paths import AnyPath, as_path
from ..tables import percent
from ..weights import Weights
from .base import Control, Explorer
from .charts import Chart
from .markup import figure, readout
from .path import check_routes, remembering_ends
from .sources import Kernel, Points, Route, Sight
from .views import Album

FALL = 0.1  # a path has fallen where accuracy is this much below the worse of its ends
FORMS = {"t": 2, "test accuracy": "%"}
STROKE = (  # as the path's line in the chart
    '<svg class="mc-stroke" aria-hidden="true"><path class="mc-test" d="M0 3H36"/></svg>'
)


class RaceExplorer(Explorer):
    """Several paths from A to B, walked in step: what each reads on the way, and which fall.

    Parameters
    ----------
    network : nn.Module
        The architecture; its own weights play no part.
    paths : dict of str to path, or to function of t
        At most six; all join the same A and B.
    data : Dataset
        With images to read.
    points : int
        How many evenly spaced points of each path are evaluated: the same times on all.
    images : int
        How many test images each path shows.
    how : dict of str to str, optional
        For paths of these names, in a sentence, how each is found.
    unfolded : sequence of str, optional
        Names of the paths whose images are shown at first; all if not given. The reader unfolds and
        folds each; who is folded runs along as a thin line.
    title : str
        Heading of the picture.
    ends : two str
        What the ends are called.
    statistics : Split, optional
        Images for BatchNorm's running statistics; `data.train` if not given.

    Raises
    ------
    ValueError
        If there is no path, there are more than six, they join different ends, how or unfolded
        name another, or the data are no images.

    Notes
    -----
    Knots between the points are stepped over, so that all walk in step; the scoreboard looks at
    every one.

    Examples
    --------
    >>> from modeconn_lite import data, segment, zoo
    >>> from modeconn_lite.explorers import RaceExplorer
    >>> a, b = zoo.load("digits")[:2]
    >>> paths = {"straight": segment(a, b)}
    >>> RaceExplorer(zoo.network("digits"), paths, data.load("digits"), points=11)
    RaceExplorer(11 points; straight: lowest 0.52, falls at t = 0.40)
    """

    kinds = ("base", "race", "curves", "album")

    def __init__(
        self,
        network: nn.Module,
        paths: Mapping[str, AnyPath | Callable[[float], Weights]],
        data: Dataset,
        *,
        points: int = 41,
        images: int = 8,
        how: Mapping[str, str] | None = None,
        unfolded: Sequence[str] | None = None,
        title: str = "Several ways from A to B",
        ends: tuple[str, str] = ("A", "B"),
        statistics: Split | None = None,
    ) -> None:
        if not isinstance(paths, Mapping) or not 1 <= len(paths) <= 6:
            raise ValueError("a race needs one to six paths, as {name: path}")
        if points < 2:
            raise ValueError(f"a race needs at least 2 points, not {points}")
        self.names, self.title, self.ends = list(paths), title, ends
        self.how, self.unfolded = dict(how or {}), list(paths)
        if unfolded is not None:
            self.unfolded = check_list(unfolded, "unfolded", "names of paths", least=0)
        for name in (*self.how, *self.unfolded):
            if name not in self.names:
                raise ValueError(f"no path {name!r} in this race; it has {self.names}")
        self.routes = [remembering_ends(as_path(path)) for path in paths.values()]
        check_routes(self.routes, (0.0, 1.0))
        self.device = next(iter(self.routes[0](0.0).values())).device
        self.view, statistics = Album(data, images, bars=False), statistics or data.train
        self.kernel = Kernel(network, self.routes, data, statistics, self.view)
        t, test = torch.linspace(0, 1, points, dtype=torch.float64), [data.test]
        found = [
            look(network, path, t, test, statistics=statistics, asked=self.view.x)
            for path in self.routes
        ]
        chosen = self.view.choose(found)
        self.css = self.view.css
        self.profiles: list[Profile] = []
        routes = []
        for name, seen in zip(self.names, found, strict=True):
            (profile,) = profiles_of(name, test, t, seen)
            self.profiles.append(profile)
            codes = self.view.encode(t, replace(seen, said=seen.said[:, chosen]))
            routes.append(Route({"t": t}, {"test accuracy": profile.accuracy}, codes))
        self.source = Points(routes)
        pairs = [(p, p) for p in self.profiles]
        self.chart = Chart("accuracy", pairs, self.names, ends, (0.0, 1.0))

    def _falls(self) -> list[float | None]:
        """Where each path falls, if it does."""
        found: list[float | None] = []
        for p in self.profiles:
            low = p.accuracy < float(torch.minimum(p.accuracy[0], p.accuracy[-1])) - FALL
            found.append(float(p.t[low.nonzero()[0, 0]]) if low.any() else None)
        return found

    def __repr__(self) -> str:
        clauses = []
        for name, p, fall in zip(self.names, self.profiles, self._falls(), strict=True):
            where = "arrives" if fall is None else f"falls at t = {fall:.2f}"
            clauses.append(f"{name}: lowest {p.worst_accuracy:.2f}, {where}")
        return f"RaceExplorer({len(self.profiles[0].t)} points; {'; '.join(clauses)})"

    def _repr_html_(self) -> str:
        last = len(self.profiles[0].t) - 1
        slider = (
            '<div class="mc-slider" style="--mc-from:0%;--mc-to:100%"><input type="range" min="0"'
            f' max="{last}" value="0" step="1" autocomplete="off" aria-label="'
            f'{escape(f"t: {self.ends[0]} is 0, {self.ends[1]} is 1")}">{self._ticks()}</div>'
        )
        sights = [self.source.point(k, 0) for k in range(len(self.names))]
        body = (
            f'<div class="mc-stage"><div class="mc-left">{self._chart(sights)}{slider}'
            '<div class="mc-foot"><button type="button" class="mc-button mc-play"><span>Walk</span>'
            f'</button>{readout({"t": "0.00"})}<button type="button" class="mc-button mc-all">Show'
            f' all</button></div></div><div class="mc-right">{self._lanes(sights)}</div></div>'
        )
        data = {
            "forms": FORMS,
            "names": self.names,
            "falls": self._falls(),
            "view": {"kind": "album"} | self.view.json,
            "source": self.source.json(),
        }
        columns = [route["figures"]["test accuracy"] for route in data["source"]["routes"]]
        times = data["source"]["routes"][0]["axes"]["t"]
        table = ["t", *self.names], list(zip(times, *columns, strict=True))
        return figure(self.kinds, self.title, body, self._caption(), table, data, self.css)

    def _ticks(self) -> str:
        marks = ((0, self.ends[0], "mc-a"), (50, "0.5", ""), (100, self.ends[1], "mc-b"))
        spans = (f'<span class="{c}" style="left:{x}%">{escape(s)}</span>' for x, s, c in marks)
        return f'<div class="mc-ticks" aria-hidden="true">{"".join(spans)}</div>'

    def _chart(self, sights: Sequence[Sight]) -> str:
        return self.chart.html_of_many(sights)

    def _lanes(self, sights: Sequence[Sight], *, fold: bool = True) -> str:
        """Each path's name, accuracy, fate, how it is found, and what it reads."""
        lanes = []
        for k, (name, sight) in enumerate(zip(self.names, sights, strict=True)):
            lane, key = ("details", "summary") if fold else ("section", "p")
            state = " open" if fold and name in self.unfolded else ""
            how = f'<p class="mc-how">{escape(self.how[name])}</p>' if name in self.how else ""
            lanes.append(
                f'<{lane} class="mc-lane mc-c{k}" data-lane="{k}"{state}><{key} class="mc-key">'
                f'{STROKE}<b>{escape(name)}</b> <b class="mc-score">'
                f'{percent(sight.figures["test accuracy"])}</b> <span class="mc-fate"></span>'
                f"</{key}>{how}{self.view.html(sight.code)}</{lane}>"
            )
        return "".join(lanes)

    def _caption(self) -> str:
        fates = []
        for name, p, fall in zip(self.names, self.profiles, self._falls(), strict=True):
            lowest = percent(p.worst_accuracy)
            if fall is None:
                fates.append(f"{name}: never below {lowest}")
            else:
                fates.append(f"{name}: falls at t = {fall:.2f}, lowest {lowest}")
        return (
            f"Test accuracy at {len(self.profiles[0].t)} points of each path."
            f" {'; '.join(fates)}. A path has fallen where it reads {percent(FALL, 0)} of the"
            f" images fewer than its worse end. {self.view.caption}"
        )

    def controls(self) -> list[Control]:
        return [Control(f"t from {self.ends[0]} to {self.ends[1]}", 0.0, 1.0, 0.5)]

    def picture(self, place: Sequence[float], chosen: Mapping[str, int]) -> str:
        sights = [self.kernel.at(k, place) for k in range(len(self.routes))]
        return (
            f'<div class="mc-stage"><div class="mc-left">{self._chart(sights)}<div'
            f' class="mc-slider">{self._ticks()}</div>{readout({"t": f"{place[0]:.3f}"})}</div>'
            f'<div class="mc-right">{self._lanes(sights, fold=False)}</div></div>'
        )
