"""Engines by name: what computes the tasks of a run."""

import importlib.util
from typing import Any

import torch

from ..checks import check_choice, check_whole
from ..weights import check_device
from .cluster import Ray
from .lab import Lab
from .workers import Engine, Here, Local

ENGINES = ("here", "local", "ray")


def check_engine(engine: Any, workers: Any) -> None:
    """Refuse an engine that there is not.

    Raises
    ------
    ValueError
        If it is unknown, Ray is not installed, or workers are no number or not of this engine.
    """
    check_choice(engine, "engine", ENGINES)
    if workers is not None:
        check_whole(workers, "workers", low=1)
        if engine != "local":
            raise ValueError(f"workers are of engine 'local'; {engine!r} has its own number")
    if engine == "ray" and importlib.util.find_spec("ray") is None:
        raise ValueError(
            "engine 'ray' needs Ray, which is not installed: pip install 'modeconn-lite[ray]', or"
            " use engine 'local'"
        )


def check_place(device: Any, engine: str | None) -> torch.device:
    """The device; that of a Ray cluster need not be on this machine."""
    if engine == "ray" and str(device) == "cuda":
        return torch.device("cuda")
    return check_device(device)


def make_engine(engine: str, lab: Lab, workers: int | None = None) -> Engine:
    """An engine by its name; see `check_engine`.

    Parameters
    ----------
    engine : str
        "here": one task after another, in this process. "local": in processes of this machine.
        "ray": on the Ray cluster there is, else on one of this machine's cores.
    lab : Lab
    workers : int, optional
        Processes of "local"; by default, and at most, as many as there are cores; on GPUs, one
        for each GPU by default.
    """
    check_engine(engine, workers)
    return Local(lab, workers) if engine == "local" else Here(lab) if engine == "here" else Ray(lab)
