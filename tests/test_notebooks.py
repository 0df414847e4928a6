"""Every notebook is in the one form that the book commits. (nbval compares the outputs.)"""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
import refresh
from book_site import ASSET

from modeconn_lite.explorers.markup import asset

CODE_LINES = 25


def test_every_notebook_is_in_the_book():
    assert sorted((refresh.ROOT / "book").glob("*.ipynb")) == sorted(refresh.notebooks())


def notebook_id(path: Path) -> str:
    return path.stem


@pytest.fixture(params=refresh.notebooks(), ids=notebook_id)
def path(request) -> Path:
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


@pytest.fixture
def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_normal_form(path):
    assert not refresh.problems(path)


def test_ran_from_top_to_bottom(code):
    # nbval compares nothing in a cell that was never run, and says nothing about it.
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))


def test_at_most_one_ignored_cell(notebook):
    tags = [tag for cell in notebook.cells for tag in cell.metadata.get("tags", [])]
    assert tags.count("nbval-ignore-output") <= 1
    assert "nbval-skip" not in tags
    assert not any("NBVAL" in cell.source for cell in notebook.cells), "use tags, not comments"


def test_cells_are_short(code):
    long = [cell.source.splitlines()[0] for cell in code if cell.source.count("\n") >= CODE_LINES]
    assert not long


def test_first_cell_is_for_colab(code):
    assert code[0].source == refresh.colab_cell()


def test_figures_have_alt_text(code):
    for cell in code:
        pictures = [o for o in cell.outputs if "image/png" in o.get("data", {})]
        if pictures:
            alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
            assert len(alt) >= 20, f"no alt text for the figure of:\n{cell.source}"


def test_no_paths_of_this_machine(path):
    content = path.read_text("utf8")
    for word in ("../data", "/home/", "/root/", "/Users/", str(refresh.ROOT)):
        assert word not in content


def stale_assets(cells):
    """Names of styles and scripts in outputs that are not today's."""
    pages = [
        o["data"]["text/html"] for c in cells for o in c.outputs if "text/html" in o.get("data", {})
    ]
    found = [match for page in pages for match in ASSET.finditer(page)]
    return [m[2] for m in found if asset(m[2]) != m[0].partition(">")[2].rpartition("</")[0]]


def test_explorers_carry_today_s_assets(code):
    assert not stale_assets(code), "run `make refresh`"


def test_an_older_asset_is_found():
    old = '<style data-mc-asset="base.css">.mc-explorer { color: red }</style>'
    new = f'<style data-mc-asset="base.css">{asset("base.css")}</style>'
    for html, found in ((old, ["base.css"]), (new, [])):
        output = nbformat.v4.new_output("display_data", {"text/html": html})
        assert stale_assets([nbformat.v4.new_code_cell(outputs=[output])]) == found
