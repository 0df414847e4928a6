"""What chapter 1 says of its networks, on all pairs and on seeds that the chapter does not show."""

from itertools import pairwise, product

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from modeconn_lite import data, evaluate, fresh_weights, mix, outputs, profile, segment, train, zoo
from modeconn_lite.landscapes import around, random_directions
from modeconn_lite.networks import mlp
from modeconn_lite.weights import apply, distance, inner, norm

LAYERS = "1357"
DIGITS = data.load("digits")
NETWORK = zoo.network("digits")
NETWORKS = zoo.load("digits")
PAIRS = list(zip(NETWORKS[::2], NETWORKS[1::2], strict=True))
RECIPE = {"epochs": 30, "augment": data.jitter(0.4)}


@pytest.fixture(params=range(6), ids=lambda k: f"pair{k + 1}")
def pair(request):
    return PAIRS[request.param]


def test_shoulders_and_a_valley_between(pair):
    seen = profile(NETWORK, segment(*pair), DIGITS.test)
    at = {t: float(seen.accuracy[(seen.t - t).abs().argmin()]) for t in (0.25, 0.5, 0.75)}
    assert min(at[0.25], at[0.75]) > 0.94 and 0.3 < at[0.5] < 0.55
    assert seen.barrier(of="error") >= 0.45
    assert 0.45 <= float(seen.t[seen.accuracy.argmin()]) <= 0.55


def test_the_bias_answers(pair):
    middle = segment(*pair)(0.5)
    answers = apply(NETWORK, middle, DIGITS.test.x).argmax(1).bincount(minlength=10)
    assert answers.max() > len(DIGITS.test) / 2
    assert answers.argmax() == middle["7.bias"].argmax() == 8


def test_half_of_b_reads_well_and_pays_dearly(pair):
    loss, accuracy = evaluate(NETWORK, mix((0.5,), pair[1:]), DIGITS.test)
    assert accuracy > 0.85 and loss > 1


def test_temperature_mends_half_of_a_wide_midpoint():
    wide, many = zoo.network("digits-wide"), zoo.load("digits-wide")
    y, half = DIGITS.test.y, torch.arange(len(DIGITS.test)) % 2 == 0
    gains, losses = [], []
    for a, b in zip(many[::2], many[1::2], strict=True):
        end, middle = outputs(wide, segment(a, b), [0.0, 0.5], DIGITS.test.x)

        def fall(z):
            taus = [0.05 * k for k in range(4, 41)]
            tau = min(taus, key=lambda tau: cross_entropy(z[half] / tau, y[half]))
            plain = cross_entropy(z[~half], y[~half])
            return plain - cross_entropy(z[~half] / tau, y[~half]), plain

        (_, at_end), (gain, plain) = fall(end), fall(middle)
        assert abs(fall(end)[0]) < 0.02
        gains.append(gain)
        losses.append(plain - at_end)
    assert 0.35 < sum(gains) / sum(losses) < 0.55


# --- Start and order ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exact():
    return zoo.network("digits").double()


def in_place(a, b):
    """Share of hidden neurons that are most like the one of the same number."""
    found = []
    for layer in LAYERS[:3]:
        rows = [normalize(w[f"{layer}.weight"], dim=1) for w in (a, b)]
        found.append(((rows[0] @ rows[1].T).argmax(1) == torch.arange(64)).double().mean())
    return float(sum(found) / 3)


def test_the_start_makes_strangers(exact):
    one = [fresh_weights(exact, seed) for seed in range(1000, 1003)]
    other = [fresh_weights(exact, seed) for seed in range(1003, 1006)]
    order, reordered = [1006, 1007, 1008], [1009, 1010, 1011]
    trained = train(
        exact, DIGITS.train, order + reordered + order, start=one + one + other, **RECIPE
    ).weights
    for base, by_order, by_start in zip(trained[:3], trained[3:6], trained[6:], strict=True):
        assert profile(exact, segment(base, by_order), DIGITS.test).barrier() < 0.15
        assert profile(exact, segment(base, by_start), DIGITS.test).barrier() > 1
        assert in_place(base, by_order) > 0.85 and in_place(base, by_start) < 0.05


def test_from_the_start_it_falls_and_yet_there_is_a_linear_barrier(exact):
    run = train(exact, DIGITS.train, range(2000, 2004), snapshots=[0], **RECIPE)
    for start, end in zip(run.snapshots[0], run.weights, strict=True):
        seen = profile(exact, segment(start, end), DIGITS.train)
        assert (seen.loss.diff() < 0).all() and seen.barrier("max") == 0
        assert 0.1 < seen.barrier() < 0.25
    for a, b in pairwise(run.weights):
        assert profile(exact, segment(a, b), DIGITS.train).barrier() > 1


