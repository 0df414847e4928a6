"""One epoch of a flow by likelihood, in neurons a second, with its share of the machine's peak.

16 × 2,000 neurons of 795 numbers, as the paper's MNIST networks have. The peak is that of a large
matrix product in the same run. Then what a step of the bijection costs with either kind of flow.
All in seconds of the processor, on one thread.
"""

import torch
from clock import timed
from torch import nn

from modeconn_lite import data, fresh_weights, zoo
from modeconn_lite.data import Split
from modeconn_lite.methods.bijection import cost_of_a_step
from modeconn_lite.methods.flow_training import fit_likelihood
from modeconn_lite.networks import mlp


def epoch(network, many, **options):
    """Seconds of one epoch, and the products of a pass: each is done thrice, once back for both."""
    alone, _ = timed(lambda: fit_likelihood(network, many, epochs=0, **options), 1)
    whole, found = timed(lambda: fit_likelihood(network, many, epochs=1, **options), 1)
    linear = [m for m in found.flow.modules() if isinstance(m, nn.Linear)]
    size = found.flow.size
    products = 3 * sum(m.weight.numel() for m in linear) + 2 * size**2  # the affine step, the noise
    return whole - alone, products


def main():
    torch.set_num_threads(1)
    network = mlp((784, 2000, 10))
    many = [fresh_weights(network, seed) for seed in range(16)]
    neurons = 16 * 2000
    one = torch.randn(2048, 2048)
    peak = 2 * 2048**3 / timed(lambda: one @ one, 7)[0]
    print(f"peak, a product of 2048 × 2048 matrices: {peak / 1e9:.0f} billion operations a second")
    for kind, layers, hidden, batch in (("rnvp", 6, 512, 512), ("rnvp", 6, 64, 256)):
        took, products = epoch(network, many, kind=kind, layers=layers, hidden=hidden, batch=batch)
        share = 2 * products * neurons / took / peak
        print(
            f"one epoch of {kind}, {layers} layers of {hidden}, steps of {batch} neurons:"
            f" {took:.1f} s, {neurons / took:,.0f} neurons a second,"
            f" {100 * share:.0f} % of the peak"
        )

    digits, wide = data.load("digits").train, zoo.load("digits-wide")[:2]
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(64, 784, generator=g), torch.randint(10, (64,), generator=g)
    noise = Split(x, y, "noise", tuple("0123456789"))
    medium = mlp((784, 400, 10))
    cases = (
        (zoo.network("digits-wide"), wide, digits, 6, 8),
        (medium, [fresh_weights(medium, seed) for seed in range(2)], noise, 2, 1),
    )
    for network, pair, split, layers, pairs in cases:
        one, other = (
            cost_of_a_step(network, pair, split, kind, layers=layers, pairs=pairs, images=64)
            for kind in ("rnvp", "iaf")
        )
        widths = "-".join(str(m.in_features) for m in network if isinstance(m, nn.Linear))
        print(
            f"a step of the bijection, {widths}-10, {layers} layers of 64: {one.seconds:.3f} s and"
            f" {one.megabytes:.0f} MB with rnvp, {other.seconds:.3f} s and {other.megabytes:.0f} MB"
            f" with iaf: {other.seconds / one.seconds:.0f} times the seconds,"
            f" {other.megabytes / one.megabytes:.0f} times the memory"
        )


if __name__ == "__main__":
    main()
