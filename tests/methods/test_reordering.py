import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeconn_lite import data, exchanges
from modeconn_lite.evaluation import evaluate
from modeconn_lite.methods import reordering
from modeconn_lite.networks import mlp
from modeconn_lite.neurons import permute
from modeconn_lite.weights import fresh_weights, mix

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


def test_the_same_seed_draws_the_same_exchanges():
    order, cost = (
        torch.randperm(12, generator=torch.Generator().manual_seed(3)),
        torch.zeros(12, 12),
    )
    seeds = 0, np.int64(0), 1
    draws = [reordering.exchanges_by(order, cost, "random", seed=seed) for seed in seeds]
    assert draws[0] == draws[1] != draws[2]


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
    odd = cost.to_sparse(), cost.to("meta"), cost.to(torch.complex64), "cost"
    square = torch.ones(2, 2), torch.arange(9.0).view(3, 3), cost * torch.nan
    for wrong in (None, *odd, *square):
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
    for name in ("7", ["3"], None):
        with pytest.raises(ValueError, match="no hidden layer"):
            reordering.exchange_losses(network, b, name, split)
    few = mlp((64, 5, 3))
    with pytest.raises(ValueError, match="3 outputs"):
        reordering.exchange_losses(few, fresh_weights(few, 0), "1", split)
