import itertools
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from modeconn_lite import data, exchanges, zoo
from modeconn_lite.activations import watch
from modeconn_lite.evaluation import evaluate, profile
from modeconn_lite.forward import outputs
from modeconn_lite.layout import hidden_layers
from modeconn_lite.methods import reordering
from modeconn_lite.networks import mlp, residual_mlp
from modeconn_lite.neurons import permute
from modeconn_lite.paths import FunctionPath
from modeconn_lite.weights import apply, fresh_weights, mix, to

CHOICES = ("sum", "largest", "worst", "random")


def pair_costs(n, seed):
    g = torch.Generator().manual_seed(seed)
    cost = torch.rand(n, n, generator=g, dtype=torch.float64)
    return cost + cost.T


def pairs_of(order, swaps):
    """The neurons that change places, in turn, and where all of them stand in the end."""
    now, found = list(order), []
    for i, j in swaps:
        found.append(frozenset((now[i], now[j])))
        now[i], now[j] = now[j], now[i]
    return found, now


def ways(order):
    """All shortest sequences of pairs of neurons that undo an order."""
    size = len(exchanges.transpositions(order))
    everyone = list(itertools.combinations(range(len(order)), 2))
    found = []

    def go_on(now, pairs):
        if now == sorted(now):
            found.append(tuple(pairs))
        left = size - len(pairs)
        if len(exchanges.transpositions(now)) != left:
            return
        for p, q in everyone:
            swap = {p: q, q: p}
            if left:
                go_on([swap.get(neuron, neuron) for neuron in now], [*pairs, frozenset((p, q))])

    go_on(list(order), [])
    return found


# --- Which exchanges -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_there_are_as_many_ways_as_denes_counts_and_the_best_and_worst_are_found(size):
    order = [*range(1, size), 0]
    found = ways(order)
    assert len(found) == size ** (size - 2)
    for seed in range(8):
        cost = pair_costs(size, seed)
        at = lambda pairs, c=cost: [float(c[tuple(sorted(pair))]) for pair in pairs]  # noqa: E731
        for choose, by, best in (("sum", sum, min), ("largest", max, min), ("worst", sum, max)):
            pairs, now = pairs_of(order, reordering.exchanges_by(order, cost, choose))
            assert now == sorted(now)
            assert tuple(pairs) in found
            assert by(at(pairs)) == pytest.approx(best(by(at(way)) for way in found))


@settings(max_examples=60)
@given(st.permutations(range(11)), st.sampled_from(CHOICES), st.integers(0, 1000))
def test_exchanges_undo_the_order_and_are_as_few_as_can_be(order, choose, seed):
    swaps = reordering.exchanges_by(order, pair_costs(11, seed), choose, seed=seed)
    assert pairs_of(order, swaps)[1] == list(range(11))
    assert len(swaps) == len(exchanges.transpositions(order))


@given(st.permutations(range(9)), st.sampled_from(CHOICES))
def test_a_long_cycle_is_cut_first(order, choose):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reordering, "LONGEST", 3)
        swaps = reordering.exchanges_by(order, pair_costs(9, 0), choose)
    assert pairs_of(order, swaps)[1] == list(range(9))
    assert len(swaps) == len(exchanges.transpositions(order))


def test_random_pairs_are_as_in_a_sequence_drawn_with_equal_chances():
    order = [1, 2, 3, 0]
    wanted = Counter(frozenset(way) for way in ways(order))
    draws = 4000
    found = Counter(
        frozenset(
            pairs_of(order, reordering.exchanges_by(order, torch.zeros(4, 4), "random", seed=k))[0]
        )
        for k in range(draws)
    )
    assert found.keys() == wanted.keys()
    total = sum(wanted.values())
    far = sum((found[k] - draws * w / total) ** 2 / (draws * w / total) for k, w in wanted.items())
    assert far < 31.3  # χ² with 11 degrees of freedom: one in a thousand is larger


def test_on_wide_layers_best_worst_and_random_are_in_order():
    g = torch.Generator().manual_seed(0)
    order, cost = torch.randperm(200, generator=g), pair_costs(200, 1)
    total, top = {}, {}
    for choose in CHOICES:
        pairs, now = pairs_of(order.tolist(), reordering.exchanges_by(order, cost, choose))
        assert now == list(range(200))
        each = [float(cost[tuple(pair)]) for pair in pairs]
        total[choose], top[choose] = sum(each), max(each)
    assert total["sum"] < total["random"] < total["worst"]
    assert top["largest"] <= top["sum"] and total["sum"] <= total["largest"]