def test_wider_is_lower_and_deeper_is_higher():
    def mean_barrier(*hidden):
        net = mlp((64, *hidden, 10)).double()
        options = RECIPE | {"epochs": 20}
        ws = train(net, DIGITS.train, range(7000, 7008), **options).weights
        lines = [segment(a, b) for a, b in zip(ws[::2], ws[1::2], strict=True)]
        return sum(profile(net, line, DIGITS.test, 21).barrier() for line in lines) / 4

    one = mean_barrier(32)
    assert mean_barrier(8) > 1.5 * one > 2 * mean_barrier(128)
    assert one + 0.4 < (two := mean_barrier(32, 32)) < mean_barrier(32, 32, 32) - 0.4
    assert two < 4 * one


# --- Cross terms ----------------------------------------------------------------------------------


def excess(n: int, d: int) -> float:
    """Expected squared error of the midpoint of two shuffled linear networks, less 1/4: exact.

    With W's columns Haar-distributed and P a random permutation, tr P, (tr P)² and tr P² have the
    means 1, 2 and 2, and E[Π_ij Π_kl] = a δ_ij δ_kl + b (δ_ik δ_jl + δ_il δ_jk) for Π = W Wᵀ.
    """
    b = d * (n - d) / (n * (n - 1) * (n + 2))
    a = (d**2 - 2 * b * n) / n**2
    return -1 / (2 * n) + ((2 * n + 4) * a + (2 * n + 12) * b) / (16 * d)


@pytest.mark.parametrize(("n", "d"), [(16, 1), (16, 4), (16, 16), (48, 12)])
def test_excess_as_measured(n, d):
    g = torch.Generator().manual_seed(n + d)
    W = torch.linalg.qr(torch.randn(6000, n, d, generator=g, dtype=torch.float64)).Q
    order = torch.rand(6000, n, generator=g).argsort(1)
    mean = (W + W.gather(1, order[..., None].expand_as(W))) / 2
    error = (mean.mT @ mean - torch.eye(d)).square().sum((1, 2)) / d - 0.25
    assert abs(error.mean() - excess(n, d)) < 4 * error.std() / 6000**0.5


@pytest.mark.parametrize("n", [8, 64, 1000])
def test_excess_is_d_minus_3_by_8n_to_first_order(n):
    for d in range(1, n + 1):
        assert abs(excess(n, d) - (d - 3) / (8 * n)) <= d / n**2


# --- Words ----------------------------------------------------------------------------------------


def received(theta, x, gates=None):
    seen, opened, h = [], [], x
    for k, layer in enumerate(LAYERS):
        before = h @ theta[f"{layer}.weight"].T + theta[f"{layer}.bias"]
        gate = before > 0 if gates is None else gates[k]
        seen.append(before)
        opened.append(gate)
        h = before * gate
    return seen, opened


def variance(values: Tensor) -> Tensor:
    return values.var(dim=0).sum()


def without_biases(theta):
    return {name: w if w.dim() == 2 else torch.zeros_like(w) for name, w in theta.items()}


def test_what_arrives_is_the_sum_of_all_words():
    a, b = ({k: w.double() for k, w in without_biases(w).items()} for w in PAIRS[0])
    x = DIGITS.test.x[:50].double()
    middle, gates = received(segment(a, b)(0.5), x)
    torch.testing.assert_close(apply(NETWORK, segment(a, b)(0.5), x), middle[-1])
    total, pure = 0, 0
    for word in product((a, b), repeat=4):
        theta = {n: 0.5 * word[LAYERS.index(n[0])][n] for n in a}
        z = received(theta, x, gates)[0][-1]
        total = total + z
        pure = pure + z * all(w is word[0] for w in word)
    torch.testing.assert_close(total, middle[-1])
    halves = [received(mix((0.5,), (w,)), x, gates)[0][-1] for w in (a, b)]
    torch.testing.assert_close(pure, sum(halves))


def split(a, b, x, gates=None):
    """Pure words, all the rest, and the ends' mean variance, layer by layer."""
    middle, own = received(segment(a, b)(0.5), x)
    if gates is not None:
        gates = gates(own)
        middle = received(segment(a, b)(0.5), x, gates)[0]
    halves = [received(mix((0.5,), (w,)), x, gates or own)[0] for w in (a, b)]
    ends = [received(w, x)[0] for w in (a, b)]
    for whole, p, q, in_a, in_b in zip(middle, *halves, *ends, strict=True):
        yield p + q, whole - p - q, (variance(in_a) + variance(in_b)) / 2


def correlation(p, q):
    p, q = p - p.mean(0), q - q.mean(0)
    return float((p * q).sum() / (p.square().sum() * q.square().sum()).sqrt())


