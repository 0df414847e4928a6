"""What every paper-scale run shares: a protocol, a folder of finished parts, and a record.

An experiment measures and says how its record reads. What is done is kept as soon as it is done,
so that a run that was stopped goes on where it was.
"""

import json
import platform
import warnings
from abc import ABC, abstractmethod
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import nn

from .. import data
from ..checkpoints import architecture, digest
from ..checks import check_dataset
from ..files import BadFile, Damaged, check_file, clear_leftovers, read_json, write_json
from ..storage import read, save
from ..tables import html_table
from ..training import train
from ..weights import Weights, check_device, check_weights, to


@dataclass(frozen=True)
class Lab:
    """Where a run computes, and where it keeps what is finished.

    Attributes
    ----------
    folder : path
        One for each experiment, protocol and data: no network of the one passes for one of the
        other.
    dataset : Dataset
        What networks are trained and measured on.
    device : torch.device
    fresh : bool
        Measure again what was measured, as one wants after changing a method. Networks stay.

    Every file holds its checksum and its key: what it is and of which folder. A file that is
    damaged, or another's, is made again, with a warning.
    """

    folder: FilePath
    dataset: data.Dataset
    device: torch.device
    fresh: bool = False

    def _key(self, name: str) -> str:
        return f"{self.folder.name}/{name}"

    def cached(self, name: str, make: Callable[..., Any], *arguments: Any) -> Any:
        """What an earlier run made of this name, else `make(*arguments)`, kept as JSON."""
        file = self.folder / f"{name}.json"
        if file.exists() and not self.fresh:
            try:
                kept = read_json(file)
                _check_key(file, kept.get("name"), self._key(name))
                return kept["content"]
            except BadFile as error:
                _warn(error)
        content = make(*arguments)
        write_json({"name": self._key(name), "content": content}, file)
        return json.loads(json.dumps(content))  # the same at first as later, tuples and all

    def trained(
        self, network: nn.Module, split: data.Split, seed: int, name: str, **training: Any
    ) -> Weights:
        """The network of a seed: from its file, else from its checkpoint, else from scratch."""
        file = self.folder / f"{name}.safetensors"
        part = file.with_suffix(".part")
        key = f"{self._key(name)}, seed {seed}"
        about = {"name": key, "layers": digest(network.buffers(), architecture(network))}
        if file.exists():
            try:
                weights = _own(file, about, network)
            except BadFile as error:
                _warn(error)
            else:
                part.unlink(missing_ok=True)  # of a run that was killed just before its own unlink
                return to(weights, self.device)
        options = {"device": self.device, "progress": True, "checkpoint": part} | training
        try:
            (weights,) = train(network, split, [seed], **options).weights
        except BadFile as error:  # the checkpoint of another training
            _warn(error)
            part.unlink()
            (weights,) = train(network, split, [seed], **options).weights
        save(weights, file, about)
        part.unlink(missing_ok=True)  # only now that the network is safe
        return to(weights, self.device)


def _own(file: FilePath, about: dict[str, str], network: nn.Module) -> Weights:
    """The weights in a file of this key and of this network."""
    weights, theirs = read(file)
    _check_key(file, theirs.get("name"), about["name"])
    if theirs != about:
        raise Damaged(file, "is of a network with other layers")
    return check_weights(weights, like=network)


def _check_key(file: FilePath, theirs: Any, ours: str) -> None:
    if theirs != ours:
        raise Damaged(file, f"is {theirs!r} instead of {ours!r}")


def _warn(error: BadFile) -> None:
    warnings.warn(f"{error.file} {error.why}; it is made again", stacklevel=3)


