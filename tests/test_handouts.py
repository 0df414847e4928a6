"""Handouts: students get no solution, teachers' sheets have it in the stub's place; both run."""

from __future__ import annotations

import builtins
from pathlib import Path

import book_site
import handouts
import nbformat
import plain
import pytest
from conftest import ROOT
from handouts import Flow, given, needed, students, tagged, teachers
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

CHAPTERS = [p for p in book_site.pages(ROOT) if Path(p).name[0].isdigit()]
KNOWN = {*dir(builtins), "display", "__name__"}


# --- The book's own ---------------------------------------------------------------------------


@pytest.fixture(params=CHAPTERS)
def notebook(request, site):
    path = site / "notebooks" / f"{Path(request.param).name}.ipynb"
    return nbformat.read(path, as_version=4)


def code(notebook) -> list:
    """Its code cells but the first, which is the set-up and may hold IPython's own commands."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"][1:]


def labels(notebook) -> list[str]:
    return [c.metadata.exercise for c in notebook.cells if tagged(c, "exercise")]


@pytest.mark.site
def test_students_have_every_exercise_and_no_solution(notebook):
    made = students(notebook)
    nbformat.validate(made)
    assert labels(made) == labels(notebook) and 3 <= len(labels(made)) <= 5
    assert "Solution to" not in nbformat.writes(made)
    left = [cell for cell in code(notebook) if not tagged(cell, "solution")]
    assert [cell.source for cell in code(made)] == [cell.source for cell in left]
    assert any(tagged(cell, "solution") for cell in notebook.cells), "the original is as it was"


@pytest.mark.site
@pytest.mark.parametrize("make", [students, teachers])
def test_no_name_is_used_before_it_is_made(notebook, make):
    flow = Flow(*(plain.chapter_code(cell) for cell in code(make(notebook))))
    assert not flow.missing() - KNOWN


@pytest.mark.site
def test_a_sheet_has_each_exercise_then_its_solution_then_the_check(notebook):
    sheet = teachers(notebook)
    assert labels(sheet) == labels(notebook)
    assert sheet.cells[0].source.startswith("# ") and tagged(sheet.cells[1], "remove-cell")
    assert not any(cell.get("outputs") for cell in sheet.cells), "not run yet"
    groups = handouts.exercises(sheet)
    for before, after in zip(handouts.exercises(notebook), groups, strict=True):
        solution = [c for c in before if tagged(c, "solution") and c.cell_type == "code"]
        opened = [c for c in after if tagged(c, "solution") and c.cell_type == "code"]
        assert [c.source for c in opened] == [plain.chapter_code(c) for c in solution]
        assert not any("cellView" in c.metadata or "jupyter" in c.metadata for c in opened)
        checks = [c.id for c in before if tagged(c, "check")]
        assert [c.id for c in after if tagged(c, "check")] == checks
        for check in checks:
            place = [c.id for c in after].index(check)
            assert all(after.index(c) < place for c in opened)
    assert len(code(sheet)) < len(code(notebook)) - len(groups), "it is no whole chapter"


# --- A short chapter, run ---------------------------------------------------------------------

STUB = """# What is given
seven = 7


def add(n):
    \"\"\"To do.\"\"\"


