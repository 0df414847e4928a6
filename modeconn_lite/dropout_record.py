"""The MNIST experiments of Kuditipudi et al. (2019), run again, and the record they leave.

    python -m modeconn_lite.scoreboard mnist-cnn3-dropout --device cpu

Five networks are trained; then their loss is measured against the share of channels that is kept,
on the line to a network of which a fifth is dropped, and on the whole dropout path from one to
another, for two pairs. Narrow networks show how few channels would do. Networks and measurements
are kept as soon as they are done.
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from . import data
from .dropout import walk
from .evaluation import evaluate, profile
from .halves import dropped, find_kept, layers_of, stability
from .markup import percent
from .networks import cnn3
from .neurons import mute
from .paths import segment
from .runs import kept, trained_network
from .scoreboard import html_table
from .weights import Weights, to

NAME = "mnist-cnn3-dropout"
PROTOCOL: dict[str, Any] = {
    "network": "3 convolutions 3×3, 32 channels, no biases; linear layer to 10 classes",
    "training": {
        "epochs": 5,  # 5000 steps, as many as the authors', of 60 images instead of 64
        "rate": 0.1,
        "batch": 60,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "schedule": "constant",
    },
    "seeds": [0, 1, 2, 3, 4],
    "pairs": [[0, 1], [2, 3]],
    "keep": [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95],
    "masks": 20,
    "narrow": [1, 2, 4, 6, 8, 10],  # channels of each convolution
    "images": 4096,  # of the training set, as in the authors' code
    "search images": 1000,
}
PUBLISHED = {
    "protocol": "5000 steps of batch 64, SGD 0.1; 20 masks on 5 networks",
    "accuracy at keep 0.8": "98 %, masks drawn again",
    "line to a dropped network": "no hill (Figure 2)",
    "narrow networks": "they fit (Figure 2)",
    "path between two networks": "not measured",
}


@dataclass(frozen=True)
class DropoutRecord:
    """What the run left, beside what is published. Displays as a table."""

    content: dict[str, Any] = field(repr=False)

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        """(what, this book, published)."""
        c, p = self.content, PUBLISHED
        ends = [end["test"] for end in c["ends"]]
        at, half = (
            next(k["accuracy"] for k in c["keep"] if k["keep"] == share) for share in (0.8, 0.5)
        )
        line, pairs = c["line"], c["pairs"]
        narrow = next(n for n in c["narrow"] if n["width"] == 4)

        def each(*keys: str) -> str:
            """A figure of every pair, in per cent."""
            found = pairs
            for key in keys:
                found = [f[key] for f in found]
            return " and ".join(percent(f) for f in found)

        worst = max(pairs, key=lambda pair: pair["path"]["train"]["highest"])["path"]
        return [
            (f"Test accuracy of {len(ends)} networks", f"{_span(ends)}", ""),
            ("Random masks at keep 0.8, accuracy", _span(at), p["accuracy at keep 0.8"]),
            ("Random masks at keep 0.5, accuracy", _span(half), ""),
            (
                "Line to a net of keep 0.8: barrier (nats)",
                f"{line['barrier']:.3f}",
                p["line to a dropped network"],
            ),
            (
                "Four channels instead of 32: test accuracy",
                percent(narrow["test"]),
                p["narrow networks"],
            ),
            ("Straight line between two: worst test accuracy", each("linear", "test", "worst"), ""),
            (
                f"Dropout path of {worst['pieces']} pieces: worst test accuracy",
                each("path", "test", "worst"),
                p["path between two networks"],
            ),
            (
                "Highest training loss on it, and the bound",
                f"{worst['train']['highest']:.3f} ≤ {worst['bound']:.3f}",
                "",
            ),
        ]

    def __repr__(self) -> str:
        lines = [f"  {what}: {ours}" for what, ours, _ in self.rows]
        return "\n".join([f"DropoutRecord({self.content['experiment']})", *lines])

    def _repr_html_(self) -> str:
        c = self.content
        caption = (
            f"{c['about']}. Seeds {c['protocol']['seeds']}, pairs {c['protocol']['pairs']};"
            f" {c['hardware']},"
            f" torch {c['versions']['torch']}. Published: {c['source']}."
        )
        return html_table(["", "this book", "published"], self.rows, caption)


def _span(values: list[float]) -> str:
    """Lowest to highest, and the mean."""
    low, high, mean = (percent(f) for f in (min(values), max(values), sum(values) / len(values)))
    return f"{low} to {high}, mean {mean}"


def measure(
    *,
    device: torch.device | str = "cpu",
    root: str | FilePath | None = None,
    network: nn.Module | None = None,
    dataset: data.Dataset | None = None,
    protocol: dict[str, Any] = PROTOCOL,
) -> dict[str, Any]:
    """Run the experiment, or what is left of it, and return what was measured.

    network, dataset, protocol : other ones are for tests; a record uses the defaults.
    """
    folder = data.cache_folder(root) / "runs" / NAME
    dataset = dataset or data.load("mnist", root=root)
    network = network or cnn3(32)
    splits = {"train": dataset.train, "test": dataset.test}

    def trained(net: nn.Module, seed: int, name: str) -> tuple[Weights, dict[str, Any]]:
        options = {"device": device, "training": protocol["training"]}
        file = folder / f"{name}.safetensors"
        w = to(trained_network(net, dataset.train, seed, file, **options), torch.device(device))
        return w, {on: evaluate(net, w, split)[1] for on, split in splits.items()}

    def part(name: str, *make: Any) -> Any:
        return kept(folder / f"{name}.json", partial(*make))

    weights, ends = [], []
    for seed in tqdm(protocol["seeds"], desc="networks"):
        w, scores = trained(network, seed, f"seed-{seed}")
        weights.append(w)
        ends.append({"seed": seed, **scores})
    narrow = []
    for width in tqdm(protocol["narrow"], desc="narrow networks"):
        net = cnn3(width, side=dataset.train.x.shape[-1])
        narrow.append({"width": width, **trained(net, 0, f"width-{width}")[1]})

    some, masks = dataset.train.take(protocol["images"]), protocol["masks"]
    few, seen = some.take(protocol["search images"]), {"train": some, "test": dataset.test}
    shares = [
        part(f"keep-{k}-{len(weights)}x{masks}", _at_share, network, weights, some, k, masks)
        for k in tqdm(protocol["keep"], desc="shares kept")
    ]
    pairs = []
    for i, j in tqdm(protocol["pairs"], desc="paths"):
        ab, name = [weights[i], weights[j]], f"{i}-{j}"
        linear = part(f"linear-{name}", _seen, network, segment(*ab), seen, 21)
        path = part(f"path-{name}", _dropout_path, network, ab, some, dataset.test, few)
        pairs.append({"seeds": [i, j], "linear": linear, "path": path})
    line = part("line", _line_to_dropped, network, weights[0], some)
    return {"ends": ends, "narrow": narrow, "keep": shares, "line": line, "pairs": pairs}


def _random_mask(network: nn.Module, share: float, generator: torch.Generator):
    return {
        layer.name: torch.randperm(layer.size, generator=generator)[
            : max(1, round(share * layer.size))
        ]
        for layer in layers_of(network)
    }


def _at_share(
    network: nn.Module, weights: list[Weights], split: data.Split, share: float, masks: int
) -> dict[str, Any]:
    """Loss and accuracy of all networks under random masks that keep this share of channels."""
    generator = torch.Generator().manual_seed(round(1000 * share))
    seen = [
        evaluate(network, mute(network, w, _random_mask(network, share, generator)), split)
        for w in weights
        for _ in range(masks)
    ]
    return {"keep": share, "loss": [s[0] for s in seen], "accuracy": [s[1] for s in seen]}


def _line_to_dropped(network: nn.Module, w: Weights, split: data.Split) -> dict[str, Any]:
    """The line to the best of 20 networks that keep four fifths, at 101 points."""
    generator = torch.Generator().manual_seed(0)
    masks = [_random_mask(network, 0.8, generator) for _ in range(20)]
    few = split.take(len(split) // 4)
    ends = [mute(network, w, mask) for mask in masks]
    seen = profile(
        network, segment(w, min(ends, key=lambda e: evaluate(network, e, few)[0])), split, 101
    )
    accuracy = [float(seen.accuracy[0]), float(seen.accuracy[-1])]
    return {"loss": seen.loss.tolist(), "accuracy": accuracy, "barrier": seen.barrier()}


def _seen(network, path, splits: dict[str, data.Split], points: int) -> dict[str, Any]:
    found = {}
    for name, split in splits.items():
        seen = profile(network, path, split, points)
        found[name] = {
            "t": seen.t.tolist(),
            "loss": seen.loss.tolist(),
            "accuracy": seen.accuracy.tolist(),
            "worst": seen.worst_accuracy,
            "highest": seen.worst_loss,
        }
    return found


def _dropout_path(
    network: nn.Module,
    weights: list[Weights],
    train_split: data.Split,
    test: data.Split,
    search: data.Split,
) -> dict[str, Any]:
    kept = [find_kept(network, w, search, method="greedy", trials=20, seed=0) for w in weights]
    whole = walk(network, *weights, *kept).merged()
    costs = [stability(network, w, k, train_split) for w, k in zip(weights, kept, strict=True)]
    points = 4 * len(whole.moves) + 1
    seen = _seen(network, whole.path(), {"train": train_split, "test": test}, points)
    epsilon = max(0.0, *(c for cost in costs for c in cost))
    ends = seen["train"]["loss"][0], seen["train"]["loss"][-1]
    return {
        "moves": whole.moves,
        "pieces": len(whole.moves),
        "kept": [{name: units.tolist() for name, units in k.items()} for k in kept],
        "epsilon": costs,
        "half": [
            evaluate(network, dropped(network, w, k), test)[1]
            for w, k in zip(weights, kept, strict=True)
        ],
        "bound": max(ends) + epsilon,
        **seen,
    }
