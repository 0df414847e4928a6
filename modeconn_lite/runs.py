"""What every paper-scale run needs: finished parts are kept, and found again after a stop."""

import json
import os
import platform
from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import nn

from . import data
from .training import train
from .weights import Weights, save
from .weights import load as read_weights


def trained_network(
    network: nn.Module,
    split: data.Split,
    seed: int,
    file: FilePath,
    *,
    device: torch.device | str,
    training: dict[str, Any],
) -> Weights:
    """The trained network of a seed: from its file, else from its checkpoint, else from scratch."""
    part = file.with_suffix(".part")
    if file.exists():
        try:
            return read_weights(file)
        except ValueError:  # damaged: make it again
            file.unlink()
    options = {"device": device, "progress": True, "checkpoint": part}
    (trained,) = train(network, split, [seed], **options, **training).weights
    save(trained, file)
    part.unlink(missing_ok=True)  # only now that the network is safe
    return trained


def kept(file: FilePath, make: Callable[[], Any], *, fresh: bool = False) -> Any:
    """What an earlier run wrote to this JSON file, else what `make` returns, written to it."""
    if fresh or not file.exists():
        write_json(make(), file)
    return json.loads(file.read_text())


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
