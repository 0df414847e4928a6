"""The walk back of a wide network, every knot of it: in plain forward passes over the images.

784-2000-10, 10,000 images, some 2,000 exchanges: 4,000 points, one after another as many passes.
Dearer is a layer that another hidden one reads: there each point is a pass above it.
"""

import torch
from clock import timed

from modeconn_lite import fresh_weights, profile
from modeconn_lite.data import Split
from modeconn_lite.evaluation import evaluate
from modeconn_lite.exchanges import walk_back
from modeconn_lite.networks import mlp


def main():
    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(10_000, 784, generator=g), torch.randint(10, (10_000,), generator=g)
    split = Split(x, y, "noise", classes=tuple("0123456789"))
    for widths, layer in (((2000,), 1), ((512, 512, 512), 3), ((512, 512, 512), 1)):
        network = mlp((784, *widths, 10))
        b = fresh_weights(network, 0)
        order = torch.randperm(widths[layer - 1], generator=g)
        walk = walk_back(network, b, {str(2 * layer - 1): order})
        one, _ = timed(lambda n=network, w=b: evaluate(n, w, split), 5)
        all_knots, _ = timed(lambda n=network, w=walk: profile(n, w, split, w.knots), 2)
        shape = "-".join(map(str, (784, *widths, 10)))
        print(
            f"{shape}, layer {layer}: {len(walk.knots)} points in {all_knots:.2f} s,"
            f" {all_knots / one:.1f} forward passes of {one:.2f} s"
        )


if __name__ == "__main__":
    main()
