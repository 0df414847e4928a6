from dataclasses import replace
from functools import partial

import pytest

from modeconn_lite import records
from modeconn_lite.networks import mlp


@pytest.fixture
def small(monkeypatch):
    """The comparison on MNIST but for size, two epochs on digits, and flows: `test_flows` does."""
    experiment = records.EXPERIMENTS["mnist-1hl"]
    small = replace(
        experiment,
        dataset="digits",
        network=partial(mlp, (64, 8, 10)),
        training=experiment.training | {"epochs": 2},
        learned={},
    )
    monkeypatch.setitem(records.EXPERIMENTS, "mnist-1hl", small)
    return small
