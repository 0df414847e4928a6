"""Every exercise's check cell on an untouched stub, on a plausible wrong answer, on the solution.

A chapter runs once, in one kernel, but for what no exercise needs. At each check cell the three
answers are tried in turn.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field

import nbformat
import pytest
import refresh
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

FOLDER = refresh.ROOT / "book"
START = re.compile(r":::\{exercise-start\}[^\n]*\n:label: (\S+)")
SOLUTION = re.compile(r":::\{solution-start\} (\S+)")
SOLUTION_END = ":::{solution-end}"

# What a reader may well try first. Exercise label → the function, or functions, of its stub.
WRONG = {
    # the accuracy at the worst point, not its t
    "ex-worst": """\
def worst_points(pairs):
    seen = [profile(network, segment(a, b), digits.test) for a, b in pairs]
    return [p.worst_accuracy for p in seen]
""",
    # only one of the two pure words
    "ex-signal": """\
def pure_share(p):
    return 0.5**p
""",
    # the layer's weights without its bias
    "ex-layer": """\
def one_layer(a, b, layer):
    hybrid = a | {f"{layer}.weight": b[f"{layer}.weight"]}
    return profile(network, segment(a, hybrid), digits.test)
""",
    # the biases stay behind
    "ex-shuffle": """\
def shuffled(weights, seed):
    generator = torch.Generator().manual_seed(seed)
    weights = dict(weights)
    for layer, following in (("1", "3"), ("3", "5"), ("5", "7")):
        order = torch.randperm(64, generator=generator).to(device)
        into, out = f"{layer}.weight", f"{following}.weight"
        weights[into] = weights[into][order]
        weights[out] = weights[out][:, order]
    return weights
""",
    # natural logarithms
    "ex2-count": """\
def digits_of_copies(widths):
    return sum(lgamma(n + 1) for n in widths)
""",
    # counts the neurons that are not at home; a cycle of k takes only k − 1 exchanges
    "ex2-cycles": """\
def exchanges(order):
    return int((order != torch.arange(len(order))).sum())
""",
    # compares with the line that is not matched
    "ex2-repair": """\
def lowered(shape):
    net = mlp(shape)
    some = train(net, digits.train, range(12), epochs=20, augment=data.jitter(0.4)).weights
    each = [barriers(net, a, b) for a, b in zip(some[::2], some[1::2])]
    return sum(b[3] < b[0] for b in each)
""",
    # all layers at once: the lengths of the upper layers still depend on the disguise
    "ex2-scale": """\
def disguised(weights, seed):
    g = torch.Generator().manual_seed(seed)
    drawn = {name: torch.rand(n, generator=g) for name, n in sizes.items()}
    return scale(network, weights, {name: 10 ** (2 * r - 1) for name, r in drawn.items()})


def of_one_scale(weights):
    factors = {}
    for layer in layers:
        parts = [weights[k].reshape(layer.size, -1) for k in layer.incoming]
        factors[layer.name] = 1 / torch.cat(parts, 1).norm(dim=1)
    return scale(network, weights, factors)
""",
    # straight, which goes over the hill
    "ex2-spare": """\
def corners(w):
    return [w, swap(five, w, "0", 0, 1)]
""",
    # forgets that only the layers between the first and the top one take four moves
    "ex3-count": """\
def count(p):
    return 2 * (p - 1) + 1, 2 * (p - 1) + 1
""",
    # looks at the top layer only, not at the largest of all suffixes
    "ex3-width": """\
def epsilon_at(width):
    net = mlp((64, width, width, width, 10))
    options = {"epochs": 30, "augment": data.jitter(0.4)}
    nets = train(net, digits.train, range(7, 10), **options).weights
    kept = [find_kept(net, w, digits.train) for w in nets]
    return sum(stability(net, w, k, digits.train)[-1] for w, k in zip(nets, kept)) / 3
""",
    # compares with the whole network instead of the dropped one
    "ex3-rescale": """\
def without_rescaling(w):
    half = find_kept(network, w, digits.train)
    bare = mute(network, w, half, rescale=False)
    return evaluate(network, bare, digits.train).loss / evaluate(network, w, digits.train).loss
""",
    # turns a neuron around while it still works
    "ex3-bridge": """\
def bridge():
    return [
        [[1, 1], [1, -1], [0, 1]],
        [[0, 1], [1, -1], [1, 1]],
        [[1, -1], [0, -1], [1, 1]],
        [[1, -1], [1, 1], [0, 1]],
    ]
""",
    # takes the formula at r = 1/2 straight over to A, without the hinge that must come first
    "ex3-output-bias": """\
def way_round():
    rows = [
        [[1, 2, -1], [1, -2, -1], [0, 0, 0]],
        [[1, 2, 0], [1, -1, 1], [1, -1, -1]],
        [[1, 2, 1], [1, -2, 1], [0, 0, 2]],
        [[1, 2, 1], [1, -2, 1], [-1, 0, 2]],
    ]
    return rows, [0, -1, -2, 0]
