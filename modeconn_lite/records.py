"""Published comparisons run again at their own size, and the records they leave.

Each finished network and each finished row is kept, so that an interrupted run goes on where it
stopped:

    python -m modeconn_lite.scoreboard mnist-1hl --pairs 5 --device cpu
"""

import argparse
import hashlib
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from . import data, dropout_record
from .evaluation import evaluate
from .networks import mlp
from .runs import kept, provenance, trained_network, write_json
from .scoreboard import METHODS, html_table, row
from .weights import to


@dataclass(frozen=True)
class Experiment:
    """A published comparison, its protocol, and the numbers that were printed."""

    about: str
    source: str
    dataset: str
    network: Callable[[], nn.Module]
    training: dict[str, Any]
    published: dict[str, dict[str, tuple[float, float]]]


EXPERIMENTS = {
    "mnist-1hl": Experiment(
        "784-2000-10 on MNIST, worst accuracy (%) along the path",
        "Anokhin and Yarotsky (2020), Table 1; optimiser details from the authors' code",
        "mnist",
        lambda: mlp((784, 2000, 10)),
        {
            "epochs": 30,
            "rate": 0.01,
            "batch": 128,
            "momentum": 0.9,
            "weight_decay": 1e-4,
            "schedule": "plateau",
        },
        {
            "Linear": {"train": (96.54, 0.40), "test": (95.87, 0.40)},
            "End points": {"train": (99.14, 0.01), "test": (98.01, 0.03)},
        },
    ),
}


