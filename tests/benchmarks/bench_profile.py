"""A 61-point profile against the naive loop, and in units of one plain forward pass."""

from time import perf_counter

import torch
import torch.nn.functional as F
from clock import timed

from modeconn_lite import apply, bezier, fresh_weights, polychain, profile, segment
from modeconn_lite.data import Split
from modeconn_lite.networks import conv2fc1, mlp
from modeconn_lite.times import grid


def naive(network, path, split):
    correct = []
    with torch.inference_mode():
        for t in grid(61, path.knots).tolist():
            out = apply(network, path(t), split.x)
            F.cross_entropy(out, split.y)
            correct.append(int((out.argmax(1) == split.y).sum()))
    return correct


def main():
    torch.set_num_threads(2)
    network = mlp((784, 2000, 10)).eval()
    a, b, c = (fresh_weights(network, seed) for seed in range(3))
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(10_000, 784, generator=g), torch.randint(10, (10_000,), generator=g)
    split = Split(x, y, "noise", tuple("0123456789"))
    with torch.inference_mode():
        forward, _ = timed(lambda: apply(network, a, split.x), 7, clock=perf_counter)
    print(f"one forward pass of 784-2000-10 over 10,000 images: {1000 * forward:.0f} ms")
    for path in (segment(a, b), bezier([a, c, b]), polychain([a, c, b])):
        fast, seen = timed(lambda p=path: profile(network, p, split, 61), clock=perf_counter)
        slow, correct = timed(lambda p=path: naive(network, p, split), 1, clock=perf_counter)
        same = seen.correct.tolist() == correct
        print(
            f"{path.name}: {fast / forward:.1f} forward passes, {slow / fast:.1f}x faster than the"
            f" naive loop ({slow / forward:.0f} passes); same counts of correct answers: {same}"
        )
    last = a | {"3.weight": b["3.weight"], "3.bias": b["3.bias"]}
    only_last, _ = timed(lambda: profile(network, segment(a, last), split, 61), clock=perf_counter)
    print(f"only the last layer moves: {only_last / forward:.1f} forward passes")
    large()
    convolutions()


def large():
    """So large that points take turns: the first layer is still computed once per anchor."""
    network = mlp((3072, 6144, 2000, 10), bias=False).eval()
    a, b, c = (fresh_weights(network, seed) for seed in range(3))
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(1000, 3072, generator=g), torch.randint(10, (1000,), generator=g)
    split = Split(x, y, "noise", tuple("0123456789"))
    for path in (segment(a, b), bezier([a, c, b])):
        fast, seen = timed(lambda p=path: profile(network, p, split, 61), 1, clock=perf_counter)
        slow, correct = timed(lambda p=path: naive(network, p, split), 1, clock=perf_counter)
        same = seen.correct.tolist() == correct
        print(
            f"{path.name} of 3072-6144-2000-10: {slow / fast:.1f}x faster than the naive loop;"
            f" same counts of correct answers: {same}"
        )


def convolutions():
    """A convnet's points: pooling takes nearly half of a plain forward pass, and little here."""
    network = conv2fc1().eval()
    a, b = (fresh_weights(network, seed) for seed in range(2))
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(1000, 3, 32, 32, generator=g), torch.randint(10, (1000,), generator=g)
    split, path = Split(x, y, "noise", tuple("0123456789")), segment(a, b)
    with torch.inference_mode():
        forward, _ = timed(lambda: apply(network, a, x), clock=perf_counter)
    fast, _ = timed(lambda: profile(network, path, split, 11), clock=perf_counter)
    print(f"a point of Conv2FC1's line: {fast / 11 / forward:.2f} forward passes")


if __name__ == "__main__":
    main()
