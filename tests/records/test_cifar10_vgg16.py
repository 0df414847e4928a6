"""The column VGG16 of the paper's Table 2, as typed in."""

from modeconn_lite.records.cifar10_fc3 import EXPERIMENT as FC3
from modeconn_lite.records.cifar10_vgg16 import EXPERIMENT


def test_published():
    assert EXPERIMENT.published["ends"] == {"train": (99.99, 0.0), "test": (91.67, 0.10)}
    assert list(EXPERIMENT.published) == list(FC3.published)
    for key in EXPERIMENT.doubtful:
        assert EXPERIMENT.published[key]["test"][0] < 10


def test_the_network():
    layers = [p for p in EXPERIMENT.network().parameters() if p.dim() > 1]
    assert len(layers) == 16 and layers[-1].shape == (10, 512)
