"""The built site in a real browser, with the rest of the world cut off."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise

import book_site
import pytest
import torch
from conftest import ROOT

from modeconn_lite import PathExplorer, SheetExplorer, bezier, data, exchanges, segment, zoo
from modeconn_lite.explorers import (
    AdjustmentExplorer,
    BlockExplorer,
    NeuronExplorer,
    RaceExplorer,
)
from modeconn_lite.landscapes import plane
from modeconn_lite.methods import dropout

pytestmark = pytest.mark.browser
PAGES = [*book_site.pages(ROOT), "search", "genindex"]
CHAPTERS = [p for p in PAGES if book_site.source(ROOT, p).exists()]
NOTEBOOKS = [p for p in CHAPTERS if book_site.source(ROOT, p).suffix == ".ipynb"]
WIDTHS = {"desktop": 1280, "phone": 390}

# What an explorer draws, as one string: its elements, and the pixels of its canvases.
DRAWING = """explorer => {
    const stages = [...explorer.querySelectorAll('.mc-stage')];
    return stages.map(s => s.outerHTML
        + [...s.querySelectorAll('canvas')].map(c => c.toDataURL()).join()).join();
}"""
READOUT = "explorer => [...explorer.querySelectorAll('.mc-readout')].map(r => r.innerText).join()"
IDLE = """async () => {
    if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
    await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
}"""
# Without preload: axe would fetch what stylesheets import, from wrongly resolved addresses.
AXE = {"resultTypes": ["violations"], "preload": False}
GUESS_NOTHING = "document.querySelectorAll('.mc-guess .mc-all').forEach(b => b.click())"
OPEN_EVERYTHING = "document.querySelectorAll('details').forEach(d => d.open = true)"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="session")
def address(site):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def visit(chromium, address):
    """Open a page; on leaving, fail for anything it said, missed or asked of a third party."""

    @contextmanager
    def opened(name: str, theme: str = "light", width: int = 1280):
        complaints = []
        context = chromium.new_context(
            color_scheme=theme, viewport={"width": width, "height": 900}, reduced_motion="reduce"
        )

        def only_this_site(route):
            if route.request.url.startswith((address, "data:", "blob:")):
                route.continue_()
            else:
                complaints.append(f"asked a third party: {route.request.url}")
                route.abort()

        context.route("**/*", only_this_site)
        page = context.new_page()
        page.on("console", lambda m: complaints.append(f"console.{m.type}: {m.text}"))
        page.on("pageerror", lambda e: complaints.append(f"uncaught: {e}"))
        page.on("response", lambda r: r.ok or complaints.append(f"{r.status}: {r.url}"))
        page.goto(f"{address}/{name}", wait_until="load")
        page.evaluate(IDLE)
        try:
            yield page
            assert not complaints, "\n".join(complaints)
        finally:
            context.close()

    return opened


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_page(visit, name, theme, width):
    """Silent console, nothing wider than the screen, no serious accessibility fault."""
    from axe_playwright_python.sync_playwright import Axe

    with visit(f"{name}.html", theme, WIDTHS[width]) as page:
        assert page.locator("html").get_attribute("data-theme") == theme
        wide, room = page.evaluate(
            "[Math.max(document.documentElement.scrollWidth, document.body.scrollWidth),"
            " document.documentElement.clientWidth]"
        )
        assert wide <= room + 1, f"the page is {wide} px wide on a screen of {room}"
        page.evaluate(OPEN_EVERYTHING)
        faults = [
            f"{fault['id']} ({fault['impact']}): {node['html'][:300]}\n  {node['failureSummary']}"
            for fault in Axe().run(page, options=AXE).response["violations"]
            if fault["impact"] in ("serious", "critical")
            for node in fault["nodes"]
        ]
        assert not faults, "\n".join(faults)


def assert_keys_move(explorer, control, keys):
    """Each of the keys changes what the explorer says and what it draws."""
    control.focus()
    for key in keys:
        before = explorer.evaluate(READOUT), explorer.evaluate(DRAWING)
        for _ in range(3 if key.startswith("Arrow") else 1):
            control.press(key)
        explorer.page.evaluate(IDLE)
        assert explorer.evaluate(READOUT) != before[0], f"{key} does not change the read-out"
        assert explorer.evaluate(DRAWING) != before[1], f"{key} does not change the drawing"


@pytest.mark.parametrize("name", CHAPTERS)
def test_explorers_follow_the_keyboard(visit, name):
    with visit(f"{name}.html") as page:
        page.evaluate(OPEN_EVERYTHING)
        page.evaluate(GUESS_NOTHING)
        for explorer in page.locator(".mc-explorer").all():
            readout = explorer.locator(".mc-readout").first
            assert readout.get_attribute("aria-live") == "polite" or readout.evaluate(
                "r => r.tagName === 'OUTPUT'"  # a live region by itself
            )
            for slider in explorer.locator("input[type=range]").all():
                slider.press("Home")
                page.evaluate(IDLE)
                assert_keys_move(explorer, slider, ["ArrowRight", "End", "Home", "ArrowRight"])
            for pad in explorer.locator(".mc-pad[tabindex]").all():
                assert_keys_move(explorer, pad, ["ArrowRight", "ArrowUp", "ArrowLeft", "ArrowDown"])


@pytest.mark.parametrize("name", CHAPTERS)
def test_explorers_follow_the_mouse(visit, name):
    with visit(f"{name}.html") as page:
        page.evaluate(OPEN_EVERYTHING)
        page.evaluate(GUESS_NOTHING)
        for explorer in page.locator(".mc-explorer").all():
            for control in explorer.locator("input[type=range], .mc-pad[tabindex]").all():
                control.scroll_into_view_if_needed()
                box = control.bounding_box()
                seen = set()
                for share in (0.35, 0.65):
                    page.mouse.click(
                        box["x"] + share * box["width"], box["y"] + share * box["height"]
                    )
                    page.evaluate(IDLE)
                    seen.add(explorer.evaluate(READOUT))
                assert len(seen) == 2, "two clicks at two places give the same read-out"


# --- Explorers made for the purpose ---------------------------------------------------------------


@pytest.fixture(scope="session")
def bench(chromium, tmp_path_factory):
    """A page of explorers, opened by itself: what each kind does in the reader's hand."""
    network, digits = zoo.network("digits"), data.load("digits")
    a, b, c = zoo.load("digits")[:3]
    line, bent = segment(a, b), bezier([a, c, b])
    swaps = exchanges.walk_back(network, a, {"1": [1, 0, *range(2, 64)]})
    halves = {name: torch.arange(32) for name in ("1", "3", "5")}
    walk = dropout.merged(dropout.walk(network, a, b, halves, halves))
    sheet = plane(a, b, c)
    way = {"line": [sheet.marks["A"], sheet.marks["B"]]}
    made = [
        PathExplorer(network, [line, bent], digits, points=21, guess="accuracy"),
        RaceExplorer(network, {"straight": line, "bent": bent}, digits, points=21),
        NeuronExplorer(network, swaps, digits, points=5),
        BlockExplorer(network, walk, halves, {"A": a, "B": b}, split=digits.test.take(50)),
        SheetExplorer(network, sheet, digits, points=9, paths=way),
        AdjustmentExplorer(network, a, b, digits, images=(50, 1297), points=9),
    ]
    file = tmp_path_factory.mktemp("bench") / "bench.html"
    body = "".join(explorer._repr_html_() for explorer in made)
    file.write_text(f'<!doctype html><meta charset="utf8"><title>bench</title>{body}', "utf8")
    return file, made


