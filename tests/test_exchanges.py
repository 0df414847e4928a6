import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_networks import same
from torch import nn

from modeconn_lite import data, exchanges, neurons, zoo
from modeconn_lite.evaluation import profile, profiles
from modeconn_lite.forward import outputs
from modeconn_lite.joins import backward, concat
from modeconn_lite.layout import hidden_layers
from modeconn_lite.networks import mlp, residual_mlp
from modeconn_lite.paths import FunctionPath, segment
from modeconn_lite.weights import apply, distance, fresh_weights, mix, to


@given(st.permutations(range(9)))
def test_transpositions_sort(order):
    swaps, now = exchanges.transpositions(order), list(order)
    for i, j in swaps:
        now[i], now[j] = now[j], now[i]
    seen: set[int] = set()
    cycles = 0
    for start in range(9):
        cycles += start not in seen
        while start not in seen:
            seen.add(start)
            start = order[start]
    assert now == list(range(9))
    assert len(swaps) == 9 - cycles


def test_cycles_of_a_list_and_of_a_tensor():
    for order in ([2, 1, 4, 3, 0], torch.tensor([2, 1, 4, 3, 0])):
        assert exchanges.cycles(order) == [[0, 2, 4]]


def test_the_walk_back_visits_copies_and_ends_at_b():
    network = mlp((9, 6, 5, 3)).double()
    b, x = to(fresh_weights(network, 0), torch.float64), torch.randn(20, 9, dtype=torch.float64)
    orders = {"1": torch.tensor([3, 1, 0, 2, 5, 4]), "3": torch.tensor([1, 2, 0, 3, 4])}
    walk = exchanges.walk_back(network, b, orders)
    assert same(walk(0.0), neurons.permute(network, b, orders))
    assert same(walk(1.0), b)
    assert len(walk.knots) == 2 * 5 + 1  # three and two exchanges, and the middle of each
    for t in walk.knots[::2]:
        assert torch.allclose(apply(network, walk(t), x), apply(network, b, x))
    middle = walk(walk.knots[1])  # the first exchange: two neurons coincide
    rows = torch.cat([middle["1.weight"], middle["1.bias"][:, None]], 1)
    assert len(rows.unique(dim=0)) == 5
    nowhere = exchanges.walk_back(network, b, {"1": torch.arange(6)})
    assert same(nowhere(0.3), b)


@pytest.mark.parametrize(
    "order",
    [[0, 0, 1], [1, 1, 1], [0, 1, 3], [-1, 0, 1], [0.0, 2.0, 1.0], [True, False], "012", None],
)
def test_what_is_no_permutation_is_no_walk_either(order):
    for of in (exchanges.transpositions, exchanges.cycles):
        with pytest.raises(ValueError, match="order"):
            of(order)
    network = mlp((4, 3, 2))
    b = fresh_weights(network, 0)
    with pytest.raises(ValueError, match="order of layer '1'"):
        exchanges.walk_back(network, b, {"1": order})
    with pytest.raises(ValueError, match="no hidden layer '3'"):
        exchanges.walk_back(network, b, {"3": [0, 1]})
    for orders in (None, [2, 1, 0], "1"):
        with pytest.raises(ValueError, match="orders must be a dict"):
            exchanges.walk_back(network, b, orders)
    nan = {key: w * torch.nan for key, w in b.items()}
    with pytest.raises(ValueError, match="not finite"):
        exchanges.walk_back(network, nan, {"1": [2, 1, 0]})


def test_an_order_is_copied_when_the_walk_is_made():
    network = mlp((4, 3, 2))
    b, order = fresh_weights(network, 0), torch.tensor([1, 2, 0])
    walk = exchanges.walk_back(network, b, {"1": order})
    order.copy_(torch.arange(3))
    assert same(walk(0.0), neurons.permute(network, b, {"1": [1, 2, 0]}))


