"""The column CIFAR-10 of the paper's Table 1, as typed in."""

from modeconn_lite.records.cifar10_1hl import EXPERIMENT
from modeconn_lite.records.mnist_1hl import EXPERIMENT as ON_MNIST


def test_the_rows_of_table_1():
    assert list(EXPERIMENT.published) == list(ON_MNIST.published)
    assert EXPERIMENT.published["iaf-flow"] == {}  # it failed to converge
    assert EXPERIMENT.published["transport-wa"]["test"] == (58.96, 0.21)
    assert EXPERIMENT.doubtful.keys() == {"linear", "linear-wa"}


def test_the_network():
    shapes = [tuple(p.shape) for p in EXPERIMENT.network().parameters()]
    assert shapes == [(2000, 3072), (2000,), (10, 2000), (10,)]
