"""What all tests share: a busy machine is no failure; the built site; a browser to open it in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

# A drawn example may take as long as it takes: pytest's own timeout ends what hangs.
settings.register_profile("book", deadline=None)
settings.load_profile("book")

ROOT = Path(__file__).resolve().parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def build(book: Path, out: Path) -> Path:
    """Build a book as `make book` does, every warning an error; the folder of its pages."""
    tool = Path(sys.executable).with_name("jupyter-book")
    command = [str(tool), "build", str(book), "--path-output", str(out)]
    done = subprocess.run(
        [*command, "-W", "-n", "--keep-going"], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, f"the site does not build:\n{done.stdout}\n{done.stderr}"
    return out / "_build" / "html"


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """The built site, built once for all tests and all xdist workers."""
    shared = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        shared = shared.parent  # each worker has a folder of its own in there
    out = shared / "site"
    with FileLock(shared / "site.lock"):
        if (out / "failed").exists():
            pytest.fail("the site does not build: another worker shows why")
        if not (out / "done").exists():
            out.mkdir(exist_ok=True)
            (out / "failed").touch()
            build(ROOT, out)
            (out / "failed").unlink()
            (out / "done").touch()
    return out / "_build" / "html"


@pytest.fixture(scope="session")
def chromium():
    """A running Chromium. Without one: skip, but fail in CI."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        message = (
            "no Chromium on this machine (looked for chromium, chromium-browser and "
            "google-chrome): the browser tests were not run"
        )
        if os.environ.get("CI", "").lower() in ("", "0", "false"):
            pytest.skip(message)
        pytest.fail(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()
