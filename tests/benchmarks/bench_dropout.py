"""A dropout path at 21 points a piece: forward passes a piece, and against the naive loop."""

from functools import partial
from time import perf_counter

import torch
import torch.nn.functional as F
from clock import timed

from modeconn_lite import apply, fresh_weights, profile
from modeconn_lite.data import Split
from modeconn_lite.methods.dropout import merged, walk
from modeconn_lite.methods.stability import find_kept
from modeconn_lite.networks import cnn3, mlp


def naive(network, path, t, split):
    out = (apply(network, path(at), split.x) for at in t.tolist())
    return torch.stack([F.cross_entropy(each, split.y) for each in out])


def main():
    torch.set_num_threads(2)
    g = torch.Generator().manual_seed(0)
    for name, network, shape, images in (
        ("784-512-512-512-10", mlp((784, 512, 512, 512, 10)), (784,), 2000),
        ("three convolutions of 16 channels", cnn3(16), (1, 28, 28), 100),
    ):
        a, b = (fresh_weights(network, seed) for seed in range(2))
        x, y = torch.rand(images, *shape, generator=g), torch.randint(10, (images,), generator=g)
        split = Split(x, y, "noise", tuple("0123456789"))
        kept = [
            find_kept(network, w, split.take(range(50)), trials=1, seed=i)
            for i, w in enumerate((a, b))
        ]
        path = merged(walk(network, a, b, *kept))
        pieces = len(path.labels)
        with torch.inference_mode():
            once, _ = timed(partial(apply, network, a, x), 10, clock=perf_counter)
            fast, seen = timed(
                partial(profile, network, path, split, 20 * pieces + 1), clock=perf_counter
            )
            slow, losses = timed(
                partial(naive, network, path, seen.t, split), 2, clock=perf_counter
            )
        gap = float((seen.loss - losses).abs().max())
        print(
            f"{name}, {pieces} pieces: {fast / once / pieces:.1f} forward passes a piece,"
            f" {slow / fast:.1f}x faster than the naive loop; losses agree to {gap:.0e}"
        )


if __name__ == "__main__":
    main()