@pytest.fixture
def page(bench, chromium):
    context = chromium.new_context(viewport={"width": 900, "height": 900})
    context.set_default_timeout(20_000)
    page, errors = context.new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(bench[0].as_uri())
    yield page
    assert not errors
    context.close()


def test_a_guess_comes_before_the_curve(page, bench):
    """Handles by keys and mouse; the curve as far as one has walked; the score at the end."""
    root = page.locator(".mc-explorer").nth(0)
    plot = root.locator(".mc-chart:not([hidden]) .mc-plot")
    test = bench[1][0].profiles[0][1]
    truth = [float(test.accuracy[int(20 * t)]) for t in (0.25, 0.5, 0.75)]
    assert root.get_attribute("data-stage") == "guess"
    for hidden in (".mc-slider input", ".mc-readout", "figcaption", ".mc-tools"):
        assert not root.locator(hidden).is_visible(), f"{hidden} gives something away"
    assert root.locator(".mc-curve .mc-name:visible").count() == 0
    assert f"{truth[1]:.2f}" not in plot.get_attribute("aria-label")

    first, second, third = root.locator(".mc-chart:not([hidden]) .mc-handle").all()
    start = float(second.get_attribute("aria-valuenow"))
    assert start == 0.5, "neither the ends nor the answer"
    second.focus()
    for _ in range(10):
        page.keyboard.press("ArrowDown")
    assert float(second.get_attribute("aria-valuenow")) == pytest.approx(start - 0.2, abs=1e-3)
    box = plot.bounding_box()
    page.mouse.move(box["x"] + 0.76 * box["width"], box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.76 * box["width"], box["y"] + 0.1 * box["height"])
    page.mouse.up()
    assert float(third.get_attribute("aria-valuenow")) == pytest.approx(0.9, abs=0.02)
    assert float(first.get_attribute("aria-valuenow")) == pytest.approx(start, abs=0.02)

    root.locator(".mc-ready").click()
    assert root.get_attribute("data-stage") == "walk"
    slider = root.locator("input[type=range]")
    for _ in range(10):
        slider.press("ArrowRight")
    seen = root.locator(".mc-chart:not([hidden]) .mc-curve.mc-on svg").first
    assert float(seen.get_attribute("width").rstrip("%")) == pytest.approx(50, abs=0.1)
    slider.press("ArrowLeft")
    assert float(seen.get_attribute("width").rstrip("%")) == pytest.approx(50, abs=0.1)
    assert not root.locator("figcaption").is_visible()
    slider.press("End")
    assert root.get_attribute("data-stage") == "all"
    assert root.locator("figcaption").is_visible()
    guessed = [float(h.get_attribute("aria-valuenow")) for h in (first, second, third)]
    mean = sum(abs(g - t) for g, t in zip(guessed, truth, strict=True)) / 3
    said = root.locator(".mc-guess p").inner_text()
    assert f"off by {round(100 * mean)} points on average" in said
    assert f"{round(100 * (truth[1] - guessed[1]))} points too low at ½" in said

    root.locator(".mc-again").click()
    assert root.get_attribute("data-stage") == "guess"
    root.locator(".mc-all").click()
    assert root.get_attribute("data-stage") == "all"


