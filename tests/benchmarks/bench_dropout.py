"""A dropout path at 21 points a piece: forward passes a piece, and against the naive loop."""

import time

import torch
import torch.nn.functional as F

from modeconn_lite import apply, fresh_weights, profile
from modeconn_lite.data import Split
from modeconn_lite.methods.dropout import merged, walk
from modeconn_lite.methods.stability import find_kept
from modeconn_lite.networks import cnn3, mlp


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
            apply(network, a, x)
            start = time.perf_counter()
            for _ in range(5):
                apply(network, a, x)
            once = (time.perf_counter() - start) / 5
            start = time.perf_counter()
            seen = profile(network, path, split, 20 * pieces + 1)
            fast = time.perf_counter() - start
            start = time.perf_counter()
            slow = [F.cross_entropy(apply(network, path(t), x), y) for t in seen.t.tolist()]
            naive = time.perf_counter() - start
        gap = float((seen.loss - torch.stack(slow)).abs().max())
        print(
            f"{name}, {pieces} pieces: {fast / once / pieces:.1f} forward passes a piece,"
            f" {naive / fast:.1f}x faster than the naive loop; losses agree to {gap:.0e}"
        )


if __name__ == "__main__":
    main()
