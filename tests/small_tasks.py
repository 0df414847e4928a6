"""Tasks for tests of the engines: they must stand in a module that other processes can import."""

import os
import signal
import time
from pathlib import Path

import torch

from modeconn_lite import data
from modeconn_lite.records.lab import Lab
from modeconn_lite.records.tasks import Task


def small_lab(folder: Path, **options) -> Lab:
    return Lab(folder, data.load("digits"), torch.device("cpu"), **options)


def total(lab, *numbers):
    """The sum of what it takes, and where it was computed."""
    value = sum(n if isinstance(n, int) else n["value"] for n in numbers)
    return {"value": value, "process": os.getpid(), "threads": torch.get_num_threads()}


def total_after(lab, seconds, *numbers):
    time.sleep(seconds)
    return total(lab, *numbers)


def ones(lab, size):
    return {"x": torch.ones(size)}


def size_of(lab, *tensors):
    return {"value": sum(int(t["x"].sum()) for t in tensors)}


def fail(lab, *_):
    raise LookupError("nothing there")


class Unsendable(Exception):
    """It can be written, but not read back."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def fail_strangely(lab):
    raise Unsendable("this", "that")


def die(lab, *numbers):
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(lab, *numbers):
    mark = lab.folder / "died"
    if not mark.exists():
        mark.touch()
        die(lab)
    return total(lab, *numbers)


def chain(lab: Lab) -> list[Task]:
    """Numbers, tensors, and sums of them."""
    about = {"name": lab.key("ones")}
    return [
        Task("one", total, (1,)),
        Task("two", total, (1,), ("one",)),
        Task("four", total, (1,), ("one", "two")),
        Task("ones", ones, (5,), about=about),
        Task("five", size_of, (), ("ones",)),
    ]