WHOLE = """plot => [...plot.querySelectorAll('.mc-curve .mc-test')].map(path => {
    const piece = path.closest("svg");
    const [own, all] = [path, plot].map(e => e.getBoundingClientRect().width);
    return own > 0.99 * all && getComputedStyle(path).visibility === "visible"
        && (!piece.hasAttribute("width") || piece.getAttribute("width") === "100%"
            || piece.style.overflow === "visible");
})"""


def assert_whole(root):
    """The curve from end to end, its numbers and its words; nothing left to guess."""
    for shown in (".mc-plot", ".mc-readout", "figcaption"):
        assert root.locator(f"{shown}:visible").count(), f"{shown} is missing"
    for plot in root.locator(".mc-plot:visible").all():
        curves = plot.evaluate(WHOLE)
        assert curves and all(curves)
    for guessing in (".mc-handle", ".mc-sketch", ".mc-guess"):
        assert root.locator(f"{guessing}:visible").count() == 0


def test_without_script_the_whole_figure(chromium, bench):
    context = chromium.new_context(
        viewport={"width": 900, "height": 900}, java_script_enabled=False
    )
    page = context.new_page()
    page.goto(bench[0].as_uri())
    root, explorer = page.locator(".mc-explorer").nth(0), bench[1][0]
    assert_whole(root)
    rows = root.locator("table tr")
    assert rows.count() == 1 + sum(len(test.t) for _, test in explorer.profiles)
    lowest = min(float(test.accuracy.min()) for _, test in explorer.profiles)
    assert f"{lowest:.3f}".rstrip("0") in root.locator("table").inner_text()
    context.close()


def test_in_print_the_whole_figure(page):
    root = page.locator(".mc-explorer").nth(0)
    assert root.get_attribute("data-stage") == "guess"
    page.pdf()  # tells the page so first, as a reader's browser does
    page.emulate_media(media="print")
    assert_whole(root)


