"""Does a test notice when a line is wrong? A random sample of mutants says how often.

    python tools/mutants.py --count 175 --seed 0 --of paths,look --jobs 2

Each mutant is one small change, made by the operators of mutmut: another operator, number or
string, an argument left out. It is tried in a copy of this folder against the tests of its module,
so nothing in here is ever changed. A mutant that no test notices survives; the report lists those.

Left alone: annotations, decorators, docstrings; all of a `raise`, since tests need not know a
message by heart; what eyes judge and tests need not: colours and widths of lines, help; and that
a zip is strict.
"""

from __future__ import annotations

import argparse
import difflib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "modeconn_lite"
READ_BACK = ["explorers/test_read_back.py", "explorers/test_paths_and_sheets.py"]
# The tests of a module have its name. These use it as well, or stand in for them.
ALSO = {
    "__init__": ["test_package.py"],
    "activations": ["methods/test_symmetry.py", "methods/test_repair.py"],
    "anatomy": ["test_layout.py", "test_forward.py"],
    "checkpoints": ["test_training.py"],
    "data": ["test_downloads.py"],
    "checks": ["test_paths.py", "test_weights.py"],
    "explorers/__init__": ["explorers/test_paths_and_sheets.py", "test_package.py"],
    "explorers/base": READ_BACK,
    "explorers/charts": READ_BACK,
    "explorers/markup": READ_BACK,
    "explorers/path": READ_BACK,
    "explorers/race": READ_BACK,
    "explorers/sheet": READ_BACK,
    "explorers/sources": READ_BACK,
    "explorers/views": READ_BACK,
    "evaluation": ["test_look.py"],
    "batch_statistics": ["test_evaluation.py"],
    "stages": ["test_forward.py", "test_exchanges.py"],
    "forward": ["test_look.py", "test_evaluation.py", "test_exchanges.py"],
    "joins": ["test_paths.py", "test_exchanges.py"],
    "layout": ["test_neurons.py"],
    "look": ["test_evaluation.py"],
    "methods/__init__": ["methods/test_base.py", "test_scoreboard.py"],
    "neurons": ["test_package.py", "methods/test_symmetry.py"],
    "paths": ["test_look.py", "test_evaluation.py"],
    "records/__init__": ["test_main.py", "test_package.py"],
    "running": ["test_forward.py"],
    "sheets": ["test_landscapes.py", "test_evaluation.py"],
    "storage": ["test_training.py"],
    "times": ["test_paths.py", "test_look.py"],
    "weights": ["test_paths.py", "test_training.py"],
}
LET_ALONE = ("len", "isinstance")  # a wrong argument is an error at once
# Arguments by these names change how something looks, not what it says.
LOOKS = """
    alpha bbox_to_anchor c cmap color colors desc description facecolor figsize fontsize ha
    handlelength handles height_ratios help hspace linestyle linewidth linewidths loc ls lw marker
    mec mew ms ncols pad s unit va width_ratios wspace zorder
""".split()  # noqa: SIM905 - as a list it would be forty lines
SHADES = {"CLASS_COLOURS", "CYCLE", "REGIONS", "SIDE", "GAP", "TOP"}  # so do these constants
GUARDS = ("strict",)  # of a zip of what is of equal length: no input tells whether it is there
PYTEST = ("-m", "pytest", "-x", "-q", "-p", "no:cacheprovider")
UNCOPIED = (".git", ".venv", "_build", "data", "dist", "*.egg-info", "__pycache__", ".*_cache")


def modules() -> list[str]:
    """Such as "paths" and "methods/dropout"."""
    files = sorted((ROOT / PACKAGE).rglob("*.py"))
    return [file.relative_to(ROOT / PACKAGE).with_suffix("").as_posix() for file in files]


def tests_of(module: str) -> list[str]:
    """What pytest is told to run: the module's own tests, its examples, then `ALSO`.

    Raises
    ------
    LookupError
        If it has none; the message says what to do.
    """
    folder, _, name = f"tests/{module}".rpartition("/")
    own = f"{folder}/test_{name.strip('_')}.py"
    files = [own] if (ROOT / own).exists() else []
    files += [f"tests/{file}" for file in ALSO.get(module, [])]
    if not files:
        raise LookupError(f"{own} is not there; say in ALSO which tests use {module}")
    if not module.endswith("__main__"):
        examples = f"test_examples_give_what_they_say[{module}.py]"
        files.insert(1, f"tests/test_doctests.py::{examples}")
    return files


@dataclass
class Mutant:
    """One change to one module: in its tree, `changed` stands for `node`.

    Attributes
    ----------
    line : int
        Where it stands.
    before, after : str
        The whole module; made when it is asked for.
    """

    module: str
    line: int
    before: str
    tree: Any
    node: Any
    changed: Any

    @cached_property
    def after(self) -> str:
        return self.tree.deep_replace(self.node, self.changed).code

    @property
    def sound(self) -> bool:
        """Whether it is a change, and one that Python can read."""
        try:
            compile(self.after, "mutant", "exec")
        except SyntaxError:
            return False
        return self.after != self.before

    @property
    def change(self) -> str:
        """Lines that go, with a minus, and lines that come, with a plus."""
        lines = difflib.unified_diff(self.before.splitlines(), self.after.splitlines(), n=0)
        return "\n".join(f"    {line}" for line in list(lines)[3:])


