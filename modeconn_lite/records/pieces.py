"""The tasks of a comparison: networks, what is learned from some of them, ends and rows."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import nn

from ..checkpoints import digest
from ..evaluation import evaluate
from ..scoreboard import row
from ..weights import Weights, to
from .lab import Lab
from .tasks import Task

LEARN_FROM = range(10, 26)  # seeds of the 16 networks that methods learn from; none is connected
Network = Callable[[], nn.Module]
Pair = tuple[int, int]


@dataclass(frozen=True)
class Learned:
    """How a method that learns from other networks first, as flows do, is fitted.

    Attributes
    ----------
    fit : function
        (network, list of Weights, training split, checkpoint=path, **options) -> what was
        learned, as a dictionary of tensors.
    connect : function
        (network, a, b, training split, what was learned) -> path.
    options : dict
        Of `fit`, as JSON; with other ones it is learned and measured anew.
    work : int
        What it costs, in epochs of a network's training.
    """

    fit: Callable[..., dict[str, torch.Tensor]]
    connect: Callable[..., Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    work: int = 30

    def hurried(self, epochs: int) -> "Learned":
        """The same with so few epochs, if it has any."""
        fewer = {key: epochs for key in self.options if key == "epochs"}
        return replace(self, options={**self.options, **fewer}, work=epochs)


@dataclass(frozen=True)
class Pieces:
    """The tasks of a comparison. Their work is in tenths of an epoch, roughly.

    Attributes
    ----------
    lab : Lab
    network : function that gives the architecture
    training : dict
        Options of `training.train`.
    learned : dict
        By key, how methods that learn are fitted.
    points : dict
        Options of `scoreboard.row`.
    """

    lab: Lab
    network: Network
    training: dict[str, Any]
    learned: Mapping[str, Learned]
    points: dict[str, Any]

    def tasks(self, pairs: Sequence[Pair], keys: Sequence[str]) -> list[Task]:
        """All of them, pair after pair, so that whatever is stopped has whole pairs."""
        plain = [key for key in keys if key not in self.learned]
        return [
            *(task for pair in pairs for task in self._pair(pair, plain)),
            *self._learning([key for key in keys if key in self.learned], pairs),
        ]

    def _pair(self, pair: Pair, keys: Sequence[str]) -> Iterator[Task]:
        for seed in pair:
            yield self.trained(seed)
        for seed in pair:
            yield self.end(seed)
        for key in keys:
            yield self.row(key, pair)

    def _learning(self, keys: Sequence[str], pairs: Sequence[Pair]) -> Iterator[Task]:
        if keys:
            yield from map(self.trained, LEARN_FROM)
        for key in keys:
            yield self.lesson(key)
        for pair in pairs:
            for key in keys:
                yield self.row(key, pair)

    @cached_property
    def _like(self) -> nn.Module:
        return self.network()

    def trained(self, seed: int) -> Task:
        """The network of a seed."""
        name = f"seed-{seed}"
        return Task(
            name,
            _train,
            (self.network, seed, name, self.training),
            about=self.lab.about(self._like, seed, name),
            network=self._like,
            work=10 * self.training["epochs"],
        )

    def end(self, seed: int) -> Task:
        """How it does on both splits."""
        needs = (f"seed-{seed}",)
        return Task(f"end-{seed}", _evaluate, (self.network, seed), needs, work=2)

    def lesson(self, key: str) -> Task:
        """What a method learns from the networks that are there for it."""
        name, own = f"learned-{key}-{self._mark(key)}", self.learned[key]
        needs = tuple(f"seed-{seed}" for seed in LEARN_FROM)
        about = {"name": self.lab.key(name), "options": json.dumps(own.options, sort_keys=True)}
        return Task(name, _learn, (self.network, own, name), needs, about, work=10 * own.work)

    def row(self, key: str, pair: Pair) -> Task:
        """A row of the scoreboard."""
        name, needs = "row-{}-{}-{}".format(key, *pair), tuple(f"seed-{seed}" for seed in pair)
        if key not in self.learned:
            return Task(name, _row, (self.network, key, pair, self.points), needs, work=20)
        arguments = (self.network, key, pair, self.points, self.learned[key])
        needs += (self.lesson(key).name,)
        return Task(f"{name}-{self._mark(key)}", _learned_row, arguments, needs, work=20)

    def _mark(self, key: str) -> str:
        return digest([], json.dumps(self.learned[key].options, sort_keys=True))[:6]


# What workers call, with the lab as their machine has it.


def _train(lab: Lab, network: Network, seed: int, name: str, training: dict[str, Any]) -> Weights:
    return lab.train(network(), lab.dataset.train, seed, name, **training)


def _evaluate(lab: Lab, network: Network, seed: int, weights: Weights) -> dict[str, Any]:
    net, here = network(), to(weights, lab.device)
    splits = {"train": lab.dataset.train, "test": lab.dataset.test}
    return {"seed": seed, **{s: evaluate(net, here, part).accuracy for s, part in splits.items()}}


def _learn(
    lab: Lab, network: Network, learned: Learned, name: str, *many: Weights
) -> dict[str, torch.Tensor]:
    here = [to(weights, lab.device) for weights in many]
    part: FilePath | None = lab.part(name) if lab.folder.is_dir() else None
    return learned.fit(network(), here, lab.dataset.train, checkpoint=part, **learned.options)


def _row(
    lab: Lab, network: Network, key: str, pair: Pair, points: dict[str, Any], *ends: Weights
) -> dict[str, Any]:
    a, b = (to(weights, lab.device) for weights in ends)
    return asdict(row(key, network(), a, b, lab.dataset, pair=pair, **points))


def _learned_row(
    lab: Lab,
    network: Network,
    key: str,
    pair: Pair,
    points: dict[str, Any],
    learned: Learned,
    *ends: Weights,
) -> dict[str, Any]:
    a, b, lesson = (to(weights, lab.device) for weights in ends)
    connect = partial(learned.connect, learned=lesson)
    own: dict[str, Any] = {"pair": pair, "connect": connect, **points}
    return asdict(row(key, network(), a, b, lab.dataset, **own))
