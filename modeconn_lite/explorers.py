"""Sliders through weight space: the same network, seen from anywhere on a path or a sheet.

An explorer has two faces. On display it is HTML that needs nothing else: what its slider shows
was computed beforehand, at every point of a grid. `live()` makes ipywidgets that run the network
itself, at any point, while the slider moves. Both faces are drawn by the functions below; the
script in `assets` only moves what they have drawn.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from html import escape
from math import inf
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .charts import Chart, Map
from .data import Dataset, Split
from .evaluation import Profile, profiles, survey
from .forward import outputs
from .markup import base64, buttons, figure, percent, readout, short, style_of
from .paths import AnyPath, FunctionPath, Path, Sheet
from .views import Album, view_of
from .weights import Weights, check_weights, distance


class Explorer:
    """What all explorers share: a picture for every place, and two faces that show it."""

    title: str
    names: Sequence[str]
    device: torch.device  # where the weights are, and so the network runs
    css: str

    def live(self) -> "LiveExplorer":
        """The same picture as widgets that run the network at any point; needs a kernel."""
        return LiveExplorer(self)

    def _controls(self) -> list[tuple[str, float, float, float]]:
        """Each slider's description, first, last and initial value."""
        raise NotImplementedError

    def _options(self) -> Mapping[str, Sequence[str]]:
        """What else there is to choose, by name."""
        return {}

    def _picture(self, place: Sequence[float], k: int, of: int) -> str:
        """HTML of what is seen at one point of route k, the chart being number `of`."""
        raise NotImplementedError


class _Onlooker(Explorer):
    """An explorer that shows what the network says of the data."""

    network: nn.Module
    data: Dataset
    statistics: Split
    view: Any  # an `Album`, `Regions` or `Cloud`
    routes: list[Any]  # paths or sheets

    @property
    def css(self) -> str:
        return self.view.css

    def _look(self, place: Sequence[float], k: int) -> tuple[float, float, Tensor]:
        """Test loss, test accuracy and the view's code at one point: one forward pass."""
        at, test = torch.tensor([place], dtype=torch.float64), self.data.test
        out = outputs(self.network, self.routes[k], at, self._seen, statistics=self.statistics)
        ours, y = out[0, : len(test)], test.y.to(out.device)
        loss = F.cross_entropy(ours, y, reduction="none").double().mean()
        code = self._codes(k, at, out[:, len(test) :])[0]
        return float(loss), float((ours.argmax(-1) == y).double().mean()), code

    def _codes(self, k: int, t: Tensor, said: Tensor) -> Tensor:
        """What the view shows at points t of route k, where the network says this of `view.x`."""
        return self.view.encode(said.softmax(-1))

    @cached_property
    def _seen(self) -> Tensor:
        """Everything that the network is asked about at each step, where the network runs."""
        test = self.data.test.x
        return torch.cat([test, self.view.x.to(test)]).to(self.device)


