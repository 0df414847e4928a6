"""Run every notebook of _toc.yml afresh and bring it into normal form.

    python tools/refresh.py              all notebooks
    python tools/refresh.py book/x.ipynb only these
    python tools/refresh.py --check      run nothing; report what is not in normal form

Committed outputs come from here and from nowhere else: one fresh kernel for each notebook, on the
CPU with 2 threads, then everything removed that differs from run to run. `make refresh` goes on to
compare the result twice with nbval, on 1 and on 2 threads.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import sys
import time
from pathlib import Path

import nbformat
import yaml
from book_site import TIMINGS, pages, source, timings
from chapter_forms import REFERENCES, in_words, papers, reference_list

ROOT = Path(__file__).resolve().parent.parent
FIGURE_BYTES = 60_000
NOTEBOOK_BYTES = 2_000_000
CELL_SECONDS = 120
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
FOLDED = {"hide-input", "remove-input", "remove-cell"}  # tags: folded or left out on the website
COLAB_MARK = '"google.colab" in sys.modules'


def notebooks(root: Path = ROOT) -> list[Path]:
    """The book's notebooks in reading order."""
    return [path for page in pages(root) if (path := source(root, page)).suffix == ".ipynb"]


def colab_cell(root: Path = ROOT) -> str:
    """The first code cell of every chapter, made from `repository` in _config.yml."""
    repository = yaml.safe_load((root / "_config.yml").read_text("utf8"))["repository"]
    if repository["url"]:
        install = (
            f"    !git clone -q --depth 1 -b {repository['branch']} \\\n"
            f"        {repository['url']} /content/book-source\n"
            "    %pip install -q pot\n"
            "    %pip install -q --no-deps /content/book-source\n"
            "    %cd -q /content/book-source/book"
        )
    else:
        install = (
            "    raise RuntimeError(\n"
            '        "Fill in repository.url in _config.yml, then `make refresh`."\n'
            "    )"
        )
    return (
        "# In Google Colab: fetch the book and what Colab lacks. Elsewhere: nothing.\n"
        f"import sys\n\nif {COLAB_MARK}:\n{install}"
    )


# --- Normal form ----------------------------------------------------------------------------------


