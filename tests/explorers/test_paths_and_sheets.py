"""Explorers without a browser: what they say, what their HTML holds, how the live ones move."""

from __future__ import annotations

import base64
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch
from torch import nn

from modeconn_lite import (
    data,
    evaluation,
    forward,
    landscapes,
    networks,
    paths,
    sheets,
    training,
    weights,
)
from modeconn_lite.explorers import PathExplorer, RaceExplorer, SheetExplorer, markup, sources

VOID = {"input", "br", "img", "meta", "hr"}
NASTY = '<b>"A" & co</b>'


class Checker(HTMLParser):
    """Every tag closed in its turn; what stands in scripts and what the page says."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.said: list[str] = []
        self.scripts: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, text):
        kind = self.open[-1] if self.open else ""
        (self.scripts if kind == "script" else self.said).append(text)


def flat(html: str) -> dict:
    """The data that the script reads."""
    return json.loads(Checker(html).scripts[0])


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture(scope="module")
def net():
    return networks.mlp((64, 16, 10))


@pytest.fixture(scope="module")
def ends(net, digits):
    return training.train(net, digits.train, range(3), epochs=8).weights


@pytest.fixture(scope="module")
def line(net, ends, digits):
    return PathExplorer(net, paths.segment(*ends[:2]), digits, points=11)


@pytest.fixture(scope="module")
def three(net, ends, digits):
    a, b, c = ends
    chosen = [paths.segment(a, b), paths.polychain([a, c, c, b]), paths.bezier([a, c, b])]
    return PathExplorer(net, chosen, digits, points=11)


@pytest.fixture(scope="module")
def spirals():
    small, points = networks.mlp((2, 16, 2)), data.load("spirals")
    a, b = training.train(small, points.train, (0, 1), epochs=10).weights
    return PathExplorer(small, paths.segment(a, b), points, points=41)


@pytest.fixture(scope="module")
def sheet(net, ends, digits):
    lines = {NASTY: [(0.0, 0.0), (1.0, 0.0)]}
    return SheetExplorer(net, sheets.triangle(*ends), digits, points=9, paths=lines)


def test_repr_carries_the_figures(line, three, sheet):
    test = line.profiles[0][1]
    figures = f"worst accuracy {test.worst_accuracy:.2f}, barrier {test.barrier():.2f} nats"
    assert repr(line) == f"PathExplorer(linear, 11 points, {figures})"
    assert repr(three).startswith(f"PathExplorer(11 points; linear: {figures}; polychain: worst")
    seen = sheet.survey.accuracy[~sheet.survey.accuracy.isnan()]
    assert repr(sheet) == (
        f"SheetExplorer(triangle, 9×9 points, accuracy {seen.min():.2f} to {seen.max():.2f})"
    )


def test_profiles_are_those_of_evaluation(net, ends, digits, three):
    for path, (train, test) in zip(three.routes, three.profiles, strict=True):
        for split, mine in ((digits.train, train), (digits.test, test)):
            theirs = evaluation.profile(net, path, split, 11)
            torch.testing.assert_close(mine.t, theirs.t)
            torch.testing.assert_close(mine.loss, theirs.loss)
            assert (mine.correct == theirs.correct).all()
    assert len(three.profiles[1][1].t) == 13, "the knots of the polychain are points of the slider"


@pytest.mark.parametrize("name", ["line", "three", "spirals", "sheet"])
def test_html_is_sound(request, name):
    explorer = request.getfixturevalue(name)
    html = explorer._repr_html_()
    assert html.startswith("<!--mc-explorer--><figure class=")
    assert html.endswith("</figure><!--/mc-explorer-->")
    page = Checker(html)
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "")
    assert not [attrs for _, attrs in page.tags if "id" in attrs], "an id could stand there twice"
    kinds = {c for _, attrs in page.tags for c in (attrs.get("class") or "").split()}
    assert {"mc-explorer", "mc-stage", "mc-readout"} <= kinds
    assert all(c.startswith("mc-") for c in kinds), "a class of ours could meet one of the page's"
    assert ("noscript", {}) in page.tags and ("table", {}) in page.tags
    for tag, attrs in page.tags:
        if tag == "input" or attrs.get("class") == "mc-pad":
            assert attrs["aria-label"]
    assert html == explorer._repr_html_(), "outputs are committed: they may not differ"


def test_css_and_script_stay_in_their_place(line):
    html = line._repr_html_()
    css = "".join(re.findall(r"<style[^>]*>(.*?)</style>", html, flags=re.S))
    css = re.sub(r"/\*.*?\*/", "", css, flags=re.S)
    assert "@import" not in css and "@font-face" not in css and "url(http" not in css
    around: list[str] = []  # rules within a rule of ours are in their place already
    for rule, brace in re.findall(r"([^{}]*)([{}])", css):
        rule = rule.split(";")[-1].strip()
        if brace == "}":
            around.pop()
            continue
        if not rule.startswith("@") and all(outer.startswith("@") for outer in around):
            assert all(".mc-" in part for part in re.split(r",(?![^(]*\))", rule)), rule
        around.append(rule)
    *scripts, start = (script.strip() for script in Checker(html).scripts[1:])
    assert start == "mcExplorers.start();"
    for script in scripts:
        assert script.startswith("/*") and script.endswith("})();")
        assert "console." not in script and "window." not in script and "import " not in script


def test_an_output_carries_the_assets_of_its_kind_and_no_others(line, spirals, sheet):
    def carried(explorer):
        return re.findall(r'data-mc-asset="([^"]+)"', explorer._repr_html_())

    curves = ["base.css", "curves.css"]
    assert carried(line) == [*curves, "album.css", "base.js", "path.js", "album.js"]
    assert carried(spirals) == [*curves, "regions.css", "base.js", "path.js", "regions.js"]
    found = ["base.css", "sheet.css", "curves.css", "album.css", "base.js", "sheet.js", "album.js"]
    assert carried(sheet) == found
    for path in markup.ASSETS.iterdir():
        assert path.suffix in (".css", ".js")


def test_two_builds_are_equal(net, ends, digits, line):
    again = PathExplorer(net, paths.segment(*ends[:2]), digits, points=11)
    assert again._repr_html_() == line._repr_html_()


def test_json_holds_the_profiles(three):
    read = flat(three._repr_html_())
    assert read["source"]["kind"] == "points"
    for path, (train, test) in zip(read["source"]["routes"], three.profiles, strict=True):
        assert path["axes"]["t"] == pytest.approx(test.t.tolist(), abs=1e-6)
        for split, profile in (("train", train), ("test", test)):
            figures = path["figures"]
            assert figures[f"{split} loss"] == pytest.approx(profile.loss.tolist(), rel=1e-3)
            accuracy = profile.accuracy.tolist()
            assert figures[f"{split} accuracy"] == pytest.approx(accuracy, abs=1e-4)


def test_opinions_are_the_networks(net, digits, three):
    read = flat(three._repr_html_())
    labels = read["view"]["labels"]
    assert labels == [*range(10), 0, 1], "the first image of each class, then the second of each"
    shown = three.view.x
    for path, encoded in zip(three.routes, read["source"]["routes"], strict=True):
        t = torch.tensor(encoded["axes"]["t"], dtype=torch.float64)
        p = forward.outputs(net, path, t, shown).softmax(-1)
        codes = torch.tensor(list(base64.b64decode(encoded["codes"]))).view(len(t), 12, 10)
        assert (codes.argmax(-1) == p.argmax(-1)).all(), "rounding may not change an opinion"
        assert (codes / 255 - p).abs().max() < 1.5 / 255


def test_the_images_are_a_fair_sample(three, digits):
    """About as many of those shown are right as of all: better than the first of each class."""
    assert three.view.labels == [*range(10), 0, 1]
    shown = {tuple(x.tolist()) for x in three.view.x}
    assert len(shown) == 12, "no image twice"
    first = [int((digits.test.y == c).nonzero()[k]) for k in (0, 1) for c in range(10)][:12]
    gaps = {"chosen": [], "first": []}
    for path, (_, test) in zip(three.routes, three.profiles, strict=True):
        for name, x in (("chosen", three.view.x), ("first", digits.test.x[first])):
            out = forward.outputs(three.kernel.network, path, test.t, x)
            share = (out.argmax(-1) == torch.tensor(three.view.labels)).double().mean(1)
            gaps[name].append((share - test.accuracy).square().mean())
    chosen, naive = (float(sum(gaps[name])) for name in ("chosen", "first"))
    assert chosen < naive
    assert (chosen / 3) ** 0.5 < 0.08


def test_sheet_json_holds_the_surveys(sheet):
    (route,) = flat(sheet._repr_html_())["source"]["routes"]
    figures = route["figures"]
    for split, seen in (("test", sheet.survey), ("train", sheet.train_survey)):
        for of in ("loss", "accuracy"):
            values = getattr(seen, of).flatten().tolist()
            for mine, true in zip(figures[f"{split} {of}"], values, strict=True):
                assert mine is None if math.isnan(true) else mine == pytest.approx(true, rel=1e-3)
    assert figures["test loss"].count(None) == 36, "half the square lies outside the triangle"
    assert len(base64.b64decode(route["codes"])) == 81 * 6 * 2


def test_sizes(net, ends, digits, spirals):
    a, b, c = ends
    path = PathExplorer(net, paths.segment(a, b), digits)
    assert len(path._repr_html_().encode()) < 80_000
    assert len(spirals._repr_html_().encode()) < 250_000
    sheet = SheetExplorer(net, sheets.triangle(a, b, c), digits)
    assert len(sheet._repr_html_().encode()) < 120_000


def test_names_are_escaped(net, ends, digits, sheet):
    path = paths.segment(*ends[:2], name=NASTY)
    other = paths.bezier([ends[0], ends[2], ends[1]])
    explorer = PathExplorer(net, [path, other], digits, points=5, ends=(NASTY, "</script>"))
    for html in (explorer._repr_html_(), sheet._repr_html_()):
        page = Checker(html)
        assert NASTY not in html and any(NASTY in text for text in page.said)
        assert html.count("</script>") == html.count("<script")


def test_beyond_the_ends(net, ends, digits):
    path = paths.segment(*ends[:2])
    explorer = PathExplorer(net, path, digits, points=21, span=(-0.5, 1.5))
    test = explorer.profiles[0][1]
    assert (float(test.t[0]), float(test.t[-1]), len(test.t)) == (-0.5, 1.5, 21)
    slider = next(a for tag, a in Checker(explorer._repr_html_()).tags if tag == "input")
    assert (slider["min"], slider["max"], slider["value"]) == ("0", "20", "5"), "it starts at A"


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8), (3, 8, 8)])
def test_pictures_of_every_form(shape):
    x = torch.rand(30, *shape, generator=torch.Generator().manual_seed(0))
    split = data.Split(x, torch.arange(30) % 3, "made", ("cat", "aeroplane", "dog"))
    pictures = data.Dataset("made", split, split, shape)
    small = networks.mlp((x[0].numel(), 4, 3))
    a, b = (weights.fresh_weights(small, seed) for seed in (0, 1))
    explorer = PathExplorer(small, paths.segment(a, b), pictures, points=3, images=7)
    assert flat(explorer._repr_html_())["view"]["labels"] == [0, 1, 2, 0, 1, 2, 0]


def test_batch_norm_is_evaluated_with_training_statistics(digits):
    normed = nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10))
    a, b = (weights.fresh_weights(normed, seed) for seed in (0, 1))
    explorer = PathExplorer(normed, paths.segment(a, b), digits, points=3)
    theirs = evaluation.profile(
        normed, paths.segment(a, b), digits.test, 3, statistics=digits.train
    )
    torch.testing.assert_close(explorer.profiles[0][1].loss, theirs.loss)


# --- Sources --------------------------------------------------------------------------------------


def test_every_point_is_evaluated_once(net, ends, digits):
    """Loss, accuracy, length and the pictures come from one call of a plain function a point."""
    calls = []

    def wave(t):
        calls.append(t)
        return paths.segment(*ends[:2])(t)

    explorer = PathExplorer(net, wave, digits, points=21)
    assert sorted(calls) == explorer.profiles[0][1].t.tolist() and len(set(calls)) == 21
    mix = PathExplorer(net, paths.segment(*ends[:2]), digits, points=21)
    for mine, theirs in zip(explorer.profiles[0], mix.profiles[0], strict=True):
        torch.testing.assert_close(mine.loss, theirs.loss)
        torch.testing.assert_close(mine.travelled, theirs.travelled)
    calls.clear()
    explorer.live().sliders[0].value = 0.335
    assert len(calls) == 2, "one to open, one to move"
    assert calls[-1] == 0.335


def test_both_sources_see_the_same(three, sheet):
    for explorer in (three, sheet):
        routes = explorer.source.routes
        for k, route in enumerate(routes):
            for i in (0, len(route.places) // 3):
                known = explorer.source.point(k, i)
                place = known.place if explorer is three else known.place[::-1]
                seen = explorer.kernel.at(k, place)
                assert isinstance(seen, sources.Sight)
                for name, value in seen.figures.items():
                    assert value == pytest.approx(known.figures[name], abs=1e-5)
                assert (seen.code.int() - known.code.int()).abs().max() <= 1
    nearest = three.source.at(1, (0.26,)).place
    assert nearest == pytest.approx((0.3,))


def test_marker_and_script_share_one_rule(line):
    """Where the marker's number stands is said once, in Python; the script reads it."""
    read = flat(line._repr_html_())
    assert read["beside"] == {"after": [[0, 15], [50, 85]], "dx": 12}
    assert read["charts"]["loss"]["figure"] == "test loss"
    html = line.picture((0.3,), {})
    assert 'class="mc-before"' in html and 'dx="-12"' in html