def test_wrong_orders_and_costs_are_refused():
    cost = pair_costs(3, 0)
    for order in ([0, 0, 1], [0, 1, 3], None, "012", []):
        with pytest.raises(ValueError, match="order"):
            reordering.exchanges_by(order, cost)
    for wrong in (None, torch.ones(2, 2), torch.arange(9.0).view(3, 3), cost * torch.nan):
        with pytest.raises(ValueError, match="cost must be"):
            reordering.exchanges_by([1, 2, 0], wrong)
    with pytest.raises(ValueError, match="choose must be one of"):
        reordering.exchanges_by([1, 2, 0], cost, "best")
    with pytest.raises(ValueError, match="seed"):
        reordering.exchanges_by([1, 2, 0], cost, "random", seed=-1)


@pytest.mark.parametrize("at_once", [4, 4096])
def test_losses_of_exchanges_are_those_half_way(at_once, monkeypatch):
    monkeypatch.setattr(reordering, "AT_ONCE", at_once)
    network, split = mlp((64, 5, 4, 10)), data.load("digits").test
    b = fresh_weights(network, 0)
    found = reordering.exchange_losses(network, b, "3", split)
    here = evaluate(network, b, split).loss
    for p, q in itertools.combinations(range(4), 2):
        order = list(range(4))
        order[p], order[q] = q, p
        half = mix((0.5, 0.5), (b, permute(network, b, {"3": order})))
        rise = evaluate(network, half, split).loss - here
        assert float(found[p, q]) == pytest.approx(rise, abs=1e-5)
    assert torch.equal(found, found.T) and not found.diagonal().any()
    with pytest.raises(ValueError, match="no hidden layer '7'"):
        reordering.exchange_losses(network, b, "7", split)


# --- No exchanges at all --------------------------------------------------------------------------


NETWORKS = {
    "deep": (lambda: mlp((9, 8, 7, 6, 3)), (30, 9)),
    "no bias, tanh": (
        lambda: nn.Sequential(nn.Linear(9, 7, bias=False), nn.Tanh(), nn.Linear(7, 3, bias=False)),
        (30, 9),
    ),
    "convnet": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 5, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(5, 4, 3, padding=1, padding_mode="circular"),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(4 * 16, 6),
            nn.ReLU(),
            nn.Linear(6, 3),
        ),
        (20, 2, 8, 8),
    ),
    "residual": (lambda: residual_mlp(9, 3, width=8, hidden=6, blocks=2), (30, 9)),
}


def a_case(kind, seed=0):
    make, shape = NETWORKS[kind]
    network, g = make().double(), torch.Generator().manual_seed(seed)
    b = to(fresh_weights(network, seed), torch.float64)
    x = torch.randn(shape, generator=g, dtype=torch.float64)
    split = data.Split(x, torch.arange(len(x)) % 3, "noise", classes=tuple("abc"))
    layers = hidden_layers(network)
    return network, b, split, {n.name: torch.randperm(n.size, generator=g) for n in layers}


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("given_data", [False, True])
@pytest.mark.parametrize("kind", NETWORKS)
def test_nothing_changes_but_while_a_neuron_is_muted_and_restored(kind, given_data):
    network, b, split, orders = a_case(kind)
    path = reordering.free_walk_back(network, b, orders, split if given_data else None)
    assert same(path(0.0), permute(network, b, orders))
    assert same(path(1.0), b)
    t = sorted({*path.knots, *torch.linspace(0, 1, 97).tolist()})
    plain = FunctionPath(path.function)
    fast, slow = outputs(network, path, t, split.x), outputs(network, plain, t, split.x)
    assert torch.allclose(fast, slow, atol=1e-9)
    assert torch.allclose(path.travelled(t), plain.travelled(t), rtol=1e-7, atol=1e-9)
    starts = [k for k, word in enumerate(path.labels) if word == "mute"]
    ends = [k for k, word in enumerate(path.labels) if word == "restore"]
    assert len(starts) == len(ends) == len(orders)
    for start, end in zip(starts, ends, strict=True):
        words = path.labels[start + 1 : end]
        assert words[::2] == ("receive",) * len(words[::2])
        assert words[1::2] == ("hand over",) * len(words[1::2])
        low, high = path.knots[start + 1], path.knots[end]
        still = [i for i, time in enumerate(t) if low <= time <= high]
        assert torch.allclose(slow[still], slow[still[:1]], atol=1e-9)
    assert torch.allclose(slow[[0, -1]], apply(network, b, split.x), atol=1e-9)


@given(st.permutations(range(7)), st.integers(0, 6))
@settings(max_examples=40)
def test_pieces_are_counted(order, idle):
    """L + 1 hand-overs a cycle, L − 1 if the spare neuron's own; two pieces each, and one more."""
    network = mlp((4, 7, 2))
    b = fresh_weights(network, 0)
    b["3.weight"][:, idle] = 0
    path = reordering.free_walk_back(network, b, {"1": torch.tensor(order)})
    assert same(path(0.0), permute(network, b, {"1": order})) and same(path(1.0), b)
    cycles = reordering._cycles(order)
    if not cycles:
        assert path.labels == () and same(path(0.4), b)
        return
    overs = sum(len(cycle) + (-1 if idle in cycle else 1) for cycle in cycles)
    assert Counter(path.labels) == {"receive": overs + 1, "hand over": overs} or not overs
    assert len(path.knots) == 2 * overs + 2


