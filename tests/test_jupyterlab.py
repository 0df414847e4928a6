"""Chapters in JupyterLab, as a reader opens them: all cells run, and both kinds of slider move."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from urllib.request import urlopen

import nbformat
import pytest
import torch
from conftest import ROOT

from modeconn_lite import data, evaluate, segment, zoo
from modeconn_lite.methods import dropout

pytestmark = pytest.mark.browser
RUN_SECONDS = 420
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "docmanager-extension/plugin": {"autosave": False},
}
MODEL = """() => {
    const cells = [...jupyterapp.shell.currentWidget.content.model.cells];
    const outputs = cell => cell.toJSON().outputs || [];
    const code = cells.filter(cell => cell.type === 'code');
    const errors = code.flatMap(outputs).filter(o => o.output_type === 'error');
    return {
        sources: cells.map(cell => cell.sharedModel.getSource()),
        ran: code.map(cell => cell.executionCount),
        errors: errors.map(o => `${o.ename}: ${o.evalue}`),
    };
}"""
ENDED = f"""() => {{
    const model = ({MODEL})();
    return model.errors.length > 0 || model.ran.every(Boolean);
}}"""
READY = "jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status === 'idle'"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab with settings of its own, and the folder of the book in it.

    The committed outputs are taken away, so that what a test sees was computed there.
    """
    home = tmp_path_factory.mktemp("lab")
    book = shutil.copytree(ROOT / "book", home / "book")
    for path in book.glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, path)
    for name, values in SETTINGS.items():
        file = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(values), "utf8")
    folders = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    environment = os.environ | {name: str(home / folder) for name, folder in folders.items()}
    environment |= {"PYTHONPATH": str(ROOT), "MODECONN_DEVICE": "cpu"}
    environment.pop("MPLBACKEND", None)  # else figures do not reach the notebook
    token = secrets.token_hex()
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
        *("--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", f"--ServerApp.root_dir={home}"),
        *(f"--IdentityProvider.token={token}", "--LabApp.expose_app_in_browser=True"),
        "--LabApp.extension_manager=readonly",  # the other one asks for a list of packages
    ]
    with (home / "log").open("w") as log:
        server = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield address_of(server, home, token), token
    finally:
        end(server)


def address_of(server: subprocess.Popen, home, token: str) -> str:
    """Where the server listens, once it does: it says so in a file, as it chose a free port."""
    file = home / "runtime" / f"jpserver-{server.pid}.json"
    for _ in range(240):
        assert server.poll() is None, f"JupyterLab does not start:\n{(home / 'log').read_text()}"
        with suppress(OSError, ValueError):
            url = json.loads(file.read_text())["url"]
            with urlopen(f"{url}api/status?token={token}", timeout=5):
                return url
        time.sleep(0.5)
    pytest.fail(f"JupyterLab did not answer within two minutes:\n{(home / 'log').read_text()}")


def end(server: subprocess.Popen) -> None:
    """Stop the server and its kernels: politely, which ends them too, then by force."""
    for number, seconds in ((signal.SIGTERM, 20), (signal.SIGKILL, 10)):
        with suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with suppress(subprocess.TimeoutExpired):
            server.wait(seconds)


@contextmanager
def opened(chromium, lab, name: str):
    """A notebook of the book in a fresh window that reaches nothing but the server."""
    address, token = lab
    context = chromium.new_context(viewport={"width": 1200, "height": 900})
    strangers = []

    def only_the_server(route):
        if route.request.url.startswith((address, "data:", "blob:")):
            route.continue_()
        else:
            strangers.append(route.request.url)
            route.abort()

    context.route("**/*", only_the_server)
    page = context.new_page()
    page.set_default_timeout(60_000)
    try:
        page.goto(f"{address}lab/tree/book/{name}.ipynb?token={token}&reset")
        page.locator(".jp-Notebook .jp-Cell").first.wait_for()
        yield page
        assert not strangers, f"asked third parties: {strangers}"
    finally:
        context.close()