add(1)"""


@pytest.fixture
def short():
    """A plain notebook as `plain.py` writes it."""

    def exercise(label, part, cell):
        cell.metadata = {"tags": [part], "exercise": label}
        return cell

    fold = plain.folded_cell
    solution = new_code_cell("def add(n):\n    return n + total[0] + seven\n\n\nprint(add(1))")
    solution = fold(exercise("ex-add", "solution", solution), "Solution", outputs=True)
    words = new_markdown_cell("<details>\n<summary>Solution</summary>\n\nSo.\n\n</details>")
    return new_notebook(
        cells=[
            new_markdown_cell("# 1. Short\n\nWords."),
            fold(new_code_cell("import sys", metadata={"tags": ["remove-cell"]}), "Set-up"),
            new_code_cell("total = [0]\nfrom modeconn_lite.exercises import check"),
            fold(new_code_cell("for k in range(3):\n    total[0] += k"), "Code"),
            new_code_cell("unused = 1 / 0"),
            exercise("ex-add", "exercise", new_markdown_cell("> **Exercise 1.1** Add.")),
            new_code_cell(STUB),
            new_code_cell(
                "check(add(1), equals=11)",
                metadata={"tags": ["check"]},
                outputs=[new_output("execute_result", {"text/plain": "Not tried yet."})],
            ),
            solution,
            exercise("ex-add", "solution", words),
            new_markdown_cell("After."),
            exercise("ex-think", "exercise", new_markdown_cell("> **Exercise 1.2** Think.")),
            exercise("ex-think", "solution", new_markdown_cell("<details>\nThought.\n</details>")),
        ]
    )


def test_a_sheet_runs_and_its_check_says_right(short, tmp_path):
    sheet = handouts.run(teachers(short), tmp_path)
    assert [cell.source.partition("\n")[0] for cell in sheet.cells] == [
        "# 1. Short: solutions",
        "# @title Set-up",
        "# @title Code of the chapter",
        "# @title Code",
        "> **Exercise 1.1** Add.",
        "# What is given",
        "def add(n):",
        "check(add(1), equals=11)",
        "<details open>",
        "> **Exercise 1.2** Think.",
        "<details open>",
    ]
    solved, checked = sheet.cells[6:8]
    assert solved.outputs[0].text == "11\n"
    assert checked.outputs[0].data["text/plain"] == "Right: 11."
    assert not any("execution" in cell.metadata for cell in sheet.cells)


def test_a_student_s_copy_keeps_stub_and_check(short):
    sources = [cell.source for cell in students(short).cells]
    assert STUB in sources and "check(add(1), equals=11)" in sources
    assert not any("def add(n):\n    return" in source or "So." in source for source in sources)


def test_a_sheet_that_does_not_run_says_so(short, tmp_path):
    from nbclient.exceptions import CellExecutionError

    short.cells[3].source = "# @title Code\ntotal[0] += 1 / 0"
    with pytest.raises(CellExecutionError, match="division by zero"):
        handouts.run(teachers(short), tmp_path)


def test_main_writes_both(short, tmp_path, monkeypatch):
    built, made = tmp_path / "built", tmp_path / "made"
    built.mkdir()
    nbformat.write(short, built / "01_short.ipynb")
    nbformat.write(short, built / "intro.ipynb")  # it has no exercises
    monkeypatch.setattr(handouts, "BUILT", built)
    monkeypatch.setattr(handouts, "HANDOUTS", made)
    handouts.main(["--no-run"])
    found = sorted(str(path.relative_to(made)) for path in made.rglob("*.ipynb"))
    assert found == ["students/01_short.ipynb", "teachers/01_short.ipynb"]


# --- What code needs --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "needs", "binds"),
    [
        ("x = x + 1", "x", "x"),
        ("x = 1\ny = x", "", "x y"),
        ("x += y", "x y", "x"),
        ("for i in range(n):\n    k = i", "range n", "i k"),
        ("a = [i * j for i in range(3) for j in i if j]", "range", "a"),
        ("a = {k: v for k, v in d.items()}", "d", "a"),
        ("def f(x, y=z, *a, **b):\n    t = x\n    return t + u + f(a, b)", "z u", "f"),
        ("g = lambda x: x + h", "h", "g"),
        ("def f(a):\n    b = a\n    def g(): return a + b + c\n    return g", "c", "f"),
        ("import a.b\nfrom c import d as e\ne(a)", "", "a e"),
        ("with open(p) as f:\n    f.read()", "open p", "f"),
        ("x: int = y", "y", "x"),
        ("print(n := m, n)", "print m", "n"),
        ("(a, *b), c[0] = d", "d c", "a b"),
    ],
)
def test_flow(source, needs, binds):
    flow = Flow(source)
    assert (flow.missing(), flow.binds) == (set(needs.split()), set(binds.split()))


def test_what_is_changed_in_place_is_needed_as_well():
    sources = ["import m", "rows = []", "rows.append(1)", "rows[0] = m", "m.show()", "x = 1", "x"]
    cells = [new_code_cell(source) for source in sources]
    kept = [cell.source for cell in needed(cells, {"rows"})]
    assert kept == ["import m", "rows = []", "rows.append(1)", "rows[0] = m"]
    again = [new_code_cell(source) for source in ("x = y", "x = 2", "z = x")]
    assert [cell.source for cell in needed(again, {"z"})] == ["x = 2", "z = x"]
    sources = ["unit = 1", "def f():\n    return half", "half = unit / 2", "f()"]
    assert len(needed([new_code_cell(source) for source in sources], {"f"})) == 3


def test_given():
    assert given(STUB, ["def add(n): ..."]) == "# What is given\nseven = 7"
    check = "from a import b, c\nimport d\nd.judge(b)"
    assert handouts.imports_of([check], ["def f():\n    return c"]) == ["from a import b, c"]
    assert given("def add(n):\n    ...\n\n\nadd(1)", ["def add(n): ..."]) == ""
