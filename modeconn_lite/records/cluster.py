"""Tasks computed on a Ray cluster: an optional extra, pip install 'modeconn-lite[ray]'."""

import contextlib
from collections.abc import Sequence
from typing import Any

from .lab import Lab
from .tasks import Task
from .workers import TRIES, Engine, Outcome, cores, outcome


class Ray(Engine):
    """The Ray cluster that there is, else one of this machine's cores.

    Each task takes one core, and one GPU if the lab is on GPUs. Tasks of a node that goes away are
    begun again on another one. Only this process writes results, so that nodes need not share
    its disk; where they do, trainings keep their checkpoints there.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab, self.under_way = lab, {}

    def __enter__(self) -> "Ray":
        import ray  # pyright: ignore[reportMissingImports]

        self.ray, self.own = ray, not ray.is_initialized()
        if self.own:
            try:
                ray.init(address="auto", log_to_driver=False)
            except ConnectionError:
                ray.init(num_cpus=cores(), include_dashboard=False, log_to_driver=False)
        self.shared = ray.put(self.lab)
        gpus = 1 if self.lab.device.type == "cuda" else 0
        # A task that raises is not tried again; one whose node or process is gone is.
        self.remote = ray.remote(_on_ray).options(num_cpus=1, num_gpus=gpus, max_retries=TRIES - 1)
        return self

    @property
    def capacity(self) -> int:
        """Twice what runs at once: the next tasks are there before a core is free."""
        return max(2, 2 * int(self.ray.cluster_resources().get("CPU", 1)))

    def start(self, task: Task, inputs: Sequence[Any]) -> None:
        reference = self.remote.remote([self.shared], task, inputs)
        self.under_way[reference] = task.name

    def wait(self, seconds: float) -> list[Outcome]:
        every = list(self.under_way)
        ready, _ = self.ray.wait(every, num_returns=len(every), timeout=seconds)
        return [(self.under_way.pop(reference), self._get(reference)) for reference in ready]

    def _get(self, reference: Any) -> Any:
        try:
            return self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            return RuntimeError(str(error).strip().splitlines()[-1])  # the lines above lead there

    def __exit__(self, *_: Any) -> None:
        for reference in self.under_way:
            with contextlib.suppress(Exception):  # it may have ended, or its node be gone
                self.ray.cancel(reference, force=True)
        self.under_way = {}
        if self.own:
            self.ray.shutdown()


_LABS: dict[str, Lab] = {}


def _on_ray(shared: list[Any], task: Task, inputs: Sequence[Any]) -> Any:
    """What a process of a Ray cluster does. It fetches the lab with its images once, not each time.

    The reference comes in a list: by itself, Ray would replace it by what it refers to.
    """
    import ray  # pyright: ignore[reportMissingImports]

    name = shared[0].hex()
    if name not in _LABS:
        _LABS.clear()
        _LABS[name] = ray.get(shared[0])
    return outcome(_LABS[name], task, inputs)