def test_pure_words_follow_the_rule_and_cross_terms_stand_against_them():
    x, rule = DIGITS.test.x, torch.tensor([0.5**0.5, 0.5**1.5, 0.5**2.5, 0.5**3])
    sizes, shares, against, strangers = [], [], [], []
    g = torch.Generator().manual_seed(0)

    def shuffled(gates):
        return [gate[:, torch.randperm(gate.shape[1], generator=g)] for gate in gates]

    for a, b in PAIRS:
        parts = list(split(a, b, x))
        sizes.append([(variance(p) / end).sqrt() for p, _, end in parts])
        shares.append([variance(c) / (variance(c) + variance(p)) for p, c, _ in parts[1:]])
        against.append([correlation(p, c) for p, c, _ in parts[1:]])
        strangers.append([correlation(p, c) for p, c, _ in list(split(a, b, x, shuffled))[1:]])
    kept = torch.tensor(sizes).mean(0) / rule
    assert ((kept > 0.85) & (kept < 1.05)).all()
    shares = torch.tensor(shares).mean(0)
    assert ((shares > 0.25) & (shares < 0.35)).all()
    assert (torch.tensor(against) < -0.1).all()
    assert (torch.tensor(strangers).mean(0) > 0).all()


# --- Landscapes -----------------------------------------------------------------------------------


def test_a_direction_drowns_every_layer_but_the_enlarged_one(pair):
    a = pair[0]
    scaled = a | {"1.weight": 10 * a["1.weight"], "1.bias": 10 * a["1.bias"]}
    scaled["3.weight"] = 0.1 * a["3.weight"]
    moved = {}
    for name, weights in (("a", a), ("copy", scaled)):
        (d,) = random_directions(weights, 1, seed=0, normalise="length")
        parts = [[{n: w[n] for n in w if n[0] == k} for w in (d, weights)] for k in LAYERS]
        moved[name] = [norm(step) / norm(own) for step, own in parts]
    assert max(moved["a"]) < 1.6 and moved["copy"][0] < moved["a"][0]
    assert moved["copy"][1] > 50 and min(moved["copy"][2:]) > 5


def test_random_slices_find_no_solution(pair):
    a, b = pair
    angles = torch.arange(8, dtype=torch.float64) * torch.pi / 4
    circle = torch.stack([angles.cos(), angles.sin()], dim=1) * distance(a, b) / norm(a)
    for seed in range(50):
        window = around(a, random_directions(a, 2, seed=seed, normalise="length"))
        for z in outputs(NETWORK, window, circle, DIGITS.test.x):
            assert cross_entropy(z, DIGITS.test.y) > 1


def test_strangers_are_about_orthogonal(pair):
    a, b = pair
    assert 0 <= inner(a, b) / (norm(a) * norm(b)) < 0.05


def test_a_long_random_walk_seen_from_its_end_lies_in_a_plane_to_nine_tenths():
    steps = 400  # in so many dimensions that all steps are at right angles
    gram = torch.arange(1, steps + 1, dtype=torch.float64)
    sizes = torch.linalg.eigvalsh(torch.minimum(gram[:, None], gram[None]))
    share = float(sizes[-2:].sum() / sizes.sum())
    assert share == pytest.approx(8 / torch.pi**2 * (1 + 1 / 9), abs=1e-3)


def test_the_spirals_worst_points():
    network, many, split_ = zoo.network("spirals"), zoo.load("spirals"), data.load("spirals").test
    pairs = zip(many[::2], many[1::2], strict=True)
    seen = [profile(network, segment(a, b), split_) for a, b in pairs]
    worst = [float(p.t[p.loss.argmax()]) for p in seen]
    assert worst == pytest.approx([0.25, 0.57, 0.75], abs=0.02)
    assert seen[0].worst_loss > 1.4


# --- Exercises ------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", LAYERS)
def test_one_layer_at_a_time(pair, layer):
    for a, b in (pair, pair[::-1]):
        hybrid = a | {name: w for name, w in b.items() if name.startswith(layer)}
        seen = profile(NETWORK, segment(a, hybrid), DIGITS.test)
        assert seen.accuracy[-1] < 0.3 and seen.accuracy[30] > 0.75
        assert seen.barrier() < 0.005
        if layer in "35":
            assert seen.accuracy[30] > 0.96


def test_what_the_hybrids_pay():
    """The check cell holds an answer to this figure, so it must be the same on every machine."""
    losses = [
        evaluate(NETWORK, a | {n: w for n, w in b.items() if n[0] == layer}, DIGITS.test).loss
        for a, b in PAIRS
        for layer in LAYERS
    ]
    assert sum(losses) / 24 == pytest.approx(4.715, abs=1e-3)


@pytest.mark.parametrize("seed", range(6))
def test_a_stranger_to_itself(seed):
    g = torch.Generator().manual_seed(seed)
    a, copy = NETWORKS[0], dict(NETWORKS[0])
    for layer, following in pairwise(LAYERS):
        order = torch.randperm(64, generator=g)
        copy[f"{layer}.weight"] = copy[f"{layer}.weight"][order]
        copy[f"{layer}.bias"] = copy[f"{layer}.bias"][order]
        copy[f"{following}.weight"] = copy[f"{following}.weight"][:, order]
    z, z_copy = apply(NETWORK, a, DIGITS.test.x), apply(NETWORK, copy, DIGITS.test.x)
    assert (z - z_copy).abs().max() < 1e-4 * z.abs().max()
    assert profile(NETWORK, segment(a, copy), DIGITS.test).worst_accuracy < 0.75
