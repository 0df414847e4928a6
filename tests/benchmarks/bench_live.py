"""One step of a live slider on the digits network, picture included."""

import statistics
import time

import torch

from modeconn_lite import PathExplorer, data, segment, zoo


def main():
    torch.set_num_threads(2)
    a, b = zoo.load("digits")[:2]
    explorer = PathExplorer(zoo.network("digits"), segment(a, b), data.load("digits"))
    live = explorer.live()
    times = []
    for k in range(201):
        start = time.perf_counter()
        live.sliders[0].value = k / 200
        times.append(time.perf_counter() - start)
    times.sort()
    print(
        f"a live step: median {1000 * statistics.median(times):.1f} ms,"
        f" slowest of 200 {1000 * times[-1]:.1f} ms"
    )


if __name__ == "__main__":
    main()
