"""Handouts for a course, made from the plain notebooks of the built site (`plain.py`).

    python tools/handouts.py [--no-run]

``_build/handouts/students/``: the chapters without solutions; exercise, stub and check stay.
``_build/handouts/teachers/``: of each chapter the exercises, each with its solution in the stub's
place, then the check, which says "Right", then the explanation; before them what the solutions need
of the chapter's code, folded. These sheets are run, so that their outputs are true.
"""

from __future__ import annotations

import argparse
import ast
import copy
from collections.abc import Iterable
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from plain import FOLDER, chapter_code, folded_cell

ROOT = Path(__file__).resolve().parent.parent
BUILT = ROOT / "_build/html" / FOLDER
HANDOUTS = ROOT / "_build/handouts"
CELL_SECONDS = 300


def tagged(cell: NotebookNode, tag: str) -> bool:
    return tag in cell.metadata.get("tags", [])


def students(notebook: NotebookNode) -> NotebookNode:
    """A copy without solutions."""
    notebook = copy.deepcopy(notebook)
    notebook.cells = [cell for cell in notebook.cells if not tagged(cell, "solution")]
    return notebook


# --- What code needs ------------------------------------------------------------------------------


class Flow(ast.NodeVisitor):
    """Walks code in the order in which it runs.

    `needs` are the names it reads before it binds them, `later` those that its functions read when
    they are called, `binds` those it binds, `changes` those whose values it may change in place:
    ``rows[0] = …``, ``rows.append(…)``, ``plt.show()``.
    """

    def __init__(self, *sources: str, binds: Iterable[str] = ()) -> None:
        self.binds = set(binds)
        self.needs, self.later, self.changes, self.imports = (set[str]() for _ in range(4))
        for source in sources:
            self.visit(ast.parse(source))

    def missing(self) -> set[str]:
        """Names that must come from elsewhere."""
        return self.needs | self.later - self.binds

    def visit_in_turn(self, *parts: ast.AST | list | None) -> None:
        for part in parts:
            for node in part if isinstance(part, list) else [part]:
                if node is not None:
                    self.visit(node)

    def visit_Name(self, node):
        if not isinstance(node.ctx, ast.Load):
            self.binds.add(node.id)
        elif node.id not in self.binds:
            self.needs.add(node.id)

    def visit_alias(self, node):
        name = (node.asname or node.name).partition(".")[0]
        self.binds.add(name)
        self.imports.add(name)

    def visit_Assign(self, node):
        self.visit_in_turn(node.value, node.targets)

    def visit_AnnAssign(self, node):
        self.visit_in_turn(node.value, node.target)

    def visit_NamedExpr(self, node):
        self.visit_in_turn(node.value, node.target)

    def visit_AugAssign(self, node):
        if isinstance(node.target, ast.Name):
            self.visit_Name(ast.Name(node.target.id, ast.Load()))
        self.visit_in_turn(node.value, node.target)

    def visit_For(self, node):
        self.visit_in_turn(node.iter, node.target, node.body, node.orelse)

    def visit_Expr(self, node):
        if isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Attribute):
            self.change(node.value.func)
        self.generic_visit(node)

    def visit_Subscript(self, node):
        if isinstance(node.ctx, ast.Store):
            self.change(node)
        self.generic_visit(node)

    visit_Attribute = visit_Subscript

    def change(self, node: ast.AST) -> None:
        while isinstance(node, ast.Subscript | ast.Attribute):
            node = node.value
        if isinstance(node, ast.Name):
            self.changes.add(node.id)

    # Scopes of their own.

    def visit_FunctionDef(self, node):
        self.binds.add(node.name)
        self.visit_in_turn(node.decorator_list)
        self.function(node.args, node.body)

    def visit_Lambda(self, node):
        self.function(node.args, [node.body])

    def function(self, arguments: ast.arguments, body: list) -> None:
        self.visit_in_turn(arguments.defaults, arguments.kw_defaults)
        names = [a.arg for a in ast.walk(arguments) if isinstance(a, ast.arg)]
        inside = self.inside(names, *body)
        self.later |= inside.needs | inside.later - inside.binds

    def inside(self, names: Iterable[str], *body: ast.AST) -> Flow:
        inside = Flow(binds=names)
        inside.visit_in_turn(*body)
        return inside

    def visit_comprehension_like(self, node):
        parts = [p for g in node.generators for p in (g.iter, g.target, *g.ifs)]
        last = (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,)
        inside = self.inside((), *parts, *last)
        self.needs |= inside.needs - self.binds
        self.later |= inside.later - inside.binds

    visit_ListComp = visit_SetComp = visit_comprehension_like
    visit_DictComp = visit_GeneratorExp = visit_comprehension_like


def needed(cells: list[NotebookNode], names: set[str]) -> list[NotebookNode]:
    """Of these code cells those that `names` depend on, in their order.

    What is called on a module (``plt.show()``) changes nothing that matters here.
    """
    modules = Flow(*(cell.source for cell in cells)).imports
    kept: list[NotebookNode] = []
    wanted, later = names, names
    while later:
        kept, names, later = [], wanted, set()
        for cell in reversed(cells):
            flow = Flow(cell.source)
            if (flow.binds | flow.changes - modules) & names:
                names = names - flow.binds | flow.needs | flow.later
                later |= flow.later - flow.binds - wanted
                kept.insert(0, cell)
        wanted = wanted | later  # a function may read what a later cell makes
    return kept


