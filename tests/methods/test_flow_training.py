"""Training of flows by likelihood, and what both trainings have in common."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from small_networks import same, spots

from modeconn_lite.methods.bijection import cost_of_a_step, fit_bijection
from modeconn_lite.methods.flow_training import fit_likelihood
from modeconn_lite.methods.flows import flow_path, neuron_sample
from modeconn_lite.methods.invertible import Flow
from modeconn_lite.networks import mlp
from modeconn_lite.weights import apply, fresh_weights, to

SMALL = {"layers": 2, "hidden": 8, "epochs": 4, "rate": 0.01}


def crescents(count, neurons=200):
    """Networks whose neurons lie on a curved line: far from Gaussian."""
    network, many = mlp((1, neurons, 1)), []
    for seed in range(count):
        g = torch.Generator().manual_seed(seed)
        along, off = torch.randn(2, neurons, generator=g)
        many.append({"1.weight": along[:, None], "1.bias": along**2 + 0.1 * off})
        many[-1] |= {"3.weight": (0.3 * along + 0.5 * off)[None], "3.bias": torch.zeros(1)}
    return network, many


@pytest.mark.parametrize("kind", ["rnvp", "iaf"])
def test_likelihood_finds_what_a_gaussian_cannot(kind):
    network, many = crescents(6)
    found = fit_likelihood(
        network, many, kind, layers=4, hidden=32, epochs=30, rate=5e-3, jitter=0.02, held_out=2
    )
    assert (found.loss[-5:] < found.loss[0] - 0.5).all()
    unseen = neuron_sample(network, many)[4:].flatten(0, 1)
    gaussian = Flow((1, 1, 1), layers=0)
    gaussian.fit_gaussian(neuron_sample(network, many)[:4])
    gain = found.flow.log_density(unseen).mean() - gaussian.log_density(unseen).mean()
    assert float(gain) > 0.5
    assert float(found.held_out[0]) == pytest.approx(float(-gaussian.log_density(unseen).mean()))


def test_neurons_that_are_all_alike_do_no_harm():
    network = mlp((3, 8, 2))
    many = [{k: torch.zeros_like(w) for k, w in fresh_weights(network, 0).items()}] * 3
    found = fit_likelihood(network, many, **SMALL)
    assert torch.isfinite(found.loss).all()
    path = flow_path(network, many[0], many[1], found.flow)
    assert all(float(w.abs().max()) < 1e-2 for w in path(0.5).values())


def test_the_networks_and_the_callers_mode_are_left_alone():
    network = mlp((3, 8, 2)).train()
    many = [fresh_weights(network, seed) for seed in range(3)]
    before = [
        {k: w.clone() for k, w in each.items()}
        for each in (*many, dict(network.named_parameters()))
    ]
    fit_bijection(network, many, spots(), **SMALL)
    assert network.training
    trained = [dict(mlp((3, 8, 2)).named_parameters()) for _ in range(3)]
    fit_bijection(network, trained, spots(), **SMALL)
    fit_likelihood(network, trained, **SMALL)
    cost_of_a_step(network, trained, spots(), layers=1, hidden=4)
    assert all(p.grad is None for each in trained for p in each.values())
    after = (*many, dict(network.named_parameters()))
    assert all(same(a, b) for a, b in zip(after, before, strict=True))


@torch.no_grad()
def test_they_train_where_the_caller_wants_no_gradients():
    network = mlp((3, 8, 2))
    many = [fresh_weights(network, seed) for seed in range(3)]
    assert len(fit_likelihood(network, many, **SMALL).loss) == 4
    assert len(fit_bijection(network, many, spots(), **SMALL).loss) == 4
    assert cost_of_a_step(network, many, spots(), layers=1, hidden=4).seconds > 0


def test_numbers_of_other_libraries():
    network = mlp((3, 8, 2))
    many = [fresh_weights(network, seed) for seed in range(4)]
    one = SMALL | {"rate": Fraction(1, 100), "seed": np.int64(2**62), "held_out": np.int64(2)}
    fit_likelihood(network, many, **one, batch=np.int64(9), jitter=Fraction(1, 5))
    fit_bijection(
        network, many, spots(), **one, pairs=np.int64(1), images=np.int64(9), t=Fraction(1, 2)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_too_coarse_to_train_in(dtype):
    network = mlp((3, 8, 2))
    many = [to(fresh_weights(network, seed), dtype) for seed in range(3)]
    for call in (
        lambda: fit_likelihood(network, many, **SMALL),
        lambda: fit_bijection(network, many, spots(), **SMALL),
        lambda: cost_of_a_step(network, many, spots()),
    ):
        with pytest.raises(ValueError, match=f"not trained in {dtype}; give weights.to"):
            call()


def test_what_likelihood_refuses():
    network = mlp((3, 8, 2))
    many = [fresh_weights(network, seed) for seed in range(2)]
    for options, message in (
        ({"held_out": 1}, "of 2 networks, 1 held out leave 1"),
        ({"held_out": 5}, "leave 0 to learn from"),
        ({"batch": 0}, "batch must be"),
        ({"jitter": -1}, "jitter must be"),
        ({"layers": 0}, "layers must be"),
    ):
        with pytest.raises(ValueError, match=message):
            fit_likelihood(network, many, **(SMALL | options))
    with pytest.raises(ValueError, match="1 weights given, at least 2 needed"):
        fit_likelihood(network, many[:1])
    with pytest.raises(ValueError, match="split must be"):
        fit_bijection(network, many, apply)
    for shape, said in (
        ((4, 8, 2), r"\(images, 4\), not \(1, 3\)"),
        ((3, 8, 1), "1 outputs for 2"),
    ):
        other = mlp(shape)
        pair = [fresh_weights(other, seed) for seed in range(2)]
        for function in (fit_bijection, cost_of_a_step):
            with pytest.raises(ValueError, match=said):
                function(other, pair, spots())
    deep = mlp((3, 4, 4, 2))
    with pytest.raises(ValueError, match="has 2:"):
        fit_likelihood(deep, [fresh_weights(deep, 0), fresh_weights(deep, 1)])
