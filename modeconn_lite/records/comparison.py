"""Any of the book's methods over pairs of networks, as the published tables compare them."""

from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count, islice
from typing import Any

from torch import nn

from ..checks import check_list, check_truth, check_whole, check_word
from ..methods import METHODS, method
from ..tables import mean_and_deviation
from ..training import Augment
from .base import Experiment, Record, hardware
from .engines import ENGINES, check_engine, make_engine
from .lab import Lab
from .pieces import LEARN_FROM, Learned, Pieces
from .tasks import run_tasks

ENDS = "ends"  # stands in summaries beside the methods' keys
SPLITS = ("train", "test")
# What the paper calls rows that this book may not have, or has at another size alone.
NAMES = {
    ENDS: "End points",
    "iaf-flow": "IAF Flow",
    "rnvp-bijection": "RNVP Bijection",
    "linear-wa": "Linear + WA",
    "arc-wa": "Arc + WA",
    "transport-wa": "OT + WA",
    "linear-butterfly": "Linear + Butterfly",
    "arc-butterfly": "Arc + Butterfly",
    "transport-butterfly": "OT + Butterfly",
    "garipov-3": "Garipov (3)",
    "garipov-5": "Garipov (5)",
}
LEARNING = ("iaf-flow", "rnvp-flow", "rnvp-bijection")  # rows that need a `Learned` here
QUICK = {"epochs": 2, "train": 512, "test": 256, "points": 11}  # images, and points of a path