def test_read_outs_are_found_by_name(line):
    slots = [a["data-say"] for t, a in Checker(line._repr_html_()).tags if "data-say" in a]
    assert slots == list(flat(line._repr_html_())["forms"])


# --- Guess, race, plane ---------------------------------------------------------------------------


def test_a_guess_is_asked_for_on_the_page_and_nowhere_else(net, ends, digits):
    path = paths.segment(*ends[:2])
    asked = PathExplorer(net, path, digits, points=5, guess="loss")
    plain = PathExplorer(net, path, digits, points=5)
    assert flat(asked._repr_html_())["guess"]["of"] == "loss"
    assert 'data-mc-asset="guess.js"' in asked._repr_html_()
    assert "guess" not in flat(plain._repr_html_())
    assert asked.still() == plain.still() == plain._repr_html_()
    assert repr(asked) == repr(plain)
    assert asked.live()._repr_mimebundle_()["text/html"].count("<figure") == 1
    with pytest.raises(ValueError, match="guess must be 'loss', 'accuracy' or None, not 'luck'"):
        PathExplorer(net, path, digits, guess="luck")


@pytest.fixture(scope="module")
def race(net, ends, digits):
    a, b, c = ends
    ways = {NASTY: paths.segment(a, b), "bent": paths.bezier([a, c, b])}
    return RaceExplorer(net, ways, digits, points=11)


