"""Tasks computed in this process, or in processes of this machine.

Every task runs on one thread of torch, so that its result depends neither on where it is computed
nor on how many are computed at once.
"""

import contextlib
import os
import pickle
import shutil
import signal
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing import connection, get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path as FilePath
from typing import Any

import torch
from tqdm.auto import tqdm

from ..weights import to
from .lab import Lab
from .tasks import Task

TRIES = 3  # so often is a task given out whose process was killed under it
Outcome = tuple[str, Any]  # a task's name, and its result or the exception that it raised


class Engine(ABC):
    """What computes tasks, in a `with` block; leaving it ends whatever is under way."""

    capacity: int  # so many tasks may be under way at once

    @abstractmethod
    def start(self, task: Task, inputs: Sequence[Any]) -> None:
        """Compute a task, whose needs have these results."""

    @abstractmethod
    def wait(self, seconds: float) -> list[Outcome]:
        """What has ended since, waiting for so long at most; several outcomes or none."""

    def __enter__(self) -> "Engine":
        return self

    @abstractmethod
    def __exit__(self, *_: Any) -> None: ...


def outcome(lab: Lab, task: Task, inputs: Sequence[Any]) -> Any:
    """A task's result, tensors on the CPU, or the exception that it raised; on one thread."""
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        result = task.call(lab, *task.arguments, *inputs)
        return result if task.about is None else to(result, "cpu")
    except Exception as error:
        return error
    finally:
        torch.set_num_threads(threads)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Here(Engine):
    """One task after another, in this process."""

    capacity = 1

    def __init__(self, lab: Lab) -> None:
        self.lab, self.done = lab, []

    def start(self, task: Task, inputs: Sequence[Any]) -> None:
        self.done.append((task.name, outcome(self.lab, task, inputs)))

    def wait(self, seconds: float) -> list[Outcome]:
        done, self.done = self.done, []
        return done

    def __exit__(self, *_: Any) -> None:
        self.done = []


@dataclass
class _Worker:
    """A process, the pipe to it, and what it is doing: a task and its inputs."""

    process: BaseProcess
    pipe: connection.Connection
    doing: tuple[Task, Sequence[Any]] | None = None


class Local(Engine):
    """Processes of this machine, never more than cores or than tasks that are ready.

    A process that is killed under a task is replaced, and its task given out again. Processes end
    with the one that started them, however that ends.
    """

    def __init__(self, lab: Lab, workers: int | None = None) -> None:
        on_gpu = lab.device.type == "cuda"
        default = torch.cuda.device_count() if on_gpu else cores()
        self.capacity = max(1, min(workers or default, cores()))
        self.lab, self.crew, self.deaths = lab, [], {}
        self.context = get_context("spawn")  # a copy by fork would lack torch's threads, and CUDA

    def __enter__(self) -> "Local":
        self.folder = tempfile.TemporaryDirectory(prefix="modeconn-")
        # In a file, not in a pipe: nobody waits while a process wakes up and reads the images.
        with open(self._lab_file, "wb") as file:
            pickle.dump(self.lab, file, protocol=pickle.HIGHEST_PROTOCOL)
        return self

    @property
    def _lab_file(self) -> FilePath:
        return FilePath(self.folder.name) / "lab.pickle"

    def start(self, task: Task, inputs: Sequence[Any]) -> None:
        worker = next((w for w in self.crew if w.doing is None), None) or self._hire()
        worker.doing = task, inputs
        with contextlib.suppress(OSError):  # it has died meanwhile: `wait` will see that
            worker.pipe.send_bytes(pickle.dumps((task, inputs)))

    def _hire(self) -> _Worker:
        ours, theirs = self.context.Pipe()
        number = len(self.crew)
        process = self.context.Process(
            target=_serve, args=(theirs, self._lab_file, number), daemon=True
        )
        with _one_thread_in_environment():
            process.start()
        theirs.close()
        worker = _Worker(process, ours)
        self.crew.append(worker)
        return worker

    def wait(self, seconds: float) -> list[Outcome]:
        busy = {w.pipe: w for w in self.crew if w.doing is not None}
        outcomes = []
        for pipe in connection.wait(list(busy), seconds):
            worker = busy[pipe]
            assert worker.doing is not None
            task, inputs = worker.doing
            try:
                result = pickle.loads(worker.pipe.recv_bytes())
            except (EOFError, OSError):  # it was killed
                result = self._lost(worker, task, inputs)
                if result is None:
                    continue
            worker.doing = None
            outcomes.append((task.name, result))
        return outcomes

    def _lost(self, worker: _Worker, task: Task, inputs: Sequence[Any]) -> Exception | None:
        """Give the task of a dead process out again; after some times, an error instead."""
        worker.process.join()
        worker.pipe.close()
        self.crew.remove(worker)
        self.deaths[task.name] = self.deaths.get(task.name, 0) + 1
        if self.deaths[task.name] < TRIES:
            self.start(task, inputs)
            return None
        return RuntimeError(
            f"its process ended {TRIES} times, the last time with code {worker.process.exitcode}"
            " (−9: killed, as by a machine out of memory); fewer workers need less of it"
        )

    def __exit__(self, *_: Any) -> None:
        for worker in self.crew:
            worker.process.terminate()
        for worker in self.crew:
            worker.process.join()
            worker.pipe.close()
        self.crew = []
        self.folder.cleanup()


def _serve(pipe: connection.Connection, lab_file: FilePath, number: int) -> None:
    """What a process of `Local` does: task after task, until it is ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started it
    threading.Thread(target=_end_with_parent, args=(lab_file.parent,), daemon=True).start()
    tqdm.set_lock(threading.RLock())  # by default one between processes, which would outlive this
    lab = pickle.loads(lab_file.read_bytes())
    if lab.device == torch.device("cuda"):
        gpu = number % torch.cuda.device_count()
        lab = replace(lab, device=torch.device("cuda", gpu))
    while True:
        task, inputs = pickle.loads(pipe.recv_bytes())
        pipe.send_bytes(_sendable(outcome(lab, task, inputs)))


def _end_with_parent(folder: FilePath) -> None:
    """When it is gone, clear what it shared and could not clear itself, if it was killed."""
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _sendable(result: Any) -> bytes:
    """A result as bytes; an exception that cannot be sent as one that can."""
    try:
        content = pickle.dumps(result, protocol=pickle.HIGHEST_PROTOCOL)
        if isinstance(result, Exception):
            pickle.loads(content)  # some can be written, but not read
        return content
    except Exception as error:
        told = result if isinstance(result, Exception) else error
        return pickle.dumps(RuntimeError(f"{type(told).__name__}: {told}"))


@contextlib.contextmanager
def _one_thread_in_environment() -> Iterator[None]:
    """For the libraries that a new process loads before torch could tell them."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        os.environ.pop("OMP_NUM_THREADS")
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before
