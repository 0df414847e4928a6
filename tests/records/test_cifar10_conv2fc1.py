"""The column Conv2FC1 of the paper's Table 2, as typed in."""

from modeconn_lite.records.cifar10_conv2fc1 import EXPERIMENT
from modeconn_lite.records.cifar10_fc3 import EXPERIMENT as FC3


def test_published():
    assert EXPERIMENT.published["arc-wa"] == {"train": (77.36, 0.99), "test": (73.77, 0.88)}
    assert list(EXPERIMENT.published) == list(FC3.published)


def test_the_network():
    shapes = [tuple(p.shape) for p in EXPERIMENT.network().parameters() if p.dim() > 1]
    assert shapes == [(32, 3, 5, 5), (64, 32, 5, 5), (10, 3136)]
