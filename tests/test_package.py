"""The architecture: imports run down the floors, heavy imports stay where they belong."""

import ast
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

import modeconn_lite
from modeconn_lite.methods import CHAPTERS

PACKAGE = Path(modeconn_lite.__file__).parent
TESTS = Path(__file__).parent
# From the top down. Whatever stands in a folder stands on the folder's floor.
FLOORS = [
    {"__main__"},
    {"__init__"},
    {"records"},
    {"scoreboard"},
    {"explorers", "plots"},
    {"methods"},
    {"evaluation", "landscapes", "zoo"},
    {"look", "exchanges"},
    {"forward"},
    {"batch_statistics"},
    {"stages"},
    {
        "paths",
        "joins",
        "chains",
        "times",
        "sheets",
        "layout",
        "neurons",
        "storage",
        "checkpoints",
        "training",
        "activations",
    },
    {"weights"},
    {"running"},
    {"anatomy", "networks"},
    {"checks"},
    {"data", "downloads", "exercises", "files", "tables"},
]
FLOOR = {name: -k for k, names in enumerate(FLOORS) for name in names}
APART = {"explorers", "plots"}  # on one floor, but neither knows the other


def short(module) -> str:
    return module.__name__.rpartition(".")[2]


CHAPTER = {short(module): n for n, modules in CHAPTERS.items() for module in modules}


class Package:
    """Every import of a package's own modules, wherever it stands in a file.

    A module is called by its path: "paths", "methods.dropout", "methods.__init__".
    """

    def __init__(self, folder: Path, chapter: dict[str, int]) -> None:
        self.folder, self.chapter = folder, chapter
        self.files = {
            ".".join(file.relative_to(folder).with_suffix("").parts): file
            for file in sorted(folder.rglob("*.py"))
        }
        self.imports = {module: set(self._imports(module)) for module in self.files}

    def _imports(self, module: str) -> Iterator[str]:
        inside = module.split(".")[:-1]  # the folders that the module stands in
        for node in reached(ast.parse(self.files[module].read_text("utf8"))):
            targets: list[list[str]] = []
            if isinstance(node, ast.Import):
                names = [alias.name.split(".") for alias in node.names]
                targets = [name[1:] for name in names if name[0] == self.folder.name]
            elif isinstance(node, ast.ImportFrom):
                base = node.module.split(".") if node.module else []
                if node.level:
                    base = inside[: len(inside) - node.level + 1] + base
                elif base[:1] == [self.folder.name]:
                    base = base[1:]
                else:
                    continue
                targets = [[*base, alias.name] for alias in node.names]
            for target in targets:
                yield from self._modules(target, inside)

    def _modules(self, target: list[str], inside: list[str]) -> Iterator[str]:
        """The module that holds a target, and the `__init__`s that Python runs on the way to it.

        Those of folders that the importing module stands in are running already.
        """
        for depth in range(len(target) + 1):
            here, next_one = target[:depth], ".".join([*target[: depth + 1], ""])
            if ".".join(here) in self.files:
                yield ".".join(here)
                return
            deeper = depth < len(target) and any(f"{m}.".startswith(next_one) for m in self.files)
            start = ".".join([*here, "__init__"])
            if start in self.files and (not deeper or here != inside[:depth]):
                yield start
            if not deeper:  # what is left is a name in this __init__, or nothing at all
                return

    def faults(self) -> list[str]:
        """What is wrong with the imports, in words."""
        found = []
        for module, needs in self.imports.items():
            own = module.split(".")[0]
            if own not in FLOOR:
                found.append(f"give {module} a floor")
            for need in sorted(needs):
                theirs = need.split(".")[0]
                if FLOOR.get(theirs, 0) > FLOOR.get(own, 0):
                    found.append(f"{module} imports {need} from above")
                if {own, theirs} == APART:
                    found.append(f"{module} imports {need} from next door")
                found += self._chapters(module, need)
        try:
            TopologicalSorter(self.imports).prepare()
        except CycleError as error:
            found.append(f"a circle: {' imports '.join(reversed(error.args[1]))}")
        return found

    def _chapters(self, module: str, need: str) -> Iterator[str]:
        """A method knows the methods of its own chapter and `base`, and no other."""
        one, two = (name.removeprefix("methods.") for name in (module, need))
        both = module.startswith("methods.") and need.startswith("methods.")
        if not both or one == "__init__" or two == "base":
            return
        if two == "__init__" or self.chapter.get(one) != self.chapter.get(two):
            yield f"{module} imports {need} of another chapter"