def run_all(page) -> dict:
    """Run > Run All Cells; the notebook's model when every cell has run or one has failed."""
    page.wait_for_function(READY)  # before, it would ask which kernel is meant
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_function(ENDED, timeout=1000 * RUN_SECONDS, polling=500)
    return page.evaluate(MODEL)


def cell_with(page, model: dict, words: str):
    """The cell in whose source these words stand, scrolled into view."""
    (number,) = [k for k, source in enumerate(model["sources"]) if words in source]
    page.evaluate(
        "k => jupyterapp.shell.currentWidget.content.scrollToItem(k, 'start')",
        number,
    )
    return page.locator(".jp-Notebook .jp-Cell").nth(number)


def read(cell) -> dict[str, float]:
    """What the explorer's read-out says, by name; accuracies in per cent."""
    words = " ".join(cell.locator(".mc-readout").first.inner_text().split()).replace("\u202f", "")
    names = ("t", "test accuracy", "test loss")  # those of training need a wider window
    found = {name: re.search(rf"\b{name} (\d+\.\d+)", words) for name in names}
    assert all(found.values()), f"the read-out says {words!r}"
    return {name: float(match[1]) for name, match in found.items() if match}


def moved(page, cell, before: dict, move) -> dict:
    """The read-out after a move of the slider, once it has come to rest."""
    move()
    shown = before
    for _ in range(100):
        page.wait_for_timeout(200)
        now = read(cell)
        if now == shown != before:
            return now
        shown = now
    pytest.fail(f"the read-out does not change, or not stop: {before}, then {shown}")


def straight():
    network = zoo.network("digits")
    a, b = zoo.load("digits", "cpu")[:2]
    return network, segment(a, b)


def dropped():
    network = zoo.network("digits")
    a, b = zoo.load("digits-dropout", "cpu")[:2]
    return network, dropout.connect(network, a, b, data.load("digits").train)


def is_right(shown: dict, network, path, points: int | None = None) -> None:
    """A read-out's figures, against the network at the point that it names.

    points : of a still explorer, whose places are these and the path's knots; t is shown rounded.
    """
    places = [*torch.linspace(0, 1, points).tolist(), *path.knots] if points else [shown["t"]]
    t = min(places, key=lambda place: abs(place - shown["t"]))
    loss, accuracy = evaluate(network, path(t), data.load("digits").test)
    assert shown["t"] == pytest.approx(t, abs=0.00051)
    assert shown["test accuracy"] == pytest.approx(100 * float(accuracy), abs=0.051)
    assert shown["test loss"] == pytest.approx(float(loss), abs=0.0011)


@pytest.mark.parametrize(
    ("name", "walked", "points"),
    [("01_interpolation", straight, 41), ("03_dropout_stability", dropped, 55)],
)
def test_run_all_then_walk(chromium, lab, name, walked, points):
    with opened(chromium, lab, name) as page:
        model = run_all(page)
        assert not model["errors"]

        live = cell_with(page, model, "explorer.live()")
        handle = live.locator(".noUi-handle")
        handle.wait_for()
        start = read(live)
        handle.focus()
        pressed = moved(page, live, start, lambda: page.keyboard.press("ArrowRight"))
        track = live.locator(".noUi-target").bounding_box()
        knob = handle.bounding_box()
        assert track and knob

        def drag():
            page.mouse.move(knob["x"] + knob["width"] / 2, knob["y"] + knob["height"] / 2)
            page.mouse.down()
            page.mouse.move(track["x"] + 0.25 * track["width"], knob["y"] + 5, steps=6)
            page.mouse.up()

        dragged = moved(page, live, pressed, drag)
        assert pressed["t"] == pytest.approx(start["t"] + 0.005)
        assert 0.2 < dragged["t"] < 0.3

        still = cell_with(page, model, "explorer = PathExplorer(")
        still.locator(".mc-all").first.click()  # no guess
        slider = still.locator("input[type=range]").first
        slider.focus()
        before = read(still)
        stepped = moved(page, still, before, lambda: page.keyboard.press("ArrowRight"))
        network, path = walked()
        for shown in (start, pressed, dragged):
            is_right(shown, network, path)
        for shown in (before, stepped):
            is_right(shown, network, path, points)
        assert before["t"] < stepped["t"]
