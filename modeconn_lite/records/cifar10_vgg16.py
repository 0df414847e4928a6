"""VGG-16 on CIFAR-10: Anokhin and Yarotsky's Table 2, VGG16."""

from ..data import flip_and_crop
from ..networks import vgg
from .comparison import ENDS, Comparison
from .mnist_1hl import TRAINING

EXPERIMENT = Comparison(
    name="cifar10-vgg16",
    about="VGG-16 without BatchNorm on CIFAR-10, worst accuracy (%) along the path",
    source="Anokhin and Yarotsky (2020), Table 2; optimiser details from the authors' code",
    dataset="cifar10",
    network=vgg,
    training=TRAINING | {"epochs": 400},
    augment=flip_and_crop,
    published={
        "linear": {"train": (10.00, 0.00), "test": (10.00, 0.00)},
        "arc": {"train": (10.00, 0.00), "test": (10.00, 0.00)},
        "linear-butterfly": {"train": (8.41, 3.79), "test": (8.57, 3.49)},
        "arc-butterfly": {"train": (3.67, 4.56), "test": (4.54, 4.30)},
        "linear-wa": {"train": (94.16, 0.38), "test": (87.55, 0.41)},
        "arc-wa": {"train": (95.35, 0.239), "test": (88.56, 0.28)},
        "transport-butterfly": {"train": (75.42, 18.83), "test": (68.56, 17.80)},
        "transport-wa": {"train": (96.61, 0.18), "test": (89.24, 0.14)},
        "garipov-3": {"train": (99.69, 0.03), "test": (91.25, 0.14)},
        ENDS: {"train": (99.99, 0.00), "test": (91.67, 0.10)},
    },
    doubtful=dict.fromkeys(
        ("linear-butterfly", "arc-butterfly"),
        "below the 10 % of a guess, as networks whose outputs are not finite would be",
    ),
)
