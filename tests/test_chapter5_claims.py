"""What chapter 5 says is exact, checked on random plans, small permutations and the book's nets."""

from __future__ import annotations

from itertools import combinations, pairwise, permutations, product

import pytest
import torch

from modeconn_lite import data, zoo
from modeconn_lite.exchanges import cycles, transpositions, walk_back
from modeconn_lite.forward import outputs
from modeconn_lite.methods import dropout, transport
from modeconn_lite.methods.fusion import carried
from modeconn_lite.methods.handovers import free_walk_back
from modeconn_lite.methods.stability import dropped, find_kept
from modeconn_lite.methods.symmetry import weight_matching
from modeconn_lite.methods.transport import cloud, ground_cost, plan, rounded
from modeconn_lite.networks import mlp
from modeconn_lite.neurons import hidden_layers, permute
from modeconn_lite.weights import apply, fresh_weights, to

TAUS = (0.03, 0.1, 0.3, 1.0, 3.0)


def a_cost(seed, n=6):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(n, n, generator=g, dtype=torch.float64)


def best_of_all(cost):
    n = len(cost)
    every = torch.tensor(list(permutations(range(n))))
    return every[cost[torch.arange(n), every].sum(1).argmin()]


# --- Plans and permutations -----------------------------------------------------------------------


def mixed_of(doubly):
    """Birkhoff's proof, step by step: shares and permutations that a matrix is mixed of."""
    n, rest, found = len(doubly), doubly.clone(), []
    while rest.sum() > 1e-9:
        possible = (rest > 1e-12).double()
        order = rounded(possible)
        share = float(rest[torch.arange(n), order].min())
        assert share > 0, "Hall: a permutation of positive entries"
        rest = rest - share * torch.eye(n, dtype=torch.float64)[order]
        rest = rest.where(rest > 1e-12, torch.zeros_like(rest))
        found.append((share, order))
    return found


@pytest.mark.parametrize("seed", range(8))
def test_a_plan_is_a_mix_of_permutations_and_one_of_them_costs_no_more(seed):
    cost, n = a_cost(seed), 6
    g = torch.Generator().manual_seed(100 + seed)
    shares = torch.rand(5, generator=g, dtype=torch.float64)
    shares /= shares.sum()
    doubly = sum(
        s * torch.eye(n, dtype=torch.float64)[torch.randperm(n, generator=g)] for s in shares
    )
    found = mixed_of(doubly)
    assert len(found) <= int((doubly > 0).sum()), "each step removes an entry"
    again = sum(s * torch.eye(n, dtype=torch.float64)[order] for s, order in found)
    assert torch.allclose(again, doubly, atol=1e-9)
    cheapest = min(float(cost[torch.arange(n), order].sum()) for _, order in found)
    assert cheapest <= float((doubly * cost).sum()) + 1e-9


@pytest.mark.parametrize("seed", range(8))
def test_the_largest_product_of_masses_is_exact_at_every_temperature(seed):
    cost = a_cost(seed)
    best = best_of_all(cost)
    assert torch.equal(rounded(plan(cost)), best)
    for tau in TAUS:
        assert torch.equal(rounded(plan(cost, regularisation=tau).log()), best)


@pytest.mark.parametrize("seed", range(8))
def test_the_nearest_permutation_is_exact_when_cold_and_when_hot(seed):
    cost = a_cost(seed)
    best = best_of_all(cost)
    assert torch.equal(rounded(plan(cost, regularisation=0.01, rounds=200_000)), best)
    assert torch.equal(rounded(plan(cost, regularisation=1000.0)), best)