def test_a_race_evaluates_all_at_the_same_times(net, race, digits):
    for path, mine in zip(race.routes, race.profiles, strict=True):
        theirs = evaluation.profile(net, path, digits.test, 11)
        torch.testing.assert_close(mine.t, theirs.t)
        assert (mine.correct == theirs.correct).all()
    worst = [p.worst_accuracy for p in race.profiles]
    assert repr(race).startswith(f"RaceExplorer(11 points; {NASTY}: lowest {worst[0]:.2f}, ")
    page = Checker(race._repr_html_())
    assert NASTY not in race._repr_html_() and any(NASTY in text for text in page.said)
    live = race.live()
    live.sliders[0].value = 0.33
    _, accuracy = evaluation.evaluate(net, race.routes[1](0.33), digits.test)
    assert f"{100 * accuracy:.1f}" in live.picture.value
    Checker(live.picture.value)


def test_a_path_falls_where_it_reads_a_tenth_less_than_its_worse_end(race):
    for p, fall in zip(race.profiles, race._falls(), strict=True):
        floor = min(float(p.accuracy[0]), float(p.accuracy[-1])) - 0.1
        below = [float(t) for t, a in zip(p.t, p.accuracy, strict=True) if float(a) < floor]
        assert fall == (below[0] if below else None)