def test_with_a_dead_neuron_the_loss_is_the_same_all_along():
    network, split = zoo.network("digits-wide"), data.load("digits").test
    b = zoo.load("digits-wide")[1]
    b["3.weight"][:, 5] = 0
    order = torch.randperm(128, generator=torch.Generator().manual_seed(0))
    path = reordering.free_walk_back(network, b, {"1": order})
    assert set(path.labels) == {"receive", "hand over"}
    found = profile(network, path, split)
    assert float(found.loss.max() - found.loss.min()) < 1e-6
    plain = profile(network, FunctionPath(path.function), split, points=[0.0, 0.111, 0.5, 0.777, 1])
    assert torch.allclose(plain.loss, found.loss[:1].expand(5), atol=1e-6)


def test_the_neuron_that_is_missed_least_is_muted():
    """By what its readers hear of it beside its mean, measured on all images."""
    network, split = zoo.network("digits"), data.load("digits").train
    b = zoo.load("digits")[1]
    layer = hidden_layers(network)[1]
    read = lambda w, x: x.flatten(1) @ w["1.weight"].T + w["1.bias"]  # noqa: E731
    h = F.relu(F.relu(read(b, split.x)) @ b["3.weight"].T + b["3.bias"])
    heard = h @ b["5.weight"].T + b["5.bias"]
    missed = []
    for i in range(64):
        silent = {key: w.clone() for key, w in b.items()}
        silent["5.bias"] += silent["5.weight"][:, i] * h[:, i].mean()
        silent["5.weight"][:, i] = 0
        now = h @ silent["5.weight"].T + silent["5.bias"]
        missed.append((float((now - heard).square().sum(1).mean()), i, silent))
    spare, found = reordering.muted(network, b, layer, split)
    _, best, silent = min(missed, key=lambda one: one[0])
    assert spare == best
    assert all(torch.allclose(found[key], silent[key], atol=1e-6) for key in b)
    blind, found = reordering.muted(network, b, layer)
    product = b["5.weight"].norm(dim=0) * torch.cat([b["3.weight"], b["3.bias"][:, None]], 1).norm(
        dim=1
    )
    assert blind == int(product.argmin()) and not found["5.weight"][:, blind].any()
    assert torch.equal(found["5.bias"], b["5.bias"])


@pytest.mark.parametrize("kind", ["convnet", "residual", "no bias, tanh"])
def test_every_kind_of_reader_misses_what_is_measured(kind):
    """A stream is missed by all its readers; a filter by each pixel; without a bias, wholly."""
    network, b, split, _ = a_case(kind)
    for layer in hidden_layers(network):
        readers = [s.tensor.removesuffix(".weight") for s in layer.outgoing]

        def hears(weights, inputs, readers=readers):
            """What each reader makes of these inputs: of its own, or of those given."""
            seen = {}
            watch(network, weights, split.x, readers, lambda n, x, y: seen.update({n: (x, y)}))
            if inputs is None:
                return seen
            return {
                n: functional_call(
                    network.get_submodule(n),
                    {
                        key: weights[f"{n}.{key}"]
                        for key in dict(network.get_submodule(n).named_parameters())
                    },
                    (inputs[n][0],),
                )
                for n in readers
            }

        before = hears(b, None)
        missed, means = reordering._heard(network, b, layer, split.x)
        for i in range(layer.size):
            silent = reordering._without(b, layer, i, means)
            after = hears(silent, before)
            for n in readers:
                change = (after[n] - before[n][1]).transpose(0, 1).flatten(1)  # (m, images …)
                if f"{n}.bias" in b:
                    assert change.mean(1).abs().max() < 1e-9
            if kind != "convnet":  # whose neighbouring pixels are not independent
                total = sum(
                    float((after[n] - before[n][1]).square().sum(1).mean()) for n in readers
                )
                assert float(missed[i]) == pytest.approx(total, rel=1e-6, abs=1e-12)


def test_what_fits_no_walk_is_refused():
    network, b, split, _ = a_case("deep")
    with pytest.raises(ValueError, match="order of layer '1'"):
        reordering.free_walk_back(network, b, {"1": [0, 0, 1, 2, 3, 4, 5, 6]})
    with pytest.raises(ValueError, match="no hidden layer '2'"):
        reordering.free_walk_back(network, b, {"2": [1, 0]})
    with pytest.raises(ValueError, match="split"):
        reordering.free_walk_back(network, b, {"1": list(range(7, -1, -1))}, split.x)
