"""Every example in a docstring is run, and every name of the front door has one."""

import doctest
import importlib
import types
from pathlib import Path

import pytest

import modeconn_lite

PACKAGE = Path(modeconn_lite.__file__).parent
FILES = sorted(file for file in PACKAGE.rglob("*.py") if file.stem != "__main__")
RUNNER_FLAGS = doctest.REPORT_NDIFF


def module_of(file: Path) -> types.ModuleType:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return importlib.import_module(".".join(p for p in parts if p != "__init__"))


def failures(module: types.ModuleType) -> str:
    """What the examples of a module's docstrings say otherwise than written there."""
    said: list[str] = []
    runner = doctest.DocTestRunner(verbose=False, optionflags=RUNNER_FLAGS)
    for example in doctest.DocTestFinder().find(module):
        runner.run(example, out=said.append)
    return "".join(said)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_examples_give_what_they_say(file):
    assert not (said := failures(module_of(file))), said


def docstring(name: str) -> str:
    """Of a name of the front door; for an alias of a type, of the module that defines it."""
    thing = getattr(modeconn_lite, name)
    if isinstance(thing, type | types.FunctionType):
        return thing.__doc__ or ""
    homes = [file for file in FILES if f"\n{name} = " in file.read_text("utf8")]
    assert len(homes) == 1, f"{name} is defined in {homes}"
    return module_of(homes[0]).__doc__ or ""


@pytest.mark.parametrize("name", modeconn_lite.__all__)
def test_every_name_of_the_front_door_has_an_example(name):
    _, heading, examples = docstring(name).partition("Examples\n")
    assert heading, f"{name} has no section Examples"
    assert examples.lstrip(" ").startswith("---")
    assert ">>>" in examples


def test_a_failing_example_fails():
    module = types.ModuleType("planted")
    module.__doc__ = ">>> 1 + 1\n3\n"
    assert "Expected" in failures(module) or "Differences" in failures(module)
    module.__doc__ = ">>> 1 + 1\n2\n"
    assert failures(module) == ""