def test_a_race_is_walked_in_step(page, bench):
    root, race = page.locator(".mc-explorer").nth(1), bench[1][1]
    slider = root.locator("input[type=range]")
    assert not root.locator("figcaption").is_visible()
    slider.press("Home")
    looks = "r => [getComputedStyle(r).fill, getComputedStyle(r).stroke]"
    runners = [root.locator(f"[data-runner='{k}']") for k in range(2)]
    height = root.bounding_box()["height"]
    assert all(fill != stroke for fill, stroke in [r.evaluate(looks) for r in runners])
    for _ in range(10):
        slider.press("ArrowRight")
    for k, profile in enumerate(race.profiles):
        lane = root.locator(f"[data-lane='{k}']")
        said = f"{100 * float(profile.accuracy[10]):.1f}"
        assert lane.locator(".mc-score").inner_text().startswith(said)
        assert "fell at" in lane.locator(".mc-fate").inner_text()
    fills = [fill for fill, stroke in [r.evaluate(looks) for r in runners] if fill == stroke]
    assert len(set(fills)) == 2, "who fell is filled in, each in its own colour"
    assert root.bounding_box()["height"] == height, "a fall moves the page"
    spots = {root.locator(f"[data-runner='{k}']").get_attribute("cx") for k in (0, 1)}
    assert spots == {"50%"}
    assert root.locator(".mc-curve .mc-name:visible").count() == 0
    root.locator(".mc-all").click()
    assert root.locator("figcaption").is_visible()
    assert slider.input_value() == "10", "all is shown, and the walker stays"
    root.locator(".mc-play").click()
    page.wait_for_function("s => Number(s.value) > 11", arg=slider.element_handle(), timeout=10_000)


def test_who_is_folded_runs_as_a_thin_line(page):
    root = page.locator(".mc-explorer").nth(1)
    root.locator(".mc-all").click()
    lane, runner = root.locator("[data-lane='1']"), root.locator("[data-runner='1']")
    curve = root.locator("[data-path='1'] .mc-test")
    width = "c => parseFloat(getComputedStyle(c).strokeWidth)"

    def wait_until_folded(folded):  # the browser tells the page so a moment later
        back = f"c => c.closest('.mc-curve').classList.contains('mc-back') === {folded}"
        page.wait_for_function(back, arg=curve.element_handle(), timeout=10_000)

    strong = curve.evaluate(width), runner.bounding_box()["width"]
    assert lane.locator(".mc-album").is_visible()
    lane.locator("summary").click()
    wait_until_folded("true")
    assert not lane.locator(".mc-album").is_visible() and lane.locator(".mc-score").is_visible()
    assert curve.evaluate(width) < strong[0] and runner.bounding_box()["width"] < strong[1]
    slider, height = root.locator("input[type=range]"), root.bounding_box()["height"]
    slider.press("Home")
    for _ in range(10):
        slider.press("ArrowRight")
    assert "mc-fallen" in lane.get_attribute("class")
    assert root.bounding_box()["height"] == height, "a fall moves the page"
    lane.locator("summary").press("Enter")
    wait_until_folded("false")
    assert curve.evaluate(width) == strong[0]


def test_one_neuron_can_be_followed_and_exchanges_are_seen(page):
    root = page.locator(".mc-explorer").nth(2)
    slider = root.locator("input[type=range]")
    slider.press("Home")
    slider.press("ArrowRight")  # two of 64 neurons change places
    assert root.locator(".mc-moving").count() == 2
    assert root.locator(".mc-flight").inner_text() == "2 of 64 moved in this step"
    root.locator("select").select_option("1")
    assert root.locator(".mc-neuron.mc-chosen").get_attribute("data-neuron") == "1"
    assert len(root.locator(".mc-way").get_attribute("points").split()) == 2
    root.locator(".mc-neuron[data-neuron='7']").click(force=True)
    chosen = root.locator(".mc-neuron.mc-chosen")
    assert chosen.count() == 1 and root.locator("select").input_value() != "1"


