"""What chapter 4 says of arcs and of its networks, on pairs and seeds that it does not show."""

import math
from itertools import combinations
from statistics import mean

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.mixture import GaussianMixture

from modeconn_lite import data, evaluate, fresh_weights, outputs, profile, segment, zoo
from modeconn_lite.layout import hidden_layers
from modeconn_lite.methods import flows
from modeconn_lite.methods.arcs import arc, mean_neuron
from modeconn_lite.methods.symmetry import weight_matching
from modeconn_lite.networks import mlp
from modeconn_lite.neurons import butterflies, permute
from modeconn_lite.paths import Path
from modeconn_lite.weights import apply

DIGITS = data.load("digits")
DEEP, WIDE = zoo.network("digits"), zoo.network("digits-wide")
DEEP_PAIRS = list(zip(zoo.load("digits")[::2], zoo.load("digits")[1::2], strict=True))
MANY = zoo.load("digits-wide")
V, HELD_OUT = MANY[:16], MANY[16:]
SIX = list(combinations(HELD_OUT, 2))
EIGHT = list(zip(V[::2], V[1::2], strict=True))  # pairs that share no network


def drawn(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def bare(a, b):
    """The arc without a centre."""

    def coefficients(t):
        return torch.stack([(math.pi / 2 * (1 - t)).sin(), (math.pi / 2 * t).sin()], 1)

    return Path((a, b), coefficients, "bare")


def figures(network, pairs, build):
    seen = [profile(network, build(network, a, b), DIGITS.test) for a, b in pairs]
    return [p.worst_accuracy for p in seen], [p.barrier() for p in seen]


def straight(_, a, b):
    return segment(a, b)


# --- What is proved -------------------------------------------------------------------------------


def test_centred_gaussian_neurons_compute_an_affine_map():
    rows = drawn(400_000, 5) @ drawn(5, 5, seed=1)  # l, l, b, c, c
    into, bias, out = rows.split([2, 1, 2], 1)
    covariance = rows.T @ rows / len(rows)
    for x in ([1.0, -2.0], [0.3, 0.4], [-3.0, 1.0]):
        x = torch.tensor(x, dtype=torch.float64)
        found = (out * (into @ x + bias[:, 0]).relu()[:, None]).mean(0)
        wanted = (covariance[3:, :2] @ x + covariance[3:, 2]) / 2
        assert torch.allclose(found, wanted, atol=0.05)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), layers=st.integers(1, 4), t=st.floats(0, 1))
def test_without_centre_and_biases_the_arc_is_the_line_with_louder_outputs(seed, layers, t):
    network = mlp((6, *[9] * layers, 4), bias=False).double()
    a, b = (fresh_weights(network, 2 * seed + k) for k in range(2))
    cos, sin = math.cos(math.pi * t / 2), math.sin(math.pi * t / 2)
    x = drawn(20, 6, seed=seed)
    on_arc = apply(network, bare(a, b)(t), x)
    on_line = apply(network, segment(a, b)(sin / (cos + sin)), x)
    assert torch.allclose(on_arc, (cos + sin) ** (layers + 1) * on_line, atol=1e-9)


def test_on_the_arc_the_pure_words_of_two_layers_keep_all_of_a_common_map():
    t = torch.linspace(0, 1, 11).double() * math.pi / 2
    assert torch.allclose(t.cos() ** 2 + t.sin() ** 2, torch.ones(11).double())
    for p in (2, 3, 4):
        half = math.cos(math.pi / 4) ** p + math.sin(math.pi / 4) ** p
        assert half == pytest.approx(2 ** (1 - p / 2))


@pytest.mark.parametrize(("n", "d"), [(64, 4), (64, 16), (128, 16)])
def test_error_of_the_linear_model_on_the_arc(n, d):
    trials = 2000
    w = torch.linalg.qr(drawn(trials, n, d)).Q
    order = drawn(trials, n, seed=1).argsort(1)
    shuffled = w.gather(1, order[..., None].expand_as(w))
    middle = (w + shuffled).mT @ (w + shuffled) / 2
    error = (middle - torch.eye(d)).square().sum((1, 2)) / d
    off = 4 * float(error.std()) / trials**0.5
    assert float(error.mean()) == pytest.approx(
        (d + 1) / (2 * n), abs=off + d / n**2 + d * d / n**3
    )


def test_line_and_arc_of_the_linear_model_are_level_where_the_chapter_says():
    for d in (4, 13, 64):
        n = (3 * d + 7) / 2
        assert (d + 1) / (2 * n) == pytest.approx(1 / 4 + (d - 3) / (8 * n))


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.48, 0.9])
def test_spread_of_neurons_that_are_alike(rho):
    x, z = torch.linalg.qr(drawn(500, 6) - drawn(500, 6).mean(0)).Q.split(3, 1)
    y = rho * x + (1 - rho**2) ** 0.5 * z
    angle = math.acos(rho)
    for t in (0.2, 0.5, 0.8):
        cos, sin = math.cos(math.pi * t / 2), math.sin(math.pi * t / 2)
        turned = math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)
        wanted = {
            (cos, sin): 1 + rho * math.sin(math.pi * t),
            (1 - t, t): 1 - 2 * t * (1 - t) * (1 - rho),
            turned: 1.0,
        }
        for (p, q), spread in wanted.items():
            assert float((p * x + q * y).square().sum()) / 3 == pytest.approx(spread, abs=1e-9)