def reached(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node, at any depth, but for those under `if TYPE_CHECKING`."""
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            todo += node.orelse
        else:
            todo += ast.iter_child_nodes(node)


@pytest.fixture(scope="module")
def package():
    return Package(PACKAGE, CHAPTER)


def test_imports_run_down_and_in_no_circle(package):
    assert package.faults() == []


def test_imports_are_seen(package):
    """So that the test above is not green because it is blind."""
    assert "methods.stability" in package.imports["methods.dropout"]
    assert "data" in package.imports["records.base"]
    assert {"records.__init__", "zoo"} <= package.imports["__main__"]
    assert "methods.__init__" in package.imports["explorers.blocks"]  # on the way to stability
    assert "records.base" in package.imports["records.__init__"]
    alone = [module for module, needs in package.imports.items() if not needs]
    assert not [m for m in alone if "." not in m and FLOOR[m] > -len(FLOORS) + 1]


# --- Planted packages ----------------------------------------------------------------------------


SOUND = {
    "__init__": "from .paths import segment\nfrom . import data, methods",
    "__main__": "from .records import EXPERIMENTS\nfrom planted import data",
    "records/__init__": "from . import base",
    "records/base": "from .. import data\nfrom ..scoreboard import row",
    "scoreboard": "from .methods import METHODS",
    "explorers/__init__": "from .blocks import Blocks",
    "explorers/blocks": "from ..methods.stability import halves",
    "plots": "from .evaluation import evaluate",
    "methods/__init__": "from . import base, dropout, stability, symmetry",
    "methods/base": "from ..paths import segment",
    "methods/symmetry": "from .base import Method\nfrom ..weights import mix",
    "methods/dropout": "from .stability import halves\nfrom . import base",
    "methods/stability": "from ..evaluation import evaluate",
    "evaluation": "import planted.paths as paths",
    "paths": "from .weights import mix\nfrom planted.data import Split",
    "weights": "from . import data",
    "data": "",
}


@pytest.fixture
def plant(tmp_path):
    """Call it, and it gives the faults of a sound package in which some files are replaced."""

    def faults(files: dict[str, str]) -> list[str]:
        for name, text in (SOUND | files).items():
            file = tmp_path / "planted" / f"{name}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        chapter = {"base": 1, "symmetry": 2, "dropout": 3, "stability": 3}
        return Package(tmp_path / "planted", chapter).faults()

    return faults


def late(line: str) -> str:
    """The line inside a function."""
    return f"def late():\n    {line}"


def test_a_sound_package_has_no_faults(plant):
    assert plant({}) == []


@pytest.mark.parametrize(
    "line",
    [
        "from .evaluation import profile",
        "from . import evaluation",
        "from . import data, evaluation as e",
        "import planted.evaluation",
        "import os, planted.evaluation as e",
        "from planted import evaluation",
        "from planted.evaluation import profile",
        "def late():\n    from .evaluation import profile",
        "class Late:\n    def run(self):\n        import planted.evaluation",
        "if True:\n    from . import evaluation",
        "try:\n    from . import evaluation\nexcept ImportError:\n    pass",
        "try:\n    import os\nexcept ImportError:\n    from . import evaluation",
        "with open('x'):\n    from . import evaluation",
        "if TYPE_CHECKING:\n    pass\nelse:\n    from . import evaluation",
        'if __name__ == "__main__":\n    from .evaluation import profile',
    ],
)
def test_an_upward_import_is_caught_wherever_it_stands(plant, line):
    assert "weights imports evaluation from above" in plant({"weights": line})


@pytest.mark.parametrize("test", ["TYPE_CHECKING", "typing.TYPE_CHECKING"])
def test_an_import_for_the_type_checker_is_none(plant, test):
    assert plant({"weights": f"if {test}:\n    from .evaluation import profile"}) == []


@pytest.mark.parametrize(
    ("module", "line", "fault"),
    [
        ("methods/symmetry", "from ..scoreboard import row", "scoreboard from above"),
        ("methods/symmetry", late("from .. import explorers"), "explorers.__init__ from above"),
        ("methods/symmetry", "from ..records.base import Lab", "records.base from above"),
        ("methods/deep/inner", "from ...scoreboard import row", "scoreboard from above"),
        ("methods/deep/inner", "from planted import plots", "plots from above"),
        ("records/base", "from ..__main__ import main", "__main__ from above"),
        ("methods/base", "from planted import Path", "__init__ from above"),
        ("paths", "from . import __version__", "__init__ from above"),
        ("paths", "import planted", "__init__ from above"),
        ("paths", "from .nowhere import nothing", "__init__ from above"),
        ("explorers/blocks", "from ..plots import style", "plots from next door"),
        ("plots", late("from .explorers.blocks import B"), "explorers.blocks from next door"),
    ],
)
def test_what_no_floor_allows_is_caught_in_folders_too(plant, module, line, fault):
    assert f"{module.replace('/', '.')} imports {fault}" in plant({module: line})


def test_a_module_without_a_floor_is_caught(plant):
    assert plant({"attic": ""}) == ["give attic a floor"]
    assert plant({"cellar/shelf": ""}) == ["give attic a floor", "give cellar.shelf a floor"]


@pytest.mark.parametrize(
    ("files", "circle"),
    [
        # Within a floor, through an import inside a function.
        ({"data": late("from .weights import save")}, {"data", "weights"}),
        # In a folder, the same.
        (
            {
                "records/base": late("from .comparison import ENDS"),
                "records/comparison": "from .base import Lab",
            },
            {"records.base", "records.comparison"},
        ),
        # A module of a folder and the folder's own __init__.
        ({"records/base": "from . import EXPERIMENTS"}, {"records.base", "records.__init__"}),
        (
            {"explorers/blocks": "from .css import C", "explorers/css": "import planted.explorers"},
            {"explorers.__init__", "explorers.blocks", "explorers.css"},
        ),
        # By what runs on the way to a module: the __init__ of another folder.
        (
            {"methods/__init__": late("from ..scoreboard import row")},
            {"methods.__init__", "scoreboard"},
        ),
    ],
)
def test_a_circle_is_caught(plant, files, circle):
    (fault,) = [fault for fault in plant(files) if fault.startswith("a circle: ")]
    assert set(fault.removeprefix("a circle: ").split(" imports ")) == circle


@pytest.mark.parametrize(
    ("module", "line", "fault"),
    [
        ("dropout", "from .symmetry import match", "methods.symmetry"),
        ("dropout", "from . import symmetry", "methods.symmetry"),
        ("symmetry", late("from .stability import halves"), "methods.stability"),
        ("symmetry", "from planted.methods.dropout import walk", "methods.dropout"),
        ("base", "from ..methods import symmetry", "methods.symmetry"),
        ("symmetry", "from . import METHODS", "methods.__init__"),
    ],
)
def test_a_method_of_another_chapter_is_caught(plant, module, line, fault):
    faults = plant({f"methods/{module}": line})
    assert f"methods.{module} imports {fault} of another chapter" in faults


# --- What else holds for the package as a whole ---------------------------------------------------


def test_every_method_belongs_to_a_chapter_and_has_a_test():
    modules = {file.stem for file in (PACKAGE / "methods").glob("*.py")} - {"__init__"}
    assert modules == CHAPTER.keys()
    assert len(CHAPTER) == sum(map(len, CHAPTERS.values()))  # and to one chapter only
    tests = {file.stem.removeprefix("test_") for file in (TESTS / "methods").glob("test_*.py")}
    assert tests == modules


def test_every_module_has_a_test_of_its_name_in_the_same_folder():
    """But for the explorers, whose tests go by what a reader sees."""
    missing = []
    for file in PACKAGE.rglob("*.py"):
        place = file.relative_to(PACKAGE)
        test = TESTS / place.parent / f"test_{place.stem.strip('_')}.py"
        if place.parts[0] != "explorers" and file.stem != "__init__" and not test.exists():
            missing.append(place.as_posix())
    assert missing == []


HEAVY = {"ipywidgets": "explorers", "matplotlib": "plots", "ot": "methods", "ray": "records"}


def test_heavy_imports_are_made_in_one_place():
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for heavy in {name.split(".")[0] for name in names} & HEAVY.keys():
                place = file.relative_to(PACKAGE).with_suffix("").parts[0]
                assert place == HEAVY[heavy], f"{file} imports {heavy}"


def test_heavy_imports_are_made_only_when_used():
    """Nothing heavy comes in with any module; with `plots` alone, matplotlib."""
    found = pkgutil.walk_packages(modeconn_lite.__path__, "modeconn_lite.")
    modules = [m.name for m in found if m.name.rpartition(".")[2] not in ("__main__", "plots")]
    assert {"modeconn_lite.explorers.path", "modeconn_lite.records.base"} <= set(modules)
    code = f"import sys, {', '.join(modules)}; print(*({set(HEAVY)} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_the_front_door_is_small():
    assert len(modeconn_lite.__all__) <= 25
    assert len(set(modeconn_lite.__all__)) == len(modeconn_lite.__all__)
    assert all(hasattr(modeconn_lite, name) for name in modeconn_lite.__all__)


def test_no_prints_and_no_imports_by_name():
    """The latter would escape the tests above."""
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf8"))):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func).rpartition(".")[2]
                assert name not in ("print", "import_module", "__import__"), file


@pytest.mark.parametrize("module", ["", ".data", ".neurons", ".explorers", ".records"])
def test_what_a_module_offers_is_there(module):
    offering = import_module(f"modeconn_lite{module}")
    assert offering.__all__
    for name in offering.__all__:
        assert hasattr(offering, name), f"{name} is offered and not there"
