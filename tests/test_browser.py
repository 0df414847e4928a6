"""The built site in a real browser, with the rest of the world cut off."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import book_site
import pytest
from conftest import ROOT

pytestmark = pytest.mark.browser
PAGES = [*book_site.pages(ROOT), "search", "genindex"]
CHAPTERS = [p for p in PAGES if book_site.source(ROOT, p).exists()]
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