def given(stub: str, solution: Iterable[str]) -> str:
    """What a stub holds beside what the solution writes anew and the call that tries it."""
    written = Flow(*solution).binds
    lines = stub.split("\n")
    for node in ast.parse(stub).body:
        if isinstance(node, ast.Expr) or getattr(node, "name", None) in written:
            lines[node.lineno - 1 : node.end_lineno] = [None] * (node.end_lineno - node.lineno + 1)
    return "\n".join(line for line in lines if line is not None).strip()


def imports_of(checks: Iterable[str], solution: Iterable[str]) -> list[str]:
    """The imports of check cells, which come last in a sheet, that the solution relies on."""
    wanted = Flow(*solution).missing()
    lines = [node for check in checks for node in ast.parse(check).body]
    found = [ast.unparse(n) for n in lines if isinstance(n, ast.Import | ast.ImportFrom)]
    return [line for line in found if Flow(line).imports & wanted]


# --- Solution sheets ------------------------------------------------------------------------------


def exercises(notebook: NotebookNode) -> list[list[NotebookNode]]:
    """The cells of each exercise: its text, stub, check and solution, as they stand."""
    found: list[list[NotebookNode]] = []
    inside = False
    for cell in notebook.cells:
        starts = tagged(cell, "exercise")
        inside = starts or (inside and (cell.cell_type == "code" or "exercise" in cell.metadata))
        if starts and not (found and found[-1][0].metadata.exercise == cell.metadata.exercise):
            found.append([])
        if inside:
            found[-1].append(cell)
    return found


def solved(cells: list[NotebookNode]) -> list[NotebookNode]:
    """The cells of one exercise, its solution opened and in the stub's place."""
    texts = [cell for cell in cells if tagged(cell, "exercise")]
    solution = [opened(cell) for cell in cells if tagged(cell, "solution")]
    code = [cell for cell in solution if cell.cell_type == "code"]
    rest = [
        cell for cell in cells if not {"exercise", "solution"} & set(cell.metadata.get("tags", []))
    ]
    if not code:
        return [*texts, *rest, *solution]
    checks = [cell for cell in rest if tagged(cell, "check")]
    stubs = [copy.deepcopy(cell) for cell in rest if not tagged(cell, "check")]
    for stub in stubs:
        stub.source = given(stub.source, [cell.source for cell in code])
    for stub in stubs[:1]:
        lent = imports_of([chapter_code(cell) for cell in checks], [cell.source for cell in code])
        stub.source = "\n".join([*lent, stub.source]).strip()
    stubs = [stub for stub in stubs if stub.source]
    after = solution.index(code[-1]) + 1
    return [*texts, *stubs, *solution[:after], *checks, *solution[after:]]


def opened(cell: NotebookNode) -> NotebookNode:
    """A folded cell, unfolded."""
    cell = copy.deepcopy(cell)
    if cell.cell_type == "markdown":
        cell.source = cell.source.replace("<details>", "<details open>", 1)
    else:
        cell.source = chapter_code(cell)
        for key in ("cellView", "jupyter", "_kg_hide-input", "_kg_hide-output"):
            cell.metadata.pop(key, None)
    return cell


def teachers(notebook: NotebookNode) -> NotebookNode:
    """The chapter's solution sheet; not run yet, so without outputs."""
    groups = exercises(notebook)
    sheet = [cell for group in groups for cell in solved(group)]
    used = {cell.id for group in groups for cell in group}
    chapter = [c for c in notebook.cells if c.cell_type == "code" and c.id not in used]
    setup, *chapter = chapter
    needs = Flow(*(cell.source for cell in sheet if cell.cell_type == "code")).missing()
    before = [
        cell if "cellView" in cell.metadata else folded_cell(cell, "Code of the chapter")
        for cell in needed(chapter, needs)
    ]
    title = notebook.cells[0].source.partition("\n")[0]
    words = "First, folded, what the solutions need of the chapter's code."
    first = nbformat.v4.new_markdown_cell(f"{title}: solutions\n\n{words}", id="solutions")
    made = nbformat.v4.new_notebook(
        cells=[without_outputs(cell) for cell in (first, setup, *before, *sheet)],
        metadata=copy.deepcopy(notebook.metadata),
    )
    nbformat.validate(made)
    return made


def without_outputs(cell: NotebookNode) -> NotebookNode:
    cell = copy.deepcopy(cell)
    if cell.cell_type == "code":
        cell.outputs, cell.execution_count = [], None
    return cell


def run(notebook: NotebookNode, folder: Path = ROOT / "book") -> NotebookNode:
    """Run a notebook in place, in the book's folder; it raises where a cell does."""
    from nbclient import NotebookClient

    NotebookClient(
        notebook, timeout=CELL_SECONDS, resources={"metadata": {"path": folder}}
    ).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    return notebook


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--no-run", action="store_true", help="leave the solution sheets unrun")
    options = parser.parse_args(arguments)
    for path in sorted(BUILT.glob("[0-9]*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        sheet = teachers(notebook)
        if not options.no_run:
            run(sheet)
        for kind, made in (("students", students(notebook)), ("teachers", sheet)):
            folder = HANDOUTS / kind
            folder.mkdir(parents=True, exist_ok=True)
            nbformat.write(made, folder / path.name)


if __name__ == "__main__":
    main()
