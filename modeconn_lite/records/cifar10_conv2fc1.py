"""Two convolutions and a linear layer on CIFAR-10: Anokhin and Yarotsky's Table 2, Conv2FC1."""

from ..data import flip_and_crop
from ..networks import conv2fc1
from .comparison import ENDS, Comparison
from .mnist_1hl import TRAINING

EXPERIMENT = Comparison(
    name="cifar10-conv2fc1",
    about="Conv2FC1 on CIFAR-10, worst accuracy (%) along the path",
    source="Anokhin and Yarotsky (2020), Table 2; optimiser details from the authors' code",
    dataset="cifar10",
    network=conv2fc1,
    training=TRAINING | {"epochs": 400},
    augment=flip_and_crop,
    published={
        "linear": {"train": (25.86, 4.62), "test": (25.41, 4.54)},
        "arc": {"train": (31.03, 2.01), "test": (30.44, 2.09)},
        "linear-butterfly": {"train": (44.08, 3.59), "test": (42.46, 3.43)},
        "arc-butterfly": {"train": (56.67, 3.93), "test": (54.56, 3.73)},
        "linear-wa": {"train": (71.09, 0.38), "test": (67.07, 0.49)},
        "arc-wa": {"train": (77.36, 0.99), "test": (73.77, 0.88)},
        "transport-butterfly": {"train": (76.94, 1.41), "test": (73.66, 1.44)},
        "transport-wa": {"train": (82.37, 0.44), "test": (78.11, 0.61)},
        "garipov-3": {"train": (85.10, 0.25), "test": (80.95, 0.16)},
        ENDS: {"train": (87.18, 0.14), "test": (82.61, 0.18)},
    },
)
