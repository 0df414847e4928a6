import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment, linprog
from small_networks import NETWORKS, inputs, same
from torch import nn

from modeconn_lite import data, zoo
from modeconn_lite.evaluation import profile
from modeconn_lite.layout import hidden_layers
from modeconn_lite.methods import handovers, symmetry, transport
from modeconn_lite.networks import mlp
from modeconn_lite.neurons import butterflies, permute, scale
from modeconn_lite.paths import segment
from modeconn_lite.weights import apply, distance, fresh_weights, to


def random_orders(network, seed):
    g = torch.Generator().manual_seed(seed)
    return {layer.name: torch.randperm(layer.size, generator=g) for layer in hidden_layers(network)}


def costs(n, m, seed):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(n, m, generator=g, dtype=torch.float64)


# --- Clouds --------------------------------------------------------------------------------------


def test_blocks_weigh_squared_distances():
    network = mlp((4, 5, 3))
    a, b = fresh_weights(network, 0), fresh_weights(network, 1)
    (layer,) = hidden_layers(network)
    assert torch.equal(transport.cloud(a, layer), butterflies(a, layer))
    clouds = [transport.cloud(w, layer, (2, 3, 5)) for w in (a, b)]
    parts = [
        (w["1.weight"].double(), w["1.bias"][:, None].double(), w["3.weight"].T.double())
        for w in (a, b)
    ]
    wanted = sum(
        share * (one[:, None] - two).square().sum(2)
        for share, one, two in zip((2, 3, 5), *parts, strict=True)
    )
    assert torch.allclose(transport.ground_cost(*clouds), wanted, rtol=1e-5)


def test_ground_cost_of_a_point_and_itself_is_not_negative():
    points = 1e3 * costs(30, 8, 0)
    cost = transport.ground_cost(points, points)
    assert (cost >= 0).all() and cost.diagonal().max() < 1e-6
    assert torch.allclose(cost, torch.cdist(points, points).square(), atol=1e-5)


@pytest.mark.parametrize("kind", NETWORKS)
def test_normalised_networks_are_the_same_function(kind):
    network = NETWORKS[kind]().double()
    w, x = to(fresh_weights(network, 0), torch.float64), inputs(kind, dtype=torch.float64)
    unit = transport.normalised(network, w)
    assert torch.allclose(apply(network, unit, x), apply(network, w, x), atol=1e-9)
    if kind != "residual":
        for layer in hidden_layers(network):
            rows = torch.cat([unit[t].flatten(1) for t in (f"{layer.name}.weight",)], 1)
            rows = torch.cat([rows, unit[f"{layer.name}.bias"][:, None]], 1)
            assert torch.allclose(rows.norm(dim=1), torch.ones(layer.size).double())
        g = torch.Generator().manual_seed(1)
        factors = {
            layer.name: torch.rand(layer.size, generator=g) + 0.2
            for layer in hidden_layers(network)
        }
        other = transport.normalised(network, scale(network, w, factors))
        assert all(torch.allclose(unit[key], other[key]) for key in w)


def test_lengths_that_overflow_further_up_are_refused():
    network = mlp((9, 6, 5, 3))
    w = {key: value * 1e15 for key, value in fresh_weights(network, 0).items()}
    with pytest.raises(ValueError, match="lengths of layer '3' overflow"):
        transport.normalised(network, w)


def test_clouds_of_what_is_no_layer_or_weights_are_refused():
    network = mlp((4, 5, 3))
    w, (layer,) = fresh_weights(network, 0), hidden_layers(network)
    with pytest.raises(ValueError, match="layer must be one of hidden_layers"):
        transport.cloud(w, "1")
    with pytest.raises(ValueError, match="weights must be a non-empty dict"):
        transport.cloud(torch.ones(3), layer)


def test_normalising_leaves_dead_neurons_alone_and_refuses_what_has_no_scale():
    network = mlp((4, 3, 2))
    w = fresh_weights(network, 0)
    for small in (0.0, 1e-44):
        w["1.weight"][1], w["1.bias"][1] = small, 0
        unit = transport.normalised(network, w)
        assert torch.equal(unit["1.weight"][1], w["1.weight"][1])
        assert torch.equal(unit["3.weight"][:, 1], w["3.weight"][:, 1])
    tanh = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    with pytest.raises(ValueError, match="layer '0' has an activation"):
        transport.normalised(tanh, fresh_weights(tanh, 0))
    norm = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2))
    w = fresh_weights(norm, 0)
    unit = transport.normalised(norm, w | {"1.weight": w["1.weight"] * 3})
    assert torch.equal(unit["0.weight"], w["0.weight"])
    assert torch.allclose(unit["1.weight"].square() + unit["1.bias"].square(), torch.ones(3))


