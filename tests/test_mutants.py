"""The tool that tries the tests: which tests it runs, which mutants it makes, what it reports."""

from __future__ import annotations

import random
from pathlib import Path

import mutants
import pytest

ROOT = Path(__file__).parent.parent


def test_every_module_has_tests_that_are_there():
    for module in mutants.modules():
        for test in mutants.tests_of(module):
            assert (ROOT / test.partition("::")[0]).exists(), f"{module}: {test}"
    assert mutants.ALSO.keys() <= set(mutants.modules())
    own, examples, *_ = mutants.tests_of("methods/dropout")
    assert own == "tests/methods/test_dropout.py"
    assert examples.endswith("[methods/dropout.py]")
    with pytest.raises(LookupError, match=r"tests/test_attic.py is not there; say in ALSO"):
        mutants.tests_of("attic")


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A package of one module with one test, which knows half of it."""
    (tmp_path / "modeconn_lite").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "modeconn_lite" / "__init__.py").touch()
    (tmp_path / "modeconn_lite" / "sums.py").write_text(
        "def plus(a: int, b: int | None) -> int:\n"
        "    if b is None:\n"
        "        raise ValueError('nothing to add' + '!')\n"
        "    return a + b\n"
        "\n\n"
        "def minus(a, b):\n"
        "    return a - b\n"
    )
    (tmp_path / "tests" / "test_sums.py").write_text(
        "from modeconn_lite.sums import plus\n\n\ndef test_plus():\n    assert plus(2, 3) == 5\n"
    )
    (tmp_path / "tests" / "test_doctests.py").write_text(
        "import pytest\n\n\n"
        "@pytest.mark.parametrize('file', ['sums.py'])\n"
        "def test_examples_give_what_they_say(file):\n    pass\n"
    )
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    return tmp_path


def test_survivors_are_told_from_the_killed_and_nothing_is_changed(planted, capsys):
    pytest.importorskip("mutmut", reason="only `make mutants` needs it, and installs it")
    before = {file: file.read_text() for file in planted.rglob("*.py")}
    mutants.main(["--count", "9", "--of", "sums"])
    said = capsys.readouterr().out
    # is -> is not, + -> -, - -> +: none in the annotations and none in the `raise`.
    assert "3 of 3 mutants, seed 0" in said
    assert "2 of 3 mutants killed: 67% (0 of them by a timeout)" in said
    assert "survived: modeconn_lite/sums.py:8\n    -    return a - b\n    +    return a + b" in said
    assert {file: file.read_text() for file in planted.rglob("*.py")} == before


def test_a_mutant_that_hangs_is_ended_and_tests_that_fail_anyway_are_named(planted):
    room = mutants.Room(planted.parent / "room")
    hangs = mutants.Mutant("sums", 1, "", None, None, None)
    hangs.after = "while True:\n    pass\n"
    assert room.try_out(hangs, timeout=3) == "timeout"
    (planted / "tests" / "test_sums.py").write_text("def test_plus():\n    assert False\n")
    pytest.importorskip("mutmut", reason="only `make mutants` needs it, and installs it")
    with pytest.raises(SystemExit, match="the tests of sums fail without any mutant"):
        mutants.main(["--of", "sums"])


def test_the_same_seed_draws_the_same_mutants():
    pytest.importorskip("mutmut", reason="only `make mutants` needs it, and installs it")
    one, total = mutants.draw(["tables", "sheets"], 5, seed=3)
    two, _ = mutants.draw(["tables", "sheets"], 5, seed=3)
    assert [m.after for m in one] == [m.after for m in two]
    assert len(one) == 5 < total
    other, _ = mutants.draw(["tables", "sheets"], 5, seed=random.Random(0).randrange(100))
    assert [m.after for m in other] != [m.after for m in one]
    assert all(mutant.change.count("\n") >= 1 for mutant in one)


def test_what_eyes_judge_is_left_alone(planted):
    pytest.importorskip("mutmut", reason="only `make mutants` needs it, and installs it")
    module = planted / "modeconn_lite" / "sums.py"
    module.write_text(
        "def draw(ax, x, y):\n    ax.plot(x, color=3, lw=2)\n    zip(x, strict=True)\n"
    )
    changes = [mutant.change for mutant in mutants.mutants_of("sums")]
    assert changes, "what is drawn is not left alone"
    assert all("+    ax.plot(" not in c or "color=3, lw=2" in c for c in changes)
    assert all("+    zip(" not in c or "strict=True" in c for c in changes)
