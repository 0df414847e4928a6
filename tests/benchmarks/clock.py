"""How all benchmarks take time: the least of some runs, which other programs disturb least."""

import time
from collections.abc import Callable
from typing import Any


def timed(
    call: Callable[[], Any], times: int = 3, *, clock: Callable[[], float] = time.process_time
) -> tuple[float, Any]:
    """Least seconds of so many runs, and what the last one gave.

    The processor's seconds do not mind what else the machine does; `time.perf_counter` shows what
    a second thread gains.
    """
    best, result = float("inf"), None
    for _ in range(times):
        start = clock()
        result = call()
        best = min(best, clock() - start)
    return best, result