def test_a_flow_that_does_not_bend_gives_the_arc():
    a, b = HELD_OUT[:2]
    plain = flows.Flow(flows.neuron_parts(WIDE), layers=0)
    pooled = flows.neuron_sample(WIDE, [a, b])
    plain.fit_gaussian(pooled)
    path, bow = flows.flow_path(WIDE, a, b, plain), arc(WIDE, a, b)
    assert all(torch.allclose(path(0.3)[k], bow(0.3)[k], atol=1e-4) for k in a)


# --- What is measured -----------------------------------------------------------------------------


def test_on_a_and_b():
    seen = profile(DEEP, arc(DEEP, *DEEP_PAIRS[0]), DIGITS.test)
    assert 0.85 < seen.worst_accuracy < 0.89 and 0.25 < seen.barrier() < 0.36


def test_deep_networks_read_more_on_the_arc_and_more_with_a_centre():
    line, bow = (figures(DEEP, DEEP_PAIRS, f) for f in (straight, arc))
    assert all(y > x + 0.25 for x, y in zip(line[0], bow[0], strict=True))
    assert all(y < x / 2 for x, y in zip(line[1], bow[1], strict=True))
    without = figures(DEEP, DEEP_PAIRS, lambda _, a, b: bare(a, b))
    assert mean(without[0]) == pytest.approx(mean(line[0]) + 0.31, abs=0.03)
    assert mean(bow[0]) > mean(without[0]) + 0.08


@pytest.mark.parametrize("pairs", [SIX, EIGHT], ids=["held out", "others"])
def test_wide_networks_answer_the_same_and_pay_less(pairs):
    line, bow = (figures(WIDE, pairs, f) for f in (straight, arc))
    assert mean(bow[0]) == pytest.approx(mean(line[0]), abs=0.004)
    assert mean(bow[1]) < 0.67 * mean(line[1])
    for a, b in pairs:
        z = outputs(WIDE, segment(a, b), [0.5], DIGITS.test.x)[0]
        on_arc = outputs(WIDE, arc(WIDE, a, b), [0.5], DIGITS.test.x)[0]
        assert (z.argmax(1) == on_arc.argmax(1)).double().mean() > 0.985
        assert (on_arc - 2 * z).norm() < 0.1 * on_arc.norm()


@pytest.mark.parametrize(("network", "pairs"), [(DEEP, DEEP_PAIRS), (WIDE, SIX), (WIDE, EIGHT)])
def test_after_matching_the_line_is_best(network, pairs):
    (first, *_) = hidden_layers(network)

    def between(_, a, b):
        u, v = (butterflies(w, first).double() for w in (a, b))
        u, v = u - u.mean(0), v - v.mean(0)
        angle = math.acos(float((u * v).sum() / (u.norm() * v.norm())))

        def coefficients(t):
            p, q = ((1 - t) * angle).sin() / math.sin(angle), (t * angle).sin() / math.sin(angle)
            return torch.stack([p, q, 1 - p - q], 1)

        return Path((a, b, mean_neuron(network, a, b)), coefficients, "slerp")

    matched = [(a, permute(network, b, weight_matching(network, a, b, seed=0))) for a, b in pairs]
    line, turned, bow = (mean(figures(network, matched, f)[1]) for f in (straight, between, arc))
    assert line < turned < bow


def neurons_of(some):
    (layer,) = hidden_layers(WIDE)
    return torch.cat([butterflies(w, layer) for w in some])


def built(rows):
    """The network with these neurons, each worth as much as one of 128."""
    into, own, out = rows.split([64, 1, 10], 1)
    weights = {"1.weight": into, "1.bias": own[:, 0]}
    weights["3.weight"] = 128 / len(rows) * out.T
    weights["3.bias"] = torch.stack([w["3.bias"] for w in V]).mean(0)
    return evaluate(mlp((64, len(rows), 10)), weights, DIGITS.test)


def test_fresh_draws_from_the_pot():
    pot, g = neurons_of(V), torch.Generator().manual_seed(7)
    draws = [built(pot[torch.randint(len(pot), (128,), generator=g)]) for _ in range(20)]
    assert 0.14 < mean(d.loss for d in draws) < 0.24
    assert 0.92 < mean(d.accuracy for d in draws) < 0.96
    assert built(pot).accuracy > 0.985


def test_flows_by_likelihood_are_no_better_than_the_arc_and_the_bijection_reads_more():
    found = {"arc": figures(WIDE, SIX, arc)}
    for key in flows.FLOWS:
        flow = flows.load(key)
        found[key] = figures(WIDE, SIX, lambda n, a, b, f=flow: flows.flow_path(n, a, b, f))
    bow = mean(found["arc"][1])
    for key in ("rnvp-flow", "iaf-flow"):
        assert bow <= mean(found[key][1]) < bow + 0.015
    assert mean(found["rnvp-bijection"][0]) > mean(found["arc"][0]) + 0.002


def test_the_flows_have_not_learned_the_law_that_a_mixture_of_three_gaussians_begins_to_learn():
    pot, aside = neurons_of(V), neurons_of(HELD_OUT)
    gaussian, mixture = (
        GaussianMixture(k, reg_covar=1e-5, random_state=0).fit(pot.double().numpy()) for k in (1, 3)
    )
    base = gaussian.score(aside.double().numpy())
    assert mixture.score(aside.double().numpy()) - base > 1
    nu = flows.load("rnvp-flow")
    assert 0 < float(nu.log_density(aside).mean()) - base < 0.6
    noise = torch.randn(20_000, 75, generator=torch.Generator().manual_seed(0))
    assert built(nu.neurons(noise)).accuracy < 0.965 < built(pot).accuracy - 0.015
