"""A paper-scale run as tasks: what is finished is found, the rest is made by an engine, and kept.

Tasks know nothing of where they are computed: `workers` and `cluster` do.
"""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

from torch import nn
from tqdm.auto import tqdm

from .lab import Lab

if TYPE_CHECKING:
    from .workers import Engine


@dataclass(frozen=True)
class Task:
    """One piece of a run: a network, a flow, a row.

    Attributes
    ----------
    name : str
        Of the task, and of the file in which its result is kept.
    call : function
        `call(lab, *arguments, *results)`, where the results are those of `needs`. It must be
        picklable, hence stand in a module, and so must be what it takes and gives. It gives
        weights or another dictionary of tensors, if there is an `about`, else JSON.
    arguments : tuple
    needs : tuple of str
        Names of the tasks whose results it takes.
    about : dict of str to str, optional
        Words that are kept with tensors: what they are, and of which folder.
    network : nn.Module, optional
        Whose weights the tensors are.
    work : int
        What it costs, in any unit: the bar tells the time left by it.
    """

    name: str
    call: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    needs: tuple[str, ...] = ()
    about: dict[str, str] | None = None
    network: nn.Module | None = None
    work: int = 1

    def find(self, lab: Lab) -> Any:
        """The result, if an earlier run kept it and it is sound; else None."""
        if self.about is None:
            return lab.find(self.name)
        return lab.find_weights(self.name, self.about, self.network)

    def keep(self, lab: Lab, result: Any) -> Any:
        """Keep a result, and give it as it will be found."""
        if self.about is None:
            return lab.keep(self.name, result)
        lab.keep_weights(self.name, result, self.about)
        return result


def run_tasks(tasks: Sequence[Task], lab: Lab, engine: "Engine", title: str) -> dict[str, Any]:
    """Find or make the results of all tasks; those kept as JSON, by name.

    Tasks are begun in the order in which they are given, as far as their needs allow. A result is
    kept as soon as it is there. A task that fails stops only those that need it.

    Parameters
    ----------
    tasks : sequence of Task
    lab : Lab
    engine : Engine
        What computes them.
    title : str
        Of the progress bar.

    Raises
    ------
    ValueError
        If two tasks have one name, a need is no task, or needs go in a circle.
    RuntimeError
        In the end, if tasks failed; the message names them, and all others are kept.
    """
    place = {task.name: k for k, task in enumerate(tasks)}
    if len(place) < len(tasks):
        raise ValueError("two tasks have the same name; each result needs a file of its own")
    if strange := {need for task in tasks for need in task.needs} - place.keys():
        raise ValueError(f"tasks need {sorted(strange)}, which are no tasks")
    sorter = TopologicalSorter({task.name: task.needs for task in tasks})
    try:
        sorter.prepare()
    except CycleError as error:
        circle = " → ".join(error.args[1])
        raise ValueError(f"tasks need each other in a circle: {circle}; leave one out") from error
    lab.folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    failed: dict[str, Exception] = {}
    waiting: list[int] = []  # places of tasks that are ready and were not found, as a heap
    under_way: set[str] = set()
    form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed} < {remaining}{postfix}"
    work = sum(task.work for task in tasks)
    bar = tqdm(total=work, desc=title, bar_format=form, smoothing=0, miniters=0)

    def finish(task: Task, result: Any) -> None:
        if task.about is None:
            found[task.name] = result
        sorter.done(task.name)
        bar.update(task.work)

    with bar, engine:
        while True:
            while ready := sorter.get_ready():
                for task in (tasks[place[name]] for name in ready):
                    if (result := task.find(lab)) is None:
                        heapq.heappush(waiting, place[task.name])
                    else:
                        finish(task, result)
                        bar.initial += task.work  # found, not made: no measure of the speed
            while waiting and len(under_way) < engine.capacity:
                task = tasks[heapq.heappop(waiting)]
                needs = (tasks[place[need]] for need in task.needs)
                inputs = [found[n.name] if n.name in found else n.find(lab) for n in needs]
                under_way.add(task.name)
                engine.start(replace(task, network=None), inputs)  # that is for `find`, and large
            if not under_way:
                break
            for name, result in engine.wait(seconds=1):
                under_way.remove(name)
                task = tasks[place[name]]
                if not isinstance(result, Exception):
                    try:
                        result = task.keep(lab, result)
                    except (TypeError, ValueError) as error:  # it is nothing that can be kept
                        result = error
                if isinstance(result, Exception):
                    failed[name] = result
                else:
                    finish(task, result)
            bar.set_postfix_str(f"{len(under_way)} under way", refresh=False)
            bar.update(0)  # the clock goes on, as often as TQDM_MININTERVAL allows
    if failed:
        name, error = next(iter(failed.items()))
        raise RuntimeError(
            f"{len(failed)} of {len(tasks)} tasks failed, and what needs them was left out; all"
            f" others are kept. {', '.join(failed)}: {type(error).__name__}: {error}"
        ) from error
    return found
