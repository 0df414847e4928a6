"""Sliders through weight space: the same network, seen from anywhere on a path or a sheet.

An explorer has two faces. On display it is HTML that needs nothing else: what its slider shows
was computed beforehand, at every point of a grid. `live()` makes ipywidgets that run the network
itself, at any point, while the slider moves. Both faces are drawn by the functions below; the
script in `assets` only moves what they have drawn.
"""

import json
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from hashlib import sha256
from html import escape
from math import ceil, floor, log, log10
from pathlib import Path as FilePath
from struct import pack
from time import perf_counter
from typing import Any
from zlib import compress, crc32

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .data import Dataset, Split
from .evaluation import Profile, profile, survey
from .forward import outputs
from .paths import AnyPath, Sheet
from .weights import Weights, check_weights, distance

SIDE = 48  # cells along each side of a map of decision regions
DRAWN = 300  # data points drawn over it
CLASS_COLOURS = ((0, 158, 115), (170, 68, 153), (204, 160, 30), (110, 110, 110), (136, 34, 85))
# Red, green and blue of a polynomial close to viridis (Matt Zucker, public domain).
VIRIDIS = (
    (-5.4355, 4.7764, 6.2283, -4.6342, -0.3309, 0.1051, 0.2777),
    (4.6459, -13.7451, 14.1799, -5.7991, 0.2148, 1.4046, 0.0054),
    (26.3124, -65.3530, 56.6906, -19.3324, 0.0951, 1.3846, 0.3341),
)


class _Explorer:
    """What both explorers share: how they look at one point, and their two faces."""

    network: nn.Module
    data: Dataset
    title: str
    device: torch.device  # where the weights are, and so the network runs
    statistics: Split
    view: "_Album | _Regions"
    names: list[str]
    routes: list[AnyPath] | list[Sheet]

    def live(self) -> "LiveExplorer":
        """The same picture as widgets that run the network at any point; needs a kernel."""
        return LiveExplorer(self)

    def _look(self, place: Sequence[float], k: int) -> tuple[float, float, Tensor]:
        """Test loss, test accuracy and the view's code at one point: one forward pass."""
        route, test = self.routes[k], self.data.test
        x = torch.cat([test.x, self.view.x.to(test.x)]) if len(self.view.x) else test.x
        at = torch.tensor([place], dtype=torch.float64)
        out = outputs(self.network, route, at, x, statistics=self.statistics)[0]
        ours, y = out[: len(test)], test.y.to(out.device)
        loss = F.cross_entropy(ours, y, reduction="none").double().mean()
        code = self.view.encode(out[len(test) :].softmax(-1)[None])[0]
        return float(loss), float((ours.argmax(-1) == y).double().mean()), code

    def _controls(self) -> list[tuple[str, float, float, float]]:
        """Each slider's description, first, last and initial value."""
        raise NotImplementedError

    def _options(self) -> Mapping[str, Sequence[str]]:
        """What else there is to choose, by name."""
        return {}

    def _picture(self, place: Sequence[float], k: int, of: int) -> str:
        """HTML of what is seen at one point of route k, the chart being number `of`."""
        raise NotImplementedError


