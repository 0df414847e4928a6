"""What every paper-scale run shares: a protocol, a folder of finished parts, and a record.

An experiment measures and says how its record reads. What is done is kept as soon as it is done,
so that a run that was stopped goes on where it was.
"""

import json
import platform
from abc import ABC, abstractmethod
from argparse import ArgumentParser
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any

import torch

from .. import data
from ..checkpoints import digest
from ..checks import check_dataset, check_truth, check_word
from ..files import check_file, clear_leftovers, write_json
from ..tables import html_table
from .engines import check_place
from .lab import Lab


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
    published : dict
        The numbers that were printed.
    """

    name: str
    about: str
    source: str
    dataset: str
    published: dict[str, Any]

    @property
    @abstractmethod
    def protocol(self) -> dict[str, Any]:
        """All that fixes the numbers, as JSON; with another one, parts are kept elsewhere."""

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

    def stem(self, content: dict[str, Any]) -> str:
        """Name of the record's file."""
        return self.name

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
        check_truth(fresh, "fresh")
        check_word(command, "command")
        where = check_place(device, options.get("engine"))
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
            **provenance(where, command),
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
        stem = self.experiment.stem(self.content)
        write_json(self.content, check_file(folder, "folder") / f"{stem}.json")

    def only(self, *keys: str) -> "Record":
        """The record with these rows of its comparison alone, such as `only("ends", "linear")`.

        Raises
        ------
        ValueError
            If it compares nothing, or has no such row.
        """
        by_row = ("summary", "published", "doubtful", "learned")
        parts = {name: self.content[name] for name in by_row if name in self.content}
        known = dict.fromkeys(key for part in parts.values() for key in part)
        for key in keys:
            if "summary" not in self.content or key not in known:
                raise ValueError(
                    f"{self.experiment.name} has no row {key!r}; its rows are {list(known)}"
                )
        parts = {name: {k: part[k] for k in keys if k in part} for name, part in parts.items()}
        return replace(self, content=self.content | parts)

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


def provenance(device: torch.device, command: str) -> dict[str, Any]:
    """Command, versions and hardware, for a record."""
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    return {"command": command, "versions": versions, "hardware": hardware(device)}


def hardware(device: torch.device, threads: int | None = None) -> str:
    """What a run computed on; threads are those of torch, if not told."""
    if device.type == "cuda":
        here = torch.cuda.is_available()
        return torch.cuda.get_device_name(device) if here else "GPUs of a Ray cluster"
    return f"{platform.machine()} CPU, threads: {threads or torch.get_num_threads()}"