def test_the_walk_s_points_are_where_they_belong():
    """At every share of every exchange: the mix of the two copies beside it."""
    network = mlp((4, 5, 2)).double()
    b = to(fresh_weights(network, 0), torch.float64)
    order = torch.tensor([1, 2, 3, 4, 0])
    walk = exchanges.walk_back(network, b, {"1": order})
    swaps = exchanges.transpositions(order)
    assert len(swaps) == 4
    now, copies = order.clone(), [neurons.permute(network, b, {"1": order})]
    for i, j in swaps:
        now[[i, j]] = now[[j, i]]
        copies.append(neurons.permute(network, b, {"1": now}))
    for k in range(4):
        for share in (0.0, 0.25, 0.5, 0.9):
            point = walk((k + share) / 4)
            wanted = mix((1 - share, share), (copies[k], copies[k + 1]))
            assert all(torch.allclose(point[key], wanted[key], atol=1e-12) for key in b)
    assert walk.knots == tuple(k / 8 for k in range(9))
    assert walk.length() == pytest.approx(
        sum(distance(one, two) for one, two in pairwise(copies)), rel=1e-6
    )


def test_length_of_the_walk():
    """Each exchange of two neurons is a straight line of length √2 times their distance."""
    network = mlp((4, 2, 3))
    b = fresh_weights(network, 0)
    walk = exchanges.walk_back(network, b, {"1": torch.tensor([1, 0])})
    one, two = neurons.butterflies(b, hidden_layers(network)[0])
    assert walk.length() == pytest.approx(math.sqrt(2) * float((one - two).norm()), rel=1e-5)
    assert walk.length() == pytest.approx(distance(b, walk(0.0)), rel=1e-5)


NETWORKS = {
    "one layer": (lambda: mlp((9, 12, 3)), (30, 9)),
    "deep": (lambda: mlp((9, 12, 11, 10, 3)), (30, 9)),
    "no bias, tanh": (
        lambda: nn.Sequential(
            nn.Linear(9, 7, bias=False), nn.Tanh(), nn.Dropout(), nn.Linear(7, 3, bias=False)
        ),
        (30, 9),
    ),
    "convnet": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 5, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(5, 4, 3, stride=2, padding=1, padding_mode="circular"),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(4 * 4, 6),
            nn.ReLU(),
            nn.Linear(6, 3),
        ),
        (20, 2, 8, 8),
    ),
    "residual": (lambda: residual_mlp(9, 3, width=8, hidden=6, blocks=2), (30, 9)),
    "batch norm": (
        lambda: nn.Sequential(nn.Linear(9, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)),
        (30, 9),
    ),
}


def a_walk(name, seed=0):
    make, shape = NETWORKS[name]
    network, random = make().eval(), torch.Generator().manual_seed(seed)
    b, x = fresh_weights(network, seed), torch.randn(shape, generator=random)
    layers = hidden_layers(network)
    orders = {layer.name: torch.randperm(layer.size, generator=random) for layer in layers}
    return network, b, x, exchanges.walk_back(network, b, orders)


@pytest.mark.parametrize("name", NETWORKS)
def test_all_points_at_once_are_as_one_after_another(name):
    """Every knot, and shares that are no half."""
    network, _, x, walk = a_walk(name)
    t = sorted([*walk.knots, *torch.rand(40, generator=torch.Generator().manual_seed(1)).tolist()])
    plain = FunctionPath(walk.function)
    fast, slow = outputs(network, walk, t, x), outputs(network, plain, t, x)
    assert torch.allclose(fast, slow, atol=2e-5 * float(slow.abs().max()))
    assert torch.allclose(walk.travelled(t), plain.travelled(t), rtol=1e-5, atol=1e-6)


def test_chunks_of_exchanges_change_nothing(monkeypatch):
    network, _, x, walk = a_walk("deep")
    whole = outputs(network, walk, walk.knots, x)
    monkeypatch.setattr(exchanges, "OUT_FLOATS", 100)
    assert torch.allclose(outputs(network, walk, walk.knots, x), whole, atol=1e-6)


def test_the_callers_network_and_images_stay_as_they_are():
    network, b, x, walk = a_walk("convnet")
    before = [w.clone() for w in (*network.parameters(), *b.values(), x)]
    outputs(network, walk, walk.knots, x)
    after = [*network.parameters(), *b.values(), x]
    assert all(map(torch.equal, before, after))


