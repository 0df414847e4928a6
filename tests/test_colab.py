"""Chapter 1 as Google Colab runs it, in a stand-in: its set-up cell, then all others.

What the stand-in has of Colab: ipywidgets 7.7, a module `google.colab` that is loaded before the
first cell, torch already there, the book neither there nor importable. What it has not: Colab's own
page (so that no slider is touched), its Python, its GPU.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
import refresh
import yaml
from conftest import ROOT

# The last ipywidgets 7 with what belongs to it: nbextension 3.6, JupyterLab's manager 1.
WIDGETS = ["ipywidgets==7.7.5", "widgetsnbextension~=3.6.0", "jupyterlab-widgets<2"]
WIDGETS += ["ipython_genutils"]
NOT_COPIED = (".git", ".venv", "_build", "__pycache__", ".*_cache", ".hypothesis")
# Added to the chapter: does `.live()` run the network, and does it say what the network does?
LAST_CELL = """
import ipywidgets, modeconn_lite
from modeconn_lite import evaluate

live = explorer.live()
(slider,) = live.sliders
start = live.picture.value
slider.value = 0.3
loss, accuracy = evaluate(network, segment(A, B)(0.3), digits.test)
said = live.picture.value
assert said != start and ">0.300<" in said
assert f">{100 * accuracy:.1f}\\u202f%<" in said, said
print(ipywidgets.__version__, modeconn_lite.__file__, device)
"""
RUN = """
import sys, nbformat, nbclient
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(
    notebook, kernel_name="python3", timeout=300, resources={"metadata": {"path": sys.argv[2]}}
).execute()
nbformat.write(notebook, sys.argv[1])
"""


def run(*command: str | Path, **options) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done


@pytest.fixture(scope="module")
def colab(tmp_path_factory) -> Path:
    """A Python environment as Colab's is in what matters here."""
    home = tmp_path_factory.mktemp("colab")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    wheels = home / "wheels"
    command = [*pip, "download", "-q", "--no-deps", "--retries=1", "--timeout=15", "-d", wheels]
    got = subprocess.run([*command, *WIDGETS], capture_output=True, text=True)
    if got.returncode:
        pytest.skip(f"no package index can be reached, so no ipywidgets 7: {got.stderr[-200:]}")
    venv.create(home / "venv", with_pip=True)
    python = home / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "--no-deps", *sorted(wheels.iterdir()))
    site = Path(
        run(python, "-c", "import sysconfig as s; print(s.get_path('purelib'))").stdout[:-1]
    )
    (site / "google" / "colab").mkdir(parents=True)
    (site / "google" / "colab" / "__init__.py").touch()
    # Behind its own packages those of these tests, torch above all. Lines of a .pth file found
    # there are not read: the book, which is installed by one, is not to be seen.
    packages = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    (site / "colab.pth").write_text("\n".join([*packages, "import google.colab", ""]), "utf8")
    return home


def clone_of_the_book(home: Path) -> str:
    """The address of a repository that holds the book as it stands here."""
    source = home / "repository"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*NOT_COPIED), symlinks=True)
    git = ["git", "-C", source, "-c", "user.name=A", "-c", "user.email=a@b.c"]
    run(*git, "init", "-q", "-b", "main")
    run(*git, "add", "-A")
    run(*git, "commit", "-q", "-m", "The book")
    return source.as_uri()


def set_up_cell(home: Path, address: str, content: Path) -> str:
    """The cell that `make refresh` writes for this repository, with another folder for /content."""
    root = home / "configured"
    root.mkdir()
    config = yaml.safe_load((ROOT / "_config.yml").read_text("utf8"))
    config["repository"]["url"] = address
    (root / "_config.yml").write_text(yaml.safe_dump(config), "utf8")
    cell = refresh.colab_cell(root)
    assert cell.count("/content/") == 3
    return cell.replace("/content/", f"{content}/")


def test_chapter_1(colab):
    content = colab / "content"
    content.mkdir()
    chapter = json.loads((ROOT / "book" / "01_interpolation.ipynb").read_text("utf8"))
    code = [cell for cell in chapter["cells"] if cell["cell_type"] == "code"]
    code[0]["source"] = set_up_cell(colab, clone_of_the_book(colab), content)
    chapter["cells"].append({**code[-1], "id": "last", "source": LAST_CELL, "outputs": []})
    notebook = content / "chapter.ipynb"
    notebook.write_text(json.dumps(chapter), "utf8")

    kept = ("PYTHONPATH", "MODECONN_DEVICE", "MPLBACKEND")
    environment = {name: value for name, value in os.environ.items() if name not in kept}
    folders = ("JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    environment |= {name: str(colab / name) for name in folders}
    environment["PATH"] = f"{colab / 'venv' / 'bin'}:{environment['PATH']}"
    run(colab / "venv" / "bin" / "python", "-c", RUN, notebook, content, env=environment)

    last = json.loads(notebook.read_text("utf8"))["cells"][-1]
    pieces = (piece for output in last["outputs"] for piece in output["text"])  # as the kernel cut
    version, where, device = "".join(pieces).split()
    assert version.startswith("7.7.")
    assert Path(where).is_relative_to(colab / "venv"), "not the package that the cell installed"
    assert device.startswith(("cpu", "cuda", "mps"))
