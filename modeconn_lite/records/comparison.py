"""Any of the book's methods over pairs of networks, as the published tables compare them."""

from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn
from tqdm.auto import tqdm

from ..checks import check_list, check_whole, check_word
from ..evaluation import evaluate
from ..methods import METHODS, method
from ..scoreboard import row
from ..tables import mean_and_deviation
from .base import Experiment, Lab

ENDS = "ends"  # stands in summaries beside the methods' keys
SPLITS = ("train", "test")


@dataclass(frozen=True, kw_only=True)
class Comparison(Experiment):
    """Worst accuracies on the paths that methods find, mean and deviation over pairs.

    Pair i connects the networks of seeds 2i and 2i + 1, so pairs share no network. `published`
    has per cent, {key of a method, or "ends": {"train" or "test": (mean, deviation)}}.

    Attributes
    ----------
    network : function that gives the architecture
    training : dict
        Options of `training.train`.
    """

    network: Callable[[], nn.Module]
    training: dict[str, Any]
    protocol: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        network = " ".join(str(self.network()).split())
        protocol = {"dataset": self.dataset, "network": network, "training": self.training}
        object.__setattr__(self, "protocol", protocol)

    def add_options(self, parser: ArgumentParser) -> None:
        parser.add_argument("--pairs", type=int, default=5, help="pairs of networks (default: 5)")
        parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=["linear"])

    def check(self, *, pairs: int = 5, methods: Sequence[str] = ("linear",)) -> None:
        check_whole(pairs, "pairs", low=1)
        keys = check_list(methods, "methods", "keys of methods")
        for key in keys:
            method(check_word(key, "each of methods"))  # refuses an unknown one
        if len(set(keys)) != len(keys):
            raise ValueError(f"methods must be different ones, not {list(keys)}")

    def measure(
        self, lab: Lab, *, pairs: int = 5, methods: Sequence[str] = ("linear",)
    ) -> dict[str, Any]:
        """Rows of the scoreboard for every method and pair."""
        dataset, network = lab.dataset, self.network()
        weights, ends = [], []
        for seed in tqdm(range(2 * pairs), desc="networks"):
            w = lab.trained(network, dataset.train, seed, f"seed-{seed}", **self.training)
            weights.append(w)
            scores = (evaluate(network, w, getattr(dataset, s)).accuracy for s in SPLITS)
            ends.append({"seed": seed, **dict(zip(SPLITS, scores, strict=True))})

        def one(key: str, i: int, j: int) -> dict[str, Any]:
            return asdict(row(key, network, weights[i], weights[j], dataset, pair=(i, j)))

        rows = []
        for key in methods:
            for i in tqdm(range(0, 2 * pairs, 2), desc=METHODS[key].name):
                rows.append(lab.cached(f"row-{key}-{i}-{i + 1}", one, key, i, i + 1))
        return {"ends": ends, "rows": rows, "summary": summary(ends, rows)}

    def rows(self, content: dict[str, Any]) -> list[tuple[str, str, str]]:
        theirs = content["published"]
        return [
            (_label(key), _percent(cells, "test"), _percent(theirs.get(key, {}), "test"))
            for key, cells in content["summary"].items()
        ]

    def table(self, content: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
        """Training and test split, this book's numbers beside the published ones."""
        head = [f"{s}, {whose}" for s in ("Train", "Test") for whose in ("this book", "published")]
        body = []
        for key, cells in content["summary"].items():
            both = cells, content["published"].get(key, {})
            body.append([_label(key), *(_percent(numbers, s) for s in SPLITS for numbers in both)])
        return ["Method", *head], body

    def heading(self, content: dict[str, Any]) -> str:
        return f"Record({self.name}, {len(content['ends']) // 2} pairs)"

    def line(self, what: str, ours: str, theirs: str) -> str:
        return f"{what}: {ours} on test" + (f", published {theirs}" if theirs else "")

    def caption(self, content: dict[str, Any]) -> str:
        return f"Mean ± deviation over {len(content['ends']) // 2} pairs of networks"


def summary(
    ends: list[dict[str, Any]], rows: list[dict[str, Any]]
) -> dict[str, dict[str, tuple[float, float]]]:
    """Mean and deviation over pairs, in per cent, in the form of the published tables."""

    def spread(values: list[float]) -> tuple[float, float]:
        mean, deviation = mean_and_deviation(values)
        return round(100 * mean, 2), round(100 * deviation, 2)

    found = {ENDS: {s: spread([end[s] for end in ends]) for s in SPLITS}}
    for key in dict.fromkeys(r["method"] for r in rows):
        own = [r for r in rows if r["method"] == key]
        found[key] = {s: spread([r[f"worst_{s}"] for r in own]) for s in SPLITS}
    return found


def _label(key: str) -> str:
    return "End points" if key == ENDS else METHODS[key].name


def _percent(numbers: dict[str, Sequence[float]], split: str) -> str:
    return f"{numbers[split][0]:.2f} ± {numbers[split][1]:.2f}" if split in numbers else ""