def test_the_sentence_of_the_step_lights_up(page, bench):
    root, blocks = page.locator(".mc-explorer").nth(3), bench[1][3]
    slider = root.locator("input[type=range]")
    slider.press("Home")
    spot = root.locator(".mc-spot")
    before = spot.get_attribute("cx"), spot.get_attribute("cy")
    for _ in range(16):
        slider.press("ArrowRight")
    lit = root.locator("[aria-current=step]")
    assert lit.inner_text() == blocks.steps[15]
    box, frame = lit.bounding_box(), root.locator(".mc-steps").bounding_box()
    assert frame["y"] <= box["y"] <= frame["y"] + frame["height"], "it is scrolled into view"
    assert (spot.get_attribute("cx"), spot.get_attribute("cy")) != before


def test_a_plane_stands_on_its_marks(page, bench):
    root, plane = page.locator(".mc-explorer").nth(4), bench[1][4]
    pad = root.locator(".mc-pad")
    pad.focus()
    top = page.evaluate("scrollY")
    for key, mark in (("End", "B"), ("Home", "A")):
        pad.press(key)
        u, v = plane.sheet.marks[mark]
        assert root.locator("[data-say=u]").inner_text() == f"{u:.2f}"
        assert root.locator("[data-say=v]").inner_text() == f"{v:.2f}"
    pad.press("ArrowRight")  # along the line: v stays what it is on it
    assert root.locator("[data-say=v]").inner_text() == "0.00"
    assert page.evaluate("scrollY") == top, "keys of the map do not scroll the page"


def test_one_slider_walks_and_the_other_changes_the_path(page, bench):
    root, shown = page.locator(".mc-explorer").nth(5), bench[1][5]
    slider, dial = root.locator(".mc-slider input"), root.locator(".mc-dial input")
    charts = [root.locator(f".mc-chart[data-of={of}] .mc-now text") for of in ("loss", "residual")]
    times = shown.source.routes[0].axes["t"]

    def stands_at(route, i):
        figures = shown.source.point(route, i).figures
        for chart, name in zip(charts, ("test loss", "test residual"), strict=True):
            assert chart.text_content() == f"{figures[name]:.2f}"
        ways = [bar.text_content() for bar in root.locator(".mc-ways b").all()]
        weights = shown.routes[route](float(times[i]))
        assert ways == [f"{way:.2f}" for way in shown.view.note(weights)]

    i = int(slider.input_value())
    assert float(times[i]) == pytest.approx(0.5), "it begins where the second slider does something"
    stands_at(0, i)
    dial.press("ArrowRight")
    assert root.locator(".mc-dial b").text_content() == dial.get_attribute("aria-valuetext")
    assert dial.get_attribute("aria-valuetext") == "1,297"
    stands_at(1, i)
    slider.press("ArrowRight")
    stands_at(1, i + 1)
    root.get_by_role("button", name="accuracy").click()
    assert charts[1].is_visible() and not charts[0].is_visible()


def test_names_never_cover_one_another(page):
    boxes = """root => [...root.querySelectorAll('.mc-name, .mc-barrier')]
        .filter(n => n.getClientRects().length && getComputedStyle(n).visibility !== 'hidden'
            && !n.closest('[hidden]'))
        .map(n => { const b = n.getBoundingClientRect(); return [b.x, b.y, b.right, b.bottom] })"""
    page.evaluate(GUESS_NOTHING)
    for root in page.locator(".mc-explorer").all():
        found = root.evaluate(boxes)
        for i, one in enumerate(found):
            for two in found[:i]:
                apart = one[2] <= two[0] or two[2] <= one[0] or one[3] <= two[1] or two[3] <= one[1]
                same_line = abs(one[0] - two[0]) < 90 and abs(one[1] - two[1]) < 20
                assert apart or (same_line and one[1] != two[1]), (one, two)


# --- The site's own controls ----------------------------------------------------------------------


def test_search_finds_a_page(visit):
    with visit("search.html?q=network") as page:
        page.locator("#search-results li").first.wait_for()
        page.get_by_text("Search finished").wait_for()
        assert page.locator("#search-results li a").count() > 0


def test_theme_button_changes_the_theme(visit):
    with visit(f"{CHAPTERS[0]}.html") as page:
        seen = set()
        for _ in range(3):  # dark, light, as the system has it
            page.locator(".theme-switch-button:visible").first.click()
            seen.add(page.locator("html").get_attribute("data-theme"))
        assert seen == {"light", "dark"}