def test_races_that_cannot_be_run(net, ends, digits):
    line = paths.segment(*ends[:2])
    for ways in ({}, line, {str(k): line for k in range(7)}):
        with pytest.raises(ValueError, match="one to six paths"):
            RaceExplorer(net, ways, digits)
    with pytest.raises(ValueError, match="join the same two networks"):
        RaceExplorer(net, {"one": line, "two": paths.segment(ends[0], ends[2])}, digits)
    for options in ({"how": {"bent": "by hand"}}, {"unfolded": ["bent"]}):
        with pytest.raises(ValueError, match=r"no path 'bent' in this race; it has \['line'\]"):
            RaceExplorer(net, {"line": line}, digits, points=3, **options)


def test_a_plane_has_points_exactly_on_its_marks(net, ends, digits):
    flat_sheet = landscapes.plane(*ends)
    explorer = SheetExplorer(net, flat_sheet, digits, points=8)
    axes = explorer.source.routes[0].axes
    for axis in axes.values():
        assert (axis.diff() > 0).all() and len(axis) == 8
    for mark, w in zip("ABC", ends, strict=True):
        u, v = flat_sheet.marks[mark]
        sight = explorer.source.at(0, (v, u))
        assert sight.place == (v, u)
        loss, accuracy = evaluation.evaluate(net, w, digits.test)
        assert sight.figures["test loss"] == pytest.approx(loss, abs=1e-5)
        assert sight.figures["test accuracy"] == pytest.approx(accuracy)
    read = flat(explorer._repr_html_())
    assert axes["v"][read["home"][0]] == axes["v"][read["end"][0]] == 0


# --- Live -----------------------------------------------------------------------------------------


def stats(html: str) -> dict[str, str]:
    found = re.findall(
        r'<span class="mc-stat[^"]*"><span>([^<]*)</span> <b [^>]*>([^<]*)</b>', html
    )
    return dict(found)