class PathExplorer(_Explorer):
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
        self.device = next(iter(self.routes[0](0.0).values())).device
        self.network, self.data, self.points, self.span = network, data, points, span
        self.ends, self.names = ends, [path.name for path in self.routes]
        self.title = title or f"From {ends[0]} to {ends[1]}: {', '.join(self.names)}"
        self.statistics = statistics or data.train
        self.view = _view(data, images)
        self.profiles: list[tuple[Profile, Profile]] = []
        self.codes: list[Tensor] = []
        for path in self.routes:
            t = torch.linspace(*span, points, dtype=torch.float64)
            for knot in path.knots:  # a knot that is on the grid but for rounding takes its place
                t[(t - knot).abs() < 1e-9] = knot
            train, test = (
                profile(network, path, split, t, statistics=self.statistics)
                for split in (data.train, data.test)
            )
            said = outputs(network, path, test.t, self.view.x, statistics=self.statistics)
            self.profiles.append((train, test))
            self.codes.append(self.view.encode(said.softmax(-1)))
        self.charts = {of: _Chart(self, of) for of in ("loss", "accuracy")}

    def __repr__(self) -> str:
        clauses = [
            f"worst accuracy {test.worst_accuracy:.2f}, barrier {test.barrier():.2f} nats"
            for _, test in self.profiles
        ]
        if len(clauses) == 1:
            return f"PathExplorer({self.names[0]}, {self.points} points, {clauses[0]})"
        pairs = zip(self.names, clauses, strict=True)
        return f"PathExplorer({self.points} points; {'; '.join(map(': '.join, pairs))})"

    def _repr_html_(self) -> str:
        (train, test), (a, b) = self.profiles[0], self.ends
        start = int(test.t.abs().argmin())
        loss, accuracy = float(test.loss[start]), float(test.accuracy[start])
        stops = [f"{self.charts['loss'].x(t):.4g}%" for t in (0, 1)]
        marks = [(0.0, a, "mc-a"), (0.5, "0.5", ""), (1.0, b, "mc-b")]
        marks += [(t, f"{t:g}".replace("-", "−"), "") for t in self.span if t not in (0, 1)]
        ticks = "".join(
            f'<span class="{style}" style="left:{self.charts["loss"].x(t):.4g}%">'
            f"{escape(label)}</span>"
            for t, label, style in marks
        )
        label = f"t: {a} is 0, {b} is 1"
        slider = (
            f'<div class="mc-slider" style="--mc-from:{stops[0]};--mc-to:{stops[1]}">'
            f'<input type="range" min="0" max="{len(test.t) - 1}" value="{start}" step="1"'
            f' autocomplete="off" aria-label="{escape(label)}">'
            f'<div class="mc-ticks" aria-hidden="true">{ticks}</div></div>'
        )
        charts = self.charts["loss"].html(loss, 0.0)
        charts += self.charts["accuracy"].html(accuracy, 0.0, hidden=True)
        values = {"t": f"{0:.3f}", "test accuracy": _percent(accuracy), "test loss": f"{loss:.3f}"}
        values["train accuracy"] = _percent(float(train.accuracy[start]))
        values["train loss"] = f"{float(train.loss[start]):.3f}"
        body = (
            f'<div class="mc-tools">{_buttons("of", self.charts, "Curve")}'
            f"{_buttons('path', self.names, 'Path') if len(self.names) > 1 else ''}</div>"
            f'<div class="mc-stage"><div class="mc-left">{charts}{slider}<div class="mc-foot">'
            '<button type="button" class="mc-button mc-play"><span>Walk</span></button>'
            f'{_readout(values)}</div></div><div class="mc-right">'
            f"{self.view.html(self.codes[0][start])}</div></div>"
        )
        paths = [
            {
                "name": name,
                "t": [round(t, 6) for t in test.t.tolist()],
                "loss": {"train": _short(train.loss), "test": _short(test.loss)},
                "accuracy": {"train": _short(train.accuracy), "test": _short(test.accuracy)},
                "codes": _base64(code.numpy().tobytes()),
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
        return _figure("path", self.title, body, self._caption(), head, rows, data, self.view)

    def _caption(self) -> str:
        lowest = []
        for name, (_, test) in zip(self.names, self.profiles, strict=True):
            between = (test.t >= 0) & (test.t <= 1)
            i = int(test.accuracy.where(between, torch.tensor(2.0).double()).argmin())
            on = f" on “{name}”" if len(self.names) > 1 else ""
            lowest.append(f"{_percent(float(test.accuracy[i]))} at t = {float(test.t[i]):.2f}{on}")
        test = self.profiles[0][1]
        ends = [
            f"{name} answers {_percent(float(test.accuracy[(test.t - t).abs().argmin()]))}"
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
        values = {"t": f"{place[0]:.3f}", "test accuracy": _percent(accuracy)}
        return (
            f'<div class="mc-stage"><div class="mc-left">{chart}'
            f"{_readout(values | {'test loss': f'{loss:.3f}'})}</div>"
            f'<div class="mc-right">{self.view.html(code)}</div></div>'
        )


class SheetExplorer(_Explorer):
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
        self.view = _view(data, images, bars=False)
        self.train_survey, self.survey = (
            survey(network, sheet, split, points, statistics=self.statistics)
            for split in (data.train, data.test)
        )
        self.on = ~self.survey.loss.isnan()
        v, u = torch.meshgrid(self.survey.v, self.survey.u, indexing="ij")
        self.places = torch.stack([u, v], -1)
        self.map = _Map(self, paths or {})

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
        data: dict[str, Any] = {"u": _short(self.survey.u), "v": _short(self.survey.v)}
        data |= {"start": [i, j], "loss": {}, "accuracy": {}} | self.view.json
        for on, seen in both.items():
            values[f"{on} accuracy"] = _percent(float(seen.accuracy[i, j]))
            values[f"{on} loss"] = f"{float(seen.loss[i, j]):.3f}"
            data["loss"][on] = _short(seen.loss.flatten())
            data["accuracy"][on] = _short(seen.accuracy.flatten())
        said = ""
        if isinstance(self.view, _Album):  # decision regions at every point would be too heavy
            points, x = self.places[self.on], self.view.x
            out = outputs(self.network, self.sheet, points, x, statistics=self.statistics)
            codes = torch.zeros(*self.on.shape, *self.view.shape, dtype=torch.uint8)
            codes[self.on] = self.view.encode(out.softmax(-1))
            data["codes"], said = _base64(codes.numpy().tobytes()), self.view.html(codes[i, j])
        body = (
            f'<div class="mc-stage"><div class="mc-left">{self.map.html(here, pad=True)}</div>'
            f'<div class="mc-right">{_readout(values)}{said}</div></div>'
        )
        some = slice(None, None, max(1, self.points // 10))
        columns = list(self.survey.u[some].tolist())
        rows = [
            (f"{v:.3g}", *("–" if loss != loss else f"{loss:.3g}" for loss in row))
            for v, row in zip(self.survey.v[some], self.survey.loss[some, some], strict=True)
        ]
        head = ["test loss at v (down), u (across)", *(f"{u:.3g}" for u in columns)]
        return _figure("sheet", self.title, body, self._caption(), head, rows, data, self.view)

    def _start(self) -> tuple[float, float]:
        u0, u1, v0, v1 = self.sheet.extent
        return next(iter(self.sheet.marks.values()), ((u0 + u1) / 2, (v0 + v1) / 2))

    def _caption(self) -> str:
        low, high = self.survey.loss[self.on].aminmax()
        return (
            f"Every point of the map is a network. Light is low: the test loss goes from {low:.2f}"
            f" to {high:.2f} nats, lines join points of equal loss. Drag the marker, or choose it"
            f" and use the arrow keys. {self.view.caption if isinstance(self.view, _Album) else ''}"
        )

    def _controls(self) -> list[tuple[str, float, float, float]]:
        (u0, u1, v0, v1), (u, v) = self.sheet.extent, self._start()
        return [("u", u0, u1, u), ("v", v0, v1, v)]

    def _picture(self, place: Sequence[float], k: int, of: int) -> str:
        if self.sheet.inside is not None and not self.sheet.inside(torch.tensor([place])).all():
            return self.map.html(place) + "<p>There is no point of the sheet here.</p>"
        loss, accuracy, code = self._look(place, k)
        values = {"u": f"{place[0]:.3f}", "v": f"{place[1]:.3f}"}
        values |= {"test accuracy": _percent(accuracy), "test loss": f"{loss:.3f}"}
        return (
            f'<div class="mc-stage"><div class="mc-left">{self.map.html(place)}</div>'
            f'<div class="mc-right">{_readout(values)}{self.view.html(code)}</div></div>'
        )


class LiveExplorer:
    """An explorer as ipywidgets: each move of a slider runs the network, wherever its weights are.

    Attributes
    ----------
    sliders : one for t, or two for u and v.
    picture : the widget whose `value` is the HTML of what is seen there.
    """

    def __init__(self, explorer: _Explorer) -> None:
        import ipywidgets as widgets

        self.explorer = explorer
        wide = {"width": "100%"}
        self.sliders = [
            widgets.FloatSlider(
                value=value,
                min=low,
                max=high,
                step=0.005 * (high - low),
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
        style = f"<style>{_asset('explorers.css')}{explorer.view.css}</style>"
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
        still = (
            f'<!--mc-explorer--><div class="mc-still">{_style(self.explorer.view)}{self._html()}'
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


# --- What the network says of the data: pictures with its opinion, or regions of the plane --------


class _Album:
    """Test images, and under each what the network takes it for.

    A code holds one image's opinion: the probability of every class in 255ths, or (without bars,
    or for more than 12 classes) the most probable class and its probability.
    """

    def __init__(self, data: Dataset, images: int, bars: bool) -> None:
        self.classes, test = data.test.classes, data.test
        if len(self.classes) > 256:
            raise ValueError(
                f"{len(self.classes)} classes are more than the 256 that fit a picture"
            )
        rank = torch.zeros(len(test), dtype=torch.int64)
        for c in range(len(self.classes)):
            members = (test.y == c).nonzero()[:, 0].to(rank.device)
            rank[members] = torch.arange(len(members))
        order = (rank * len(self.classes) + test.y.cpu()).argsort(stable=True)[:images]
        shown = test.take(order)
        self.x, self.labels = shown.x, shown.y.tolist()
        self.bars = bars and len(self.classes) <= 12
        self.shape = (len(order), len(self.classes) if self.bars else 2)
        pictures = [_base64(_png(p)) for p in (data.pictures(shown.x).cpu() * 255).round().byte()]
        self.name = "mc-" + sha256("".join(pictures).encode()).hexdigest()[:8]
        self.css = "".join(
            f".{self.name} .mc-i{k}{{background-image:url(data:image/png;base64,{picture})}}"
            for k, picture in enumerate(pictures)
        )
        self.json = {"classes": self.classes, "labels": self.labels, "codes_per": self.shape[1]}
        self.caption = (
            f"The {len(order)} pictures are test images, each with what the network takes it for"
            f"{', and a bar for the probability of every class' if self.bars else ''}."
        )

    def encode(self, p: Tensor) -> Tensor:
        """Codes, uint8, for probabilities of shape (T, images, classes)."""
        p = p.cpu()
        top = p.argmax(-1, keepdim=True)
        code = (255 * p).round().long()
        if not self.bars:
            return torch.cat([top, code.gather(-1, top)], -1).byte()
        others = code.scatter(-1, top, 0).amax(-1, keepdim=True)  # rounding may not change the top
        return code.scatter(-1, top, torch.maximum(code.gather(-1, top), others + 1)).byte()

    def html(self, code: Tensor) -> str:
        tiles, right = [], 0
        for k, (label, row) in enumerate(zip(self.labels, code.tolist(), strict=True)):
            top, value = (row.index(max(row)), max(row)) if self.bars else row
            right += top == label
            name, verdict = escape(self.classes[label]), ("wrong", "right")[top == label]
            bars = "".join(
                f'<rect x="{10 * c + 1}" width="8" height="{h}" class="{_bar(c, top, label)}"/>'
                for c, h in enumerate(row)
            )
            bars = (
                f'<svg class="mc-bars" viewBox="0 0 {10 * len(row)} 255" aria-hidden="true"'
                ' preserveAspectRatio="none"><g transform="matrix(1 0 0 -1 0 255)">'
                f"{bars}</g></svg>"
            )
            tiles.append(
                f'<li class="mc-tile" data-is="{verdict}"><span class="mc-pic mc-i{k}" role="img"'
                f' aria-label="{name}"></span>{bars if self.bars else ""}<span class="mc-says">'
                f'<span class="mc-sr">taken for </span><b>{escape(self.classes[top])}</b> '
                f'<i role="img" aria-label="{verdict}">{"✗✓"[top == label]}</i> '
                f"<span>{_percent(value / 255, 0)}</span></span></li>"
            )
        long = " mc-long" if max(map(len, self.classes)) > 3 else ""
        head = f'<p class="mc-key"><b class="mc-count">{right}</b> of {len(tiles)} images right</p>'
        return f'{head}<ul class="mc-album {self.name}{long}">{"".join(tiles)}</ul>'


class _Regions:
    """The plane, each cell coloured by the class the network gives it, under the data points.

    A code holds one cell: the class in its high part, how sure the network is in its low part.
    """

    css = ""
    caption = (
        "The map: the class that the network gives to each point of the plane, the fuller the"
        " colour the surer; the line is where it changes its mind; circles are test points."
    )

    def __init__(self, data: Dataset) -> None:
        self.classes = data.test.classes
        if len(self.classes) > len(CLASS_COLOURS):
            raise ValueError(
                f"{len(self.classes)} classes of points of the plane are more than the"
                f" {len(CLASS_COLOURS)} colours; keep fewer"
            )
        points = data.test.take(slice(0, DRAWN))
        low, high = data.test.x.amin(0).cpu(), data.test.x.amax(0).cpu()
        middle, half = (low + high) / 2, float((high - low).max()) * 0.54
        across = (2 * torch.arange(SIDE) + 1) / SIDE - 1
        grid = torch.cartesian_prod(-across, across).flip(1)  # from the top row, left to right
        self.x = middle + half * grid
        self.levels = 256 // len(self.classes)
        self.json = {"side": SIDE, "levels": self.levels, "colours": CLASS_COLOURS}
        places = (500 + 500 * (points.x.cpu() - middle) / half).round().int()
        self.points = ""
        for c in range(len(self.classes)):
            dots = "".join(f"M{x} {1000 - y}h0" for x, y in places[points.y.cpu() == c].tolist())
            self.points += f'<path class="mc-halo" d="{dots}"/><path class="mc-k{c}" d="{dots}"/>'

    def encode(self, p: Tensor) -> Tensor:
        """Codes, uint8, for probabilities of shape (T, SIDE², classes)."""
        value, top = p.cpu().max(-1)
        sure = (value - 1 / len(self.classes)) / (1 - 1 / len(self.classes))
        return (top * self.levels + (sure.clamp(0, 1) * (self.levels - 1)).round()).byte()

    def html(self, code: Tensor) -> str:
        top, sure = code.int() // self.levels, (code.int() % self.levels) / (self.levels - 1)
        alpha = (25 + 130 * sure).round().byte()[:, None]
        colours = torch.tensor(CLASS_COLOURS, dtype=torch.uint8)[top]
        image = torch.cat([colours, alpha], 1).view(SIDE, SIDE, 4).permute(2, 0, 1)
        signed = sure * (1 - 2 * (top > 0))
        edge = _contours(signed.view(SIDE, SIDE).double(), [0.0], inset=500 / SIDE)[0]
        key = " ".join(
            f'<i class="mc-dot mc-k{c}"></i> {escape(name)}' for c, name in enumerate(self.classes)
        )
        return (
            f'<p class="mc-key">{key}</p><div class="mc-regions"><canvas width="{SIDE}"'
            f' height="{SIDE}" style="background-image:url(data:image/png;base64,'
            f'{_base64(_png(image))})" role="img" aria-label="decision regions"></canvas>'
            f'<svg viewBox="0 0 1000 1000" aria-hidden="true">{self.points}'
            f'<path class="mc-edge" d="{edge}"/></svg></div>'
        )


def _view(data: Dataset, images: int, *, bars: bool = True) -> _Album | _Regions:
    rows = tuple(data.test.x.shape[1:])
    if data.image_shape is not None:
        if len(data.image_shape) == 2 or data.image_shape[0] in (1, 3):
            return _Album(data, images, bars)
    elif rows == (2,):
        return _Regions(data)
    raise ValueError(
        f"rows of {data.name!r} have shape {rows} and image_shape {data.image_shape}: neither"
        " points of the plane, (2,), nor images, (h, w), (1, h, w) or (3, h, w); set image_shape"
    )


# --- The curves -----------------------------------------------------------------------------------


class _Chart:
    """Loss or accuracy along the paths, as SVG that stretches: places are per cent of the plot."""

    def __init__(self, explorer: PathExplorer, of: str) -> None:
        self.of, self.ends, (self.s0, self.s1) = of, explorer.ends, explorer.span
        pairs = [[getattr(p, of) for p in pair] for pair in explorer.profiles]
        peak = max(float(values.max()) for pair in pairs for values in pair)
        step = _step(peak / 4)
        self.top = 1.0 if of == "accuracy" else step * ceil(1.12 * peak / step)
        step = 0.25 if of == "accuracy" else step
        self.ticks = [k * step for k in range(int(self.top / step + 1e-9) + 1)]
        self.alone = len(pairs) == 1  # among several curves a bracket would be in the way
        times = [test.t for _, test in explorer.profiles]
        self.groups = [
            self._group(k, t, train, test)
            for k, (t, (train, test)) in enumerate(zip(times, pairs, strict=True))
        ]
        self.labels = _label(
            explorer.names,
            [self.x(t).numpy() for t in times],
            [self.y(test).numpy() for _, test in pairs],
        )
        first = pairs[0][1]
        self.about = f"{of} along {', '.join(explorer.names)}: " + ", ".join(
            f"{float(first[(times[0] - t).abs().argmin()]):.2f} at {name}"
            for t, name in ((0.0, self.ends[0]), (0.5, "t = 0.5"), (1.0, self.ends[1]))
        )
        self.dots = "".join(
            f'<circle class="mc-end {style}" r="6" cx="{self.x(t):.4g}%"'
            f' cy="{self.y(float(first[(times[0] - t).abs().argmin()])):.4g}%"/>'
            for t, style in ((0.0, "mc-a"), (1.0, "mc-b"))
        )

    def x(self, t: Any) -> Any:
        return 100 * (t - self.s0) / (self.s1 - self.s0)

    def y(self, value: Any) -> Any:
        return 100 * (1 - value / self.top)

    def _group(self, k: int, t: Tensor, train: Tensor, test: Tensor) -> str:
        """Curves of one path, the band of its barrier, and the bracket that measures it."""
        on = (t >= 0) & (t <= 1)
        base = test[on][0] + (test[on][-1] - test[on][0]) * t[on]
        gap = (test[on] - base) * (1 if self.of == "loss" else -1)
        i = int(gap.argmax())
        band = (
            _points(self.x(t[on]), self.y(test[on]))
            + " L"
            + _points(self.x(t[on][[-1, 0]]), self.y(base[[-1, 0]]))
        )
        bracket = ""
        if self.alone and float(gap[i]) > 0.22 * self.top:
            what, unit = ("barrier", "nats") if self.of == "loss" else ("lost", "points")
            size = f"{float(gap[i]):.2f}" if self.of == "loss" else f"{100 * float(gap[i]):.0f}"
            x, y0, y1 = (
                f"{float(v):.4g}%" for v in (self.x(t[on][i]), self.y(base[i]), self.y(test[on][i]))
            )
            middle = f"{float(self.y((base[i] + test[on][i]) / 2)):.4g}%"
            bracket = (
                f'<line class="mc-bracket" x1="{x}" x2="{x}" y1="{y0}" y2="{y1}"/>'
                f'<rect class="mc-patch" x="{x}" y="{middle}" width="62" height="36" rx="3"'
                f' transform="translate(-31 -18)"/>'
                f'<text class="mc-barrier" x="{x}" y="{middle}" dy="-3">{what}</text>'
                f'<text class="mc-barrier" x="{x}" y="{middle}" dy="13">{size} {unit}</text>'
            )
        return (
            f'<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" width="100%" height="100%">'
            f'<path class="mc-band" d="M{band}Z"/>'
            f'<path class="mc-train" d="M{_points(self.x(t), self.y(train))}"/>'
            f'<path class="mc-test" d="M{_points(self.x(t), self.y(test))}"/></svg>{bracket}'
        )

    def html(self, value: float, t: float, k: int = 0, *, hidden: bool = False) -> str:
        """The chart with path k in front and the marker at (t, value)."""
        grid = "".join(
            f'<line x1="0" x2="100%" y1="{self.y(v):.4g}%" y2="{self.y(v):.4g}%"/>'
            f'<text x="-8" dy="4" y="{self.y(v):.4g}%">'
            f"{_percent(v, 0) if self.of == 'accuracy' else f'{v:.3g}'}</text>"
            for v in self.ticks
        )
        order = [j for j in range(len(self.groups)) if j != k] + [k]  # the walked one on top
        curves = "".join(
            f'<g class="mc-curve mc-c{j % 4}{" mc-on" if j == k else ""}" data-path="{j}">'
            f"{self.groups[j]}{self.labels[j]}</g>"
            for j in order
        )
        x, y = self.x(t), self.y(value)
        number = _percent(value) if self.of == "accuracy" else f"{value:.2f}"
        style, dx, dy = _beside(x)
        return (
            f'<div class="mc-chart" data-of="{self.of}"{" hidden" if hidden else ""}>'
            f'<p class="mc-key"><b>{self.of}</b>{" in nats" if self.of == "loss" else ""}'
            f'<i class="mc-line"></i>test<i class="mc-line mc-thin"></i>train</p>'
            f'<svg class="mc-plot" role="img" aria-label="{escape(self.about)}">'
            f'<g class="mc-grid">{grid}</g><line class="mc-hair" x1="{x:.4g}%" x2="{x:.4g}%"'
            f' y1="{y:.4g}%" y2="100%"/>{curves}{self.dots}<g class="mc-now"><circle r="8" cx="{x:.4g}%" cy="{y:.4g}%"/><text class="{style}" x="{x:.4g}%"'
            f' y="{y:.4g}%" dx="{dx}" dy="{dy}">{number}</text></g></svg></div>'
        )


def _beside(x: float) -> tuple[str, int, int]:
    """Where the marker's number stands: outside the hump, but never outside the plot."""
    if x < 15:
        return "mc-after", 12, -12
    if x > 85:
        return "mc-before", -12, -12
    return ("mc-before", -16, 4) if x < 50 else ("mc-after", 16, 4)


def _label(names: Sequence[str], xs: list[np.ndarray], ys: list[np.ndarray]) -> list[str]:
    """Each path's name beside its curve, where it is farthest from the others and other names."""
    if len(names) == 1:
        return [""]
    along = np.linspace(0, 100, 101)
    curves = [np.interp(along, x, y) for x, y in zip(xs, ys, strict=True)]
    taken, result = [], []
    for name, own in zip(names, curves, strict=True):
        wide, best = 1.1 * len(name) + 2, (-np.inf, 50.0, 50.0)
        for i in range(12, 89):
            near = np.abs(along - along[i]) < wide
            for y in (own[i] - 7, own[i] + 7):  # above or below the curve
                room = min(np.abs(c[near] - y).min() - 3 * (c is not own) for c in curves)
                clash = any(abs(along[i] - x) < wide + w and abs(y - z) < 9 for x, z, w in taken)
                room = min(room, 20) - 0.02 * abs(along[i] - 50) - 100 * (clash or not 4 < y < 97)
                best = max(best, (room, along[i], y))
        taken.append((best[1], best[2], wide))
        x, y = best[1], best[2]
        result.append(
            f'<text class="mc-name" x="{x:.4g}%" y="{y:.4g}%" dy="4">{escape(name)}</text>'
        )
    return result


# --- The map --------------------------------------------------------------------------------------


class _Map:
    """The test loss over a sheet as a picture with contour lines, marks and drawn-in paths."""

    def __init__(
        self, explorer: SheetExplorer, lines: Mapping[str, Sequence[tuple[float, float]]]
    ) -> None:
        sheet, loss, on = explorer.sheet, explorer.survey.loss, explorer.on
        self.extent, self.name = sheet.extent, sheet.name
        u0, u1, v0, v1 = sheet.extent
        self.ratio = min(max((u1 - u0) / (v1 - v0), 0.6), 1.8)
        low = max(float(loss[on].min()), 1e-3)
        high = max(float(loss[on].max()), 1.01 * low)
        share = (loss.clamp(low, high) / low).log() / log(high / low)
        fine = F.interpolate(_fill(share)[None, None], size=121, mode="bicubic", align_corners=True)
        index = (fine[0, 0].clamp(0, 1) * 254).round().byte()
        if sheet.inside is not None:
            v, u = torch.meshgrid(
                torch.linspace(v0, v1, 121, dtype=torch.float64),
                torch.linspace(u0, u1, 121, dtype=torch.float64),
                indexing="ij",
            )
            index[~sheet.inside(torch.stack([u, v], -1).view(-1, 2)).view(121, 121)] = 255
        self.picture = _base64(_png(index.flip(0)[None], palette=True))
        levels = _levels(low, high)
        contours = _contours(share, [log(x / low) / log(high / low) for x in levels])
        self.contours = "".join(f'<path d="{d}"/>' for d in contours)
        self.drawn = ""
        for name, places in lines.items():
            spots = [self._place(*place) for place in places]
            d = "M" + "L".join(f"{10 * x:.1f} {10 * y:.1f}" for x, y in spots)
            (x0, y0), (x1, y1) = spots[(len(spots) - 1) // 2 :][:2]
            x, y = (x0 + x1) / 2, (y0 + y1) / 2
            self.drawn += (
                f'<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" width="100%"'
                f' height="100%"><path class="mc-route" d="{d}"/></svg><text class="mc-name"'
                f' x="{x:.4g}%" y="{y:.4g}%" dy="-8">{escape(name)}</text>'
            )
        for name, place in sheet.marks.items():
            x, y = self._place(*place)
            style = {"A": "mc-a", "B": "mc-b"}.get(name, "mc-c")
            dy = 24 if y < 12 else -12
            self.drawn += (
                f'<circle class="mc-end {style}" r="7" cx="{x:.4g}%" cy="{y:.4g}%"/>'
                f'<text class="mc-name" x="{min(max(x, 4), 96):.4g}%" y="{y:.4g}%" dy="{dy}">'
                f"{escape(name)}</text>"
            )
        bar = _png(torch.arange(255, dtype=torch.uint8)[None, None], palette=True)
        ticks = "".join(
            f'<span style="left:{100 * log(x / low) / log(high / low):.4g}%">{x:g}</span>'
            for x in levels
        )
        self.legend = (
            f'<div class="mc-legend"><span>test loss, nats</span><div><i style="background-image:'
            f'url(data:image/png;base64,{_base64(bar)})"></i>{ticks}</div></div>'
        )

    def _place(self, u: float, v: float) -> tuple[float, float]:
        u0, u1, v0, v1 = self.extent
        return 100 * (u - u0) / (u1 - u0), 100 * (v1 - v) / (v1 - v0)

    def html(self, place: Sequence[float], *, pad: bool = False) -> str:
        x, y = self._place(*place)
        rings = "".join(
            f'<circle class="mc-{name}" r="{r}" cx="{x:.4g}%" cy="{y:.4g}%"/>'
            for name, r in (("rim", 11), ("ring", 11), ("grip", 22))
        )
        steer = ""
        if pad:
            steer = (
                f' tabindex="0" role="application" aria-roledescription="map" aria-label="'
                f"{escape(self.name)}: arrow keys move the marker, with shift five steps,"
                ' Home returns to the start"'
            )
        return (
            f'<div class="mc-pad"{steer} style="aspect-ratio:{self.ratio:.4g}"><div class="mc-heat"'
            f' style="background-image:url(data:image/png;base64,{self.picture})"></div>'
            '<svg aria-hidden="true"><svg class="mc-contours" viewBox="0 0 1000 1000" width="100%"'
            f' height="100%" preserveAspectRatio="none">{self.contours}</svg>{self.drawn}'
            f'<g class="mc-now">{rings}</g></svg></div>{self.legend}'
        )


def _fill(values: Tensor) -> Tensor:
    """Give each point outside the sheet the mean of its neighbours, so that nothing bleeds in."""
    values = values.clone()
    while values.isnan().any():
        around = F.pad(values[None, None], (1, 1, 1, 1), value=torch.nan).unfold(2, 3, 1)
        mean = around.unfold(3, 3, 1)[0, 0].flatten(2).nanmean(-1)
        values = torch.where(values.isnan(), mean, values)
    return values


def _levels(low: float, high: float) -> list[float]:
    """A handful of round numbers between low and high, evenly spread on a logarithmic scale."""
    for digits in ((1, 2, 5), (1, 3), (1,)):
        tens = range(floor(log10(low)), ceil(log10(high)) + 1)
        levels = [d * 10.0**k for k in tens for d in digits if low < d * 10.0**k < high]
        if len(levels) <= 7:
            break
    return levels


def _contours(values: Tensor, levels: Sequence[float], inset: float = 0.0) -> list[str]:
    """SVG path data, in thousandths of the picture, of the lines where a grid has these values.

    Row 0 lies at the bottom, or at the top if the grid is inset (its points are cell centres).
    """
    from contourpy import contour_generator

    steps = (len(values) - 1) / (1000 - 2 * inset)
    generator = contour_generator(z=np.ma.masked_invalid(values.numpy()))
    result = []
    for level in levels:
        d = ""
        for line in generator.lines(level):
            points = (inset + np.asarray(line) / steps).round().astype(int).tolist()
            d += "M" + "L".join(f"{x} {y if inset else 1000 - y}" for x, y in points)
        result.append(d)
    return result


# --- Small parts ----------------------------------------------------------------------------------


@cache
def _asset(name: str) -> str:
    return (FilePath(__file__).parent / "assets" / name).read_text("utf8")


def _style(view: _Album | _Regions) -> str:
    return f"<style>{_asset('explorers.css')}{view.css}</style>"


def _figure(
    kind: str,
    title: str,
    body: str,
    caption: str,
    head: Sequence[str],
    rows: Sequence[Sequence[object]],
    data: dict[str, Any],
    view: _Album | _Regions,
) -> str:
    """One self-contained piece of HTML; no ids in it, so that it may stand on a page twice."""
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = "".join(
        "<tr>" + "".join(f"<td>{escape(str(x))}</td>" for x in row) + "</tr>" for row in rows
    )
    content = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return (
        f'<!--mc-explorer--><figure class="mc-explorer mc-{kind}">{_style(view)}'
        f'<p class="mc-title">{escape(title)}</p>{body}'
        f"<figcaption>{escape(caption)}</figcaption>"
        f"<noscript><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></noscript>"
        f'<script type="application/json">{content}</script>'
        f"<script>{_asset('explorers.js')}</script></figure><!--/mc-explorer-->"
    )


def _readout(values: Mapping[str, str]) -> str:
    stats = "".join(
        f'<span class="mc-stat{" mc-minor" if name.startswith("train") else ""}">'
        f"<span>{name}</span> <b>{value}</b></span> "
        for name, value in values.items()
    )
    return f'<output class="mc-readout" aria-live="polite">{stats}</output>'


def _buttons(name: str, options: Iterable[str], about: str) -> str:
    buttons = "".join(
        f'<button type="button" class="mc-button" data-{name}="{option if name == "of" else k}"'
        f' aria-pressed="{"false" if k else "true"}">{escape(option)}</button>'
        for k, option in enumerate(options)
    )
    return f'<div class="mc-choice" role="group" aria-label="{about}">{buttons}</div>'


def _bar(c: int, top: int, label: int) -> str:
    return "mc-true" if c == label else "mc-top" if c == top else "mc-other"


def _points(x: Tensor, y: Tensor) -> str:
    pairs = zip((10 * x).tolist(), (10 * y).tolist(), strict=True)
    return "L".join(f"{a:.0f} {b:.1f}" for a, b in pairs)


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}\u202f%"


def _short(values: Tensor) -> list[float | None]:
    """Four significant digits; nothing where there is no value."""
    return [None if v != v else float(f"{v:.4g}") for v in values.tolist()]


def _step(wanted: float) -> float:
    """The round number 1, 2 or 5 × 10ᵏ at or above a positive one."""
    unit = 10.0 ** floor(log10(max(wanted, 1e-6)))
    return next(m * unit for m in (1, 2, 5, 10) if m * unit >= wanted * (1 - 1e-9))


def _base64(content: bytes) -> str:
    return b64encode(content).decode()


def _png(image: Tensor, *, palette: bool = False) -> bytes:
    """A picture of shape (h, w) or (1, 3 or 4, h, w), uint8; with a palette the shades are ours."""
    image = image[None] if image.dim() == 2 else image
    channels, height, width = image.shape
    rows = F.pad(image.permute(1, 2, 0).reshape(height, width * channels), (1, 0))

    def chunk(name: bytes, content: bytes) -> bytes:
        return pack(">I", len(content)) + name + content + pack(">I", crc32(name + content))

    kind = 3 if palette else {1: 0, 3: 2, 4: 6}[channels]
    parts = [chunk(b"IHDR", pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0))]
    if palette:  # light is low; 255 is transparent
        shares = np.linspace(1, 0, 255)
        shades = np.stack([np.polyval(c, shares) for c in VIRIDIS], 1).clip(0, 1) * 255
        parts.append(chunk(b"PLTE", shades.round().astype(np.uint8).tobytes() + b"\0\0\0"))
        parts.append(chunk(b"tRNS", b"\xff" * 255 + b"\0"))
    parts += [chunk(b"IDAT", compress(rows.contiguous().numpy().tobytes(), 6)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _check_paths(paths: AnyPath | Sequence[AnyPath], span: tuple[float, float]) -> list[AnyPath]:
    """The paths as a list, if all can be walked over the span and join the same ends."""
    paths = list(paths) if isinstance(paths, Sequence) else [paths]
    if not paths:
        raise ValueError("there is no path to walk; give at least one")
    if not (span[0] <= 0 and span[1] >= 1):
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