# --- Reading ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_titles_open_what_is_folded_away(visit, name):
    """Solutions and the code of figures: a click anywhere on the title, or a key."""
    with visit(f"{name}.html") as page:
        for box in page.locator("details:is(.solution, .mc-fold-code)").all():
            title, inside = box.locator("> summary"), box.locator("> :not(summary)").first
            assert not inside.is_visible()
            words = title.inner_text()
            size = title.bounding_box()
            title.click(position={"x": size["width"] - 8, "y": size["height"] / 2})
            assert inside.is_visible()
            if "Show" in words:
                assert title.inner_text() == words.replace("Show", "Hide")
            title.focus()
            for key, shown in (("Enter", False), ("Space", True)):
                page.keyboard.press(key)
                assert inside.is_visible() == shown, key


def test_a_link_into_a_folded_box_opens_it(visit):
    with visit(f"{CHAPTERS[1]}.html") as page:
        box = page.locator("details.solution").first
        page.evaluate("id => { location.hash = id; }", box.get_attribute("id"))
        page.evaluate(IDLE)
        assert box.get_attribute("open") is not None


FORMULAS = """all => all.map(f => {
    const [room, need] = [f, f.firstElementChild].map(e => e.getBoundingClientRect().width);
    const wide = room && need > room + 1;
    const before = f.dataset.more, stop = f.getAttribute("tabindex");
    f.scrollLeft = f.scrollWidth;
    return [!!wide, stop, before ?? null];
})"""


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", [*NOTEBOOKS, "book/notation", "book/glossary"])
def test_formulas_are_no_tab_stops_unless_they_scroll(visit, name, width):
    with visit(f"{name}.html", width=WIDTHS[width]) as page:
        page.evaluate(OPEN_EVERYTHING)
        page.evaluate(IDLE)
        seen = page.locator("mjx-container").evaluate_all(FORMULAS)
        page.evaluate(IDLE)
        after = page.locator("mjx-container[data-more]")
        assert all(end == "left" for end in after.evaluate_all("a => a.map(f => f.dataset.more)"))
        for wide, stop, more in seen:
            assert (stop, more) == (("0", "right") if wide else (None, None))
            assert not wide or width == "phone", "a formula is wider than the page of a desktop"


GROUNDS = """all => all.map(i => {
    const {filter, backgroundColor} = getComputedStyle(i);
    return [i.alt, i.classList.contains("mc-map"), filter, backgroundColor];
})"""


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_no_white_card_in_the_dark(visit, name):
    """Figures and drawings are turned over, maps are not; nothing has a white ground."""
    with visit(f"{name}.html", "dark") as page:
        pictures = page.locator("article img:not(.mc-explorer *)").evaluate_all(GROUNDS)
        for alt, a_map, *look in pictures:
            turned = ["invert(1) hue-rotate(180deg)", "rgba(0, 0, 0, 0)"]
            assert look == (["none", "rgb(0, 0, 0)"] if a_map else turned), alt


PANELS = """all => all.map(figure => [...figure.children].map(panel => {
    const {top, bottom} = panel.getBoundingClientRect(), picture = panel.querySelector("img");
    return [top, bottom, picture.getBoundingClientRect().width / picture.naturalWidth];
}).filter(([top, bottom]) => bottom > top))"""


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_panels_stack_on_a_phone(visit, name):
    with visit(f"{name}.html", width=WIDTHS["phone"]) as page:
        page.evaluate(OPEN_EVERYTHING)
        figures = page.locator(".mc-panels")
        for panels in figures.evaluate_all(PANELS):
            assert len(panels) > 1
            for (_, upper, size), (lower, _, _) in pairwise(panels):
                assert lower >= upper - 1
                assert size > 0.75, "the panels' letters are too small"
        page.set_viewport_size({"width": WIDTHS["desktop"], "height": 900})
        assert all(len(panels) == 1 for panels in figures.evaluate_all(PANELS))


def test_search_finds_a_function_of_the_package(visit):
    with visit("search.html?q=weight_matching") as page:
        page.get_by_text("Search finished").wait_for()
        links = page.locator("#search-results li a").evaluate_all("a => a.map(x => x.href)")
        full = "modeconn_lite.methods.symmetry.weight_matching"
        assert any(link.endswith(f"book/methods.html#{full}") for link in links)