@dataclass(frozen=True, kw_only=True)
class Experiment(ABC):
    """A published experiment, run again.

    Attributes
    ----------
    name : str
        Of the command and of the record's file.
    about, source : str
        What is measured, and where it was published.
    dataset : str
        As `data.load` knows it.
    protocol : dict
        All that fixes the numbers, as JSON; with another one, or on other data, parts are kept
        elsewhere.
    published : dict
        The numbers that were printed.
    """

    name: str
    about: str
    source: str
    dataset: str
    protocol: dict[str, Any]
    published: dict[str, Any]

    def add_options(self, parser: ArgumentParser) -> None:  # noqa: B027 - most have none
        """What `measure` can be told on the command line, beside what all experiments can."""

    def check(self, **options: Any) -> None:
        """Refuse options of `measure` that make no sense, before hours of training."""
        if options:
            raise ValueError(f"{self.name} has no options, so none called {', '.join(options)}")

    @abstractmethod
    def measure(self, lab: Lab, **options: Any) -> dict[str, Any]:
        """Run the experiment, or what is left of it; what was found, as JSON."""

    @abstractmethod
    def rows(self, content: dict[str, Any]) -> list[tuple[str, str, str]]:
        """The record in words: (what, this book, published)."""

    @abstractmethod
    def caption(self, content: dict[str, Any]) -> str:
        """On which networks the numbers of the table were measured."""

    def table(self, content: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
        """Head and body of the table."""
        return ["", "this book", "published"], [list(row) for row in self.rows(content)]

    def heading(self, content: dict[str, Any]) -> str:
        """First line of the record's repr."""
        return f"Record({self.name})"

    def line(self, what: str, ours: str, theirs: str) -> str:
        """One row of it."""
        return f"{what}: {ours}"

    def run(
        self,
        *,
        device: torch.device | str = "cpu",
        root: str | FilePath | None = None,
        fresh: bool = False,
        command: str = "",
        dataset: data.Dataset | None = None,
        **options: Any,
    ) -> "Record":
        """Measure, or do what is left of it, and return the record.

        Parameters
        ----------
        device : where to train and measure
        root : cache folder, for data sets and for what is finished; see `data.cache_folder`
        fresh : measure everything again, with the networks there are
        command : what the record says it was made with
        dataset : another one than the experiment's, for tests
        options : of `measure`
        """
        self.check(**options)
        where = check_device(device)
        if dataset is None:
            dataset = data.load(self.dataset, root=root)
        check_dataset(dataset, "dataset")
        tensors = [t for s in (dataset.train, dataset.test) for t in (s.x, s.y)]
        mark = digest(tensors, json.dumps(self.protocol, sort_keys=True))
        folder = data.cache_folder(root) / "runs" / f"{self.name}-{mark[:8]}"
        clear_leftovers(folder)
        lab = Lab(folder, dataset, where, fresh)
        found = self.measure(lab, **options)
        content = {
            "experiment": self.name,
            "about": self.about,
            "source": self.source,
            "protocol": self.protocol,
            **provenance(device, command),
            **found,
            "published": self.published,
        }
        return Record(self, json.loads(json.dumps(content)))


@dataclass(frozen=True)
class Record:
    """A paper-scale run beside the published numbers. Displays as a table."""

    experiment: Experiment
    content: dict[str, Any]

    def write(self, folder: str | FilePath) -> None:
        """Write the record where `read_record` finds it, all or nothing, with its checksum."""
        write_json(self.content, check_file(folder, "folder") / f"{self.experiment.name}.json")

    def __repr__(self) -> str:
        e = self.experiment
        lines = [f"  {e.line(*row)}" for row in e.rows(self.content)]
        return "\n".join([e.heading(self.content), *lines])

    def _repr_html_(self) -> str:
        c, (head, body) = self.content, self.experiment.table(self.content)
        caption = (
            f"{c['about']}. {self.experiment.caption(c)}; {c['hardware']},"
            f" torch {c['versions']['torch']}. Published: {c['source']}."
        )
        return html_table(head, body, caption)


def provenance(device: torch.device | str, command: str) -> dict[str, Any]:
    """Command, versions and hardware, for a record."""
    hardware = f"{platform.machine()} CPU, threads: {torch.get_num_threads()}"
    if torch.device(device).type == "cuda":
        hardware = torch.cuda.get_device_name(device)
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    return {"command": command, "versions": versions, "hardware": hardware}
