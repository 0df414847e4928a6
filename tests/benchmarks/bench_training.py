"""Training 16 live-tier networks at once against one after another."""

from time import perf_counter

import torch
import torch.nn.functional as F
from clock import timed

from modeconn_lite import data, train, zoo


def plain_loop(network, split, epochs):
    """What one would write without this package: one network, torch.optim.SGD."""
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for _ in range(epochs):
        for rows in torch.randperm(len(split)).split(64):
            optimiser.zero_grad()
            F.cross_entropy(network(split.x[rows]), split.y[rows]).backward()
            optimiser.step()


def main():
    torch.set_num_threads(2)
    split, epochs = data.load("digits").train, 20
    network = zoo.network("digits")
    train(network, split, [0], epochs=1)
    together, _ = timed(
        lambda: train(network, split, range(16), epochs=epochs), 1, clock=perf_counter
    )
    alone, _ = timed(
        lambda: [train(network, split, [seed], epochs=epochs) for seed in range(16)],
        1,
        clock=perf_counter,
    )
    plain, _ = timed(
        lambda: [plain_loop(network, split, epochs) for _ in range(16)], 1, clock=perf_counter
    )
    print(
        f"16 digits networks, {epochs} epochs: {together:.1f} s at once;"
        f" one after another {alone / together:.1f}x longer,"
        f" with torch.optim.SGD {plain / together:.1f}x longer"
    )


if __name__ == "__main__":
    main()
