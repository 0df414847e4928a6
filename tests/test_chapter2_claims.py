"""What chapter 2 says in words or shows in a drawing, on other seeds and pairs than it shows."""

import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import nn

from modeconn_lite import apply, data, distance, fresh_weights, profile, segment, train, zoo
from modeconn_lite.methods.repair import moments, repaired
from modeconn_lite.methods.saddles import permutation_valley
from modeconn_lite.methods.symmetry import activation_matching, weight_matching
from modeconn_lite.networks import mlp, residual_mlp
from modeconn_lite.neurons import hidden_layers, permute, scale, swap
from modeconn_lite.paths import polychain
from modeconn_lite.weights import inner, mix

NETWORK, DIGITS = zoo.network("digits"), data.load("digits")
NETS = zoo.load("digits")
PAIRS = list(zip(NETS[::2], NETS[1::2], strict=True))


def barrier(path):
    return profile(NETWORK, path, DIGITS.test, 21).barrier()


# --- The valley -----------------------------------------------------------------------------------


def teacher(seed, neurons=4):
    """As the chapter draws its teachers: tanh, one output, outgoing weights of one sign."""
    network = nn.Sequential(nn.Linear(2, neurons), nn.Tanh(), nn.Linear(neurons, 1))
    normal = {"generator": torch.Generator().manual_seed(seed), "dtype": torch.float64}
    w = {name: torch.randn(p.shape, **normal) for name, p in network.named_parameters()}
    sign = w["2.weight"][0].sign()
    w["0.weight"], w["0.bias"] = w["0.weight"] * sign[:, None], w["0.bias"] * sign
    w["2.weight"] = w["2.weight"] * sign
    x = torch.randn(200, 2, **normal)
    return network, w, x, apply(network, w, x)


@pytest.mark.parametrize("seed", [3, 22, 26])
def test_the_valley_is_lower_than_the_straight_exchange(seed):
    network, w, x, y = teacher(seed)
    valley = permutation_valley(network, w, "0", 0, 1, x, y, loss=F.mse_loss)
    straight = segment(w, swap(network, w, "0", 0, 1))
    high, low = (
        max(float(F.mse_loss(apply(network, path(k / 100), x), y)) for k in range(101))
        for path in (straight, valley)
    )
    assert low < high / 3


@pytest.mark.parametrize("i, j", [(0, 1), (3, 1)])
def test_with_a_neuron_to_spare_two_are_exchanged_at_loss_zero(i, j):
    network, w, x, _ = teacher(7, neurons=5)
    w["2.weight"] = w["2.weight"].clone()
    w["2.weight"][:, 4] = 0  # the fifth sends nothing
    chain, y = [w], apply(network, w, x)
    for giver, taker in ((i, 4), (j, i), (4, j)):
        near = {name: value.clone() for name, value in chain[-1].items()}
        for name in ("0.weight", "0.bias"):
            near[name][taker] = near[name][giver]
        done = near | {"2.weight": near["2.weight"].clone()}
        done["2.weight"][:, taker] = done["2.weight"][:, giver]
        done["2.weight"][:, giver] = 0
        chain += [near, done]
    path = polychain([*chain, swap(network, w, "0", i, j)])
    for k in range(141):
        assert torch.allclose(apply(network, path(k / 140), x), y, atol=1e-12)


# --- Matching -------------------------------------------------------------------------------------


def test_the_assignment_of_the_drawing():
    likeness = torch.tensor([[9, 7, 1, 2], [8, 2, 3, 1], [1, 3, 6, 5], [2, 1, 5, 1]])
    rows, columns = linear_sum_assignment(likeness, maximize=True)
    assert columns.tolist() == [1, 0, 3, 2]
    assert likeness[rows, columns].sum() == 25
    left, greedy = likeness.clone(), 0
    for _ in range(4):
        greedy += int(left.max())
        i, j = divmod(int(left.argmax()), 4)
        left[i], left[:, j] = -1, -1
    assert greedy == 18