def test_in_between_it_may_not_be_and_row_maxima_are_no_permutation():
    """As the table says of six pairs; here of the book's first."""
    a, b = zoo.load("digits-wide")[:2]
    (layer,) = hidden_layers(zoo.network("digits-wide"))
    cost = ground_cost(cloud(a, layer), cloud(b, layer))
    exact = rounded(plan(cost))
    blurred = plan(cost, regularisation=0.3)
    agree = float((rounded(blurred) == exact).double().mean())
    assert 0.6 < agree < 0.9
    by_cost = cost[torch.arange(128), rounded(blurred)].sum() / cost[torch.arange(128), exact].sum()
    assert 1 < by_cost < 1.01
    assert torch.equal(rounded(blurred.log()), exact)
    assert len(set(blurred.argmax(1).tolist())) < 100
    assert len(set(cost.argmin(1).tolist())) < 0.65 * 128


def test_one_hidden_layer_transport_is_weight_matching():
    network, nets = zoo.network("digits-wide"), zoo.load("digits-wide")
    for a, b in pairwise(nets[:4]):
        (one,) = transport.transport_matching(network, a, b).values()
        (two,) = weight_matching(network, a, b, seed=0).values()
        assert torch.equal(one, two)


@pytest.mark.parametrize("seed", range(4))
def test_the_even_plan_costs_both_spreads_and_the_distance_of_the_means(seed):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(7, 3, generator=g, dtype=torch.float64)
    y = torch.randn(5, 3, generator=g, dtype=torch.float64) + 2
    cost = ground_cost(x, y)
    inside = x.var(0, correction=0).sum() + y.var(0, correction=0).sum()
    apart = (x.mean(0) - y.mean(0)).square().sum()
    assert float(cost.mean()) == pytest.approx(float(inside + apart))


# --- Exchanges ------------------------------------------------------------------------------------


def undoing(order, swaps):
    now = list(order)
    for i, j in swaps:
        now[i], now[j] = now[j], now[i]
    return now == sorted(now)


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_a_cycle_is_undone_in_as_many_ways_as_denes_says_all_trees_without_crossings(size):
    order = [*range(1, size), 0]
    pairs = list(combinations(range(size), 2))
    ways = [swaps for swaps in product(pairs, repeat=size - 1) if undoing(order, swaps)]
    assert len(ways) == size ** (size - 2)
    (cycle,) = cycles(order)
    where = {neuron: k for k, neuron in enumerate(cycle)}
    for swaps in ways:
        now, chords = list(order), []
        for i, j in swaps:
            chords.append(tuple(sorted((where[now[i]], where[now[j]]))))
            now[i], now[j] = now[j], now[i]
        assert not any(a < c < b < d for (a, b) in chords for (c, d) in chords)
        reached = {0}
        for _ in chords:
            reached |= {p for chord in chords if reached & set(chord) for p in chord}
        assert len(reached) == size and len(set(chords)) == size - 1, "a tree"


def test_two_thirds_of_a_triangle():
    """Any two of the three pairs undo a cycle of three."""
    left = set()
    for swaps in product(list(combinations(range(3), 2)), repeat=2):
        if undoing([1, 2, 0], swaps):
            now, neurons = [1, 2, 0], set()
            for i, j in swaps:
                neurons.add(frozenset((now[i], now[j])))
                now[i], now[j] = now[j], now[i]
            left.add(frozenset(neurons))
    assert len(left) == 3


# --- Ways home ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home():
    network, (a, b) = zoo.network("digits"), zoo.load("digits")[:2]
    return network, b, transport.transport_matching(network, a, b)


def test_pieces_of_the_ways_home_and_that_they_end_at_b_to_the_bit(home):
    network, b, orders = home
    moved = sum(len(c) for o in orders.values() for c in cycles(o.tolist()))
    count = sum(len(cycles(o.tolist())) for o in orders.values())
    walk = walk_back(network, b, orders)
    assert len(walk.chain.exchanges) == moved - count == 179
    assert moved - count == sum(len(transpositions(o)) for o in orders.values())
    free = free_walk_back(network, b, orders, data.load("digits").train)
    assert abs(len(free.labels) - 2 * (moved + count)) <= 12, "about 2 (n + c)"
    for way in (walk, free):
        assert all(torch.equal(way(1.0)[key], b[key]) for key in b)