def test_a_joined_and_a_backward_walk_are_as_fast_and_the_same():
    """No weights are made but for a few points, however the walk is wrapped."""
    network, split = zoo.network("digits"), data.load("digits").test
    a, b = zoo.load("digits")[:2]
    g = torch.Generator().manual_seed(0)
    orders = {name: torch.randperm(64, generator=g) for name in ("1", "3", "5")}
    walk = exchanges.walk_back(network, b, orders)
    line = segment(a, neurons.permute(network, b, orders))
    there = concat(line, walk, equal="paths")
    step, calls = walk.function, []
    plain = FunctionPath(lambda t: line(2 * t) if t < 0.5 else step(2 * t - 1), knots=there.knots)
    object.__setattr__(walk, "function", lambda t: calls.append(t) or step(t))
    for path, slow in ((there, plain), (backward(there), backward(plain))):
        calls.clear()
        seen = profile(network, path, split, refine=1)
        assert len(calls) <= 2
        naive = profile(network, slow, split, refine=1)
        assert torch.equal(seen.t, naive.t)
        assert torch.allclose(seen.loss, naive.loss, atol=1e-5)
        assert (seen.correct - naive.correct).abs().max() <= 1
        assert torch.allclose(seen.travelled, naive.travelled, rtol=1e-5)


def test_two_splits_and_noted_weights():
    from modeconn_lite.look import look

    network, b, _, walk = a_walk("one layer")
    digits = data.load("digits")
    network = mlp((64, 6, 10))
    b = fresh_weights(network, 0)
    walk = exchanges.walk_back(network, b, {"1": torch.tensor([1, 2, 0, 4, 3, 5])})
    t = torch.tensor(walk.knots, dtype=torch.float64)
    seen = look(network, walk, t, [digits.train, digits.test], note=lambda w: float(w["1.bias"][0]))
    assert len(seen.noted) == len(t) and seen.noted[-1] == float(b["1.bias"][0])
    both = profiles(network, walk, [digits.train, digits.test])
    assert [p.count for p in both] == [len(digits.train), len(digits.test)]


def test_exchanges_of_ones_own_choice():
    network = mlp((4, 5, 2))
    b, order = fresh_weights(network, 0), torch.tensor([1, 2, 3, 4, 0])
    around = {"1": [(3, 4), (2, 3), (1, 2), (0, 1)]}
    walk = exchanges.walk_back(network, b, {"1": order}, around)
    assert same(walk(1.0), b) and len(walk.chain.exchanges) == 4
    with pytest.raises(ValueError, match="do not undo the order of layer '1'"):
        exchanges.walk_back(network, b, {"1": order}, {"1": [(0, 1)]})
    for wrong in ([(0, 7)], [(0, 0.5)], [0, 1], [(-1, 2)], 3):
        with pytest.raises(ValueError, match="exchange"):
            exchanges.walk_back(network, b, {"1": order}, {"1": wrong})
    for wrong in ([(0, 1)], "1", 3, torch.ones(2), {"3": [(0, 1)]}, {1: [(0, 1)]}):
        with pytest.raises(ValueError, match="swaps must be a dict from layers that have an order"):
            exchanges.walk_back(network, b, {"1": order}, wrong)


def test_outputs_of_a_joined_path_are_those_of_its_parts():
    network, b, x, walk = a_walk("deep")
    a = fresh_weights(network, 5)
    path = exchanges.with_walk_back(network, segment(a, walk(0.0)), b, walk.chain.states[0])
    assert path.name == "linear + swaps"
    t = [0.0, 0.2, 0.5, 0.6, 0.61, 1.0]
    found, naive = outputs(network, path, t, x), outputs(network, FunctionPath(path.function), t, x)
    assert torch.allclose(found, naive, atol=1e-5)
    same_line = lambda t: path(t / 2)  # noqa: E731
    of_a_function = exchanges.with_walk_back(network, same_line, b, walk.chain.states[0])
    assert same(of_a_function(0.25), path(0.25))
    with pytest.raises(ValueError, match="a path is a Path or a function"):
        exchanges.with_walk_back(network, None, b, walk.chain.states[0])
