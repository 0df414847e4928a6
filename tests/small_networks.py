"""The small networks that tests of permutations share, inputs for them, and `same`."""

import torch
from torch import Tensor, nn

from modeconn_lite.data import Split
from modeconn_lite.networks import mlp, residual_mlp
from modeconn_lite.weights import Weights

NETWORKS = {
    "one layer": lambda: mlp((9, 12, 3)),
    "mlp": lambda: mlp((9, 12, 11, 10, 3)),
    "cnn": lambda: nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 7, 3, padding=1), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(7 * 4, 6), nn.ReLU(), nn.Linear(6, 3)),
    ),
    "residual": lambda: residual_mlp(9, 3, width=12, hidden=10, blocks=2),
}


def inputs(kind: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Forty random inputs for a network of this kind."""
    shape = (40, 1, 4, 4) if kind == "cnn" else (40, 9)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def same(one: Weights, two: Weights) -> bool:
    """Whether one holds what two holds, to the bit."""
    return all(torch.equal(one[key], two[key]) for key in two)


def random_split(
    n: int = 30, shape: tuple[int, ...] = (4,), classes: int = 3, seed: int = 0
) -> Split:
    """Random inputs of this shape with random labels."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, *shape, generator=g)
    y = torch.randint(classes, (n,), generator=g)
    return Split(x, y, "random", tuple(str(c) for c in range(classes)))


def spots(n: int = 60, seed: int = 0) -> Split:
    """Points around two places of three-dimensional space."""
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    x = torch.randn(n, 3, generator=g) + 2 * y[:, None]
    return Split(x, y, "spots", ("near", "far"))


def drawn(*shape, seed=0, dtype=torch.float64):
    """Standard normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
