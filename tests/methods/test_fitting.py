"""The loop in which flows are trained: interrupted and taken up again, seeded, and refusing."""

import numpy as np
import pytest
import torch
from small_networks import same

from modeconn_lite.data import Split
from modeconn_lite.methods import fitting
from modeconn_lite.methods.bijection import fit_bijection
from modeconn_lite.methods.flow_training import fit_likelihood
from modeconn_lite.methods.flows import neuron_sample
from modeconn_lite.networks import mlp
from modeconn_lite.weights import fresh_weights

SMALL = {"layers": 2, "hidden": 8, "epochs": 4, "rate": 0.01}
NETWORK = mlp((3, 8, 2))
MANY = [fresh_weights(NETWORK, seed) for seed in range(5)]

POINTS = Split(torch.arange(90.0).view(30, 3).sin(), torch.arange(30) % 2, "points", ("a", "b"))


def likelihood(**options):
    return fit_likelihood(NETWORK, MANY, **(SMALL | {"held_out": 2} | options))


def bijection(**options):
    return fit_bijection(NETWORK, MANY, POINTS, **(SMALL | {"held_out": 2} | options))


def equal(one, two):
    flows = same(one.flow.state_dict(), two.flow.state_dict())
    return flows and torch.equal(one.loss, two.loss) and torch.equal(one.held_out, two.held_out)


@pytest.mark.parametrize("fit", [likelihood, bijection])
def test_one_seed_one_flow(fit):
    torch.manual_seed(1)
    one = fit(seed=3)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert equal(one, fit(seed=3))
    assert torch.equal(torch.get_rng_state(), before)
    assert not equal(one, fit(seed=4))


@pytest.mark.parametrize("fit", [likelihood, bijection])
@pytest.mark.parametrize("held_out", [0, 2])
def test_what_is_interrupted_goes_on_where_it_stopped(fit, held_out, tmp_path, monkeypatch):
    file, whole = tmp_path / "flow.safetensors", fit(held_out=held_out)
    plain, seen = fitting.Fit._epoch, []

    def until_the_third(self, losses):
        if len(self.loss) == 2:
            raise KeyboardInterrupt
        plain(self, losses)

    def noting(self, losses):
        seen.append(len(self.loss))
        plain(self, losses)

    monkeypatch.setattr(fitting.Fit, "_epoch", until_the_third)
    with pytest.raises(KeyboardInterrupt):
        fit(held_out=held_out, checkpoint=file)
    monkeypatch.setattr(fitting.Fit, "_epoch", noting)
    for _ in range(2):  # the second time it is finished, and nothing is left to do
        assert equal(fit(held_out=held_out, checkpoint=file), whole)
        assert seen == [2, 3]


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    file = tmp_path / "flow.safetensors"
    likelihood(checkpoint=file)
    for options, said in (
        ({"rate": 0.5}, "rate is 0.01 instead of 0.5"),
        ({"jitter": 0.5}, "jitter is 0.2 instead of 0.5"),
        ({"held_out": 3}, "held_out is 2 instead of 3"),
        ({"kind": "iaf"}, "flow is Flow\\(rnvp"),
        ({"seed": 1}, "seed is 0 instead of 1"),
    ):
        with pytest.raises(ValueError, match=said):
            likelihood(checkpoint=file, **options)
    with pytest.raises(ValueError, match="trained by is likelihood instead of loss half-way"):
        bijection(checkpoint=file)
    again = likelihood(checkpoint=file, seed=np.int64(0), held_out=np.int64(2))
    assert equal(again, likelihood()), "the same numbers are the same training"
    file = tmp_path / "augmented.safetensors"
    bijection(checkpoint=file, augment=lambda x, g: x + 1)
    with pytest.raises(ValueError, match="augmented images differ"):
        bijection(checkpoint=file, augment=lambda x, g: x + 2)
    file = tmp_path / "flow.safetensors"
    other = [fresh_weights(NETWORK, seed) for seed in range(5, 10)]
    with pytest.raises(ValueError, match="networks differ"):
        fit_likelihood(NETWORK, other, checkpoint=file, **(SMALL | {"held_out": 2}))


@pytest.mark.parametrize("fit", [likelihood, bijection])
def test_the_best_epoch_is_kept(fit):
    found = fit(epochs=6, rate=0.1)
    assert len(found.loss) == 6
    assert len(found.held_out) == 7
    assert found.epoch == int(found.held_out.argmin())
    last = fit(epochs=6, rate=0.1, held_out=0)
    assert last.epoch == 6
    assert not len(last.held_out)


def test_what_was_judged_is_the_flow_that_is_returned():
    found = likelihood(epochs=6, rate=0.1)
    unseen = neuron_sample(NETWORK, MANY)[3:].flatten(0, 1)
    again = -found.flow.log_density(unseen).mean()
    assert float(again) == pytest.approx(float(found.held_out.min()), abs=1e-5)


def test_no_epochs_no_training():
    found = likelihood(epochs=0)
    assert found.epoch == 0
    assert not len(found.loss)
    assert (
        repr(found) == "FlowTraining(flow=Flow(rnvp, neurons of 6 numbers, 2 layers of 8), epoch=0)"
    )


def test_a_rate_that_is_too_high_is_told(monkeypatch):
    monkeypatch.setattr(fitting, "CLIP", float("inf"))
    with pytest.raises(ValueError, match="the loss diverged in epoch 2; use a smaller rate"):
        likelihood(rate=1e30)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": -1}, "epochs must be"),
        ({"rate": 0}, "rate must be a finite number above 0"),
        ({"weight_decay": -1}, "weight_decay must be"),
        ({"seed": "x"}, "seed must be"),
        ({"checkpoint": 3}, "checkpoint must be a path"),
    ],
)
@pytest.mark.parametrize("fit", [likelihood, bijection])
def test_what_it_refuses(fit, options, message):
    with pytest.raises(ValueError, match=message):
        fit(**options)
