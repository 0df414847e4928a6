"""The column FC3 of the paper's Table 2, as typed in."""

from modeconn_lite.records.cifar10_fc3 import EXPERIMENT


def test_published():
    assert EXPERIMENT.published["transport-butterfly"] == {
        "train": (81.95, 0.29),
        "test": (59.11, 0.46),
    }
    assert len(EXPERIMENT.published) == 10 and not EXPERIMENT.doubtful


def test_the_network_has_no_biases():
    shapes = [tuple(p.shape) for p in EXPERIMENT.network().parameters()]
    assert shapes == [(6144, 3072), (2000, 6144), (10, 2000)]
