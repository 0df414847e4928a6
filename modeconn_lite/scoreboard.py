"""The table that compares the book's methods: `board(network, pairs, dataset)` in a chapter."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from . import data
from .checks import check_dataset, check_list, check_network, check_whole, check_word
from .evaluation import evaluate, profiles
from .methods import METHODS, Method, method
from .methods.base import Connect
from .tables import html_table, mean_and_deviation
from .weights import Weights, check_weights, distance


@dataclass(frozen=True)
class Row:
    """How one method did on one pair.

    Attributes
    ----------
    method : str
        Its key; `methods.METHODS` says what tables call it.
    pair : two int
        Which networks, by their place in the list or by their seeds.
    worst_train, worst_test : float
        Lowest accuracy on the path, a fraction.
    barrier_train, barrier_test : float
        Nats above the line between the ends' losses.
    length : float
        In units of the straight distance.
    seconds : float
        What finding the path took.
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
    """The scoreboard: one row a method, mean and deviation over pairs. Displays as a table.

    Attributes
    ----------
    dataset : str
    rows : tuple of Row
    ends : two float
        Mean accuracy of the networks themselves, on the training and on the test split.
    """

    dataset: str
    rows: tuple[Row, ...]
    ends: tuple[float, float]

    def methods(self) -> list[str]:
        """Keys of the methods, in the order of the rows."""
        return list(dict.fromkeys(row.method for row in self.rows))

    def column(self, method: str, figure: str) -> list[float]:
        """One figure of a method, such as `column("linear", "worst_test")`, for every pair.

        Raises
        ------
        ValueError
            If the board has no such method or figure.
        """
        if method not in self.methods() or figure not in list(Row.__dataclass_fields__):
            raise ValueError(
                f"no figure {figure!r} of {method!r} here; methods: {self.methods()},"
                f" figures: {list(Row.__dataclass_fields__)}"
            )
        return [getattr(row, figure) for row in self.rows if row.method == method]

    def __repr__(self) -> str:
        pairs = len(self.column(self.methods()[0], "length"))
        lines = [f"Scoreboard({self.dataset}, pairs: {pairs}, ends: {self.ends[1]:.2f})"]
        for key in self.methods():
            worst = statistics.mean(self.column(key, "worst_test"))
            barrier = statistics.mean(self.column(key, "barrier_test"))
            name = METHODS[key].name
            lines.append(f"  {name}: worst accuracy {worst:.2f}, barrier {barrier:.2f} nats")
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
        for key in self.methods():
            cells = [METHODS[key].name]
            for name in ("worst_test", "worst_train"):
                cells.append(_spread(self.column(key, name), percent=True))
            cells.append(_spread(self.column(key, "barrier_test")))
            cells.append(f"{statistics.mean(self.column(key, 'length')):.2f}")
            cells.append(f"{statistics.mean(self.column(key, 'seconds')):.2f}")
            body.append(cells)
        return html_table(head, body, f"Scoreboard on {self.dataset}, worst point of each path")


def _spread(values: Sequence[float], *, percent: bool = False) -> str:
    scale, digits = (100, 1) if percent else (1, 2)
    mean, deviation = mean_and_deviation(values)
    text = f"{scale * mean:.{digits}f}"
    if len(values) > 1:
        text += f" ± {scale * deviation:.{digits}f}"
    return text + (" %" if percent else "")


def row(
    key: str,
    network: nn.Module,
    a: Weights,
    b: Weights,
    dataset: data.Dataset,
    *,
    pair: tuple[int, int] | None = None,
    points: int = 61,
    connect: Connect | None = None,
) -> Row:
    """Connect a and b by the method of this key and measure the path on both splits.

    `connect` may stand in for the method's own function: with a flow that others learned, say.

    Raises
    ------
    ValueError
        If there is no such method, weights and network do not fit, a and b are the same weights,
        or as `profile`.
    """
    connect = connect or _method(key).connect
    check_dataset(dataset, "dataset")
    a, b = _check_pair((a, b), "a and b", network)
    if pair is not None:
        for number in check_list(pair, "pair", "numbers of networks", least=2, most=2):
            check_whole(number, "each number of pair")
    start = time.perf_counter()
    path = connect(network, a, b, dataset.train)
    seconds = time.perf_counter() - start
    splits = dataset.train, dataset.test
    on_train, on_test = profiles(network, path, splits, points, statistics=dataset.train)
    return Row(
        key,
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
    methods: str | Sequence[str] = ("linear",),
) -> Board:
    """The scoreboard of some methods over pairs of networks.

    Parameters
    ----------
    network : nn.Module
        The architecture.
    pairs : sequence of pairs of Weights
    dataset : Dataset
        Paths are found on its training split and measured on both.
    methods : str or sequence of str
        Keys of `methods.METHODS`, or a single one.

    Raises
    ------
    ValueError
        Before any path is looked for: if there are no pairs, one does not fit the network or is
        twice the same, or a method is unknown or named twice.

    Examples
    --------
    >>> from modeconn_lite import board, data, zoo
    >>> pairs = [zoo.load("digits")[:2]]
    >>> board(zoo.network("digits"), pairs, data.load("digits"), ["linear", "weights"])
    Scoreboard(digits, pairs: 1, ends: 0.98)
      Linear: worst accuracy 0.52, barrier 1.36 nats
      Weight matching + line + swaps back to B: worst accuracy 0.97, barrier 0.05 nats
    """
    check_dataset(dataset, "dataset")
    keys = check_list([methods] if isinstance(methods, str) else methods, "methods", "keys")
    for key in keys:
        _method(key)
    if len(set(keys)) != len(keys):
        raise ValueError(f"methods {keys} name one twice; each has one row")
    pairs = check_list(pairs, "pairs", "pairs of Weights")
    pairs = [_check_pair(pair, f"pairs[{i}]", network) for i, pair in enumerate(pairs)]
    rows = tuple(
        row(key, network, a, b, dataset, pair=(2 * i, 2 * i + 1))
        for key in keys
        for i, (a, b) in enumerate(pairs)
    )
    ends = [w for pair in pairs for w in pair]
    means = [
        statistics.mean(evaluate(network, w, s, statistics=dataset.train).accuracy for w in ends)
        for s in (dataset.train, dataset.test)
    ]
    return Board(dataset.name, rows, (means[0], means[1]))


def _method(key: Any) -> Method:
    return method(check_word(key, "a method's key"))


def _check_pair(pair: Any, name: str, network: nn.Module) -> tuple[Weights, Weights]:
    """Two different weights of a network."""
    a, b = check_list(pair, name, "Weights", least=2, most=2)
    check_weights(a, like=check_network(network), name=f"the first of {name}")
    check_weights(b, like=a, name=f"the second of {name}")
    if distance(a, b) == 0:
        raise ValueError(f"{name} are the same weights; a scoreboard compares paths between two")
    return a, b