# --- Plans ---------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.integers(1, 6), st.integers(0, 10_000))
def test_the_exact_plan_is_the_best_permutation(n, seed):
    cost = costs(n, n, seed)
    plan = transport.plan(cost)
    best = min(itertools.permutations(range(n)), key=lambda p: float(cost[range(n), list(p)].sum()))
    assert transport.rounded(plan).tolist() == list(best)
    assert torch.allclose(plan * n, torch.eye(n).double()[list(best)])


def test_the_exact_plan_agrees_with_assignment_to_the_last_neuron():
    network = zoo.network("digits-wide")
    a, b = zoo.load("digits-wide")[:2]
    (layer,) = hidden_layers(network)
    cost = transport.ground_cost(*(transport.cloud(w, layer) for w in (a, b)))
    order = transport.rounded(transport.plan(cost))
    assert order.tolist() == linear_sum_assignment(cost.numpy())[1].tolist()
    assert torch.equal(order, transport.transport_matching(network, a, b)["1"])


@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 10_000))
def test_plans_between_clouds_of_any_size(n, m, seed):
    cost = costs(n, m, seed)
    plan = transport.plan(cost)
    rows = [[float(i == k) for i in range(n) for _ in range(m)] for k in range(n)]
    columns = [[float(j == k) for _ in range(n) for j in range(m)] for k in range(m)]
    equal, masses = (rows + columns)[1:], ([1 / n] * n + [1 / m] * m)[1:]  # the first follows
    best = linprog(cost.flatten().numpy(), A_eq=equal, b_eq=masses)
    assert float((plan * cost).sum()) == pytest.approx(best.fun, abs=1e-9)
    assert torch.allclose(plan.sum(0), torch.full((m,), 1 / m).double())
    assert torch.allclose(plan.sum(1), torch.full((n,), 1 / n).double())


def test_entropic_plans():
    """Two points each: the closed form. More: from spread evenly to the exact plan."""
    cost = torch.tensor([[0.0, 2.0], [2.0, 0.0]])  # of mean 1
    kept = 1 / (1 + math.exp(-2 / 0.7))
    wanted = torch.tensor([[kept, 1 - kept], [1 - kept, kept]]).double() / 2
    assert torch.allclose(transport.plan(cost, regularisation=0.7), wanted, atol=1e-4)
    cost = costs(12, 9, 0)
    spread = transport.plan(cost, regularisation=1e4)
    assert torch.allclose(spread, torch.full((12, 9), 1 / 108).double(), rtol=1e-3)
    exact = float((transport.plan(cost) * cost).sum())
    values = []
    for share in (1.0, 0.1, 0.01):
        plan = transport.plan(cost, regularisation=share)
        assert torch.allclose(plan.sum(0) * 9, torch.ones(9).double(), atol=0.01)
        assert torch.allclose(plan.sum(1) * 12, torch.ones(12).double(), atol=0.01)
        values.append(float((plan * cost).sum()))
    assert values[0] > values[1] > values[2] > 0.99 * exact
    assert values[2] < 1.1 * exact
    # Relative to the mean cost: in other units the plan is the same.
    one, two = (transport.plan(cost * unit, regularisation=0.1) for unit in (1, 1e5))
    assert torch.allclose(one, two)
    assert torch.allclose(
        transport.plan(torch.zeros(2, 2), regularisation=1.0) * 4, torch.ones(2).double()
    )


@given(st.integers(1, 5), st.integers(0, 10_000))
def test_rounding_finds_the_nearest_permutation(n, seed):
    plan = transport.plan(costs(n, n, seed), regularisation=0.5)
    matrices = {p: torch.eye(n).double()[list(p)] for p in itertools.permutations(range(n))}
    nearest = min(matrices, key=lambda p: float((plan - matrices[p]).norm()))
    assert transport.rounded(plan).tolist() == list(nearest)


def test_costs_whose_sum_no_float_holds_have_the_same_plan():
    for unit in (1e307, 1e-307):
        cost = costs(9, 9, 0)
        assert torch.allclose(transport.plan(cost * 10 * unit), transport.plan(cost))
        plans = [transport.plan(c, regularisation=0.5) for c in (cost * 10 * unit, cost)]
        assert torch.allclose(*plans)