@dataclass(frozen=True, kw_only=True)
class Comparison(Experiment):
    """Worst accuracies on the paths that methods find, mean and deviation over pairs.

    Networks, and what is learned from others of them, are tasks, and so are the rows: any engine
    computes them, each on one thread. The first pair connects the networks of seeds 0 and 1, the
    next one those of 2 and 3, and so on, but for the seeds `LEARN_FROM`: pairs share no network,
    and no method has learned from one that it connects.

    Attributes
    ----------
    network : function that gives the architecture
        Picklable, such as `partial(mlp, (784, 2000, 10))`.
    training : dict
        Options of `training.train`, as published.
    augment : function, optional
        As for `training.train`, of a name; paths are found and measured on images as they are.
    published : dict
        Per cent, {key of a method, or "ends": {"train" or "test": (mean, deviation)}}, in the
        order of the published table; an empty cell was not published.
    doubtful : dict
        Why the published numbers of a row look wrong.
    learned : dict
        By its key, how a method that learns from other networks is fitted to those here.
    epochs : int, optional
        Other than the published ones.
    quick : bool
        A trial of everything with few epochs, images and points: its numbers mean nothing.
    """

    network: Callable[[], nn.Module]
    training: dict[str, Any]
    augment: Augment | None = None
    doubtful: dict[str, str] = field(default_factory=dict)
    learned: dict[str, Learned] = field(default_factory=dict)
    epochs: int | None = None
    quick: bool = False

    @cached_property
    def protocol(self) -> dict[str, Any]:  # made when it is needed: large networks take a while
        network = " ".join(str(self.network()).split())
        epochs = {"epochs": self.epochs} if self.epochs else {}
        protocol = {"dataset": self.dataset, "network": network, "training": self.training | epochs}
        more: dict[str, Any] = {"augment": self.augment.__name__} if self.augment else {}
        more |= {"quick": QUICK} if self.quick else {}
        return protocol | more

    def add_options(self, parser: ArgumentParser) -> None:
        own = parser.add_argument
        own("--pairs", type=int, help="pairs of networks (default: 5)")
        every = "rows (default: all of the published table that there are)"
        own("--methods", nargs="+", choices=tuple(METHODS), help=every)
        epochs = f"of training (default: the published {self.training['epochs']})"
        own("--epochs", type=int, help=epochs)
        own("--quick", action="store_true", help="a trial in minutes; its numbers mean nothing")
        own("--engine", choices=ENGINES, default="local", help="what computes (default: local)")
        own("--workers", type=int, help="processes of engine local (default: all cores)")

    def check(
        self,
        *,
        pairs: int | None = None,
        methods: Sequence[str] | None = None,
        epochs: int | None = None,
        quick: bool = False,
        engine: str = "here",
        workers: int | None = None,
    ) -> None:
        for value, name in ((pairs, "pairs"), (epochs, "epochs")):
            if value is not None:
                check_whole(value, name, low=1)
        check_truth(quick, "quick")
        check_engine(engine, workers)
        keys = self.methods() if methods is None else methods
        keys = check_list(keys, "methods", "keys of methods")
        for key in keys:
            method(check_word(key, "each of methods"))  # refuses an unknown one
            if key in LEARNING and key not in self.learned:
                raise ValueError(f"method {key!r} is not fitted to the networks of {self.name}")
        if len(set(keys)) != len(keys):
            raise ValueError(f"methods must be different ones, not {list(keys)}")

    def methods(self) -> list[str]:
        """Keys of all rows of the published table that this book can measure here."""
        missing = set(LEARNING) - self.learned.keys()
        return [key for key in self.published if key in METHODS and key not in missing]

    def run(self, *, epochs: int | None = None, quick: bool = False, **options: Any) -> Record:
        """As `Experiment.run`; other epochs, or a quick trial, are other protocols."""
        self.check(epochs=epochs, quick=quick)
        asked = replace(self, epochs=epochs)
        if quick:
            few = QUICK["epochs"]
            learned = {key: own.hurried(few) for key, own in self.learned.items()}
            asked = replace(self, epochs=epochs or few, quick=True, learned=learned)
        return super(Comparison, asked).run(**options)

    def measure(
        self,
        lab: Lab,
        *,
        pairs: int | None = None,
        methods: Sequence[str] | None = None,
        engine: str = "here",
        workers: int | None = None,
    ) -> dict[str, Any]:
        """Rows of the scoreboard for every method and pair."""
        if self.quick:
            lab = replace(lab, dataset=_few(lab.dataset))
        keys = self.methods() if methods is None else methods
        pairs = pairs or (1 if self.quick else 5)
        seeds = islice((s for s in count() if s not in LEARN_FROM), 2 * pairs)
        both = list(zip(*[seeds] * 2, strict=True))  # pairs, one after another
        points = {"points": QUICK["points"]} if self.quick else {}
        training = self.protocol["training"] | ({"augment": self.augment} if self.augment else {})
        pieces = Pieces(lab, self.network, training, self.learned, points)
        computes = make_engine(engine, lab, workers)
        found = run_tasks(pieces.tasks(both, keys), lab, computes, self.name)
        ends = [found[pieces.end(seed).name] for pair in both for seed in pair]
        rows = [found[pieces.row(key, pair).name] for key in keys for pair in both]
        return {
            "hardware": hardware(lab.device, threads=1),
            "ends": ends,
            "rows": rows,
            "summary": summary(ends, rows),
            "doubtful": self.doubtful,
            "learned": {k: own.options for k, own in self.learned.items() if k in keys},
        }

    def rows(self, content: dict[str, Any]) -> list[tuple[str, str, str]]:
        cells = self._cells(content)
        return [(label, ours["test"], theirs["test"]) for label, ours, theirs in cells]

    def table(self, content: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
        """Training and test split, this book's numbers beside the published ones."""
        head = [f"{s}, {whose}" for s in ("Train", "Test") for whose in ("this book", "published")]
        body = [
            [label, *(numbers[s] for s in SPLITS for numbers in (ours, theirs))]
            for label, ours, theirs in self._cells(content)
        ]
        return ["Method", *head], body

    def _cells(self, content: dict[str, Any]) -> list[tuple[str, dict[str, str], dict[str, str]]]:
        """For each row a label, this book's and the published numbers; first the ends."""
        ours, theirs = content["summary"], content["published"]
        alone = _pairs(content) == 1  # a single value has no deviation
        # Older records, which name no doubts, show what was measured.
        keys = dict.fromkeys([ENDS, *(theirs if "doubtful" in content else ()), *ours])
        found = []
        for key in keys:
            mark = " (?)" if key in content.get("doubtful", {}) else ""
            label = METHODS[key].name if key in METHODS else NAMES[key]
            own, paper = ours.get(key, {}), theirs.get(key, {})
            if alone and key != ENDS:
                own = {s: numbers[:1] for s, numbers in own.items()}
            numbers = {s: _percent(own, s) for s in SPLITS}
            others = {s: _percent(paper, s, mark) for s in SPLITS}
            found.append((label, numbers, others))
        return found

    def heading(self, content: dict[str, Any]) -> str:
        pairs = _pairs(content)
        return f"Record({self.name}, {pairs} pair{'s' * (pairs > 1)}{self._less(content)})"

    def line(self, what: str, ours: str, theirs: str) -> str:
        ours = f"{ours} on test" if ours else "not measured"
        return f"{what}: {ours}" + (f", published {theirs}" if theirs else "")

    def caption(self, content: dict[str, Any]) -> str:
        pairs = _pairs(content)
        said = f"Mean ± deviation over {pairs} pairs of networks" if pairs > 1 else "One pair"
        doubts = content.get("doubtful", {})
        why = "; ".join(dict.fromkeys(doubts.values()))
        said += self._less(content) + (f"; (?): {why}" if why else "")
        for key, own in content.get("learned", {}).items():
            said += f"; {METHODS[key].name}: {', '.join(f'{k} {v}' for k, v in own.items())}"
        return said

    def _less(self, content: dict[str, Any]) -> str:
        """How the protocol falls short of the published one, to stand after a comma."""
        protocol = content["protocol"]
        epochs, paper = protocol["training"]["epochs"], self.training["epochs"]
        less = "" if epochs == paper else f", {epochs} epochs instead of {paper}"
        if quick := protocol.get("quick"):
            less += f", a trial on {quick['train']} images whose numbers mean nothing"
        return less

    def stem(self, content: dict[str, Any]) -> str:
        """A record of fewer epochs, or of a trial, never takes the place of the real one."""
        epochs = content["protocol"]["training"]["epochs"]
        if "quick" in content["protocol"]:
            return f"{self.name}-quick"
        return self.name if epochs == self.training["epochs"] else f"{self.name}-{epochs}-epochs"


def _few(dataset: Any) -> Any:
    """The first images of a data set, for a quick trial."""
    few = {s: getattr(dataset, s) for s in SPLITS}
    few = {s: split.take(min(QUICK[s], len(split))) for s, split in few.items()}
    return replace(dataset, **few)


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


def _pairs(content: dict[str, Any]) -> int:
    return len(content["ends"]) // 2


def _percent(numbers: dict[str, Sequence[float]], split: str, mark: str = "") -> str:
    """Mean ± deviation, or a value that stands alone; nothing if there is none."""
    if split not in numbers:
        return ""
    return " ± ".join(f"{value:.2f}" for value in numbers[split]) + mark