""",
    # a quarter of a circle, whatever the angle between the two
    "ex4-length": """\
def arc_length(rho):
    return pi / 2 / (2 - 2 * rho) ** 0.5
""",
    # the arc, which keeps the spread of strangers only
    "ex4-angle": """\
def coefficients(t, rho):
    from math import cos

    return cos(pi / 2 * t), sin(pi / 2 * t)
""",
    # the fourth moment is not divided by the squared variance
    "ex4-kurtosis": """\
def shares_left(t):
    from math import cos

    return cos(pi / 2 * t) ** 4 + sin(pi / 2 * t) ** 4, (1 - t) ** 4 + t**4
""",
    # the share of errors, not the loss
    "ex4-draws": """\
def loss_of_draws(n):
    return sum(1 - built_from(from_the_pot(n)).accuracy for _ in range(20)) / 20
""",
    # divides the rows and forgets the columns
    "ex5-sinkhorn": """\
def sinkhorn(C, tau, rounds=500):
    P = (-C / (tau * C.mean())).exp()
    return P / P.sum(1, keepdim=True) / len(P)
""",
    # takes the two clouds to have one mean
    "ex5-blurred": """\
def blurred_cost(x, y):
    return x.var(0, correction=0).sum() + y.var(0, correction=0).sum()
""",
    # takes the exchanges in the order in which they stand
    "ex5-triangle": """\
def cheapest(cost):
    return float(cost[0, 1] + cost[1, 2]), float(max(cost[0, 1], cost[1, 2]))
""",
    # as many hand-overs as exchanges
    "ex5-pieces": """\
def pieces(order, spare):
    return 2 * sum(len(cycle) - 1 for cycle in cycles(order)) + 1
""",
    # the ridge as it stands, not in units of the mean of the diagonal
    "ex6-follow": """\
def solved(phi, y, ridge):
    gram = phi.T @ phi + ridge * torch.eye(phi.shape[1]).to(phi)
    return torch.linalg.solve(gram, phi.T @ y).T
""",
    # the mean over images and outputs
    "ex6-bound": """\
def at_most(phi, w, y, loss_a):
    return loss_a + (2 * (phi @ w.T - y).square().mean()).sqrt()
""",
    # how much is left, not how far it is
    "ex6-first": """\
def first_leg(phi, w):
    return float((torch.linalg.pinv(phi) @ phi @ w.T).norm() / w.norm())
""",
    # one of the members
    "ex6-merge": """\
def merged(members):
    return members[0]