def test_what_is_no_cost_is_refused():
    sparse, empty = torch.ones(2, 2).to_sparse(), torch.ones(2, 2, device="meta")
    for wrong in (None, [[1.0]], torch.ones(3), torch.ones(2, 2).long(), torch.ones(0, 3)):
        with pytest.raises(ValueError, match="cost"):
            transport.plan(wrong)
    for wrong in (sparse, empty):
        with pytest.raises(ValueError, match="cost must be a dense matrix"):
            transport.plan(wrong)
    with pytest.raises(ValueError, match="cost is empty or holds"):
        transport.plan(torch.tensor([[math.nan]]))
    for wrong in (0, -1, math.inf, "1"):
        with pytest.raises(ValueError, match="regularisation"):
            transport.plan(torch.ones(2, 2), regularisation=wrong)
    with pytest.raises(ValueError, match="after 1 rounds; give a regularisation larger"):
        transport.plan(costs(9, 9, 0), regularisation=0.01, rounds=1)
    with pytest.raises(ValueError, match="give a regularisation larger than 1e-07"):
        transport.plan(costs(9, 9, 0), regularisation=1e-7)  # no number can hold its factors
    with pytest.raises(ValueError, match="rounds"):
        transport.plan(torch.ones(2, 2), rounds=0)
    with pytest.raises(ValueError, match=r"plan of shape \(2, 3\) has no permutation"):
        transport.rounded(torch.ones(2, 3))
    with pytest.raises(ValueError, match="points of 3 and of 4 numbers"):
        transport.ground_cost(torch.ones(2, 3), torch.ones(2, 4))
    with pytest.raises(ValueError, match="two must be a dense matrix"):
        transport.ground_cost(torch.ones(2, 3), None)


# --- Matching ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("normalise", [False, True])
def test_a_planted_permutation_is_recovered(kind, normalise):
    network = NETWORKS[kind]()
    for seed in range(3):
        a = fresh_weights(network, seed)
        b = permute(network, a, random_orders(network, seed))
        if normalise and kind != "residual":
            factors = {n: 10 ** (o / 9 - 0.5) for n, o in random_orders(network, seed + 9).items()}
            b = scale(network, b, factors)
        found = transport.transport_matching(network, a, b, normalise=normalise)
        copy = permute(network, b, found)
        if normalise:
            copy, a = transport.normalised(network, copy), transport.normalised(network, a)
        assert all(torch.allclose(copy[key], a[key], atol=1e-5) for key in a)


def test_scales_hide_a_copy_unless_they_are_normalised():
    """Chapter 2's exercise: factors do not change the function, but the distances."""
    network = mlp((2, 12, 2))
    a = fresh_weights(network, 0)
    order = random_orders(network, 0)
    g = torch.Generator().manual_seed(0)
    b = scale(network, permute(network, a, order), {"1": 10 ** torch.randn(12, generator=g)})
    found = {
        n: transport.transport_matching(network, a, b, normalise=n)["1"] for n in (False, True)
    }
    assert not torch.equal(order["1"][found[False]], torch.arange(12))
    assert torch.equal(order["1"][found[True]], torch.arange(12))


@given(st.integers(0, 10_000))
@settings(max_examples=20)
def test_one_hidden_layer_is_matched_as_by_weights_and_optimally(seed):
    network = mlp((3, 5, 2)).double()
    a, b = (to(fresh_weights(network, seed + k), torch.float64) for k in range(2))
    found = transport.transport_matching(network, a, b)["1"]
    assert torch.equal(found, symmetry.weight_matching(network, a, b, seed=0)["1"])
    far = lambda p: distance(a, permute(network, b, {"1": p}))  # noqa: E731
    assert far(found) == pytest.approx(min(map(far, itertools.permutations(range(5)))))


@pytest.mark.parametrize("kind", ["mlp", "cnn", "residual"])
def test_with_equal_blocks_each_layer_ends_at_its_own_optimum(kind):
    network = NETWORKS[kind]().double()
    a, b = (to(fresh_weights(network, seed), torch.float64) for seed in range(2))
    orders = transport.transport_matching(network, a, b, max_sweeps=100)
    copy = permute(network, b, orders)
    x = inputs(kind, dtype=torch.float64)
    assert torch.allclose(apply(network, copy, x), apply(network, b, x), atol=1e-9)
    for layer in hidden_layers(network):
        gains = butterflies(a, layer) @ butterflies(copy, layer).T
        rows, columns = linear_sum_assignment(gains.numpy(), maximize=True)
        assert gains[rows, columns].sum() <= gains.trace() + 1e-9
    one = transport.transport_matching(network, a, b, max_sweeps=1)
    assert distance(a, copy) <= distance(a, permute(network, b, one))


