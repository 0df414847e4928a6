"""Training of flows by the loss half-way, and what it costs."""

import math
from itertools import combinations
from statistics import mean

import pytest
import torch
import torch.nn.functional as F
from small_networks import spots

from modeconn_lite import data, zoo
from modeconn_lite.evaluation import evaluate
from modeconn_lite.methods import bijection, flows
from modeconn_lite.methods.bijection import cost_of_a_step, fit_bijection
from modeconn_lite.methods.flows import flow_path, neuron_sample
from modeconn_lite.methods.invertible import Flow
from modeconn_lite.networks import mlp
from modeconn_lite.neurons import permute
from modeconn_lite.training import train
from modeconn_lite.weights import fresh_weights, stack

SMALL = {"layers": 2, "hidden": 8, "epochs": 4, "rate": 0.01}


@pytest.fixture(scope="module")
def wide():
    return zoo.network("digits-wide"), zoo.load("digits-wide"), data.load("digits")


def test_the_loss_is_that_of_the_path(wide):
    """At any t, with neurons in any order, against paths one by one."""
    network, many, digits = wide
    few = digits.train.take(50)
    flow, rows = flows.load("rnvp-flow"), neuron_sample(network, many[:4])
    loss_at = bijection._LossAt(network, flow, rows, stack(many[:4]))
    pairs, t = torch.tensor([[0, 1], [2, 3], [3, 0]]), torch.tensor([0.5, 0.2, 0.9])
    g = torch.Generator().manual_seed(0)
    order = torch.stack([torch.randperm(128, generator=g) for _ in pairs])
    for given in (None, order):
        found = loss_at(t, pairs, few.x, few.y, given)
        for k, (i, j) in enumerate(pairs.tolist()):
            b = many[j] if given is None else permute(network, many[j], {"1": given[k]})
            path = flow_path(network, many[i], b, flow)
            wanted = evaluate(network, path(float(t[k])), few).loss
            assert float(found[k]) == pytest.approx(wanted, abs=1e-5)


def test_the_gradient_of_the_loss_half_way_against_a_naive_version():
    """Through ν and ν⁻¹, with weights written out by hand, against differences too."""
    network = mlp((3, 5, 2))
    many = [{k: w.double() for k, w in fresh_weights(network, s).items()} for s in range(2)]
    rows, split = neuron_sample(network, many), spots(20)
    x, y = split.x.double(), split.y
    flow = Flow((3, 1, 2), layers=3, hidden=6).double()
    flow.fit_gaussian(rows)
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    loss_at = bijection._LossAt(network, flow, rows, stack(many))
    loss_at(torch.tensor([0.5]), torch.tensor([[0, 1]]), x, y).sum().backward()
    fast = [p.grad.clone() for p in flow.parameters() if p.grad is not None]
    flow.zero_grad()

    neurons = flow.neurons((flow.latent(rows[0]) + flow.latent(rows[1])) / math.sqrt(2))
    into, bias, out = neurons.split([3, 1, 2], 1)
    end = (many[0]["3.bias"] + many[1]["3.bias"]) / 2
    F.cross_entropy((x @ into.T + bias.T).relu() @ out + end, y).backward()
    slow = [p.grad for p in flow.parameters() if p.grad is not None]
    assert len(fast) == len(slow) == len(list(flow.parameters()))
    assert max(float(g.abs().max()) for g in slow) > 1e-3
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(fast, slow, strict=True))


def test_the_bijection_lowers_the_loss_half_way_on_pairs_that_it_has_not_seen():
    split, network = spots(200), mlp((3, 12, 2))
    many = train(network, split, range(8), epochs=15, rate=0.1).weights
    found = fit_bijection(
        network, many, split, layers=3, hidden=16, epochs=12, rate=3e-3, held_out=3
    )
    assert found.epoch > 0
    assert float(found.held_out.min()) < 0.9 * float(found.held_out[0])
    pairs = list(combinations(many[5:], 2))
    losses = [evaluate(network, flow_path(network, *p, found.flow)(0.5), split).loss for p in pairs]
    assert mean(losses) == pytest.approx(float(found.held_out.min()), rel=1e-4)


def test_the_loss_may_be_taken_anywhere():
    network = mlp((3, 8, 2))
    many = [fresh_weights(network, seed) for seed in range(5)]
    middle, start, anywhere = (
        fit_bijection(network, many, spots(), t=t, held_out=2, **SMALL) for t in (0.5, 0.0, None)
    )
    assert torch.allclose(start.held_out, start.held_out[0].expand(5))  # at a, ν is no matter
    assert float(middle.held_out[0]) != float(anywhere.held_out[0])


def test_an_augmentation_is_used():
    network = mlp((3, 8, 2))
    many, seen = [fresh_weights(network, seed) for seed in range(3)], []

    def shift(x, g):
        seen.append(x.shape)
        return x + torch.rand((), generator=g)

    with_it = fit_bijection(network, many, spots(), augment=shift, images=40, **SMALL)
    assert set(seen) == {(8, 3), (40, 3)}  # eight are tried first
    without = fit_bijection(network, many, spots(), images=40, **SMALL)
    assert not torch.equal(with_it.loss, without.loss)


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        (3, "augment must be a function"),
        (lambda x: x, "augment fails on images"),
        (lambda x, g: x[:3], "augment made"),
        (lambda x, g: x / 0, "not finite"),
        (lambda x, g: x + torch.rand(x.shape), "draw from the generator"),
        (lambda x, g: x[:, :2], r"\(images, 3\), not \(8, 2\)"),
        (lambda x, g: x.double(), "float64"),
    ],
)
def test_augmentations_that_are_none(augment, message):
    network = mlp((3, 8, 2))
    many = [fresh_weights(network, seed) for seed in range(3)]
    with pytest.raises(ValueError, match=message):
        fit_bijection(network, many, spots(), augment=augment, **SMALL)


@pytest.mark.parametrize("images", [0, -1, True, 1.5, "x"])
def test_a_step_on_no_images_costs_nothing_that_can_be_said(images):
    network = mlp((3, 8, 2))
    many = [fresh_weights(network, seed) for seed in range(2)]
    with pytest.raises(ValueError, match="images must be"):
        cost_of_a_step(network, many, spots(), images=images)


def test_an_inverse_autoregressive_bijection_costs_many_times_as_much(wide):
    network, many, digits = wide
    options = {"layers": 2, "pairs": 4, "images": 64}
    one, other = (
        cost_of_a_step(network, many[:2], digits.train, k, **options) for k in ("rnvp", "iaf")
    )
    assert other.seconds > 4 * one.seconds
    assert other.megabytes > 4 * one.megabytes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"held_out": 2}, "of 3 networks, 2 held out leave 1 to learn from"),
        ({"held_out": 1}, "one network makes no pair"),
        ({"pairs": 0}, "pairs must be"),
        ({"images": 0}, "images must be"),
        ({"t": 1.5}, "t must be a finite number of at least 0 and up to 1"),
        ({"layers": 0}, "layers must be"),
        ({"kind": "nice"}, "kind must be one of"),
    ],
)
def test_what_a_bijection_refuses(options, message):
    network = mlp((3, 8, 2))
    many = [fresh_weights(network, seed) for seed in range(3)]
    with pytest.raises(ValueError, match=message):
        fit_bijection(network, many, spots(), **(SMALL | options))