""",
}


@dataclass
class Exercise:
    """The cells of one exercise, as they stand in a chapter."""

    label: str
    stub: str = ""
    check: str = ""
    solution: list[str] = field(default_factory=list)


def exercises(notebook: nbformat.NotebookNode) -> tuple[list[str], list[Exercise]]:
    """Code cells outside of exercises, up to the last exercise, and the exercises.

    Raises
    ------
    ValueError
        If an exercise has no stub, check cell or solution.
    """
    story, found, solving = [], [], ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            # One cell may end a solution and start the next exercise.
            if SOLUTION_END in cell.source:
                solving = ""
            for match in START.finditer(cell.source):
                found.append(Exercise(match[1]))
            for match in SOLUTION.finditer(cell.source):
                solving = match[1]
                if solving != found[-1].label:
                    raise ValueError(f"the solution of {solving} follows {found[-1].label}")
        elif cell.cell_type == "code":
            if not found:
                story.append(cell.source)
            elif solving:
                found[-1].solution.append(cell.source)
            elif "check" in cell.metadata.get("tags", []):
                found[-1].check = cell.source
            elif not found[-1].stub:
                found[-1].stub = cell.source
    for exercise in found:
        for part in ("stub", "check", "solution"):
            if not getattr(exercise, part):
                raise ValueError(f"exercise {exercise.label} has no {part} cell")
    return story, found


GROWING = {"add", "append", "extend", "insert", "pop", "remove", "setdefault", "update"}


class Names(ast.NodeVisitor):
    """Global names that a cell reads before it binds them, and those that it binds or changes."""

    def __init__(self, source: str) -> None:
        self.reads, self.binds = set[str](), set[str]()
        self.visit(ast.parse(source))

    def visit_Name(self, node):
        if isinstance(node.ctx, ast.Load):
            self.reads |= {node.id} - self.binds
        else:
            self.binds.add(node.id)

    def visit_alias(self, node):
        self.binds.add((node.asname or node.name).partition(".")[0])

    def visit_Assign(self, node):  # what stands on the right comes first
        self.visit(node.value)
        for target in node.targets:
            self.visit(target)

    def visit_For(self, node):
        for part in (node.iter, node.target, *node.body, *node.orelse):
            self.visit(part)

    def visit_AugAssign(self, node):
        self.visit(node.value)
        self.changed(node.target)

    def visit_Subscript(self, node):
        self.generic_visit(node)
        if isinstance(node.ctx, ast.Store):
            self.changed(node)

    visit_Attribute = visit_Subscript

    def visit_Call(self, node):
        self.generic_visit(node)
        if isinstance(node.func, ast.Attribute) and node.func.attr in GROWING:
            self.changed(node.func)

    def changed(self, node):
        while isinstance(node, ast.Attribute | ast.Subscript):
            node = node.value
        if isinstance(node, ast.Name):
            self.reads |= {node.id} - self.binds
            self.binds.add(node.id)

    def scope(self, node):
        inner = [part for part in ast.walk(node) if isinstance(part, ast.Name | ast.arg)]
        own = {part.arg for part in inner if isinstance(part, ast.arg)}
        names = [part for part in inner if isinstance(part, ast.Name)]
        own |= {name.id for name in names if isinstance(name.ctx, ast.Store)}
        self.reads |= {name.id for name in names} - own - self.binds

    visit_Lambda = visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = scope

    def visit_FunctionDef(self, node):
        self.scope(node)
        self.binds.add(node.name)


def without_asides(story: list[str], after: list[str]) -> list[str]:
    """The cells whose names later ones read: figures and tables for their own sake are left out.

    Should one be left out wrongly, an exercise fails for want of it.
    """
    needed, kept = set[str](), []
    for source in after:
        needed |= Names(source).reads
    for source in reversed(story):
        cell = Names(source)
        if cell.binds & needed:
            kept.append(source)
            needed = needed - cell.binds | cell.reads
    return kept[::-1]


def verdicts(cell: nbformat.NotebookNode) -> list[str]:
    """What a check cell says, line by line."""
    texts = [o.get("text") or o.get("data", {}).get("text/plain", "") for o in cell.outputs]
    return "\n".join(texts).splitlines()


@pytest.fixture(params=[p for p in refresh.notebooks() if p.stem != "intro"], ids=lambda p: p.stem)
def notebook(request) -> nbformat.NotebookNode:
    return nbformat.read(request.param, as_version=4)


def test_right_wrong_and_untouched(notebook, monkeypatch):
    monkeypatch.setenv("MODECONN_DEVICE", "cpu")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    story, found = exercises(notebook)
    cells, checks = [], {}
    for exercise in found:
        assert exercise.label in WRONG, f"no wrong answer to {exercise.label} in this file"
        tries = {"untouched": [exercise.stub], "wrong": [WRONG[exercise.label]]}
        tries["solution"] = exercise.solution
        for kind, sources in tries.items():
            cells += [new_code_cell(source) for source in (*sources, exercise.check)]
            checks[exercise.label, kind] = cells[-1]
    story = without_asides(story, [cell.source for cell in cells])
    run = new_notebook(cells=[*map(new_code_cell, story), *cells])
    options = {"kernel_name": "python3", "timeout": 300, "startup_timeout": 180}
    NotebookClient(run, **options, resources={"metadata": {"path": str(FOLDER)}}).execute()

    for (label, kind), cell in checks.items():
        said = verdicts(cell)
        assert said, f"the check of {label} says nothing to the {kind} answer"
        if kind == "untouched":
            assert set(said) == {"Not tried yet."}, (label, kind, said)
        elif kind == "wrong":
            assert any(line.startswith("Not yet: ") for line in said), (label, kind, said)
            assert not any("kind of answer" in line for line in said), (label, kind, said)
        else:
            assert all(line.startswith("Right: ") for line in said), (label, kind, said)


def test_an_exercise_without_its_cells_is_found():
    start = new_markdown_cell(":::{exercise-start} Count\n:label: ex-count\n:::\nHow many?")
    stub, tested = new_code_cell("def f(): ..."), new_code_cell("check(f())")
    tested.metadata["tags"] = ["check"]
    solution = [new_markdown_cell(":::{solution-start} ex-count\n:::"), new_code_cell("f = int")]
    whole = new_notebook(cells=[new_code_cell("a = 1"), start, stub, tested, *solution])
    one = Exercise("ex-count", stub.source, tested.source, [solution[1].source])
    assert exercises(whole) == (["a = 1"], [one])
    for missing, part in ((stub, "stub"), (tested, "check"), (solution[1], "solution")):
        rest = [cell for cell in whole.cells if cell is not missing]
        with pytest.raises(ValueError, match=f"ex-count has no {part} cell"):
            exercises(new_notebook(cells=rest))


@pytest.mark.parametrize(
    "change", ["big[0] = 1", "big += [1]", "for k in range(3):\n    big.append(k)", "big = [2]"]
)
def test_asides_are_left_out(change):
    story = ["import math\nbig, k = [], 0", "picture = [k for k in big]", change, "k = math.e"]
    exercise = "def f():\n    k = big\n    return math.pi * k[0]"
    assert without_asides(story, [exercise]) == story[::2]
