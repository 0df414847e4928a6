"""Matching of wide networks: seconds, and the share spent in SciPy's assignment.

Weight matching of three hidden layers, by the clock; transport of one with 2,000 neurons of 795
numbers against the assignment alone, in seconds of the processor, and against POT's exact plan.
"""

import time

import torch
from clock import timed
from scipy.optimize import linear_sum_assignment

from modeconn_lite import fresh_weights, neurons
from modeconn_lite.methods import symmetry, transport
from modeconn_lite.networks import mlp


def main():
    torch.set_num_threads(1)  # a busy second core would cost more than it gives
    solve = neurons.linear_sum_assignment
    for width in (256, 512, 1024):
        network = mlp((784, width, width, width, 10))
        a, b = fresh_weights(network, 0), fresh_weights(network, 1)
        inside = 0.0

        def watched(*args, **kwargs):
            nonlocal inside
            start = time.perf_counter()
            result = solve(*args, **kwargs)
            inside += time.perf_counter() - start
            return result

        neurons.linear_sum_assignment = watched
        start = time.perf_counter()
        symmetry.weight_matching(network, a, b, seed=0)
        total = time.perf_counter() - start
        neurons.linear_sum_assignment = solve
        print(f"784-3x{width}-10: {total:.2f} s, {100 * inside / total:.0f} % in the assignment")
    bench_transport()


def bench_transport():
    network = mlp((784, 2000, 10))
    a, b = fresh_weights(network, 0), fresh_weights(network, 1)
    (layer,) = transport.hidden_layers(network)
    cost = transport.ground_cost(transport.cloud(a, layer), transport.cloud(b, layer))
    alone, _ = timed(lambda: linear_sum_assignment(cost.numpy()))
    gain = transport.cloud(a, layer) @ transport.cloud(b, layer).T  # the same without the lengths
    bare, _ = timed(lambda: linear_sum_assignment(-gain.double().numpy()))
    whole, _ = timed(lambda: transport.transport_matching(network, a, b))
    transport.plan(cost[:2, :2])  # so that POT is imported
    exact, _ = timed(lambda: transport.plan(cost))
    print(
        f"784-2000-10: {whole:.2f} s, {whole / alone:.2f} times the assignment alone by"
        f" distances, {whole / bare:.2f} by inner products;"
        f" POT's plan: {exact / alone:.2f} times"
    )


if __name__ == "__main__":
    main()