class PathExplorer(_Onlooker):
    """A slider from A to B: loss and accuracy, and what the network says, along each path.

    Parameters
    ----------
    network : the architecture; its own weights play no part.
    paths : one path, or several that join the same A and B.
    data : train and test split, of images or of points of the plane.
    points : how many evenly spaced points are evaluated; the paths' knots are added.
    images : how many test images are shown: the first of each class, then the second of each.
    span : first and last t; beyond (0, 1) only where the domain of every path allows it.
    title : heading of the picture.
    ends : what the ends are called.
    statistics : images for BatchNorm's running statistics; `data.train` if not given.

    Attributes
    ----------
    profiles : for each path its (train, test) profile, at the very points of the slider.

    Raises
    ------
    ValueError
        If there is no path, the span lacks an end or leaves a path's domain, the paths join
        different ends, or the data are neither images nor points of the plane.
    """

    def __init__(
        self,
        network: nn.Module,
        paths: AnyPath | Sequence[AnyPath],
        data: Dataset,
        *,
        points: int = 41,
        images: int = 12,
        span: tuple[float, float] = (0.0, 1.0),
        title: str | None = None,
        ends: tuple[str, str] = ("A", "B"),
        statistics: Split | None = None,
    ) -> None:
        self.routes = _check_paths(paths, span)
        if points < 2:
            raise ValueError(f"a slider needs at least 2 points, not {points}")
        self.device = next(iter(self.routes[0](0.0).values())).device
        self.network, self.data, self.points, self.span = network, data, points, span
        self.ends, self.names = ends, [path.name for path in self.routes]
        self.title = title or f"From {ends[0]} to {ends[1]}: {', '.join(self.names)}"
        self.statistics = statistics or data.train
        self.view = self._view(images)
        self.profiles: list[tuple[Profile, Profile]] = []
        self.codes: list[Tensor] = []
        for k, path in enumerate(self.routes):
            t = torch.linspace(*span, points, dtype=torch.float64)
            for knot in path.knots:  # a knot that is on the grid but for rounding takes its place
                t[(t - knot).abs() < 1e-9] = knot
            splits = data.train, data.test
            train, test = profiles(network, path, splits, t, statistics=self.statistics)
            said = outputs(network, path, test.t, self.view.x, statistics=self.statistics)
            self.profiles.append((train, test))
            self.codes.append(self._codes(k, test.t, said))
        self.charts = {
            of: Chart(of, self.profiles, self.names, self.ends, span) for of in ("loss", "accuracy")
        }

    def _view(self, images: int) -> Any:
        return view_of(self.data, images)

    def __repr__(self) -> str:
        clauses = [
            f"worst accuracy {test.worst_accuracy:.2f}, barrier {test.barrier():.2f} nats"
            for _, test in self.profiles
        ]
        if len(clauses) == 1:
            return f"{type(self).__name__}({self.names[0]}, {self.points} points, {clauses[0]})"
        pairs = zip(self.names, clauses, strict=True)
        return f"{type(self).__name__}({self.points} points; {'; '.join(map(': '.join, pairs))})"

    def _repr_html_(self) -> str:
        (train, test), (a, b) = self.profiles[0], self.ends
        start = int(test.t.abs().argmin())
        loss, accuracy = float(test.loss[start]), float(test.accuracy[start])
        stops = [f"{self.charts['loss'].x(t):.4g}%" for t in (0, 1)]
        label = f"t: {a} is 0, {b} is 1"
        slider = (
            f'<div class="mc-slider" style="--mc-from:{stops[0]};--mc-to:{stops[1]}">'
            f'<input type="range" min="0" max="{len(test.t) - 1}" value="{start}" step="1"'
            f' autocomplete="off" aria-label="{escape(label)}">'
            f"{self._ticks()}</div>"
        )
        charts = self.charts["loss"].html(loss, 0.0)
        charts += self.charts["accuracy"].html(accuracy, 0.0, hidden=True)
        values = {"t": f"{0:.3f}", "test accuracy": percent(accuracy), "test loss": f"{loss:.3f}"}
        values["train accuracy"] = percent(float(train.accuracy[start]))
        values["train loss"] = f"{float(train.loss[start]):.3f}"
        body = (
            f'<div class="mc-tools">{buttons("of", self.charts, "Curve")}'
            f"{buttons('path', self.names, 'Path') if len(self.names) > 1 else ''}</div>"
            f'<div class="mc-stage"><div class="mc-left">{charts}{slider}<div class="mc-foot">'
            '<button type="button" class="mc-button mc-play"><span>Walk</span></button>'
            f'{readout(values)}</div></div><div class="mc-right">'
            f"{self.view.html(self.codes[0][start])}</div></div>"
        )
        paths = [
            {
                "name": name,
                "t": [round(t, 6) for t in test.t.tolist()],
                "loss": {"train": short(train.loss), "test": short(test.loss)},
                "accuracy": {"train": short(train.accuracy), "test": short(test.accuracy)},
                "codes": base64(code.numpy().tobytes()),
            }
            for name, (train, test), code in zip(self.names, self.profiles, self.codes, strict=True)
        ]
        data = {"span": self.span, "top": {of: c.top for of, c in self.charts.items()}}
        rows = [
            (p["name"], t, *values)
            for p in paths
            for t, *values in zip(
                p["t"], *(p[of][on] for on in ("train", "test") for of in self.charts), strict=True
            )
        ]
        head = ["path", "t", "train loss", "train accuracy", "test loss", "test accuracy"]
        data |= self.view.json | {"paths": paths}
        return figure("path", self.title, body, self._caption(), head, rows, data, self.css)

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
        lowest = []
        for name, (_, test) in zip(self.names, self.profiles, strict=True):
            between = (test.t >= 0) & (test.t <= 1)
            i = int(test.accuracy.where(between, torch.tensor(2.0).double()).argmin())
            on = f" on “{name}”" if len(self.names) > 1 else ""
            lowest.append(f"{percent(float(test.accuracy[i]))} at t = {float(test.t[i]):.2f}{on}")
        test = self.profiles[0][1]
        ends = [
            f"{name} answers {percent(float(test.accuracy[(test.t - t).abs().argmin()]))}"
            for t, name in enumerate(self.ends)
        ]
        return (
            f"{' and '.join(ends)} of the test images correctly. The lowest accuracy between them:"
            f" {', '.join(lowest)}. {self.view.caption}"
        )

    def _controls(self) -> list[tuple[str, float, float, float]]:
        return [(f"t from {self.ends[0]} to {self.ends[1]}", *self.span, 0.5)]

    def _options(self) -> Mapping[str, Sequence[str]]:
        paths = {"path": self.names} if len(self.names) > 1 else {}
        return {"curve": list(self.charts)} | paths

    def _picture(self, place: Sequence[float], k: int, of: int) -> str:
        loss, accuracy, code = self._look(place, k)
        chart = list(self.charts.values())[of].html((loss, accuracy)[of], place[0], k)
        values = {"t": f"{place[0]:.3f}", "test accuracy": percent(accuracy)}
        return (
            f'<div class="mc-stage"><div class="mc-left">{chart}'
            f'<div class="mc-slider">{self._ticks()}</div>'
            f"{readout(values | {'test loss': f'{loss:.3f}'})}</div>"
            f'<div class="mc-right">{self.view.html(code)}</div></div>'
        )


