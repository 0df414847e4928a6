"""Two hidden layers on CIFAR-10: Anokhin and Yarotsky's Table 2, FC3."""

from functools import partial

from ..data import flip_and_crop
from ..networks import mlp
from .comparison import ENDS, Comparison
from .mnist_1hl import TRAINING

EXPERIMENT = Comparison(
    name="cifar10-fc3",
    about="3072-6144-2000-10 without biases on CIFAR-10, worst accuracy (%) along the path",
    source="Anokhin and Yarotsky (2020), Table 2; optimiser details from the authors' code",
    dataset="cifar10",
    network=partial(mlp, (3072, 6144, 2000, 10), bias=False),
    training=TRAINING | {"epochs": 400},
    augment=flip_and_crop,
    published={
        "linear": {"train": (31.10, 0.84), "test": (27.19, 1.12)},
        "arc": {"train": (46.39, 1.03), "test": (40.17, 0.84)},
        "linear-butterfly": {"train": (47.81, 0.76), "test": (38.38, 0.84)},
        "arc-butterfly": {"train": (60.60, 0.79), "test": (49.63, 0.86)},
        "linear-wa": {"train": (60.93, 0.25), "test": (51.87, 0.24)},
        "arc-wa": {"train": (71.10, 0.23), "test": (58.86, 0.29)},
        "transport-butterfly": {"train": (81.95, 0.29), "test": (59.11, 0.46)},
        "transport-wa": {"train": (87.53, 0.18), "test": (61.67, 0.49)},
        "garipov-3": {"train": (94.56, 0.08), "test": (61.38, 0.36)},
        ENDS: {"train": (95.13, 0.08), "test": (63.25, 0.36)},
    },
)