def test_live_evaluates_anywhere(net, line, digits):
    live = line.live()
    before = live.picture.value
    live.sliders[0].value = 0.335
    assert live.picture.value != before
    loss, accuracy = evaluation.evaluate(net, line.routes[0](0.335), digits.test)
    said = stats(live.picture.value)
    assert said == {
        "t": "0.335",
        "test accuracy": f"{100 * accuracy:.1f}\u202f%",
        "test loss": f"{loss:.3f}",
    }
    assert re.search(r"One step on cpu in [\d.]+ ms", live.picture.value)
    Checker(live.picture.value)


def test_live_walks_the_chosen_path_and_curve(net, three, digits):
    live = three.live()
    live.sliders[0].value = 0.4
    live.choices["path"].value = 1
    loss, _ = evaluation.evaluate(net, three.routes[1](0.4), digits.test)
    assert stats(live.picture.value)["test loss"] == f"{loss:.3f}"
    assert 'data-of="loss"' in live.picture.value
    live.choices["curve"].value = 1
    assert 'data-of="accuracy"' in live.picture.value


def test_live_sheet(net, sheet, digits):
    live = sheet.live()
    u, v = live.sliders
    u.value, v.value = 0.3, 0.2
    loss, _ = evaluation.evaluate(net, sheet.sheet(u.value, v.value), digits.test)
    assert stats(live.picture.value)["test loss"] == f"{loss:.3f}"
    u.value = 0.9
    assert "no point of the sheet" in live.picture.value
    Checker(live.picture.value)


def test_live_draws_decision_regions(spirals):
    live = spirals.live()
    before = live.picture.value
    live.sliders[0].value = 0.8
    edges = [re.search(r'mc-edge" d="([^"]*)"', h) for h in (before, live.picture.value)]
    assert edges[0] and edges[1] and edges[0][1] != edges[1][1]


def test_live_on_display(line, sheet):
    for explorer, name in ((line, "linear"), (sheet, "triangle")):
        live = explorer.live()
        assert repr(live) == f"LiveExplorer({name})"
        bundle = live._repr_mimebundle_()
        view = bundle["application/vnd.jupyter.widget-view+json"]
        assert view["model_id"] == live.box.model_id and view["version_major"] == 2
        still = bundle["text/html"]
        assert still == explorer.live()._repr_mimebundle_()["text/html"], "committed: no timings"
        assert "Opened as a notebook, this cell runs the network itself" in still
        assert explorer.still() in still, "a page shows the explorer of the same path"
        assert "Binder" not in still and "Colab" not in still
        assert Checker(still)


def test_live_needs_only_what_ipywidgets_7_has(line, three, sheet):
    """Colab is on 7.7: no Stack, no TagsInput; and never an Output, which nbval mistakes."""
    for explorer in (line, three, sheet):
        todo, kinds = [explorer.live().box], set()
        while todo:
            widget = todo.pop()
            kinds.add(type(widget).__name__)
            todo += getattr(widget, "children", ())
        assert kinds <= {"VBox", "HTML", "FloatSlider", "Dropdown"}


# --- Bad input ------------------------------------------------------------------------------------


def test_span_outside_the_domain(net, ends, digits):
    path = paths.bezier(ends)
    with pytest.raises(ValueError, match=r"span \(-0.5, 1.5\) leaves the domain of path 'Bézier'"):
        PathExplorer(net, path, digits, span=(-0.5, 1.5))
    with pytest.raises(ValueError, match="from 0 or below to 1 or above"):
        PathExplorer(net, path, digits, span=(0.2, 1.0))


def test_paths_that_join_other_networks(net, ends, digits):
    a, b, c = ends
    with pytest.raises(ValueError, match="path 'other' misses the B of path 'linear' by"):
        PathExplorer(net, [paths.segment(a, b), paths.segment(a, c, name="other")], digits)
    wide = weights.fresh_weights(networks.mlp((64, 8, 10)), 0)
    with pytest.raises(ValueError, match=r"end A of path 'wide'.*shape"):
        PathExplorer(net, [paths.segment(a, b), paths.segment(wide, wide, name="wide")], digits)
    with pytest.raises(ValueError, match="no path"):
        PathExplorer(net, [], digits)


def test_data_of_unknown_form(net, ends, digits):
    path = paths.segment(*ends[:2])
    with pytest.raises(ValueError, match=r"'digits' have shape \(64,\).*set image_shape"):
        PathExplorer(net, path, replace(digits, image_shape=None))
    with pytest.raises(ValueError, match="neither"):
        PathExplorer(net, path, replace(digits, image_shape=(4, 4, 4)))
