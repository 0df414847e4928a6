"""The drawings of the explorers: curves along paths, and the map of a sheet."""

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor, log, log10
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.interpolate import RectBivariateSpline
from torch import Tensor

from ..evaluation import Profile, Survey
from ..sheets import Sheet
from ..tables import percent
from .markup import Form, base64, contours_of, png, shown, stretched
from .sources import Sight

# Where the marker's number stands: after it at these places, in per cent of the width, else before.
BESIDE = {"after": ((0, 15), (50, 85)), "dx": 12}
FINE = 121  # points along each side of the picture of a map
BELOW = {"loss": -11, "accuracy": 21, "residual": -11}  # outside the hump or hollow
UNITS = {"loss": " in nats"}
DOTTED = {"residual": "fitted"}  # else training images


class Chart:
    """Loss, accuracy or residual along paths, as SVG that stretches: places are per cent of it.

    Curves of a series are alike and have no names, for only one of them is looked at.
    """

    def __init__(
        self,
        of: str,
        profiles: Sequence[tuple[Profile, Profile]],
        names: Sequence[str],
        ends: tuple[str, str],
        span: tuple[float, float],
        series: bool = False,
    ) -> None:
        self.of, self.ends, (self.s0, self.s1) = of, ends, span
        self.series = series
        pairs = [[getattr(p, of) for p in pair] for pair in profiles]
        peak = max(float(values.max()) for pair in pairs for values in pair)
        step = _step(max(peak, 1e-3) / 4)
        self.top = 1.0 if of == "accuracy" else step * ceil(1.12 * peak / step)
        step = 0.25 if of == "accuracy" else step
        self.ticks = [k * step for k in range(int(self.top / step + 1e-9) + 1)]
        self.alone = len(pairs) == 1  # among several curves a bracket would be in the way
        times = [test.t for _, test in profiles]
        self.groups = [
            self._group(k, t, train, test)
            for k, (t, (train, test)) in enumerate(zip(times, pairs, strict=True))
        ]
        self.labels = [""] * len(pairs)
        if not series:
            xs, ys = [self.x(t).numpy() for t in times], [self.y(test).numpy() for _, test in pairs]
            self.labels = _label(names, xs, ys)
        first = pairs[0][1]
        self.about = f"{of} along {', '.join(names)}: " + ", ".join(
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
        band = stretched(f'<path class="mc-band" d="M{band}Z"/>') if self.of != "residual" else ""
        curves = "".join(
            f'<path class="mc-{on}" d="M{_points(self.x(t), self.y(values))}"/>'
            for on, values in (("train", train), ("test", test))
        )
        return band + bracket + stretched(curves)

    @property
    def figure(self) -> str:
        """Which figure of a sight the marker shows."""
        return f"test {self.of}"

    @property
    def form(self) -> Form:
        return "%" if self.of == "accuracy" else 2

    def json(self) -> dict[str, Any]:
        """What the script needs to move the marker."""
        names = {"figure": self.figure, "form": self.form}
        return {"top": self.top, "below": BELOW[self.of], **names}

    def _grid(self) -> str:
        lines = "".join(
            f'<line x1="0" x2="100%" y1="{self.y(v):.4g}%" y2="{self.y(v):.4g}%"/>'
            f'<text x="-8" dy="4" y="{self.y(v):.4g}%">'
            f"{percent(v, 0) if self.of == 'accuracy' else f'{v:.3g}'}</text>"
            for v in self.ticks
        )
        return f'<g class="mc-grid">{lines}</g>'

    def _curves(self, order: Sequence[int], front: int | None = None) -> str:
        return "".join(
            f'<g class="mc-curve mc-c{0 if self.series else j % 6}{" mc-on" if j == front else ""}"'
            f' data-path="{j}">'
            f"{self.groups[j]}{self.labels[j]}</g>"
            for j in order
        )

    def html(self, sight: Sight, route: int = 0, *, hidden: bool = False) -> str:
        """The chart with this route in front and the marker where the sight is."""
        others = [j for j in range(len(self.groups)) if j != route]
        value = sight.figures[self.figure]
        x, y = self.x(sight.place[0]), self.y(value)
        after = any(low <= x <= high for low, high in BESIDE["after"])
        style, dx = ("mc-after", BESIDE["dx"]) if after else ("mc-before", -BESIDE["dx"])
        return (
            f'<div class="mc-chart" data-of="{self.of}"{" hidden" if hidden else ""}>'
            f'<p class="mc-key"><b>{self.of}</b>{UNITS.get(self.of, "")}<i class="mc-line"></i>test'
            f'<i class="mc-line mc-thin"></i>{DOTTED.get(self.of, "train")}</p>'
            f'<svg class="mc-plot" role="img" aria-label="{escape(self.about)}">'
            f'{self._grid()}<line class="mc-hair" x1="{x:.4g}%" x2="{x:.4g}%" y1="{y:.4g}%"'
            f' y2="100%"/>{self._curves([*others, route], route)}{self.dots}<g class="mc-now">'
            f'<circle r="8" cx="{x:.4g}%" cy="{y:.4g}%"/><text class="{style}" x="{x:.4g}%"'
            f' y="{y:.4g}%" dx="{dx}" dy="{BELOW[self.of]}">{shown(value, self.form)}</text>'
            "</g></svg></div>"
        )

    def html_of_many(self, sights: Sequence[Sight]) -> str:
        """The chart with a marker on every path."""
        markers = "".join(
            f'<circle class="mc-runner mc-c{k}" data-runner="{k}" r="7"'
            f' cx="{self.x(sight.place[0]):.4g}%" cy="{self.y(sight.figures[self.figure]):.4g}%"/>'
            for k, sight in enumerate(sights)
        )
        return (
            f'<div class="mc-chart" data-of="{self.of}"><p class="mc-key"><b>{self.of}</b> test</p>'
            f'<svg class="mc-plot" role="img" aria-label="{escape(self.about)}">{self._grid()}'
            f"{self._curves(range(len(self.groups)))}{self.dots}{markers}</svg></div>"
        )


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
            for off in (-7, 7, -13, 13):  # above or below the curve, near it or a little farther
                y = own[i] + off
                room = min(np.abs(c[near] - y).min() - 3 * (c is not own) for c in curves)
                clash = any(abs(along[i] - x) < wide + w and abs(y - z) < 9 for x, z, w in taken)
                room = (
                    min(room, 12)
                    - 0.3 * abs(off)
                    - 0.02 * abs(along[i] - 50)
                    - 100 * (clash or not 4 < y < 97)
                )
                best = max(best, (room, along[i], y))
        taken.append((best[1], best[2], wide))
        x, y = best[1], best[2]
        result.append(
            f'<text class="mc-name" x="{x:.4g}%" y="{y:.4g}%" dy="4">{escape(name)}</text>'
        )
    return result


class Map:
    """The test loss over a sheet as a picture with contour lines, marks and drawn-in paths."""

    def __init__(
        self, sheet: Sheet, seen: Survey, lines: Mapping[str, Sequence[tuple[float, float]]]
    ) -> None:
        loss, on = seen.loss, ~seen.loss.isnan()
        self.extent, self.name = sheet.extent, sheet.name
        u0, u1, v0, v1 = sheet.extent
        self.ratio = min(max((u1 - u0) / (v1 - v0), 0.6), 1.8)
        low = max(float(loss[on].min()), 1e-3)
        high = max(float(loss[on].max()), 1.01 * low)
        share = (loss.clamp(low, high) / low).log() / log(high / low)
        fine, inside = self._fine(sheet, seen, share)
        index = (fine.clamp(0, 1) * 254).round().byte()
        index[~inside] = 255
        self.picture = base64(png(index.flip(0)[None], palette=True))
        levels = _levels(low, high)
        shares = [log(x / low) / log(high / low) for x in levels]
        contours = contours_of(fine.where(inside, torch.nan), shares)
        self.contours = stretched("".join(f'<path class="mc-level" d="{d}"/>' for d in contours))
        self.drawn = ""
        taken = [self._place(*place) for place in sheet.marks.values()]
        for name, places in lines.items():
            spots = [self._place(*place) for place in places]
            d = "M" + "L".join(f"{10 * x:.1f} {10 * y:.1f}" for x, y in spots)
            (x0, y0), (x1, y1) = spots[(len(spots) - 1) // 2 :][:2]
            x, y = (x0 + x1) / 2, (y0 + y1) / 2
            self.drawn += stretched(f'<path class="mc-route" d="{d}"/>')
            self.drawn += self._name(name, x, y, taken, "mc-name")
        for name, place in sheet.marks.items():
            x, y = self._place(*place)
            style = {"A": "mc-a", "B": "mc-b"}.get(name, "mc-c")
            self.drawn += f'<circle class="mc-end {style}" r="7" cx="{x:.4g}%" cy="{y:.4g}%"/>'
            self.drawn += self._name(name, x, y, taken, "mc-name")
        bar = png(torch.arange(255, dtype=torch.uint8)[None, None], palette=True)
        ticks = "".join(
            f'<span style="left:{100 * log(x / low) / log(high / low):.4g}%">{x:g}</span>'
            for x in levels
        )
        self.legend = (
            f'<div class="mc-legend"><span>test loss, nats</span><div><i style="background-image:'
            f'url(data:image/png;base64,{base64(bar)})"></i>{ticks}</div></div>'
        )

    @staticmethod
    def _fine(sheet: Sheet, seen: Survey, share: Tensor) -> tuple[Tensor, Tensor]:
        """The survey's values on an even, finer grid, and which of its points are on the sheet."""
        u0, u1, v0, v1 = sheet.extent
        u = torch.linspace(u0, u1, FINE, dtype=torch.float64)
        v = torch.linspace(v0, v1, FINE, dtype=torch.float64)
        values, degree = _fill(share).numpy(), min(3, len(seen.u) - 1)
        spline = RectBivariateSpline(seen.v.numpy(), seen.u.numpy(), values, kx=degree, ky=degree)
        fine, inside = torch.from_numpy(spline(v.numpy(), u.numpy())), torch.ones(FINE, FINE) > 0
        if sheet.inside is not None:
            inside = sheet.inside(torch.cartesian_prod(v, u).flip(1)).view(FINE, FINE)
        return fine, inside

    def _name(
        self, name: str, x: float, y: float, taken: list[tuple[float, float]], style: str
    ) -> str:
        """A name beside a spot, where it covers no mark and no other name."""
        wide = 1.2 * len(name) + 1.5
        places = ((0.0, -6.0), (0.0, 8.5), (wide + 3, 1.5), (-wide - 3, 1.5))
        spots = [(min(max(x + dx, wide), 100 - wide), y + dy) for dx, dy in places]

        def room(spot: tuple[float, float]) -> float:
            gaps = [max(abs(spot[0] - a) - wide, abs(spot[1] - 1.5 - b) - 2) for a, b in taken]
            return min([*gaps, 3.0]) - 100 * (not 4 < spot[1] < 98)

        best = max(spots, key=room)
        taken.append((best[0], best[1] - 1.5))
        return f'<text class="{style}" x="{best[0]:.4g}%" y="{best[1]:.4g}%">{escape(name)}</text>'

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
                ' Home and End move it to the first and second mark"'
            )
        return (
            f'<div class="mc-pad"{steer} style="aspect-ratio:{self.ratio:.4g}"><div class="mc-heat"'
            f' style="background-image:url(data:image/png;base64,{self.picture})"></div>'
            f'<svg aria-hidden="true">{self.contours}{self.drawn}'
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


def _points(x: Tensor, y: Tensor) -> str:
    pairs = zip((10 * x).tolist(), (10 * y).tolist(), strict=True)
    return "L".join(f"{a:.0f} {b:.1f}" for a, b in pairs)


def _step(wanted: float) -> float:
    """The round number 1, 2 or 5 × 10ᵏ at or above a positive one."""
    unit = 10.0 ** floor(log10(max(wanted, 1e-6)))
    return next(m * unit for m in (1, 2, 5, 10) if m * unit >= wanted * (1 - 1e-9))
