"""One hidden layer of 2000 on CIFAR-10: that column of Anokhin and Yarotsky's Table 1."""

from functools import partial

from ..data import flip_and_crop
from ..networks import mlp
from .comparison import ENDS, Comparison
from .mnist_1hl import FLOWS, TRAINING

EXPERIMENT = Comparison(
    name="cifar10-1hl",
    about="3072-2000-10 on CIFAR-10, worst accuracy (%) along the path",
    source="Anokhin and Yarotsky (2020), Table 1; optimiser details from the authors' code",
    dataset="cifar10",
    network=partial(mlp, (3072, 2000, 10)),
    training=TRAINING | {"epochs": 400},
    augment=flip_and_crop,
    published={
        "linear": {"train": (32.09, 1.33), "test": (39.34, 1.52)},
        "arc": {"train": (49.97, 0.86), "test": (41.34, 1.39)},
        "iaf-flow": {},  # failed to converge
        "rnvp-bijection": {"train": (63.46, 0.27), "test": (53.94, 0.95)},
        "linear-wa": {"train": (52.63, 0.59), "test": (57.66, 0.26)},
        "arc-wa": {"train": (58.77, 0.32), "test": (57.88, 0.24)},
        "transport-copy": {"train": (66.19, 0.23), "test": (56.49, 0.46)},  # as mnist_1hl says
        "transport": {"train": (66.19, 0.23), "test": (56.49, 0.46)},
        "transport-wa": {"train": (67.02, 0.12), "test": (58.96, 0.21)},
        "garipov-3": {"train": (68.51, 0.08), "test": (58.74, 0.23)},
        "garipov-5": {"train": (67.20, 0.12), "test": (57.88, 0.32)},
        ENDS: {"train": (70.60, 0.12), "test": (59.12, 0.26)},
    },
    doubtful=dict.fromkeys(
        ("linear", "linear-wa"), "lower on training images than on test images, perhaps misprinted"
    ),
    learned=FLOWS,
)
