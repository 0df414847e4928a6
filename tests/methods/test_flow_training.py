"""Training of flows: by likelihood, by the loss half-way, what it costs, and what ships."""

import math
from fractions import Fraction
from itertools import combinations
from statistics import mean

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_networks import same

from modeconn_lite import data, zoo
from modeconn_lite.data import Split
from modeconn_lite.evaluation import evaluate
from modeconn_lite.methods import flow_training, flows
from modeconn_lite.methods.flow_training import cost_of_a_step, fit_bijection, fit_likelihood
from modeconn_lite.methods.flows import flow_path, neuron_sample
from modeconn_lite.methods.invertible import Flow
from modeconn_lite.networks import mlp
from modeconn_lite.neurons import permute
from modeconn_lite.training import train
from modeconn_lite.weights import apply, fresh_weights, to

SMALL = {"layers": 2, "hidden": 8, "epochs": 4, "rate": 0.01}


def spots(n=60, seed=0):
    """Points around two places of three-dimensional space."""
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    x = torch.randn(n, 3, generator=g) + 2 * y[:, None]
    return Split(x, y, "spots", ("near", "far"))


@pytest.fixture(scope="module")
def wide():
    return zoo.network("digits-wide"), zoo.load("digits-wide"), data.load("digits")


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


def test_the_loss_is_that_of_the_path(wide):
    """At any t, with neurons in any order, against paths one by one."""
    network, many, digits = wide
    few = digits.train.take(50)
    flow, rows = flows.load("rnvp-flow"), neuron_sample(network, many[:4])
    loss_at = flow_training._LossAt(network, flow, rows, flow_training.stack(many[:4]))
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
    loss_at = flow_training._LossAt(network, flow, rows, flow_training.stack(many))
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


# --- What ships ----------------------------------------------------------------------------------


def half_way_loss(network, many, flow, split):
    paths = [flow_path(network, a, b, flow) for a, b in combinations(many, 2)]
    return mean(evaluate(network, path(0.5), split).loss for path in paths)


def test_retraining_gives_equal_quality(wide, monkeypatch):
    """The likelihood's recipes as they are; the bijection's for a twelfth of the epochs."""
    network, many, digits = wide
    unseen = neuron_sample(network, many)[flow_training.LEARNED_FROM :].flatten(0, 1)
    for name in ("rnvp-flow", "iaf-flow"):
        again, shipped = flow_training.retrain(name), flows.load(name)
        densities = [float(f.log_density(unseen).mean()) for f in (again, shipped)]
        assert densities[0] == pytest.approx(densities[1], abs=0.05)
    recipe = flow_training.RECIPES["rnvp-bijection"]
    short = recipe | {"epochs": recipe["epochs"] // 12, "images": 256}
    monkeypatch.setitem(flow_training.RECIPES, "rnvp-bijection", short)
    ends = many[flow_training.LEARNED_FROM :]
    again, shipped, arc = (
        half_way_loss(network, ends, flow, digits.train)
        for flow in (
            flow_training.retrain("rnvp-bijection"),
            flows.load("rnvp-bijection"),
            untrained(network, many),
        )
    )
    assert shipped < again < 0.6 * arc


def untrained(network, many):
    flow = Flow((64, 1, 10), layers=0)
    flow.fit_gaussian(neuron_sample(network, many[: flow_training.LEARNED_FROM]))
    return flow


def test_a_flow_is_written_and_read(tmp_path, monkeypatch):
    flow = Flow((64, 1, 10), "iaf", layers=1, hidden=4, seed=9)
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    flows._load.cache_clear()
    try:
        flow_training.write("iaf-flow", flow)
        again = flows.load("iaf-flow")
    finally:
        flows._load.cache_clear()
    assert repr(again) == repr(flow)
    assert same(again.state_dict(), flow.state_dict())


def test_only_flows_of_the_zoo_s_neurons_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match=r"\(4, 1, 2\) numbers"):
        flow_training.write("iaf-flow", Flow((4, 1, 2)))
    with pytest.raises(ValueError, match="flow must be a Flow"):
        flow_training.write("iaf-flow", {"mean": torch.zeros(75)})
    for call in (flow_training.retrain, lambda name: flow_training.write(name, Flow((64, 1, 10)))):
        with pytest.raises(ValueError, match="name must be one of"):
            call("digits")
    assert not list(tmp_path.iterdir())


def test_every_flow_that_ships_has_a_recipe():
    assert flow_training.RECIPES.keys() == flows.FLOWS.keys()
    for name, recipe in flow_training.RECIPES.items():
        flow = flows.load(name)
        assert (flow.kind, len(flow.layers), flow.hidden) == tuple(
            recipe[key] for key in ("kind", "layers", "hidden")
        )
