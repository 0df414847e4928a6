"""The small networks that tests of permutations share, inputs for them, and `same`."""

import torch
from torch import Tensor, nn

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
