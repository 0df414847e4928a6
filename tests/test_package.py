"""The architecture: imports run down the floors, heavy imports stay where they belong."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import modeconn_lite

PACKAGE = Path(modeconn_lite.__file__).parent
FLOORS = [
    {"downloads", "data", "weights", "networks"},
    {"paths", "neurons", "training"},
    {
        "symmetry",
        "saddles",
        "repair",
        "arcs",
        "transport",
        "curves",
        "forward",
        "evaluation",
        "zoo",
        "landscapes",
    },
    {
        "dropout",
        "halves",
        "noise",
        "blocks",
        "adjustment",
        "flows",
        "tunnels",
        "ridges",
        "plots",
        "explorers",
        "clouds",
        "markup",
        "views",
        "charts",
    },
    {"scoreboard", "runs", "records", "dropout_record"},
]
FLOOR = {module: floor for floor, modules in enumerate(FLOORS) for module in modules}
MODULES = sorted(file for file in PACKAGE.glob("*.py") if file.stem != "__init__")


def imports(file):
    """Modules of this package that a file imports outside of `if __name__ == "__main__"`."""
    tree = ast.parse(file.read_text())
    body = [node for node in tree.body if not isinstance(node, ast.If)]
    for node in (inner for outer in body for inner in ast.walk(outer)):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            yield from [node.module] if node.module else [name.name for name in node.names]


@pytest.mark.parametrize("file", MODULES, ids=lambda file: file.stem)
def test_imports_run_down(file):
    assert file.stem in FLOOR, f"give {file.stem} a floor"
    for module in imports(file):
        assert FLOOR[module] <= FLOOR[file.stem], f"{file.stem} imports {module} from above"


def test_no_circles():
    graph = {file.stem: set(imports(file)) for file in MODULES}
    while graph:
        free = [name for name, needs in graph.items() if not needs & graph.keys()]
        assert free, f"these import each other: {sorted(graph)}"
        for name in free:
            del graph[name]


@pytest.mark.parametrize(("heavy", "only"), [("ipywidgets", "explorers"), ("matplotlib", "plots")])
def test_heavy_imports_are_made_in_one_place_and_only_when_used(heavy, only):
    users = [file.stem for file in MODULES if f"import {heavy}" in file.read_text()]
    users += [file.stem for file in MODULES if f"from {heavy}" in file.read_text()]
    assert set(users) <= {only}
    code = f"import sys, modeconn_lite; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code]).returncode == 0


def test_the_front_door_is_small():
    assert len(modeconn_lite.__all__) <= 25
    assert all(hasattr(modeconn_lite, name) for name in modeconn_lite.__all__)


def test_no_prints():
    for file in MODULES:
        calls = (
            node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)
        )
        names = [call.func.id for call in calls if isinstance(call.func, ast.Name)]
        assert "print" not in names, file.stem
