"""What every paper-scale run shares: a protocol, a folder of finished parts, and a record.

An experiment measures and says how its record reads. What is done is kept as soon as it is done,
so that a run that was stopped goes on where it was.
"""

import hashlib
import json
import os
import platform
from abc import ABC, abstractmethod
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import nn

from .. import data
from ..tables import html_table
from ..training import train
from ..weights import Weights, save, to
from ..weights import load as read_weights


@dataclass(frozen=True)
class Lab:
    """Where a run computes, and where it keeps what is finished.

    Attributes
    ----------
    folder : path
        One for each experiment and protocol: no network of the one passes for one of the other.
    root : path or None
        The cache folder, for data sets; see `data.cache_folder`.
    device : torch.device
    fresh : bool
        Measure again what was measured, as one wants after changing a method. Networks stay.
    """

    folder: FilePath
    root: FilePath | None
    device: torch.device
    fresh: bool = False

    def cached(self, name: str, make: Callable[..., Any], *arguments: Any) -> Any:
        """What an earlier run made of this name, else `make(*arguments)`, kept as JSON."""
        file = self.folder / f"{name}.json"
        if self.fresh or not file.exists():
            write_json(make(*arguments), file)
        return json.loads(file.read_text())

    def trained(
        self, network: nn.Module, split: data.Split, seed: int, name: str, **training: Any
    ) -> Weights:
        """The network of a seed: from its file, else from its checkpoint, else from scratch."""
        file = self.folder / f"{name}.safetensors"
        part = file.with_suffix(".part")
        if file.exists():
            try:
                return to(read_weights(file), self.device)
            except ValueError:  # damaged: make it again
                file.unlink()
        options = {"device": self.device, "progress": True, "checkpoint": part}
        (weights,) = train(network, split, [seed], **options, **training).weights
        save(weights, file)
        part.unlink(missing_ok=True)  # only now that the network is safe
        return to(weights, self.device)


@dataclass(frozen=True, kw_only=True)
class Experiment(ABC):
    """A published experiment, run again.

    Attributes
    ----------
    name : str
        Of the command and of the record's file.
    about, source : str
        What is measured, and where it was published.
    protocol : dict
        All that fixes the numbers, as JSON; another protocol keeps its parts elsewhere.
    published : dict
        The numbers that were printed.
    """

    name: str
    about: str
    source: str
    protocol: dict[str, Any]
    published: dict[str, Any]

    def add_options(self, parser: ArgumentParser) -> None:  # noqa: B027 - most have none
        """What `measure` can be told on the command line, beside what all experiments can."""

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
        **options: Any,
    ) -> "Record":
        """Measure, or do what is left of it, and return the record.

        Parameters
        ----------
        device : where to train and measure
        root : cache folder, for data sets and for what is finished; see `data.cache_folder`
        fresh : measure everything again, with the networks there are
        command : what the record says it was made with
        options : of `measure`
        """
        mark = hashlib.sha256(json.dumps(self.protocol, sort_keys=True).encode()).hexdigest()[:8]
        folder = data.cache_folder(root) / "runs" / f"{self.name}-{mark}"
        lab = Lab(folder, FilePath(root) if root else None, torch.device(device), fresh)
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

    experiment: Experiment = field(repr=False)
    content: dict[str, Any] = field(repr=False)

    def write(self, folder: str | FilePath) -> None:
        """Write the record where `read_record` finds it, all or nothing."""
        write_json(self.content, FilePath(folder) / f"{self.experiment.name}.json")

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


def write_json(content: Any, file: FilePath) -> None:
    """Write JSON, all or nothing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        part.write_text(json.dumps(content, indent=1) + "\n")
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)


def provenance(device: torch.device | str, command: str) -> dict[str, Any]:
    """Command, versions and hardware, for a record."""
    hardware = f"{platform.machine()} CPU, threads: {torch.get_num_threads()}"
    if torch.device(device).type == "cuda":
        hardware = torch.cuda.get_device_name(device)
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    return {"command": command, "versions": versions, "hardware": hardware}