def test_where_the_search_for_a_planted_order_fails_its_own_objective_knows():
    network, found_right, likeness = residual_mlp(2, 2, width=32, hidden=32, blocks=3), 0, []
    for seed in range(1000, 1040):
        g = torch.Generator().manual_seed(seed)
        w = {name: value.double() for name, value in fresh_weights(network, seed).items()}
        layers = hidden_layers(network)
        order = {h.name: torch.randperm(h.size, generator=g) for h in layers}
        noisy = {
            name: v + 1.25 * v.std() * torch.randn(v.shape, generator=g).double()
            for name, v in permute(network, w, order).items()
        }
        home = {name: torch.argsort(o) for name, o in order.items()}
        found = weight_matching(network, w, noisy, seed=0, restarts=10)
        right = all(torch.equal(found[name], home[name]) for name in home)
        found_right += right
        if not right:
            likeness += [
                inner(w, permute(network, noisy, found)) / inner(w, permute(network, noisy, home))
            ]
    assert 34 <= found_right < 40
    assert max(likeness) < 0.75


def disguised(w, seed):
    g = torch.Generator().manual_seed(seed)
    layers = hidden_layers(NETWORK)
    factors = {h.name: 10 ** (2 * torch.rand(h.size, generator=g) - 1) for h in layers}
    return scale(NETWORK, w, factors)


def of_one_scale(w):
    for h in hidden_layers(NETWORK):
        length = torch.cat([w[name].reshape(h.size, -1) for name in h.incoming], 1).norm(dim=1)
        w = scale(NETWORK, w, {h.name: 1 / length})
    return w


@pytest.mark.parametrize("pair", [1, 4])
def test_one_scale_before_matching_undoes_a_disguise(pair):
    a, b = PAIRS[pair]
    hidden = disguised(b, pair)
    unit = of_one_scale(hidden)
    assert distance(unit, of_one_scale(b)) < 1e-4 * distance(a, b)
    blind = weight_matching(NETWORK, a, hidden, seed=0)
    seeing = weight_matching(NETWORK, of_one_scale(a), unit, seed=0)
    plain = weight_matching(NETWORK, of_one_scale(a), of_one_scale(b), seed=0)
    assert all(torch.equal(seeing[name], plain[name]) for name in plain)
    assert barrier(segment(a, permute(NETWORK, b, blind))) > 0.2
    assert barrier(segment(a, permute(NETWORK, b, seeing))) < 0.05


# --- Variance and REPAIR --------------------------------------------------------------------------


def test_variance_of_a_mean_in_the_first_layer():
    a, b = PAIRS[2]
    x = DIGITS.train.x
    (name, *_) = moments(NETWORK, a, x)
    z_a, z_b = (x @ w[f"{name}.weight"].T + w[f"{name}.bias"] for w in (a, b))
    v_a, v_b = z_a.var(0, correction=0), z_b.var(0, correction=0)
    rho = ((z_a - z_a.mean(0)) * (z_b - z_b.mean(0))).mean(0) / (v_a * v_b).sqrt()
    half = moments(NETWORK, mix((0.5, 0.5), (a, b)), x)[name][1].square()
    assert torch.allclose(half, (v_a + v_b) / 4 + rho * (v_a * v_b).sqrt() / 2, rtol=1e-4)
    of_equals = (1 + rho) / 2 * (v_a + v_b) / 2  # right for equal variances, these are not
    assert (half - of_equals).abs().max() > 0.01 * half.mean()


def test_repair_mends_unmatched_pairs_and_costs_a_little_on_matched_ones():
    x, lower, higher = DIGITS.train.x, 0, 0
    for a, b in PAIRS:
        there = permute(NETWORK, b, activation_matching(NETWORK, a, b, x))
        lower += barrier(repaired(NETWORK, a, b, x)) < barrier(segment(a, b)) / 2
        higher += barrier(repaired(NETWORK, a, there, x)) > barrier(segment(a, there))
    assert lower == 6
    assert higher >= 5


def test_repair_lowers_the_barrier_of_five_matched_layers():
    network, x = mlp((64, *[32] * 5, 10)), DIGITS.train.x
    options = {"epochs": 20, "augment": data.jitter(0.4)}
    nets, lower = train(network, DIGITS.train, range(100, 112), **options).weights, 0
    for a, b in zip(nets[::2], nets[1::2], strict=True):
        there = permute(network, b, activation_matching(network, a, b, x))
        plain, mended = (
            profile(network, path, DIGITS.test, 21).barrier()
            for path in (segment(a, there), repaired(network, a, there, x))
        )
        lower += mended < plain
    assert lower >= 5
