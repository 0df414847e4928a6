"""The MNIST experiments of Kuditipudi et al. (2019), run again, and more pairs and paths of them.

Five networks are trained; then their loss is measured against the share of channels that is kept,
on the line to a network of which a fifth is dropped, and on the whole dropout path from one to
another, for two pairs. Narrow networks show how few channels would do.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from .. import data
from ..evaluation import evaluate, profile
from ..methods.dropout import merged, walk
from ..methods.stability import dropped, find_kept, layers_of, stability
from ..networks import cnn3
from ..neurons import mute
from ..paths import segment
from ..tables import percent, span
from ..weights import Weights
from .base import Experiment
from .lab import Lab

PROTOCOL: dict[str, Any] = {
    "network": "3 convolutions 3×3, 32 channels, no biases; linear layer to 10 classes",
    "channels": 32,
    "training": {
        "epochs": 5,  # 5000 steps, as the authors' scripts say, of 60 images instead of 64
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
    "protocol": "5000 or 10,000 steps of batch 64, SGD 0.1; 20 masks on 5 networks",
    "line to a dropped network": "no hill, to one above 98 % (Figure 2)",
    "narrow networks": "they fit (Figure 2)",
    "path between two networks": "not measured",
}


@dataclass(frozen=True, kw_only=True)
class DropoutOnMnist(Experiment):
    """Shares kept, the line to a dropped network, dropout paths, narrow networks."""

    settings: dict[str, Any]

    @property
    def protocol(self) -> dict[str, Any]:
        return self.settings

    def measure(self, lab: Lab) -> dict[str, Any]:
        """Everything that the record holds."""
        p, dataset = self.protocol, lab.dataset
        side = dataset.train.x.shape[-1]
        splits = {"train": dataset.train, "test": dataset.test}

        def trained(channels: int, seed: int, name: str) -> tuple[Weights, dict[str, float]]:
            net = cnn3(channels, side=side)
            w = lab.trained(net, dataset.train, seed, name, **p["training"])
            return w, {on: evaluate(net, w, split).accuracy for on, split in splits.items()}

        weights, ends, narrow = [], [], []
        for seed in tqdm(p["seeds"], desc="networks"):
            w, scores = trained(p["channels"], seed, f"seed-{seed}")
            weights.append(w)
            ends.append({"seed": seed, **scores})
        for width in tqdm(p["narrow"], desc="narrow networks"):
            narrow.append({"width": width, **trained(width, 0, f"width-{width}")[1]})

        network = cnn3(p["channels"], side=side)
        some, masks = dataset.train.take(p["images"]), p["masks"]
        few, seen = some.take(p["search images"]), {"train": some, "test": dataset.test}
        shares = [
            lab.cached(f"keep-{share}", _at_share, network, weights, some, share, masks)
            for share in tqdm(p["keep"], desc="shares kept")
        ]
        pairs = []
        for i, j in tqdm(p["pairs"], desc="paths"):
            ab, name = [weights[i], weights[j]], f"{i}-{j}"
            linear = lab.cached(f"linear-{name}", _seen, network, segment(*ab), seen, 21)
            path = lab.cached(f"path-{name}", _dropout_path, network, ab, seen, few)
            pairs.append({"seeds": [i, j], "linear": linear, "path": path})
        line = lab.cached("line", _line_to_dropped, network, weights[0], some)
        return {"ends": ends, "narrow": narrow, "keep": shares, "line": line, "pairs": pairs}

    def rows(self, content: dict[str, Any]) -> list[tuple[str, str, str]]:
        c, theirs = content, content["published"]
        ends = [end["test"] for end in c["ends"]]
        at = {level["keep"]: level["accuracy"] for level in c["keep"]}
        four = next(n["test"] for n in c["narrow"] if n["width"] == 4)
        lines = [percent(pair["linear"]["test"]["worst"]) for pair in c["pairs"]]
        walks = [percent(pair["path"]["test"]["worst"]) for pair in c["pairs"]]
        worst = max((pair["path"] for pair in c["pairs"]), key=lambda w: w["train"]["highest"])
        bound = f"{worst['train']['highest']:.3f} ≤ {worst['bound']:.3f}"
        on_path = f"Dropout path of {worst['pieces']} pieces: worst test accuracy"
        to_dropped = f"{c['line']['barrier']:.3f}"
        return [
            (f"Test accuracy of {len(ends)} networks", span(ends), ""),
            ("Random masks at keep 0.8, accuracy", span(at[0.8]), ""),
            ("Random masks at keep 0.5, accuracy", span(at[0.5]), ""),
            (
                "Line to the best of 20 nets of keep 0.8: barrier (nats)",
                to_dropped,
                theirs["line to a dropped network"],
            ),
            (
                "Four channels instead of 32: test accuracy",
                percent(four),
                theirs["narrow networks"],
            ),
            ("Straight line between two: worst test accuracy", " and ".join(lines), ""),
            (on_path, " and ".join(walks), theirs["path between two networks"]),
            ("Highest training loss on it, and the bound", bound, ""),
        ]

    def heading(self, content: dict[str, Any]) -> str:
        return f"DropoutRecord({self.name})"

    def caption(self, content: dict[str, Any]) -> str:
        p = content["protocol"]
        return f"Seeds {p['seeds']}, pairs {p['pairs']}"


EXPERIMENT = DropoutOnMnist(
    name="mnist-cnn3-dropout",
    about="A network of three convolutions on MNIST, channels dropped",
    source="Kuditipudi et al. (2019), Figure 2, and the authors' code",
    dataset="mnist",
    settings=PROTOCOL,
    published=PUBLISHED,
)


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
    scores = [
        evaluate(network, mute(network, w, _random_mask(network, share, generator)), split)
        for w in weights
        for _ in range(masks)
    ]
    losses, accuracies = zip(*scores, strict=True)
    return {"keep": share, "loss": losses, "accuracy": accuracies}


def _line_to_dropped(network: nn.Module, w: Weights, split: data.Split) -> dict[str, Any]:
    """The line to the best of 20 networks that keep four fifths, at 101 points."""
    generator = torch.Generator().manual_seed(0)
    masks = [_random_mask(network, 0.8, generator) for _ in range(20)]
    few = split.take(len(split) // 4)
    ends = [mute(network, w, mask) for mask in masks]
    best = min(ends, key=lambda end: evaluate(network, end, few).loss)
    seen = profile(network, segment(w, best), split, 101)
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
    splits: dict[str, data.Split],
    search: data.Split,
) -> dict[str, Any]:
    kept = [find_kept(network, w, search, method="greedy", trials=20, seed=0) for w in weights]
    path = merged(walk(network, *weights, *kept))
    both = list(zip(weights, kept, strict=True))
    costs = [stability(network, w, k, splits["train"]) for w, k in both]
    pieces = len(path.labels)
    seen = _seen(network, path, splits, 4 * pieces + 1)
    epsilon = max(0.0, *(c for cost in costs for c in cost))
    ends = seen["train"]["loss"][0], seen["train"]["loss"][-1]
    halves = [evaluate(network, dropped(network, w, k), splits["test"]).accuracy for w, k in both]
    return {
        "moves": "".join(path.labels),
        "pieces": pieces,
        "kept": [{name: units.tolist() for name, units in k.items()} for k in kept],
        "epsilon": costs,
        "half": halves,
        "bound": max(ends) + epsilon,
        **seen,
    }