def test_blocks_choose_what_counts():
    network = mlp((4, 6, 3))
    a, b = fresh_weights(network, 0), fresh_weights(network, 1)
    for blocks, kept in (
        ((1, 0, 0), slice(0, 4)),
        ((0, 1, 0), slice(4, 5)),
        ((0, 0, 1), slice(5, 8)),
    ):
        mine, theirs = (butterflies(w, hidden_layers(network)[0])[:, kept] for w in (a, b))
        wanted = linear_sum_assignment(torch.cdist(mine, theirs).square().numpy())[1]
        found = transport.transport_matching(network, a, b, blocks=blocks)["1"]
        assert found.tolist() == wanted.tolist()


def test_unequal_blocks_come_to_an_end_too():
    network = NETWORKS["mlp"]()
    a, b = fresh_weights(network, 0), fresh_weights(network, 1)
    orders = transport.transport_matching(network, a, b, blocks=(1, 0, 30), max_sweeps=50)
    assert all(sorted(o.tolist()) == list(range(len(o))) for o in orders.values())


def test_half_precision_and_bad_input():
    network = mlp((9, 5, 3))
    a, b = fresh_weights(network, 0), fresh_weights(network, 1)
    found = transport.transport_matching(network, *(to(w, torch.bfloat16) for w in (a, b)))
    assert sorted(found["1"].tolist()) == list(range(5))
    match = transport.transport_matching
    for blocks in ((1, 1), (1, 1, -1), (0, 0, 0), None, (1, 1, "1"), 3):
        with pytest.raises(ValueError, match="blocks"):
            match(network, a, b, blocks=blocks)
    with pytest.raises(ValueError, match="max_sweeps"):
        match(network, a, b, max_sweeps=0)
    with pytest.raises(ValueError, match=r"b\['1.weight'\] has shape"):
        match(network, a, fresh_weights(mlp((9, 6, 3)), 0))
    with pytest.raises(ValueError, match="LSTM"):
        lstm = nn.LSTM(2, 2)
        match(lstm, *[fresh_weights(lstm, seed) for seed in (0, 1)])
    with pytest.raises(ValueError, match="overflow"):
        match(network, *({k: 1e30 * v for k, v in w.items()} for w in (a, b)))
    with pytest.raises(ValueError, match="split must be a Split"):
        transport.connect_transport(network, a, b, None)
    with pytest.raises(ValueError, match="normalise must be True or False, not 'no'"):
        match(network, a, b, normalise="no")
    with pytest.raises(ValueError, match="undo must be True or False, not 'no'"):
        transport.connect_transport(network, a, b, None, undo="no")


# --- Connections ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", NETWORKS)
def test_both_stages_lead_from_a_to_b(kind):
    network, x = NETWORKS[kind](), inputs(kind)
    a, b = fresh_weights(network, 0), fresh_weights(network, 1)
    split = data.Split(x, torch.arange(40) % 3, "noise", classes=tuple("abc"))
    for method in transport.METHODS:
        path = method.connect(network, a, b, split)
        assert same(path(0.0), a)
        assert same(path(1.0), b) != method.to_copy
        assert torch.allclose(apply(network, path(1.0), x), apply(network, b, x), atol=1e-5)
    orders = transport.transport_matching(network, a, b)
    there = permute(network, b, orders)
    copy, swaps, free = (m.connect(network, a, b, split) for m in transport.METHODS)
    assert same(copy(0.5), segment(a, there)(0.5))
    assert same(swaps(0.5), there) and same(free(0.5), there)


def test_transport_lowers_the_barrier_on_digits():
    network, digits = zoo.network("digits"), data.load("digits")
    a, b = zoo.load("digits")[:2]
    line = profile(network, segment(a, b), digits.test).barrier()
    found = transport.connect_transport(network, a, b, digits.train, undo=False)
    assert profile(network, found, digits.test).barrier() < 0.1 * line
    free = profile(network, transport.connect_free(network, a, b, digits.train), digits.test)
    swaps = profile(network, transport.connect_transport(network, a, b, digits.train), digits.test)
    assert free.barrier() < 0.05 < swaps.barrier() + 0.05


def test_the_spare_neuron_is_chosen_on_the_split():
    """With data, its readers hear its mean while it is silent; without, nothing."""
    network, dataset, nets = zoo.network("digits"), data.load("digits"), zoo.load("digits")
    path = transport.connect_free(network, *nets[:2], dataset.train)
    orders = transport.transport_matching(network, *nets[:2])
    walks = [
        handovers.free_walk_back(network, nets[1], orders, split) for split in (dataset.train, None)
    ]
    here = path(0.75)
    alike = [all(torch.equal(here[key], w) for key, w in walk(0.5).items()) for walk in walks]
    assert alike == [True, False]
    assert path.name == "optimal transport + free swaps"
