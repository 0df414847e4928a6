"""What a reader reads off an explorer, by its axes, legends and labels, is what was measured."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup, Comment
from PIL import Image

from modeconn_lite import data, evaluation, paths, sheets, zoo
from modeconn_lite.evaluation import Profile, Survey
from modeconn_lite.explorers import (
    BlockExplorer,
    NeuronExplorer,
    PathExplorer,
    RaceExplorer,
    SheetExplorer,
    base,
    charts,
    markup,
)
from modeconn_lite.methods.dropout import path_to_dropped
from modeconn_lite.networks import mlp
from modeconn_lite.weights import apply, fresh_weights

NETWORK = zoo.network("digits")
A, B, C = zoo.load("digits")[:3]
DIGITS = data.load("digits")


def soup(html: str) -> BeautifulSoup:
    return BeautifulSoup(html, "html.parser")


def number(text: str) -> float:
    """As written on an axis: "0.5", "−1", "98.4 %"."""
    value = float(re.sub(r"[^\d.e-]", "", text.replace("−", "-")))
    return value / 100 if "%" in text else value


def per_cent(text: str) -> float:
    assert text.endswith("%")
    return float(text[:-1])


def scale(pairs):
    """The straight axis through (place, value)s, all of which must lie on it."""
    (x0, v0), (x1, v1) = min(pairs), max(pairs)
    for x, v in pairs:
        assert v == pytest.approx(v0 + (x - x0) * (v1 - v0) / (x1 - x0), abs=1e-3 * abs(v1 - v0))
    return lambda x: v0 + (x - x0) * (v1 - v0) / (x1 - x0)


def value_axis(chart):
    """From per cent to values, by the lines of the grid and the numbers at them."""
    texts, lines = chart.select(".mc-grid text"), chart.select(".mc-grid line")
    assert [t["y"] for t in texts] == [line["y1"] for line in lines]
    assert all((line["y2"], line["x1"], line["x2"]) == (line["y1"], "0", "100%") for line in lines)
    accuracy = chart["data-of"] == "accuracy"
    assert all(("%" in t.text) == accuracy for t in texts), "a share of 0.2 is written 20 %"
    pairs = [(per_cent(t["y"]), number(t.text)) for t in texts]
    assert 3 <= len(pairs) <= 7 and max(pairs) == (100, 0)
    return scale(pairs)


def time_axis(page):
    """From per cent to t, by what stands under the chart."""
    ends = {"A": 0.0, "B": 1.0}
    ticks = page.select(".mc-ticks span")
    places = [per_cent(re.fullmatch(r"left:(.*)", t["style"])[1]) for t in ticks]
    said = [ends.get(t.text, t.text) for t in ticks]
    pairs = [
        (x, t if isinstance(t, float) else number(t)) for x, t in zip(places, said, strict=True)
    ]
    assert len(pairs) >= 3 and len({x for x, _ in pairs}) == len(pairs)
    return scale(pairs)


def points(path):
    """Per cent, of a path in thousandths."""
    outer = path.find_parent("svg")
    assert outer["viewbox"] == "0 0 1000 1000" and outer["preserveaspectratio"] == "none"
    assert outer["width"] == outer["height"] == "100%"
    return [
        (float(x) / 10, float(y) / 10) for x, y in re.findall(r"([-\d.]+) ([-\d.]+)", path["d"])
    ]


LINE = paths.segment(A, B)
BENT = paths.bezier([A, C, B])


@pytest.fixture(scope="module")
def one():
    return PathExplorer(NETWORK, LINE, DIGITS, points=21)


@pytest.fixture(scope="module")
def wide():
    return PathExplorer(
        NETWORK, [LINE, paths.segment(A, B, name="again")], DIGITS, points=31, span=(-0.5, 1.5)
    )


@pytest.fixture(scope="module")
def two():
    return PathExplorer(NETWORK, [BENT, LINE], DIGITS, points=21)


@pytest.mark.parametrize("name", ["one", "two", "wide"])
@pytest.mark.parametrize("of", ["loss", "accuracy"])
def test_curves_marker_and_ends_are_the_profiles(request, name, of):
    explorer = request.getfixturevalue(name)
    page = soup(explorer._repr_html_())
    t_at, chart = time_axis(page), page.select_one(f'[data-of="{of}"]')
    value_at = value_axis(chart)
    top, width = value_at(0), t_at(100) - t_at(0)
    assert max(float(getattr(p, of).max()) for pair in explorer.profiles for p in pair) <= top
    groups = chart.select("g.mc-curve")
    assert sorted(g["data-path"] for g in groups) == [str(k) for k in range(len(groups))]
    for group in groups:
        k = int(group["data-path"])
        assert f"mc-c{k}" in group["class"] and ("mc-on" in group["class"]) == (k == 0)
        for profile, style in zip(explorer.profiles[k], ("train", "test"), strict=True):
            seen = points(group.select_one(f"path.mc-{style}"))
            assert [t_at(x) for x, _ in seen] == pytest.approx(profile.t.tolist(), abs=1e-3 * width)
            values = getattr(profile, of).tolist()
            assert [value_at(y) for _, y in seen] == pytest.approx(values, abs=1e-3 * top)
    assert groups[-1]["data-path"] == "0", "the chosen path lies over the others"
    test = explorer.profiles[0][1]
    for t, style in ((0.0, "mc-a"), (1.0, "mc-b")):
        (dot,) = chart.select(f"circle.mc-end.{style}")
        there = float(getattr(test, of)[(test.t - t).abs().argmin()])
        assert t_at(per_cent(dot["cx"])) == pytest.approx(t, abs=1e-3)
        assert value_at(per_cent(dot["cy"])) == pytest.approx(there, abs=1e-3 * top)
        label = chart.select_one("svg")["aria-label"]
        assert f"{there:.2f} at {'AB'[int(t)]}" in label and f"{of} along" in label
    middle = float(getattr(test, of)[(test.t - 0.5).abs().argmin()])
    assert f"{middle:.2f} at t = 0.5" in chart.select_one("svg")["aria-label"]


@pytest.mark.parametrize("t", [0.0, 0.13, 0.3, 0.6, 0.97, 1.0])
@pytest.mark.parametrize("curve", [0, 1])
def test_the_marker_is_on_the_curve_and_says_its_height(one, curve, t):
    of = ("loss", "accuracy")[curve]
    page = soup(one.picture((t,), {"curve": curve}))
    chart = page.select_one(f'[data-of="{of}"]')
    dot, text = chart.select_one(".mc-now circle"), chart.select_one(".mc-now text")
    seen = evaluation.evaluate(NETWORK, LINE(t), DIGITS.test)
    assert time_axis(page)(per_cent(dot["cx"])) == pytest.approx(t, abs=1e-3)
    height = value_axis(chart)(per_cent(dot["cy"]))
    assert height == pytest.approx(getattr(seen, of), abs=2e-3)
    assert number(text.text) == pytest.approx(getattr(seen, of), abs=6e-3)
    assert (text["x"], text["y"]) == (dot["cx"], dot["cy"])
    # The number stands after or before the marker, inside the plot.
    after = text["class"] == ["mc-after"]
    assert (float(text["dx"]) > 0) == after
    assert after if t < 0.1 else (not after if t > 0.9 else True)
    hair = chart.select_one(".mc-hair")
    assert (hair["x1"], hair["x2"], hair["y1"], hair["y2"]) == (*[dot["cx"]] * 2, dot["cy"], "100%")
    said = {b["data-say"]: number(b.text) for b in page.select("[data-say]")}
    assert said["t"] == pytest.approx(t) and f"test {of}" in said


def test_the_bracket_measures_the_barrier(one, two):
    test, page = one.profiles[0][1], soup(one._repr_html_())
    t_at = time_axis(page)
    for of, sign, unit in (("loss", 1, "nats"), ("accuracy", -1, "points")):
        chart = page.select_one(f'[data-of="{of}"]')
        value_at, line = value_axis(chart), chart.select_one(".mc-bracket")
        values = getattr(test, of)
        gaps = sign * (values - (values[0] + (values[-1] - values[0]) * test.t))
        high, low = (value_at(per_cent(line[y])) for y in ("y2", "y1"))
        assert sign * (high - low) == pytest.approx(float(gaps.max()), abs=2e-3 * value_at(0))
        assert high == pytest.approx(float(values[gaps.argmax()]), abs=1e-3 * value_at(0))
        assert t_at(per_cent(line["x1"])) == pytest.approx(float(test.t[gaps.argmax()]), abs=1e-3)
        assert line["x1"] == line["x2"]
        what, size = chart.select("text.mc-barrier")
        assert {what["x"], size["x"], chart.select_one(".mc-patch")["x"]} == {line["x1"]}
        middle = (per_cent(line["y1"]) + per_cent(line["y2"])) / 2
        assert what["y"] == size["y"] == chart.select_one(".mc-patch")["y"]
        assert per_cent(size["y"]) == pytest.approx(middle, abs=0.1)
        assert float(what["dy"]) < float(size["dy"]), "the number stands under its name"
        said, word = size.text.split(" ")
        assert word == unit and what.text == ("barrier" if of == "loss" else "lost")
        share = float(said) / (100 if unit == "points" else 1)
        assert share == pytest.approx(float(gaps.max()), abs=6e-3)
        band = points(chart.select_one(".mc-band"))  # the curve, then back along the chord
        curve = points(chart.select_one("path.mc-test"))
        assert band[:-2] == curve and band[-2:] == [curve[-1], curve[0]]
    assert not soup(two._repr_html_()).select(".mc-bracket"), "of several paths, which one's?"


def made(losses, t=None) -> Profile:
    """A profile with these losses."""
    some = evaluation.profile(NETWORK, LINE, DIGITS.test.take(range(10)), len(losses))
    return replace(some, loss=torch.tensor(losses).double())


def label_places(curves, names):
    pairs = [(made(c), made(c)) for c in curves]
    chart = charts.Chart("loss", pairs, names, ("A", "B"), (0.0, 1.0))
    found = []
    for label in chart.labels:
        text = soup(label).select_one("text")
        found.append((text.text, per_cent(text["x"]), per_cent(text["y"])))
    heights = [[float(chart.y(v)) for v in c] for c in curves]
    return found, heights


def test_a_name_stands_by_its_own_curve_and_clear_of_the_others():
    t = np.linspace(0, 1, 41)
    bump = np.sin(np.pi * t)
    curves = [(1.8 * bump + 0.1).tolist(), (0.9 * bump + 0.1).tolist(), (0.1 + 0 * t).tolist()]
    names = ["linear", "poly <4>", "Bézier"]
    found, heights = label_places(curves, names)
    assert [name for name, *_ in found] == names
    for k, (name, x, y) in enumerate(found):
        half = 1.1 * len(name)  # about half its width
        assert half < x < 100 - half and 4 < y < 97, "within the plot"
        gaps = [abs(np.interp(x, 100 * t, h) - y) for h in heights]
        assert np.argmin(gaps) == k, f"{name} stands by another curve"
        near = np.abs(100 * t - x) < half
        others = [np.array(h)[near] for j, h in enumerate(heights) if j != k]
        assert min(np.abs(h - y).min() for h in others) > 3, "another curve runs through it"
        for other, u, v in found[:k]:
            apart = abs(x - u) > half + 1.1 * len(other) or abs(y - v) >= 9
            assert apart, f"{name} covers {other}"


def test_where_there_is_room_a_name_stands_in_the_middle_just_off_its_curve():
    found, heights = label_places([[1.0] * 3, [0.3] * 3], ["high", "low"])
    for (_, x, y), (height, *_) in zip(found, heights, strict=True):
        assert x == pytest.approx(50, abs=1) and 4 < abs(y - height) < 15


@pytest.mark.parametrize(
    ("wanted", "step"),
    [(1.0, 1.0), (1.1, 2.0), (2.4, 5.0), (6.0, 10.0), (0.3, 0.5), (0.02, 0.02), (0.3 / 3, 0.1)],
)
def test_a_step_is_the_next_round_number(wanted, step):
    assert charts._step(wanted) == pytest.approx(step)


# --- Map ------------------------------------------------------------------------------------------

ONE = {"w": torch.zeros(1)}
SQUARE = sheets.Sheet(
    [ONE, ONE],
    lambda p: p,
    "square",
    extent=(-1.0, 3.0, 0.0, 3.0),
    marks={"A": (-0.5, 0.5), "B": (2.5, 0.5), "C": (1.0, 2.5)},
)


def height(u, v):
    """A smooth loss, from about 0.05 to about 40."""
    return 0.05 * np.exp(0.9 * ((u + 0.5) ** 2 * 0.4 + (v - 0.5) ** 2 * 0.4))


def drawn(sheet, side=25, lines=None):
    u0, u1, v0, v1 = sheet.extent
    u, v = torch.linspace(u0, u1, side).double(), torch.linspace(v0, v1, side).double()
    loss = torch.from_numpy(height(u.numpy()[None], v.numpy()[:, None]))
    if sheet.inside is not None:
        on = sheet.inside(torch.cartesian_prod(v, u).flip(1)).view(side, side)
        loss[~on] = torch.nan
    seen = Survey(sheet.name, "test", u, v, loss, loss)
    return charts.Map(sheet, seen, lines or {})


def place_of(sheet):
    """From per cent of the picture to (u, v)."""
    u0, u1, v0, v1 = sheet.extent
    return lambda x, y: (u0 + (u1 - u0) * x / 100, v1 - (v1 - v0) * y / 100)


def legend(page):
    """From a shade's share of the bar to a loss, by the legend's ticks."""
    ticks = page.select(".mc-legend > div > span")
    pairs = [(per_cent(t["style"][5:]), math.log(float(t.text))) for t in ticks]
    assert 3 <= len(pairs) <= 7
    return lambda share: math.exp(scale(pairs)(100 * share))


def picture(style: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(re.search(r"base64,(.*?)\)", style)[1])))


@pytest.mark.parametrize("sheet", [SQUARE, sheets.triangle(ONE, ONE, ONE)], ids=lambda s: s.name)
def test_a_map_reads_back_as_the_survey(sheet):
    route = [sheet.marks["A"], sheet.marks["C"], sheet.marks["B"]]
    page = soup(drawn(sheet, lines={"a way": route}).html(sheet.marks["B"]))
    at, loss_of = place_of(sheet), legend(page) if sheet is SQUARE else None
    image = picture(page.select_one(".mc-heat")["style"])
    assert image.mode == "P" and image.size[0] == image.size[1] > 50
    index = np.asarray(image)
    rows, columns = (np.linspace(0, 100, n) for n in index.shape)
    for i in range(0, len(rows), 7):
        for j in range(0, len(columns), 7):
            u, v = at(columns[j], rows[i])
            if sheet.inside is not None and not sheet.inside(torch.tensor([[u, v]])).all():
                assert index[i, j] == 255
            elif loss_of is not None:
                assert loss_of(index[i, j] / 254) == pytest.approx(height(u, v), rel=0.03)
    levels = page.select("path.mc-level")
    ticks = page.select(".mc-legend > div > span")
    assert len(levels) == len(ticks) >= 1
    for level, tick in zip(levels, ticks, strict=True):
        found = points(level)
        assert found
        for x, y in found:
            assert height(*at(x, y)) == pytest.approx(float(tick.text), rel=0.03)
    for name, style in (("A", "mc-a"), ("B", "mc-b"), ("C", "mc-c")):
        (dot,) = page.select(f"circle.mc-end.{style}")
        there = at(per_cent(dot["cx"]), per_cent(dot["cy"]))
        assert there == pytest.approx(sheet.marks[name], abs=1e-3)
    way = [at(x, y) for x, y in points(page.select_one(".mc-route"))]
    assert np.allclose(way, route, atol=2e-3)
    for ring in page.select(".mc-now circle"):
        there = at(per_cent(ring["cx"]), per_cent(ring["cy"]))
        assert there == pytest.approx(sheet.marks["B"], abs=1e-3)
    assert len(page.select(".mc-now circle")) == 3


@pytest.mark.parametrize("side", [2, 3, 12])
def test_beside_a_cliff_no_point_of_a_map_is_clear_and_low_stays_low(side):
    """The picture runs smoothly through the points, and may not swing over below or above."""
    sheet = replace(SQUARE, extent=(0.0, 1.0, 0.0, 1.0), marks={})
    axis = torch.linspace(0, 1, side).double()
    loss = torch.full((side, side), 0.01).double()
    loss[:, (side + 1) // 2 :] = 10.0
    loss[-1, -1] = 0.01
    page = soup(charts.Map(sheet, Survey("cliff", "test", axis, axis, loss, loss), {}).html((0, 0)))
    index = np.asarray(picture(page.select_one(".mc-heat")["style"]))
    assert index.max() < 255 and index[-1, 0] == 0 and index[-1, -1] == 254
    assert np.abs(np.diff(index.astype(int), axis=1)).max() < 120, "no jumps from light to dark"


def test_the_ratio_of_a_map_is_the_sheet_s_within_reason():
    def ratio(*extent):
        page = soup(drawn(replace(SQUARE, extent=extent, marks={})).html((0.5, 0.5)))
        return float(re.fullmatch(r"aspect-ratio:(.*)", page.select_one(".mc-pad")["style"])[1])

    assert ratio(-1.0, 0.5, 0.0, 1.0) == pytest.approx(1.5)
    assert ratio(0.0, 1.0, 0.0, 1.25) == pytest.approx(0.8)
    assert 1.5 < ratio(0.0, 9.0, 0.0, 1.0) < 2 and 0.5 < ratio(0.0, 1.0, 0.0, 9.0) < 0.8


def test_names_on_a_map_cover_no_mark_and_no_other_name():
    corners = {"A": (-0.99, 0.01), "B": (2.9, 0.05), "C": (-0.9, 2.95), "far away": (-0.95, 0.1)}
    sheet = replace(SQUARE, marks=corners)
    lines = {"direct": [corners["A"], corners["B"]], "round": [(2.9, 0.1), (1.0, 2.9), (0.0, 0.4)]}
    page = soup(drawn(sheet, lines=lines).html((0.0, 0.5)))
    taken = [(per_cent(c["cx"]), per_cent(c["cy"]), 0.0) for c in page.select("circle.mc-end")]
    assert len(taken) == 4
    names = page.select("text.mc-name")
    assert {n.text for n in names} == {*corners, *lines}
    for name in names:
        x, y, half = per_cent(name["x"]), per_cent(name["y"]), 1.2 * len(name.text)
        assert half < x < 100 - half and 4 < y < 98
        middle = y - 1.5  # text stands on its line
        for u, v, wide in taken:
            assert abs(x - u) > half + wide or abs(middle - v) > 2, f"{name.text} covers something"
        taken.append((x, middle, 0.0))


@pytest.mark.parametrize("way", [[(0.0, 1.0), (2.0, 2.0)], [(-0.5, 1), (0, 2), (2, 2), (2.5, 1)]])
def test_a_line_on_a_map_has_its_name_beside_its_middle(way):
    page = soup(drawn(replace(SQUARE, marks={}), lines={"way": way}).html((0.5, 0.5)))
    name, spots = page.select_one("text.mc-name"), points(page.select_one(".mc-route"))
    middle = np.mean(spots if len(spots) == 2 else spots[1:3], axis=0)
    assert abs(per_cent(name["x"]) - middle[0]) < 10 and abs(per_cent(name["y"]) - middle[1]) < 10


def test_fine_levels_are_round_and_few():
    for low, high in ((0.01, 9.0), (0.3, 0.9), (1e-3, 1e3), (0.05, 40.0), (0.9, 1.1)):
        levels = charts._levels(low, high)
        assert 1 <= len(levels) <= 7 and levels == sorted(levels)
        assert all(low < x < high and f"{x:e}"[0] in "1235" for x in levels)
    assert charts._levels(0.9, 60.0) == [1, 2, 5, 10, 20, 50]


# --- Pictures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_a_png_holds_the_picture(channels, mode):
    x = torch.randint(0, 256, (channels, 5, 7)).byte()
    image = Image.open(io.BytesIO(markup.png(x)))
    image.load()
    assert image.mode == mode
    assert np.array_equal(np.asarray(image).reshape(5, 7, channels), x.permute(1, 2, 0).numpy())


def test_the_palette_goes_from_light_to_dark_and_255_is_clear():
    image = Image.open(io.BytesIO(markup.png(torch.arange(256).byte()[None], palette=True)))
    shades = np.asarray(image.convert("RGBA")).reshape(256, 4).astype(float)
    assert (shades[:255, 3] == 255).all() and shades[255, 3] == 0
    light = shades[:255, :3] @ (0.299, 0.587, 0.114)
    assert (np.diff(light) < 0.6).all() and light[0] > 200 > 60 > light[254]
    theirs = 255 * matplotlib.colormaps["viridis_r"](np.linspace(0, 1, 255))[:, :3]
    assert np.abs(theirs - shades[:255, :3]).max() < 8


# --- Regions --------------------------------------------------------------------------------------


def test_decision_regions_are_where_the_network_decides_so():
    network, (a, b), spirals = (
        zoo.network("spirals"),
        zoo.load("spirals")[:2],
        data.load("spirals"),
    )
    path = paths.segment(a, b)
    page = soup(PathExplorer(network, path, spirals, points=3).picture((1.0,), {}))
    x, y = spirals.test.x, spirals.test.y
    dots = [
        torch.tensor([(float(x), float(y)) for x, y in re.findall(r"M(\d+) (\d+)h0", d)])
        for d in (page.select_one(f"path.mc-k{c}")["d"] for c in range(2))
    ]
    assert 100 < len(torch.cat(dots)) <= len(x)
    assert [h["d"] for h in page.select("path.mc-halo")] == [
        page.select_one(f"path.mc-k{c}")["d"] for c in range(2)
    ]
    # The same scale across and down, and room for all points.
    first = [x[: sum(map(len, dots))][y[: sum(map(len, dots))] == c] for c in range(2)]
    shown, true = torch.cat(dots) / 1000, torch.cat(first)
    assert float(shown.min()) > 0 and float(shown.max()) < 1
    slopes = [np.polyfit(true[:, k], shown[:, k], 1) for k in range(2)]
    assert slopes[0][0] == pytest.approx(-slopes[1][0], rel=0.01) and slopes[0][0] > 0
    for k in range(2):
        fitted = np.polyval(slopes[k], true[:, k])
        assert np.abs(fitted - shown[:, k].numpy()).max() < 2e-3
    assert float((x.amax(0) - x.amin(0)).max()) * slopes[0][0] > 0.85, "the points fill the map"

    def network_at(places):
        """Shares of the classes, at places in fractions of the picture."""
        back = [(places[:, k] - slopes[k][1]) / slopes[k][0] for k in range(2)]
        return apply(network, b, torch.tensor(np.stack(back, 1)).float()).softmax(1)

    canvas = page.select_one("canvas")
    image = np.asarray(picture(canvas["style"]).convert("RGBA")).astype(float)
    side = image.shape[0]
    assert image.shape == (side, side, 4) and side >= 30
    assert canvas["width"] == canvas["height"] == str(side)
    cells = (np.arange(side) + 0.5) / side
    places = np.stack([np.tile(cells, side), np.repeat(cells, side)], 1)
    p = network_at(places)
    colours, alpha = image.reshape(-1, 4)[:, :3], torch.tensor(image.reshape(-1, 4)[:, 3])
    said = p.argmax(1).numpy()
    means = [colours[said == c].mean(0) for c in range(2)]
    assert all(np.abs(colours[said == c] - means[c]).max() < 1 for c in range(2))
    assert np.abs(means[0] - means[1]).max() > 60
    sure = p.amax(1)
    assert float(torch.corrcoef(torch.stack([sure.double(), alpha]))[0, 1]) > 0.99, "fuller: surer"
    assert float(alpha[sure > 0.99].min()) > 130 > 60 > float(alpha[sure < 0.55].max()) > 0
    edge = re.findall(r"([-\d.]+) ([-\d.]+)", page.select_one("path.mc-edge")["d"])
    there = network_at(np.array(edge, dtype=float) / 1000)[:, 0]
    assert float((there - 0.5).abs().median()) < 0.1
    key = page.select_one(".mc-right .mc-key")
    assert all(name in key.text for name in spirals.test.classes)


# --- The page of a path ---------------------------------------------------------------------------


def test_the_caption_and_the_table_say_what_was_measured(two):
    page = soup(two._repr_html_())
    caption = page.figcaption.text
    for k, (name, (_, test)) in enumerate(zip(two.names, two.profiles, strict=True)):
        i = int(test.accuracy.argmin())
        said = (
            f"{100 * float(test.accuracy[i]):.1f}\u202f% at t = {float(test.t[i]):.2f} on “{name}”"
        )
        assert said in caption
        if k == 0:
            for end, place in (("A", 0), ("B", -1)):
                assert f"{end} answers {100 * float(test.accuracy[place]):.1f}\u202f%" in caption
    head = [cell.text for cell in page.select("noscript th")]
    rows = [[cell.text for cell in row.select("td")] for row in page.select("noscript tbody tr")]
    assert len(rows) == sum(len(test.t) for _, test in two.profiles)
    for k, (name, pair) in enumerate(zip(two.names, two.profiles, strict=True)):
        own = [dict(zip(head, row, strict=True)) for row in rows if row[0] == name]
        for split, profile in zip(("train", "test"), pair, strict=True):
            assert [float(row["t"]) for row in own] == pytest.approx(profile.t.tolist(), abs=1e-6)
            for of in ("loss", "accuracy"):
                values = [float(row[f"{split} {of}"]) for row in own]
                assert values == pytest.approx(getattr(profile, of).tolist(), rel=1e-3), k
    assert two.title == f"From A to B: {', '.join(two.names)}" == page.select_one(".mc-title").text


def test_a_guess_is_asked_for_between_the_ends():
    explorer = PathExplorer(
        NETWORK, LINE, DIGITS, points=5, guess="accuracy", ends=("here", "there")
    )
    content = json.loads(
        soup(explorer._repr_html_()).select_one('[type="application/json"]').string
    )
    guess = content["guess"]
    assert guess["of"] == "accuracy" and guess["ends"] == ["here", "there"]
    assert len(guess["at"]) >= 2 and guess["at"] == sorted(set(guess["at"]))
    assert guess["at"][0] > 0 and guess["at"][-1] < 1 and guess.keys() == {"of", "at", "ends"}


@pytest.mark.parametrize("kind", ["path", "sheet", "race"])
def test_every_figure_of_a_page_has_a_form(kind, one, triangle):
    race = RaceExplorer(NETWORK, {"line": LINE}, DIGITS, points=3)
    html = {"path": one, "sheet": triangle, "race": race}[kind]._repr_html_()
    content = json.loads(soup(html).select_one('[type="application/json"]').string)
    (route,) = content["source"]["routes"]
    assert content["forms"].keys() == route["axes"].keys() | route["figures"].keys()
    for name, form in content["forms"].items():
        assert form == "%" if "accuracy" in name else form in (2, 3)
    assert content["view"].keys() == {"kind", "classes", "labels", "each"}
    assert content["view"]["each"] == (10 if kind == "path" else 2)


def test_beyond_the_ends_the_caption_speaks_of_what_lies_between_them(wide):
    test = wide.profiles[0][1]
    between = (test.t >= 0) & (test.t <= 1)
    lowest = float(test.accuracy[between].min())
    assert f"{100 * lowest:.1f}\u202f% at t" in soup(wide._repr_html_()).figcaption.text
    page = soup(wide._repr_html_())
    assert [t.text for t in page.select(".mc-ticks span")] == ["A", "0.5", "B", "−0.5", "1.5"]
    classes = ["".join(t["class"]) for t in page.select(".mc-ticks span")]
    assert classes == ["mc-a", "", "mc-b", "", ""]
    style = page.select_one(".mc-slider")["style"]
    assert style == "--mc-from:25%;--mc-to:75%", "the track is bold between the ends"


def test_what_there_is_to_choose(one, two):
    for explorer, count in ((one, 0), (two, 2)):
        page = soup(explorer._repr_html_())
        curve = [(b["value"], b.text, b["aria-pressed"]) for b in page.select('[name="curve"]')]
        assert curve == [("loss", "loss", "true"), ("accuracy", "accuracy", "false")]
        path = [(b["value"], b.text, b["aria-pressed"]) for b in page.select('[name="path"]')]
        assert (
            path
            == [(str(k), n, ("true", "false")[k]) for k, n in enumerate(explorer.names)][:count]
        )
        groups = [g["aria-label"] for g in page.select('[role="group"]')]
        assert groups == ["Curve", "Path"][: 1 + bool(count)]
        charts_ = [(c["data-of"], c.has_attr("hidden")) for c in page.select(".mc-chart")]
        assert charts_ == [("loss", False), ("accuracy", True)]
        assert all(
            c.attrs.keys() <= {"class", "data-of", "hidden"} for c in page.select(".mc-chart")
        )
    (control,) = one.controls()
    assert (control.low, control.high, control.value) == (0, 1, 0.5)
    assert control.name == "t from A to B"
    slider = soup(one._repr_html_()).select_one("input")
    assert (slider["min"], slider["max"], slider["value"], slider["step"]) == ("0", "20", "0", "1")
    assert slider["aria-label"] == "t: A is 0, B is 1"


def test_a_live_one_has_its_title_its_sliders_and_its_choices(two):
    live = two.live()
    head, slider, curve, path, shown = live.box.children
    assert soup(head.value).select_one("p.mc-title").text == two.title
    assert soup(head.value).select_one("p")["role"] == "heading"
    assert (slider.min, slider.max, slider.value, slider.step) == (0, 1, 0.5, 0.005)
    assert slider.description == two.controls()[0].name and slider.readout_format == ".3f"
    assert curve.options == (("loss", 0), ("accuracy", 1)) and curve.description == "curve"
    assert path.options == tuple((name, k) for k, name in enumerate(two.names))
    assert "mc-still" in shown.value and shown is live.picture
    bundle = live._repr_mimebundle_()
    assert bundle["text/plain"] == repr(live) and "at any t." in bundle["text/html"]


def test_a_network_too_slow_to_follow_the_hand_waits_for_it_to_rest(one, monkeypatch):
    for seconds, follows in ((0.01, True), (1.0, False)):
        clock = iter(x for k in range(10) for x in (10.0 * k, 10.0 * k + seconds))
        monkeypatch.setattr(base, "perf_counter", lambda clock=clock: next(clock))
        live = one.live()
        assert [s.continuous_update for s in live.sliders] == [follows]
        assert f"One step on cpu in {1000 * seconds:.1f} ms" in live.picture.value


def test_the_page_s_numbers_are_rounded_but_little(one):
    content = json.loads(soup(one._repr_html_()).select_one('[type="application/json"]').string)
    (route,) = content["source"]["routes"]
    train, test = one.profiles[0]
    assert route["axes"]["t"] == pytest.approx(test.t.tolist(), abs=1e-6)
    assert route["figures"]["train loss"] == pytest.approx(train.loss.tolist(), rel=1e-3)
    assert content["span"] == [0, 1] and content["source"]["kind"] == "points"
    for of, chart in content["charts"].items():
        drawn_top = value_axis(soup(one._repr_html_()).select_one(f'[data-of="{of}"]'))(0)
        assert chart["top"] == pytest.approx(drawn_top), "the script's scale is the drawing's"
        assert chart["figure"] == f"test {of}"
    assert content["charts"]["accuracy"]["form"] == "%" and content["charts"]["loss"]["form"] == 2
    assert list(content["forms"]) == [
        "t",
        *(f"{s} {o}" for s in ("test", "train") for o in ("accuracy", "loss")),
    ]


# --- Albums, races, sheets ------------------------------------------------------------------------


@pytest.mark.parametrize("bars", [True, False])
def test_an_album_says_what_the_network_says(one, bars):
    w = LINE(0.45)
    if bars:
        explorer, page = one, soup(one.picture((0.45,), {}))
    else:
        explorer = RaceExplorer(NETWORK, {"line": LINE}, DIGITS, points=5)
        page = soup(explorer.picture((0.45,), {}))
    x, labels = explorer.view.x, explorer.view.labels
    p = apply(NETWORK, w, x).softmax(1)
    tiles = page.select("li.mc-tile")
    assert len(tiles) == len(x)
    right = 0
    for tile, row, label in zip(tiles, p, labels, strict=True):
        top = int(row.argmax())
        right += top == label
        words = [span["aria-label"] for span in tile.select("[aria-label]")]
        assert words == [str(label), "right" if top == label else "wrong"]
        assert tile["data-is"] == words[1] and tile.select_one("i").text == "✗✓"[top == label]
        assert tile.select_one("b").text == str(top)
        share = tile.select(".mc-says > span")[-1].text
        assert float(share[:-1]) == pytest.approx(100 * float(row[top]), abs=1.1)
        drawn = tile.select(".mc-bars rect")
        assert len(drawn) == (10 if bars else 0)
        for c, bar in enumerate(drawn):
            assert float(bar["height"]) / 255 == pytest.approx(float(row[c]), abs=0.01)
            kind = "mc-true" if c == label else "mc-top" if c == top else "mc-other"
            assert bar["class"] == [kind]
        places = [float(bar["x"]) for bar in drawn]
        wide = [float(bar["width"]) for bar in drawn]
        ends = [x + w for x, w in zip(places, wide, strict=True)]
        assert all(end < place for end, place in zip(ends, places[1:], strict=False))
        if bars:
            box = tile.select_one("svg")["viewbox"].split()
            assert box[:2] == ["0", "0"] and float(box[2]) > ends[-1] and box[3] == "255"
    assert f"{right} of {len(x)} images right" in page.text
    caption = soup(explorer._repr_html_()).figcaption.text
    assert f"The {len(x)} pictures are test images" in caption
    assert ("a bar for the probability of every class" in caption) == bars


def test_a_race_says_of_every_path_what_happens_on_it():
    ways = {"by B and back": paths.polychain([A, B, A]), "staying": paths.segment(A, A)}
    race = RaceExplorer(NETWORK, ways, DIGITS, points=11, ends=("A", "B"))
    assert race.title == "Several ways from A to B"
    page = soup(race._repr_html_())
    slider = page.select_one("input")
    assert (slider["min"], slider["max"], slider["value"], slider["step"]) == ("0", "10", "0", "1")
    t_at, chart = time_axis(page), page.select_one('[data-of="accuracy"]')
    value_at = value_axis(chart)
    live = soup(race.picture((0.4,), {}))
    lanes = list(zip(ways.items(), race.profiles, live.select("section.mc-lane"), strict=True))
    for k, ((name, path), profile, lane) in enumerate(lanes):
        curve = points(chart.select_one(f'g[data-path="{k}"] path.mc-test'))
        heights = [value_at(y) for _, y in curve]
        assert heights == pytest.approx(profile.accuracy.tolist(), abs=1e-3)
        accuracy = evaluation.evaluate(NETWORK, path(0.4), DIGITS.test).accuracy
        assert lane["data-lane"] == str(k) and f"mc-c{k}" in lane["class"]
        assert name in lane.select_one("p").text
        assert number(lane.select_one(".mc-score").text) == pytest.approx(accuracy, abs=6e-4)
        runner = live.select_one(f'circle[data-runner="{k}"]')
        assert t_at(per_cent(runner["cx"])) == pytest.approx(0.4, abs=1e-3)
        assert value_at(per_cent(runner["cy"])) == pytest.approx(accuracy, abs=1e-3)
        fall = race._falls()[k]
        fate = "never below" if fall is None else f"falls at t = {fall:.2f}, lowest"
        lowest = f"{100 * profile.worst_accuracy:.1f}"
        assert f"{name}: {fate} {lowest}" in page.select_one("figcaption").text
        rows = [row.select("td") for row in page.select("noscript tbody tr")]
        assert [float(row[0].text) for row in rows] == pytest.approx(profile.t.tolist())
        cells = [float(row[k + 1].text) for row in rows]
        assert cells == pytest.approx(profile.accuracy.tolist(), rel=1e-3)
    assert "11 points of each path" in page.select_one("figcaption").text
    assert {race._falls()[0] is None, race._falls()[1] is None} == {True, False}
    (control,) = race.controls()
    assert (control.low, control.high) == (0, 1) and "A" in control.name and "B" in control.name


def test_a_race_unfolds_what_it_is_told_to_and_says_how():
    ways, how = {"line": LINE, "bent": BENT}, {"bent": "over <C>"}

    def lanes(**options):
        race = RaceExplorer(NETWORK, ways, DIGITS, points=5, how=how, **options)
        return soup(race._repr_html_()).select("details.mc-lane"), soup(race.picture((0.4,), {}))

    (line, bent), live = lanes()
    assert line.has_attr("open") and bent.has_attr("open")
    assert line.select_one(".mc-how") is None and bent.select_one(".mc-how").text == "over <C>"
    assert bent.summary.text.startswith("bent") and not bent.summary.select(".mc-how")
    assert not live.details and live.select_one(".mc-how").text == "over <C>"
    (line, bent), _ = lanes(unfolded=["bent"])
    assert not line.has_attr("open") and bent.has_attr("open")
    assert not any(lane.has_attr("open") for lane in lanes(unfolded=[])[0])


@pytest.fixture(scope="module")
def triangle():
    return SheetExplorer(NETWORK, sheets.triangle(A, B, C), DIGITS, points=5)


def test_a_sheet_is_steered_over_all_its_extent(triangle):
    tall = replace(triangle.sheet, extent=(0.0, 0.5, -0.25, 1.0), inside=None)
    for explorer in (triangle, SheetExplorer(NETWORK, tall, DIGITS, points=3)):
        u0, u1, v0, v1 = explorer.sheet.extent
        u, v = explorer.live().sliders
        assert [(s.description, s.min, s.max) for s in (u, v)] == [("u", u0, u1), ("v", v0, v1)]
        assert (u.value, v.value) == explorer.sheet.marks["A"], "it starts at the first mark"
        assert all(s.step <= (s.max - s.min) / 100 for s in (u, v))
        assert all(s.readout_format == ".3f" for s in (u, v))


def test_a_sheet_says_where_it_is_and_what_is_there(triangle):
    page = soup(triangle._repr_html_())
    said = {b["data-say"]: b.text for b in page.select("[data-say]")}
    assert list(said)[:2] == ["u", "v"] and len(said) == 6
    assert (number(said["u"]), number(said["v"])) == triangle.sheet.marks["A"]
    for split in ("test", "train"):
        seen = evaluation.evaluate(NETWORK, A, getattr(DIGITS, split))
        assert number(said[f"{split} loss"]) == pytest.approx(seen.loss, abs=6e-4)
        assert number(said[f"{split} accuracy"]) == pytest.approx(seen.accuracy, abs=6e-4)
    rows = [[cell.text for cell in row.select("td")] for row in page.select("noscript tbody tr")]
    across = [cell.text for cell in page.select("noscript th")][1:]
    assert [float(u) for u in across] == triangle.survey.u.tolist()
    assert [float(row[0]) for row in rows] == triangle.survey.v.tolist()
    for row, losses in zip(rows, triangle.survey.loss.tolist(), strict=True):
        for cell, loss in zip(row[1:], losses, strict=True):
            assert cell == "–" if math.isnan(loss) else float(cell) == pytest.approx(loss, rel=6e-3)
    loss = triangle.survey.loss[~triangle.survey.loss.isnan()]
    caption = page.select_one("figcaption").text
    assert f"from {loss.min():.2f} to {loss.max():.2f} nats" in caption
    assert triangle.title == "Test loss over the triangle" == page.select_one(".mc-title").text
    content = page.select_one('script[type="application/json"]').string
    u, v = triangle.survey.u, triangle.survey.v
    read = json.loads(content)
    for key, mark in (("home", "A"), ("end", "B")):
        row, column = read[key]
        assert (float(u[column]), float(v[row])) == triangle.sheet.marks[mark]


def test_a_long_table_is_thinned_to_about_ten_rows():
    few = (split.take(range(50)) for split in (DIGITS.train, DIGITS.test))
    some = data.Dataset("few", *few, DIGITS.image_shape)
    many = SheetExplorer(NETWORK, sheets.triangle(A, B, C), some, points=31, images=1)
    rows = soup(many._repr_html_()).select("noscript tbody tr")
    assert 10 <= len(rows) <= 12


# --- All of them ----------------------------------------------------------------------------------


def spoken(page):
    """What a page says, tag by tag, apart from what is for the browser."""
    for text in page.find_all(string=True):
        tag = text.parent.name
        if text.strip() and tag not in ("script", "style") and not isinstance(text, Comment):
            yield tag, text.strip()


@pytest.fixture(scope="module")
def everything(one, two, wide, triangle):
    """Both faces of an explorer of each kind."""
    spirals, (a, b) = zoo.network("spirals"), zoo.load("spirals")[:2]
    race = RaceExplorer(NETWORK, {"line": LINE, "bent": BENT}, DIGITS, points=5)
    regions = PathExplorer(spirals, paths.segment(a, b), data.load("spirals"), points=3)
    cloud = NeuronExplorer(NETWORK, LINE, DIGITS, points=5)
    small = mlp((64, 4, 4, 10))
    w, kept = fresh_weights(small, 0), {"1": [0, 1], "3": [0, 1]}
    walk = path_to_dropped(small, w, kept)
    blocks = BlockExplorer(small, walk, kept, {"A": w}, split=DIGITS.test)
    pages = []
    for explorer in (one, two, wide, triangle, race, regions, cloud, blocks):
        pages.append(soup(explorer._repr_html_()))
        place = [control.value for control in explorer.controls()]
        pages.append(soup(explorer.picture(place, dict.fromkeys(explorer.choices(), 0))))
    return pages


def test_words_stand_only_where_words_belong(everything):
    allowed = {"p", "span", "b", "i", "text", "button", "li", "td", "th", "figcaption", "option"}
    allowed |= {"label"}
    for page in everything:
        for tag, text in spoken(page):
            assert tag in allowed, f"{text!r} stands loose in <{tag}>"


def test_every_attribute_is_one_of_html_or_of_svg(everything):
    usual = {"class", "style", "type", "name", "value", "min", "max", "step", "hidden", "role"}
    usual |= {"tabindex", "autocomplete", "scope", "viewbox", "preserveaspectratio", "transform"}
    usual |= {"width", "height", "d", "x", "y", "dx", "dy", "x1", "x2", "y1", "y2", "cx", "cy"}
    usual |= {"r", "rx", "open"}
    for page in everything:
        for tag in page.find_all(True):
            for name in tag.attrs:
                known = name in usual or re.match(r"(aria|data)-[a-z-]+$", name)
                assert known, f"<{tag.name}> has an attribute {name}"


def test_attributes_have_values_that_browsers_and_style_sheets_know(everything):
    """They tell capitals from small letters, and pass over in silence what they do not know."""
    known = {
        "role": {"img", "group", "application", "region", "heading"},
        "type": {"range", "button", "application/json"},
        "aria-live": {"polite"},
        "aria-hidden": {"true"},
        "aria-pressed": {"true", "false"},
        "autocomplete": {"off"},
        "scope": {"col", "row"},
        "preserveaspectratio": {"none"},
        "aria-roledescription": {"map"},
    }
    for page in everything:
        for tag in page.find_all(True):
            for name, values in known.items():
                assert tag.get(name) in {None, *values}, f"<{tag.name} {name}={tag.get(name)!r}>"
            for each in tag.get("class", []):
                assert re.fullmatch(r"(mc-[a-z0-9-]+)?", each), f"<{tag.name} class={each!r}>"


def test_a_barrier_is_measured_between_the_ends_alone():
    explorer = PathExplorer(NETWORK, LINE, DIGITS, points=31, span=(-0.5, 1.5))
    chart = soup(explorer._repr_html_()).select_one('[data-of="loss"]')
    test = explorer.profiles[0][1]
    on = (test.t >= 0) & (test.t <= 1)
    loss, t = test.loss[on], test.t[on]
    barrier = float((loss - (loss[0] + (loss[-1] - loss[0]) * t)).max())
    said = chart.select("text.mc-barrier")
    if said:  # only where it is not small against what lies beyond
        assert said[1].text == f"{barrier:.2f} nats"
    band = points(chart.select_one(".mc-band"))
    assert min(x for x, _ in band) == pytest.approx(25, abs=0.1)
    assert max(x for x, _ in band) == pytest.approx(75, abs=0.1)