def run(
    name: str,
    *,
    pairs: int = 5,
    methods: Sequence[str] = ("linear",),
    device: torch.device | str = "cpu",
    root: str | FilePath | None = None,
    fresh: bool = False,
    command: str = "",
) -> dict[str, Any]:
    """Run an experiment at paper scale, or what is left of it, and return its record.

    Pair i connects the networks of seeds 2i and 2i + 1, so pairs share no network. Networks and
    rows are kept under `cache_folder(root)/runs` as soon as they are done; `fresh` measures the
    rows again, as one wants after changing a method.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"no experiment called {name!r}; choose one of {tuple(EXPERIMENTS)}")
    if pairs < 1:
        raise ValueError(f"at least one pair is needed, not {pairs}")
    experiment = EXPERIMENTS[name]
    dataset = data.load(experiment.dataset, root=root)
    network = experiment.network()
    # Another protocol is another folder: no network of the one passes for one of the other.
    protocol = json.dumps([experiment.dataset, str(network), experiment.training], sort_keys=True)
    mark = hashlib.sha256(protocol.encode()).hexdigest()[:8]
    folder = data.cache_folder(root) / "runs" / f"{name}-{mark}"

    weights, ends = [], []
    for seed in tqdm(range(2 * pairs), desc="networks"):
        file = folder / f"seed-{seed}.safetensors"
        options = {"device": device, "training": experiment.training}
        trained = trained_network(network, dataset.train, seed, file, **options)
        weights.append(to(trained, torch.device(device)))
        scores = [evaluate(network, weights[-1], s) for s in (dataset.train, dataset.test)]
        ends.append({"seed": seed, "train": scores[0][1], "test": scores[1][1]})

    rows = []
    for method in methods:
        for i in tqdm(range(pairs), desc=method):
            pair = (2 * i, 2 * i + 1)
            ends_of = [weights[k] for k in pair]
            measure = partial(row, method, network, *ends_of, dataset, pair=pair)
            file = folder / f"row-{method}-{pair[0]}-{pair[1]}.json"
            rows.append(kept(file, lambda measure=measure: asdict(measure()), fresh=fresh))
    return {
        "experiment": name,
        "about": experiment.about,
        "source": experiment.source,
        "protocol": experiment.training,
        **provenance(device, command),
        "ends": ends,
        "rows": rows,
        "summary": _summary(ends, rows),
        "published": experiment.published,
    }


def _summary(
    ends: list[dict[str, Any]], rows: list[dict[str, Any]]
) -> dict[str, dict[str, tuple[float, float]]]:
    """Mean and deviation over pairs, in per cent, in the form of the published tables."""

    def spread(values: list[float]) -> tuple[float, float]:
        deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        return round(100 * statistics.mean(values), 2), round(100 * deviation, 2)

    table = {"End points": {s: spread([end[s] for end in ends]) for s in ("train", "test")}}
    for method in dict.fromkeys(r["method"] for r in rows):
        table[method] = {
            s: spread([r[f"worst_{s}"] for r in rows if r["method"] == method])
            for s in ("train", "test")
        }
    return table


@dataclass(frozen=True)
class Record:
    """A paper-scale run beside the published numbers. Displays as a table."""

    content: dict[str, Any] = field(repr=False)

    def __repr__(self) -> str:
        lines = [f"Record({self.content['experiment']}, {len(self.content['ends']) // 2} pairs)"]
        for method, cells in self.content["summary"].items():
            theirs = self.content["published"].get(method, {}).get("test")
            line = f"  {method}: {_percent(cells['test'])} on test"
            lines.append(line + (f", published {_percent(theirs)}" if theirs else ""))
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        body = []
        for method, cells in self.content["summary"].items():
            theirs = self.content["published"].get(method, {})
            body.append(
                [method]
                + [
                    _percent(numbers[s]) if s in numbers else ""
                    for s in ("train", "test")
                    for numbers in (cells, theirs)
                ]
            )
        caption = (
            f"{self.content['about']}. Mean ± deviation over {len(self.content['ends']) // 2} pairs"
            f" of networks; {self.content['hardware']}, torch {self.content['versions']['torch']}."
            f" Published: {self.content['source']}."
        )
        columns = [
            f"{s}, {whose}" for s in ("Train", "Test") for whose in ("this book", "published")
        ]
        return html_table(["Method", *columns], body, caption)


def _percent(numbers: Sequence[float]) -> str:
    return f"{numbers[0]:.2f} ± {numbers[1]:.2f}"


def run_dropout(
    *,
    device: torch.device | str = "cpu",
    root: str | FilePath | None = None,
    command: str = "",
    protocol: dict[str, Any] = dropout_record.PROTOCOL,
    **options: Any,
) -> dict[str, Any]:
    """The record of the dropout experiments on MNIST; see `dropout_record`."""
    options |= {"protocol": protocol}
    found = dropout_record.measure(device=device, root=root, **options)
    return {
        "experiment": dropout_record.NAME,
        "about": "A network of three convolutions on MNIST, channels dropped",
        "source": "Kuditipudi et al. (2019), Figure 2, and the authors' code",
        "protocol": protocol,
        **provenance(device, command),
        **found,
        "summary": {},
        "published": dropout_record.PUBLISHED,
    }


def read_record(file: str | FilePath) -> Record | dropout_record.DropoutRecord:
    """Read a record of a paper-scale run.

    Raises
    ------
    ValueError
        If the file is missing or no record; the message names the command that makes it.
    """
    file = FilePath(file)
    try:
        content = json.loads(file.read_text())
        missing = {"summary", "published", "ends"} - set(content)
        if missing:
            raise ValueError(f"it lacks {sorted(missing)}")
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file} is no record ({error}); make it with"
            f" python -m modeconn_lite.scoreboard {file.stem} --out {file.parent}"
        ) from error
    if content.get("experiment") == dropout_record.NAME:
        return dropout_record.DropoutRecord(content)
    return Record(content)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m modeconn_lite.scoreboard")
    parser.add_argument("experiment", choices=(*EXPERIMENTS, dropout_record.NAME))
    parser.add_argument("--pairs", type=int, default=5, help="pairs of networks (default: 5)")
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=["linear"])
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--root", type=FilePath, help="cache folder (default: $MODECONN_DATA)")
    parser.add_argument("--fresh", action="store_true", help="measure every row again")
    parser.add_argument("--out", type=FilePath, default=FilePath("book/records"))
    chosen = parser.parse_args(arguments)
    words = arguments if arguments is not None else sys.argv[1:]
    shared: dict[str, Any] = {
        "device": chosen.device,
        "root": chosen.root,
        "command": f"python -m modeconn_lite.scoreboard {' '.join(words)}",
    }
    if chosen.experiment == dropout_record.NAME:
        record = run_dropout(**shared)
    else:
        rows = {"pairs": chosen.pairs, "methods": chosen.methods, "fresh": chosen.fresh}
        record = run(chosen.experiment, **rows, **shared)
    write_json(record, chosen.out / f"{chosen.experiment}.json")
