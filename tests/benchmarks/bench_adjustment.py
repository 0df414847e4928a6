"""Weight adjustment of a wide network, in passes over its images; and of a VGG layer, in memory.

784-2000-10, 60,000 training and 10,000 test images of noise. A pass computes the hidden layer's
features of all training images. To solve for the outputs' weights from given features is compared
with their pseudo-inverse by singular values, NumPy's as in the authors' code, and torch's, on the
first 12,000 images: on all of them that takes minutes.
"""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from modeconn_lite import fresh_weights
from modeconn_lite.data import Split
from modeconn_lite.evaluation import profiles
from modeconn_lite.methods.adjustment import connect_adjusted
from modeconn_lite.methods.follower import Follower
from modeconn_lite.methods.least_squares import least_squares
from modeconn_lite.networks import mlp

TRAIN, TEST, FEW = 60_000, 10_000, 12_000


def seconds(call):
    """The result, and the processor's seconds."""
    start = time.process_time()
    result = call()
    return result, time.process_time() - start


def least(calls, rounds):
    """The least seconds of each of several calls, in turn, so that all meet the same machine."""
    best = [float("inf")] * len(calls)
    for _ in range(rounds):
        best = [min(old, seconds(call)[1]) for old, call in zip(best, calls, strict=True)]
    return best


def wide():
    network, g = mlp((784, 2000, 10)), torch.Generator().manual_seed(0)
    a, b = fresh_weights(network, 0), fresh_weights(network, 1)
    x = torch.randn(TRAIN + TEST, 784, generator=g)
    y = torch.randint(10, (len(x),), generator=g)
    train, test = (
        Split(x[s], y[s], "noise", tuple("0123456789")) for s in (slice(TRAIN), slice(TRAIN, None))
    )
    half = {key: (a[key] + b[key]) / 2 for key in a} | {"3.weight": a["3.weight"]}
    follow = Follower(network, a, train.x)

    def features(n):
        for rows in train.x[:n].split(500):
            (rows @ half["1.weight"].T).add_(half["1.bias"]).relu_()

    follow(half, ["3.weight"])  # what a says is computed once
    one, adjusting = least([lambda: features(TRAIN), lambda: follow(half, ["3.weight"])], 3)
    print(f"adjustment on {TRAIN:,} images: {adjusting / one:.2f} passes of {one:.1f} s")

    phi = follow.heard(half, "3.weight", train.x[:FEW])
    said = follow.heard(a, "3.weight", train.x[:FEW]) @ a["3.weight"].T
    ways = (
        lambda: least_squares(zip(phi.split(4096), said.split(4096), strict=True), FEW),
        lambda: said.T @ torch.from_numpy(np.linalg.pinv(phi.numpy().T)),
        lambda: said.T @ torch.linalg.pinv(phi).T,
    )
    (ours, quick), *slow = [seconds(way) for way in ways]
    quick = min(quick, *least(ways[:1], 3))
    for name, (theirs, took) in zip(("NumPy's", "torch's"), slow, strict=True):
        missed = [float((phi @ w.T.float() - said).norm() / said.norm()) for w in (ours, theirs)]
        print(
            f"from features of {FEW:,} images: {took / quick:.1f} times as fast as by {name}"
            f" pseudo-inverse; missed, as a share: {missed[0]:.6f} and {missed[1]:.6f}"
        )
    del x

    def whole():
        path = connect_adjusted(network, a, b, train, breakpoints=None)
        return profiles(network, path, [train, test], 21)

    seen, took = seconds(whole)
    points = len(seen[0].t)
    print(
        f"Linear + WA, solved anew at each of {points} points, scored on train and test:"
        f" {took / one / points:.2f} passes a point"
    )


def vgg_layer(images):
    """The most demanding of VGG-16's layers: 512 channels read 512, 3 × 3, at 4 × 4 places."""
    network = nn.Sequential(
        nn.Conv2d(3, 512, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(512, 512, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(512, 10),
    )
    x = torch.randn(images, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    a, b = fresh_weights(network, 0), fresh_weights(network, 1)
    Follower(network, a, x)(a | {"0.weight": b["0.weight"]}, ["2.weight"])
    status = Path("/proc/self/status").read_text()  # Linux: the most memory that was ever held
    print(int(status.partition("VmHWM:")[2].split()[0]) / 2**20)


def main():
    torch.set_num_threads(1)
    wide()
    for images in (500, 2000):
        done = subprocess.run(
            [sys.executable, __file__, str(images)], capture_output=True, text=True, check=True
        )
        print(f"512 filters of 3 × 3 × 512, {images:,} images: {float(done.stdout):.2f} GiB in all")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        vgg_layer(int(sys.argv[1]))
    else:
        main()