class SheetExplorer(_Onlooker):
    """A map of the loss over a sheet, with a marker to drag or to steer by the arrow keys.

    Parameters
    ----------
    network, data, images, title, statistics : see `PathExplorer`.
    sheet : the surface; its marks are drawn.
    points : the grid has `points` × `points` of them.
    paths : polylines to draw over it, such as {"line": [(0.0, 0.0), (1.0, 0.0)]}, in the
        sheet's coordinates.

    Attributes
    ----------
    survey, train_survey : what the sheet looks like on test and train split.
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
        self.network, self.data, self.points = network, data, points
        self.sheet, self.routes, self.names = sheet, [sheet], [sheet.name]
        self.device = next(iter(sheet.anchors[0].values())).device
        self.title = title or f"Test loss over the {sheet.name}"
        self.statistics = statistics or data.train
        self.view = view_of(data, images, bars=False)
        self.train_survey, self.survey = (
            survey(network, sheet, split, points, statistics=self.statistics)
            for split in (data.train, data.test)
        )
        self.on = ~self.survey.loss.isnan()
        v, u = torch.meshgrid(self.survey.v, self.survey.u, indexing="ij")
        self.places = torch.stack([u, v], -1)
        self.map = Map(sheet, self.survey.loss, paths or {})

    def __repr__(self) -> str:
        low, high = self.survey.accuracy[self.on].aminmax()
        return (
            f"SheetExplorer({self.sheet.name}, {self.points}×{self.points} points,"
            f" accuracy {low:.2f} to {high:.2f})"
        )

    def _repr_html_(self) -> str:
        start = torch.tensor(self._start(), dtype=torch.float64)
        gap = (self.places - start).norm(dim=-1).where(self.on, torch.tensor(torch.inf).double())
        i, j = divmod(int(gap.argmin()), self.points)
        here, both = self.places[i, j].tolist(), {"test": self.survey, "train": self.train_survey}
        values = {"u": f"{here[0]:.2f}", "v": f"{here[1]:.2f}"}
        data: dict[str, Any] = {"u": short(self.survey.u), "v": short(self.survey.v)}
        data |= {"start": [i, j], "loss": {}, "accuracy": {}} | self.view.json
        for on, seen in both.items():
            values[f"{on} accuracy"] = percent(float(seen.accuracy[i, j]))
            values[f"{on} loss"] = f"{float(seen.loss[i, j]):.3f}"
            data["loss"][on] = short(seen.loss.flatten())
            data["accuracy"][on] = short(seen.accuracy.flatten())
        said = ""
        if isinstance(self.view, Album):  # decision regions at every point would be too heavy
            points, x = self.places[self.on], self.view.x
            out = outputs(self.network, self.sheet, points, x, statistics=self.statistics)
            codes = torch.zeros(*self.on.shape, *self.view.shape, dtype=torch.uint8)
            codes[self.on] = self.view.encode(out.softmax(-1))
            data["codes"], said = base64(codes.numpy().tobytes()), self.view.html(codes[i, j])
        body = (
            f'<div class="mc-stage"><div class="mc-left">{self.map.html(here, pad=True)}</div>'
            f'<div class="mc-right">{readout(values)}{said}</div></div>'
        )
        some = slice(None, None, max(1, self.points // 10))
        columns = list(self.survey.u[some].tolist())
        rows = [
            (f"{v:.3g}", *("–" if loss != loss else f"{loss:.3g}" for loss in row))
            for v, row in zip(self.survey.v[some], self.survey.loss[some, some], strict=True)
        ]
        head = ["test loss at v (down), u (across)", *(f"{u:.3g}" for u in columns)]
        return figure("sheet", self.title, body, self._caption(), head, rows, data, self.css)

    def _start(self) -> tuple[float, float]:
        u0, u1, v0, v1 = self.sheet.extent
        return next(iter(self.sheet.marks.values()), ((u0 + u1) / 2, (v0 + v1) / 2))

    def _caption(self) -> str:
        low, high = self.survey.loss[self.on].aminmax()
        return (
            f"Every point of the map is a network. Light is low: the test loss goes from {low:.2f}"
            f" to {high:.2f} nats, lines join points of equal loss. Drag the marker, or choose it"
            f" and use the arrow keys. {self.view.caption if isinstance(self.view, Album) else ''}"
        )

    def _controls(self) -> list[tuple[str, float, float, float]]:
        (u0, u1, v0, v1), (u, v) = self.sheet.extent, self._start()
        return [("u", u0, u1, u), ("v", v0, v1, v)]

    def _picture(self, place: Sequence[float], k: int, of: int) -> str:
        if self.sheet.inside is not None and not self.sheet.inside(torch.tensor([place])).all():
            return self.map.html(place) + "<p>There is no point of the sheet here.</p>"
        loss, accuracy, code = self._look(place, k)
        values = {"u": f"{place[0]:.3f}", "v": f"{place[1]:.3f}"}
        values |= {"test accuracy": percent(accuracy), "test loss": f"{loss:.3f}"}
        return (
            f'<div class="mc-stage"><div class="mc-left">{self.map.html(place)}</div>'
            f'<div class="mc-right">{readout(values)}{self.view.html(code)}</div></div>'
        )


class LiveExplorer:
    """An explorer as ipywidgets: each move of a slider runs the network, wherever its weights are.

    Attributes
    ----------
    sliders : one for t, or two for u and v.
    picture : the widget whose `value` is the HTML of what is seen there.
    """

    def __init__(self, explorer: Explorer) -> None:
        import ipywidgets as widgets

        self.explorer = explorer
        wide = {"width": "100%"}
        self.sliders = [
            widgets.FloatSlider(
                value=value,
                min=low,
                max=high,
                step=min(0.005, (high - low) / 100),
                description=name,
                readout_format=".3f",
                style={"description_width": "initial"},
                layout=wide,
            )
            for name, low, high, value in explorer._controls()
        ]
        self.choices = {
            name: widgets.Dropdown(
                options=[(o, k) for k, o in enumerate(options)], description=name
            )
            for name, options in explorer._options().items()
        }
        heading = f'<p role="heading" aria-level="4" class="mc-title">{escape(explorer.title)}</p>'
        style = style_of(explorer.css)
        self.picture = widgets.HTML(layout=wide)
        head = widgets.HTML(f'{style}<div class="mc-still">{heading}</div>', layout=wide)
        self.box = widgets.VBox(
            [head, *self.sliders, *self.choices.values(), self.picture], layout=wide
        )
        for widget in (*self.sliders, *self.choices.values()):
            widget.observe(self._draw, "value")
        seconds = self._draw()
        for slider in self.sliders:  # a network too slow to follow the hand waits for it to rest
            slider.continuous_update = seconds < 0.15

    def _draw(self, change: object = None) -> float:
        started = perf_counter()
        html = self._html()
        seconds = perf_counter() - started
        device = self.explorer.device
        note = f'<p class="mc-note">One step on {device} in {1000 * seconds:.1f} ms.</p>'
        self.picture.value = f'<div class="mc-still">{html}{note}</div>'
        return seconds

    def _html(self) -> str:
        place = [slider.value for slider in self.sliders]
        chosen = {name: choice.value for name, choice in self.choices.items()}
        return self.explorer._picture(place, chosen.get("path") or 0, chosen.get("curve") or 0)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        view = {"version_major": 2, "version_minor": 0, "model_id": self.box.model_id}
        axes = " and ".join(name[0] for name, *_ in self.explorer._controls())
        style = style_of(self.explorer.css)
        still = (
            f'<!--mc-explorer--><div class="mc-still">{style}{self._html()}'
            '<p class="mc-note">Run this page in JupyterLab, Binder or Colab and this slider'
            f" evaluates the network itself, at any {axes}.</p></div><!--/mc-explorer-->"
        )
        return {
            "application/vnd.jupyter.widget-view+json": view,
            "text/html": still,
            "text/plain": repr(self),
        }

    def __repr__(self) -> str:
        return f"LiveExplorer({', '.join(self.explorer.names)})"


def _check_paths(paths: AnyPath | Sequence[AnyPath], span: tuple[float, float]) -> list[AnyPath]:
    """The paths as a list, if all can be walked over the span and join the same ends."""
    paths = list(paths) if isinstance(paths, Sequence) else [paths]
    if not paths:
        raise ValueError("there is no path to walk; give at least one")
    for path in paths:
        if not isinstance(path, Path | FunctionPath):
            raise ValueError(f"{path!r} is no path; wrap a function of t in FunctionPath")
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
    return paths
