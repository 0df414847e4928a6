"""Where a run computes, and where it keeps what is finished, as soon as it is finished."""

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import nn

from .. import data
from ..checkpoints import architecture, digest
from ..files import BadFile, Damaged, check_file, read_json, write_json
from ..storage import read, save
from ..training import train
from ..weights import Weights, check_weights, to


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

    def key(self, name: str) -> str:
        """What a file of this name says that it is."""
        return f"{self.folder.name}/{name}"

    def find(self, name: str) -> Any:
        """What an earlier run kept as JSON under this name; None, if it has to be made."""
        file = check_file(self.folder / f"{name}.json")
        if self.fresh or not file.exists():
            return None
        try:
            kept = read_json(file)
            _check_key(file, kept.get("name"), self.key(name))
            return kept["content"]
        except BadFile as error:
            _warn(error)
            return None

    def keep(self, name: str, content: Any) -> Any:
        """Keep what was made; the same as it will be found, tuples and all."""
        write_json({"name": self.key(name), "content": content}, self.folder / f"{name}.json")
        return json.loads(json.dumps(content))

    def cached(self, name: str, make: Callable[..., Any], *arguments: Any) -> Any:
        """What an earlier run made of this name, else `make(*arguments)`, kept as JSON."""
        found = self.find(name)
        return self.keep(name, make(*arguments)) if found is None else found

    def find_weights(
        self, name: str, about: dict[str, str], network: nn.Module | None = None
    ) -> Weights | None:
        """Tensors that were kept under this name and with these words; None, if to be made.

        A network's must also be of its layers.
        """
        file = self.folder / f"{name}.safetensors"
        if not file.exists():
            return None
        try:
            weights = _own(file, about, network)
        except BadFile as error:
            _warn(error)
            return None
        self.part(name).unlink(missing_ok=True)  # of a run killed just before its own unlink
        return weights

    def keep_weights(self, name: str, weights: Weights, about: dict[str, str]) -> None:
        """Keep tensors; the checkpoint of their training goes only when they are safe."""
        save(weights, self.folder / f"{name}.safetensors", about)
        self.part(name).unlink(missing_ok=True)

    def part(self, name: str) -> FilePath:
        """The file in which a training stops and goes on."""
        return self.folder / f"{name}.part"

    def about(self, network: nn.Module, seed: int, name: str) -> dict[str, str]:
        """The words that are kept with the network of a seed."""
        layers = digest(network.buffers(), architecture(network))
        return {"name": f"{self.key(name)}, seed {seed}", "layers": layers}

    def train(
        self,
        network: nn.Module,
        split: data.Split,
        seed: int,
        name: str,
        *,
        progress: bool = False,
        **training: Any,
    ) -> Weights:
        """Train the network of a seed, or go on from its checkpoint, which stays."""
        part = self.part(name)
        options = {"device": self.device, "progress": progress, **training}
        # On a machine of a cluster that does not share the folder, training has no checkpoint.
        options |= {"checkpoint": part} if self.folder.is_dir() else {}
        try:
            (weights,) = train(network, split, [seed], **options).weights
        except BadFile as error:  # the checkpoint of another training
            _warn(error)
            part.unlink()
            (weights,) = train(network, split, [seed], **options).weights
        return weights

    def trained(
        self, network: nn.Module, split: data.Split, seed: int, name: str, **training: Any
    ) -> Weights:
        """The network of a seed: from its file, else from its checkpoint, else from scratch."""
        about = self.about(network, seed, name)
        weights = self.find_weights(name, about, network)
        if weights is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            weights = self.train(network, split, seed, name, **{"progress": True} | training)
            self.keep_weights(name, weights, about)
        return to(weights, self.device)


def _own(file: FilePath, about: dict[str, str], network: nn.Module | None) -> Weights:
    """The weights in a file of this key and of this network."""
    weights, theirs = read(file)
    _check_key(file, theirs.get("name"), about["name"])
    if theirs != about:
        how = "was made otherwise" if network is None else "is of a network with other layers"
        raise Damaged(file, how)
    return weights if network is None else check_weights(weights, like=network)


def _check_key(file: FilePath, theirs: Any, ours: str) -> None:
    if theirs != ours:
        raise Damaged(file, f"is {theirs!r} instead of {ours!r}")


def _warn(error: BadFile) -> None:
    warnings.warn(f"{error.file} {error.why}; it is made again", stacklevel=3)