def through_half(network, b, orders, kept):
    copy = permute(network, b, orders)
    there = {name: torch.isin(orders[name], kept[name]).nonzero()[:, 0] for name in kept}
    return copy, there, dropout.walk(network, copy, b, there, kept)


@pytest.mark.parametrize("widths", [(6,), (16,), (6, 8), (8, 6, 10), (8, 6, 10, 4)])
def test_the_free_half_takes_as_many_pieces_at_any_width(widths):
    network, g = mlp((5, *widths, 3)).double(), torch.Generator().manual_seed(0)
    b = to(fresh_weights(network, 1), torch.float64)
    x = torch.randn(20, 5, generator=g, dtype=torch.float64)
    layers = hidden_layers(network)
    orders = {n.name: torch.randperm(n.size, generator=g) for n in layers}
    kept = {n.name: torch.randperm(n.size, generator=g)[: n.size // 2].sort()[0] for n in layers}
    copy, there, walk = through_half(network, b, orders, kept)
    p = len(widths) + 1
    assert len(walk.labels) == 8 * (p - 2) + 9
    assert all(torch.equal(walk(0.0)[key], copy[key]) for key in b)
    assert all(torch.equal(walk(1.0)[key], b[key]) for key in b)
    one, two = (apply(network, dropped(network, *e), x) for e in ((copy, there), (b, kept)))
    assert torch.allclose(one, two), "the two dropped networks are one function"
    # so from the one to the other nothing changes
    first = 4 * (p - 2) + 2
    t = [(first + k / 4) / len(walk.labels) for k in range(4 * 5 + 1)]
    out = outputs(network, walk, t, x)
    assert torch.allclose(out, two.expand_as(out), atol=1e-9)


def test_the_free_half_in_numbers(home):
    network, b, orders = home
    kept = find_kept(network, b, data.load("digits").train, method="magnitude")
    assert len(dropout.merged(through_half(network, b, orders, kept)[2]).labels) == 23
    shallow, (a, b) = zoo.network("digits-wide"), zoo.load("digits-wide")[:2]
    orders = transport.transport_matching(shallow, a, b)
    kept = find_kept(shallow, b, data.load("digits").train, method="magnitude")
    assert len(dropout.merged(through_half(shallow, b, orders, kept)[2]).labels) == 7


# --- Fusion ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [2, 3])
def test_carried_to_a_multiple_of_its_width_a_network_stays_the_same_function(times):
    slim, broad = mlp((5, 4, 6, 3)).double(), mlp((5, 4 * times, 6 * times, 3)).double()
    a, b = (to(fresh_weights(net, seed), torch.float64) for seed, net in enumerate((slim, broad)))
    x = torch.randn(20, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    there = carried(slim, a, broad, b)
    assert torch.allclose(apply(broad, there, x), apply(slim, a, x))


# --- The instructors' page ------------------------------------------------------------------------


def test_answers_to_the_exam_question():
    order = [2, 0, 1, 4, 3, 5]
    assert len(transpositions(order)) == 3
    network = mlp((2, 6, 2))
    b = fresh_weights(network, 0)
    b["3.weight"][:, 5] = 0
    assert len(free_walk_back(network, b, {"1": torch.tensor(order)}).labels) == 15
    x, y = (torch.tensor(points).double()[:, None] for points in ([0, 2], [0, 1, 2]))
    cost = ground_cost(x, y)
    best = plan(cost)
    third, sixth = 1 / 3, 1 / 6
    assert torch.allclose(best, torch.tensor([[third, sixth, 0], [0, sixth, third]]).double())
    assert float((best * cost).sum()) == pytest.approx(third)
    assert float(cost.mean()) == pytest.approx(5 / 3)
    two = 1 - torch.eye(2, dtype=torch.float64)  # its mean is 1/2
    found = plan(two, regularisation=2 / torch.tensor(10.0).log().item())
    assert float(found[0, 0] / found[0, 1]) == pytest.approx(10, rel=1e-3)
    for tau in (2 / 2.3, 200.0):
        assert rounded(plan(two, regularisation=tau)).tolist() == [0, 1]
