"""Every connection method behind one signature, and the table that compares them.

In a chapter: `board(network, pairs, dataset)`. At paper scale, with records (see `records`):

    python -m modeconn_lite.scoreboard mnist-1hl --pairs 5 --device cpu
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from html import escape

from torch import nn

from . import data, dropout, symmetry
from .evaluation import evaluate, profiles
from .paths import AnyPath, segment
from .weights import Weights, distance

Connect = Callable[[nn.Module, Weights, Weights, data.Split], AnyPath]


@dataclass(frozen=True)
class Method:
    """A way to connect two networks: its name in tables, its chapter, and what it does.

    connect : (network, a, b, training split) -> path from a to b.
    to_copy : the path ends at b with its neurons in another order: the same function as b, but
        another point. The name says so, and the row is no connection of a and b.
    """

    name: str
    chapter: int
    connect: Connect
    to_copy: bool = False


METHODS = {
    "linear": Method("Linear", 1, lambda network, a, b, split: segment(a, b)),
    "weights-copy": Method(
        "Weight matching + line, to a copy of B",
        2,
        partial(symmetry.connect_weight_matching, undo=False),
        to_copy=True,
    ),
    "weights": Method(
        "Weight matching + line + swaps back to B", 2, symmetry.connect_weight_matching
    ),
    "activations-copy": Method(
        "Activation matching + line, to a copy of B",
        2,
        partial(symmetry.connect_activation_matching, undo=False),
        to_copy=True,
    ),
    "activations": Method(
        "Activation matching + line + swaps back to B", 2, symmetry.connect_activation_matching
    ),
    "activations-repair-copy": Method(
        "Activation matching + line + REPAIR, to a copy of B",
        2,
        partial(symmetry.connect_activation_matching, repair=True, undo=False),
        to_copy=True,
    ),
    "activations-repair": Method(
        "Activation matching + line + REPAIR + swaps back to B",
        2,
        partial(symmetry.connect_activation_matching, repair=True),
    ),
    "dropout": Method("Dropout path", 3, dropout.connect),
}


@dataclass(frozen=True)
class Row:
    """How one method did on one pair, or on the mean of several pairs.

    Accuracies are fractions, barriers nats above the line between the ends' losses, length is in
    units of the straight distance, seconds are what finding the path took.
    """

    method: str
    pair: tuple[int, int] | None
    worst_train: float
    worst_test: float
    barrier_train: float
    barrier_test: float
    length: float
    seconds: float


@dataclass(frozen=True)
class Board:
    """The scoreboard: one row a method, mean and deviation over pairs. Displays as a table."""

    dataset: str
    rows: tuple[Row, ...] = field(repr=False)
    ends: tuple[float, float]

    def methods(self) -> list[str]:
        return list(dict.fromkeys(row.method for row in self.rows))

    def column(self, method: str, name: str) -> list[float]:
        """One figure of a method, for every pair."""
        return [getattr(row, name) for row in self.rows if row.method == method]

    def __repr__(self) -> str:
        pairs = len(self.column(self.methods()[0], "length"))
        lines = [f"Scoreboard({self.dataset}, pairs: {pairs}, ends: {self.ends[1]:.2f})"]
        for method in self.methods():
            worst = statistics.mean(self.column(method, "worst_test"))
            barrier = statistics.mean(self.column(method, "barrier_test"))
            lines.append(f"  {method}: worst accuracy {worst:.2f}, barrier {barrier:.2f} nats")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head = [
            "Method",
            "Worst accuracy, test",
            "Worst accuracy, train",
            "Barrier, test (nats)",
            "Length (× straight)",
            "Cost (s)",
        ]
        ends = [f"{100 * accuracy:.1f} %" for accuracy in reversed(self.ends)]
        body = [["End points", *ends, "", "", ""]]
        for method in self.methods():
            cells = [method]
            for name in ("worst_test", "worst_train"):
                cells.append(_spread(self.column(method, name), percent=True))
            cells.append(_spread(self.column(method, "barrier_test")))
            cells.append(f"{statistics.mean(self.column(method, 'length')):.2f}")
            cells.append(f"{statistics.mean(self.column(method, 'seconds')):.2f}")
            body.append(cells)
        return html_table(head, body, f"Scoreboard on {self.dataset}, worst point of each path")


def _spread(values: Sequence[float], *, percent: bool = False) -> str:
    scale, digits = (100, 1) if percent else (1, 2)
    text = f"{scale * statistics.mean(values):.{digits}f}"
    if len(values) > 1:
        text += f" ± {scale * statistics.stdev(values):.{digits}f}"
    return text + (" %" if percent else "")


def html_table(head: Sequence[str], body: Sequence[Sequence[str]], caption: str) -> str:
    """A table as the book styles it. The comments let notebook tests compare the repr instead."""
    columns = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = []
    for first, *rest in body:
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        lines.append(f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>')
    return (
        '<!--mc-explorer--><div class="mc-table" tabindex="0" role="region"'
        f' aria-label="{escape(caption)}"><table class="mc-scoreboard">'
        f"<caption>{escape(caption)}</caption><thead><tr>{columns}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div><!--/mc-explorer-->"
    )


def row(
    method: str,
    network: nn.Module,
    a: Weights,
    b: Weights,
    dataset: data.Dataset,
    *,
    pair: tuple[int, int] | None = None,
    points: int = 61,
) -> Row:
    """Connect a and b by a method and measure the path on both splits."""
    if method not in METHODS:
        raise ValueError(f"no method called {method!r}; choose one of {tuple(METHODS)}")
    if distance(a, b) == 0:
        raise ValueError("a and b are the same weights; a scoreboard compares paths between two")
    start = time.perf_counter()
    path = METHODS[method].connect(network, a, b, dataset.train)
    seconds = time.perf_counter() - start
    splits = dataset.train, dataset.test
    on_train, on_test = profiles(network, path, splits, points, statistics=dataset.train)
    return Row(
        METHODS[method].name,
        pair,
        on_train.worst_accuracy,
        on_test.worst_accuracy,
        on_train.barrier(),
        on_test.barrier(),
        on_test.length / distance(a, b),
        seconds,
    )


def board(
    network: nn.Module,
    pairs: Sequence[tuple[Weights, Weights]],
    dataset: data.Dataset,
    methods: Sequence[str] = ("linear",),
) -> Board:
    """The scoreboard of some methods (keys of `METHODS`) over pairs of networks."""
    if not pairs:
        raise ValueError("a scoreboard needs at least one pair of networks")
    rows = tuple(
        row(method, network, a, b, dataset, pair=(2 * i, 2 * i + 1))
        for method in methods
        for i, (a, b) in enumerate(pairs)
    )
    ends = [w for pair in pairs for w in pair]
    means = [
        statistics.mean(evaluate(network, w, s, statistics=dataset.train)[1] for w in ends)
        for s in (dataset.train, dataset.test)
    ]
    return Board(dataset.name, rows, (means[0], means[1]))


if __name__ == "__main__":
    from .records import main  # one floor up, so only here

    main()