def normalise(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy without anything that differs from run to run; cell ids stay."""
    notebook = copy.deepcopy(notebook)
    kept = {k: v for k, v in notebook.metadata.items() if k == "mystnb"}
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            **kept,
        }
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict(
            {k: v for k, v in cell.metadata.items() if k in ("tags", "mystnb") and v}
        )
        cell.pop("attachments", None)
        if cell.cell_type == "code":
            cell.outputs = _outputs(cell)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            if COLAB_MARK in cell.source:
                cell.source = colab_cell()
                cell.metadata.tags = ["remove-cell"]  # of no use on the website
            break
    _fold(notebook.cells)
    _list_references(notebook.cells)
    return notebook


def _fold(cells: list[nbformat.NotebookNode]) -> None:
    """Hide in Jupyter what is folded on the website: solutions, and the code of tagged cells."""
    in_solution = False
    for cell in cells:
        is_code = cell.cell_type == "code"
        starts, ends = (cell.source.rfind(f"{{solution-{mark}}}") for mark in ("start", "end"))
        if in_solution and is_code:
            hidden = {"source_hidden": True, "outputs_hidden": True}
            cell.metadata["jupyter"] = nbformat.from_dict(hidden)
        elif in_solution and ends < 0:
            cell.source = in_words(cell.source)
        elif is_code and FOLDED & set(cell.metadata.get("tags", [])):
            cell.metadata["jupyter"] = nbformat.from_dict({"source_hidden": True})
        if not is_code and starts != ends:
            in_solution = starts > ends


def _list_references(cells: list[nbformat.NotebookNode]) -> None:
    """Write the list of what the chapter cites: the website has its own, other viewers have not."""
    markdown = [cell for cell in cells if cell.cell_type == "markdown"]
    for cell in markdown:
        if REFERENCES.search(cell.source):
            known = papers(ROOT / "book" / "references.bib")
            body = "\n".join(REFERENCES.sub("", other.source) for other in markdown)
            listed = reference_list(body, known)
            cell.source = REFERENCES.sub(lambda _, listed=listed: listed, cell.source)


def _outputs(cell: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """Outputs without widget views, traceback paths and accidental breaks between streams."""
    kept: list[nbformat.NotebookNode] = []
    for output in cell.outputs:
        if "data" in output:
            output.data.pop(WIDGET_VIEW, None)
            output.metadata.pop(WIDGET_VIEW, None)
            if not output.data:
                continue
        if output.output_type == "error":
            output.traceback = [f"{output.ename}: {output.evalue}"]
        if output.output_type == "execute_result":
            output.execution_count = cell.execution_count
        joins = (
            kept
            and output.output_type == kept[-1].output_type == "stream"
            and output.name == kept[-1].name
        )
        if joins:
            kept[-1].text += output.text
        else:
            kept.append(output)
    return kept


def text(notebook: nbformat.NotebookNode) -> str:
    """The file's exact text."""
    return nbformat.writes(notebook) + "\n"


def problems(path: Path) -> list[str]:
    """Everything that keeps a notebook from being committed, in words."""
    notebook = nbformat.read(path, as_version=4)
    found = []
    if path.read_text("utf8") != text(normalise(notebook)):
        found.append("is not in normal form: run `make refresh`")
    if path.stat().st_size > NOTEBOOK_BYTES:
        found.append(f"has {path.stat().st_size} bytes, more than {NOTEBOOK_BYTES}")
    for number, cell in enumerate(notebook.cells):
        tags = cell.metadata.get("tags", [])
        for output in cell.get("outputs", []):
            where = f"cell {number}"
            if output.output_type == "error" and "raises-exception" not in tags:
                found.append(f"{where} raises {output.ename}: {output.evalue}")
            if output.get("name") == "stderr":
                found.append(f"{where} writes to stderr: {output.text[:200]!r}")
            for kind in ("image/png", "image/jpeg"):
                size = len(output.get("data", {}).get(kind, "")) * 3 // 4  # base64
                if size > FIGURE_BYTES:
                    found.append(f"{where} has a figure of {size} bytes, more than {FIGURE_BYTES}")
            if "image/svg+xml" in output.get("data", {}):
                found.append(f"{where} has an SVG figure, whose text holds a date: use PNG")
    return [f"{path.name} {problem}" for problem in found]


# --- Running --------------------------------------------------------------------------------------


def run(path: Path) -> float:
    """Execute one notebook in a fresh kernel, write it in normal form; seconds it took."""
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    notebook = normalise(notebook)
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=CELL_SECONDS,
        startup_timeout=180,
        extra_arguments=["--log-level=ERROR"],
        store_widget_state=False,
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    start = time.perf_counter()
    client.execute()
    seconds = time.perf_counter() - start
    path.write_text(text(normalise(notebook)), "utf8")
    return seconds


def rounded(seconds: float, stored: int | None) -> int:
    """Up to the next 5 s; a stored figure that still fits stays, so that it does not churn."""
    if stored is not None and stored / 2 <= seconds <= stored:
        return stored
    return 5 * math.ceil(seconds / 5)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="run nothing, only report")
    parser.add_argument("notebook", nargs="*", type=Path, help="default: all of _toc.yml")
    options = parser.parse_args()
    chosen = [path.resolve() for path in options.notebook] or notebooks()

    if not options.check:
        os.environ.update(OMP_NUM_THREADS="2", MODECONN_DEVICE="cpu")
        os.environ.pop("MPLBACKEND", None)  # else figures do not reach the notebook
        seconds = timings(ROOT)
        for path in chosen:
            page = path.relative_to(ROOT).with_suffix("").as_posix()
            took = run(path)
            seconds[page] = rounded(took, seconds.get(page))
            print(f"{page}: {took:.1f} s")
        in_book = {p.relative_to(ROOT).with_suffix("").as_posix() for p in notebooks()}
        seconds = {page: s for page, s in sorted(seconds.items()) if page in in_book}
        (ROOT / TIMINGS).write_text(json.dumps(seconds, indent=1) + "\n", "utf8")

    found = [problem for path in chosen for problem in problems(path)]
    print("\n".join(found), end="\n" if found else "")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