def mutants_of(module: str) -> Iterator[Mutant]:
    """Every mutant of a module."""
    import libcst
    from libcst.metadata import MetadataWrapper, PositionProvider
    from mutmut.mutation.mutators import mutation_operators

    before = (ROOT / PACKAGE / f"{module}.py").read_text("utf8")
    wrapper = MetadataWrapper(libcst.parse_module(before))
    lines = wrapper.resolve(PositionProvider)
    skipped = (libcst.Annotation, libcst.Decorator, libcst.Raise)

    def is_let_alone(node: libcst.CSTNode) -> bool:
        named = isinstance(node, libcst.Arg) and node.keyword
        return bool(named) and node.keyword.value in (*LOOKS, *GUARDS)

    def is_shade(node: libcst.CSTNode) -> bool:
        targets = node.targets if isinstance(node, libcst.Assign) else ()
        return any(
            SHADES & set(wrapper.module.code_for_node(t.target).split(", ")) for t in targets
        )

    def walk(node: libcst.CSTNode, line: int) -> Iterator[Mutant]:
        line = lines[node].start.line if node in lines else line
        if is_let_alone(node) or is_shade(node):
            return
        call = isinstance(node, libcst.Call) and isinstance(node.func, libcst.Name)
        if isinstance(node, skipped) or (call and node.func.value in LET_ALONE):
            return
        for kind, operator in mutation_operators:
            for changed in operator(node) if isinstance(node, kind) else ():
                gone = [a for a in getattr(node, "args", ()) if a not in changed.args]
                if not gone or not all(map(is_let_alone, gone)):
                    yield Mutant(module, line, before, wrapper.module, node, changed)
        for child in node.children:
            yield from walk(child, line)

    yield from walk(wrapper.module, 1)


def draw(names: list[str], count: int, seed: int) -> tuple[list[Mutant], int]:
    """So many mutants of these modules, each as likely, and of how many."""
    found = [mutant for name in names for mutant in mutants_of(name)]
    random.Random(seed).shuffle(found)
    return list(islice((mutant for mutant in found if mutant.sound), count)), len(found)


class Room:
    """A copy of this folder, in which modules can be changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*UNCOPIED), symlinks=True)

    def run(self, module: str, timeout: float | None = None) -> tuple[str, str]:
        """Run the tests of a module: "passed", "failed" or "timeout", and what they said."""
        env = os.environ | {
            "PYTHONPATH": str(self.folder),  # before the installed package
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "MODECONN_DEVICE": "cpu",
        }
        process = subprocess.Popen(
            [sys.executable, *PYTEST, *tests_of(module)],
            cwd=self.folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=timeout)
            return ("passed" if process.returncode == 0 else "failed"), said
        except subprocess.TimeoutExpired:
            return "timeout", ""
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # its children as well
                process.communicate()

    def try_out(self, mutant: Mutant, timeout: float) -> str:
        """As `run`, with the mutant in the module's place."""
        file = self.folder / PACKAGE / f"{mutant.module}.py"
        file.write_text(mutant.after, "utf8")
        try:
            return self.run(mutant.module, timeout)[0]
        finally:
            file.write_text(mutant.before, "utf8")


def report(chosen: list[Mutant], results: list[str]) -> str:
    """The score, and the survivors."""
    survivors = [m for m, result in zip(chosen, results, strict=True) if result == "passed"]
    killed = len(chosen) - len(survivors)
    lines = [f"{killed} of {len(chosen)} mutants killed: {killed / len(chosen):.0%}"]
    lines[0] += f" ({results.count('timeout')} of them by a timeout)"
    for mutant in sorted(survivors, key=lambda m: (m.module, m.line)):
        lines.append(f"survived: {PACKAGE}/{mutant.module}.py:{mutant.line}\n{mutant.change}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--count", type=int, default=175, help="how many mutants")
    parser.add_argument("--seed", type=int, default=0, help="which ones")
    parser.add_argument("--of", default="", help="of which modules, such as paths,methods/dropout")
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time")
    asked = parser.parse_args(argv)
    names = asked.of.split(",") if asked.of else modules()
    if wrong := sorted(set(names) - set(modules())):
        parser.error(f"no module {', '.join(wrong)}; there are {', '.join(modules())}")

    chosen, total = draw(names, asked.count, asked.seed)
    print(f"{len(chosen)} of {total:,} mutants, seed {asked.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        rooms: SimpleQueue[Room] = SimpleQueue()
        for k in range(asked.jobs):
            rooms.put(Room(Path(folder) / str(k)))

        @cache
        def patience(module: str) -> float:
            """Three times what the tests take where nothing is wrong."""
            room, start = rooms.get(), time.monotonic()
            result, said = room.run(module)
            rooms.put(room)
            if result != "passed":
                raise SystemExit(f"the tests of {module} fail without any mutant:\n{said}")
            return 20 + 3 * (time.monotonic() - start)

        def judge(mutant: Mutant) -> str:
            timeout, room = patience(mutant.module), rooms.get()
            try:
                result = room.try_out(mutant, timeout)
            finally:
                rooms.put(room)
            word = {"passed": "SURVIVED", "failed": "killed"}.get(result, result)
            print(f"{word:9} {PACKAGE}/{mutant.module}.py:{mutant.line}", flush=True)
            return result

        with ThreadPoolExecutor(asked.jobs) as pool:
            results = list(pool.map(judge, chosen))
    print(report(chosen, results))


if __name__ == "__main__":
    main()
