import itertools
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import NETWORKS, inputs, same
from torch import nn

from modeconn_lite import data, evaluation, exchanges, neurons, zoo
from modeconn_lite.layout import hidden_layers
from modeconn_lite.methods import symmetry
from modeconn_lite.networks import mlp, residual_mlp
from modeconn_lite.paths import segment
from modeconn_lite.weights import apply, fresh_weights, inner, mix, to


def shuffled(network, weights, seed):
    g = torch.Generator().manual_seed(seed)
    layers = hidden_layers(network)
    orders = {layer.name: torch.randperm(layer.size, generator=g) for layer in layers}
    return neurons.permute(network, weights, orders)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("seed", range(3))
def test_a_planted_permutation_is_recovered(kind, seed):
    network = NETWORKS[kind]()
    a = fresh_weights(network, seed)
    b = shuffled(network, a, seed)
    found = symmetry.weight_matching(network, a, b, seed=0, restarts=20)
    assert same(neurons.permute(network, b, found), a)
    found = symmetry.activation_matching(network, a, b, inputs(kind))
    # Neurons that are dead on all of x cannot be told apart by what they do there.
    x, half = inputs(kind), mix((0.5, 0.5), (a, neurons.permute(network, b, found)))
    assert torch.allclose(apply(network, half, x), apply(network, a, x), atol=1e-5)


def test_a_planted_permutation_under_noise_needs_restarts():
    """A copy, shuffled, plus noise as large as the weights: one start loses some, more find all."""
    network, found = residual_mlp(2, 2, width=32, hidden=32, blocks=3), {0: 0, 10: 0}
    for seed in range(8):
        a = fresh_weights(network, seed)
        b = shuffled(network, a, seed)
        g = torch.Generator().manual_seed(seed + 100)
        noisy = {k: w + w.std() * torch.randn(w.shape, generator=g) for k, w in b.items()}
        for restarts in found:
            orders = symmetry.weight_matching(network, a, noisy, seed=0, restarts=restarts)
            found[restarts] += same(neurons.permute(network, b, orders), a)
    assert found[0] < found[10] == 8


@settings(max_examples=25)
@given(st.sampled_from(sorted(NETWORKS)), st.integers(0, 10_000))
def test_matching_is_a_permutation_and_the_objective_never_falls(kind, seed):
    network = NETWORKS[kind]().double()
    a, b = (to(fresh_weights(network, seed + k), torch.float64) for k in range(2))
    values, x = [inner(a, b)], inputs(kind, seed, torch.float64)
    for sweeps in (1, 2, 3, 50):  # the same seed walks the same way, only further
        orders = symmetry.weight_matching(network, a, b, seed=seed, restarts=0, max_sweeps=sweeps)
        copy = neurons.permute(network, b, orders)
        assert torch.allclose(apply(network, copy, x), apply(network, b, x), atol=1e-9)
        values.append(inner(a, copy))
    assert all(two >= one - 1e-12 * abs(one) for one, two in pairwise(values))
    more = symmetry.weight_matching(network, a, b, seed=seed, restarts=3)
    assert inner(a, neurons.permute(network, b, more)) >= values[-1] - 1e-9
    # No single layer can be improved any further: each is at its own optimum.
    for layer in hidden_layers(network):
        gains = neurons.butterflies(a, layer) @ neurons.butterflies(copy, layer).T
        best = neurons.best_order(gains)
        rows = torch.arange(layer.size)
        assert gains[rows, best].sum() <= gains.trace() + 1e-9
    for layer, order in symmetry.activation_matching(network, a, b, x).items():
        assert sorted(order.tolist()) == list(range(len(orders[layer])))


def test_one_hidden_layer_is_matched_optimally():
    network = mlp((3, 5, 2))
    a, b = fresh_weights(network, 0), fresh_weights(network, 1)
    orders = symmetry.weight_matching(network, a, b, seed=0, restarts=0)
    found = inner(a, neurons.permute(network, b, orders))
    from itertools import permutations

    best = max(inner(a, neurons.permute(network, b, {"1": p})) for p in permutations(range(5)))
    assert found == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("undo", [False, True])
def test_connections_join_a_to_b_or_to_its_copy(undo):
    network, split = zoo.network("digits"), data.load("digits").train
    a, b = zoo.load("digits")[:2]
    for path in (
        symmetry.connect_weight_matching(network, a, b, split, undo=undo),
        symmetry.connect_activation_matching(network, a, b, split, repair=True, undo=undo),
    ):
        assert same(path(0.0), a)
        assert same(path(1.0), b) == undo
        x = split.x[:50]
        assert torch.allclose(apply(network, path(1.0), x), apply(network, b, x), atol=1e-4)


def test_matching_lowers_the_barrier_on_digits():
    network, digits = zoo.network("digits"), data.load("digits")
    a, b = zoo.load("digits")[:2]
    line = evaluation.profile(network, segment(a, b), digits.test).barrier()
    matched = symmetry.connect_weight_matching(network, a, b, digits.train, undo=False)
    assert evaluation.profile(network, matched, digits.test).barrier() < 0.1 * line


def test_inputs_and_networks_are_left_alone():
    network = mlp((9, 5, 3))
    a, b = fresh_weights(network, 0), fresh_weights(network, 1)
    before = [{k: v.clone() for k, v in w.items()} for w in (a, b)]
    symmetry.weight_matching(network, a, b, seed=0)
    symmetry.activation_matching(network, a, b, torch.randn(20, 9))
    assert same(a, before[0])
    assert same(b, before[1])
    assert not any(m._forward_hooks for m in network.modules())
    assert not any(w.requires_grad for w in a.values())


def test_what_cannot_be_done_is_refused():
    network = mlp((9, 5, 3))
    a = fresh_weights(network, 0)
    other = fresh_weights(mlp((9, 6, 3)), 0)
    with pytest.raises(ValueError, match="Both must come from the same architecture"):
        symmetry.weight_matching(network, a, other, seed=0)
    with pytest.raises(ValueError, match="same architecture"):
        symmetry.activation_matching(network, a, other, torch.randn(20, 9))
    for option, values in {
        "restarts": (-1, 1.5, True, None, "3"),
        "max_sweeps": (0, 2.0, False, None),
        "seed": (-1, None, 0.5, True, "0"),
    }.items():
        for value in values:
            with pytest.raises(ValueError, match=f"{option} must be a whole number"):
                symmetry.weight_matching(network, a, a, **({"seed": 0} | {option: value}))


@pytest.mark.parametrize("wrong", [None, "mlp", nn.Linear, {}, torch.zeros(2)])
def test_no_network_and_no_weights(wrong):
    network = mlp((9, 5, 3))
    a, x = fresh_weights(network, 0), torch.randn(20, 9)
    for call in (
        lambda network, a, b: symmetry.weight_matching(network, a, b, seed=0),
        lambda network, a, b: symmetry.activation_matching(network, a, b, x),
        lambda network, a, b: exchanges.walk_back(network, b, {"1": [4, 3, 2, 1, 0]}),
    ):
        with pytest.raises(ValueError, match=r"network must be an nn\.Module"):
            call(wrong, a, a)
        with pytest.raises(ValueError, match="must be a non-empty dict of tensors"):
            call(network, a, wrong)


def test_networks_of_another_kind_are_refused():
    network = nn.Sequential(nn.Linear(9, 5), nn.LayerNorm(5), nn.Linear(5, 3))
    a = fresh_weights(network, 0)
    for call in (
        lambda: symmetry.weight_matching(network, a, a, seed=0),
        lambda: symmetry.activation_matching(network, a, a, torch.randn(20, 9)),
    ):
        with pytest.raises(ValueError, match="layer '1' is LayerNorm"):
            call()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.randn(0, 9), "give at least one input"),
        (torch.full((5, 9), torch.nan), "x holds NaN"),
        (torch.zeros(5, 9, dtype=torch.int64), "x must be a floating-point tensor"),
        (None, "x must be a floating-point tensor"),
        (data.load("digits").test, r"of a Split, give \.x"),
        (torch.randn(5, 8), r"layer '1' .*\(images, 9\), not \(3, 8\)"),
    ],
)
def test_inputs_that_are_none_are_refused(x, message):
    network = mlp((9, 5, 3))
    a = fresh_weights(network, 0)
    with pytest.raises(ValueError, match=message):
        symmetry.activation_matching(network, a, a, x)


def test_a_split_is_needed_even_where_it_plays_no_part():
    network, weights = zoo.network("digits"), zoo.load("digits")[:2]
    for connect in (symmetry.connect_weight_matching, symmetry.connect_activation_matching):
        for wrong in (None, data.load("digits"), data.load("digits").test.x):
            with pytest.raises(ValueError, match="split must be"):
                connect(network, *weights, wrong)
        with pytest.raises(ValueError, match=r"\(images, 64\), not \(3, 2\)"):
            connect(network, *weights, data.load("spirals").test)


def test_sequences_are_matched_by_weights_and_refused_by_activations():
    """Time is the axis where neurons are looked for."""
    network = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    a, b = (fresh_weights(network, seed) for seed in range(2))
    assert symmetry.weight_matching(network, a, b, seed=0)["0"].shape == (5,)
    with pytest.raises(ValueError, match=r"layer '0' gives outputs of shape .* flatten the inputs"):
        symmetry.activation_matching(network, a, b, torch.randn(8, 5, 4))


def test_correlations_are_taken_around_the_mean():
    """Neurons of one large mean look alike by plain products, whatever they respond to."""
    network = nn.Sequential(nn.Linear(2, 2), nn.Identity(), nn.Linear(2, 1))
    x = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    out = {"2.weight": torch.ones(1, 2), "2.bias": torch.zeros(1)}
    a = {"0.weight": torch.eye(2), "0.bias": torch.tensor([3.0, 0.0])} | out
    b = {"0.weight": torch.eye(2).flip(0), "0.bias": torch.tensor([3.0, 0.0])} | out
    given = [x @ w["0.weight"].T + w["0.bias"] for w in (a, b)]
    plain = [z / z.norm(dim=0) for z in given]
    gains = plain[0].T @ plain[1]
    assert gains.trace() > 1.4 * gains.flip(1).trace()  # they would stay where they are
    assert symmetry.activation_matching(network, a, b, x)["0"].tolist() == [1, 0]


def test_correlations_do_not_depend_on_the_neurons_scale():
    """Products without norms would follow the loud neuron."""
    network = nn.Sequential(nn.Linear(2, 2), nn.Identity(), nn.Linear(2, 1))
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    out = {"2.weight": torch.ones(1, 2), "2.bias": torch.zeros(1)}
    a = {"0.weight": torch.tensor([[1.0, 0.0], [0.6, 0.8]]), "0.bias": torch.zeros(2)} | out
    loud = {"0.weight": torch.tensor([[50.0, 40.0], [0.1, 0.0]]), "0.bias": torch.zeros(2)} | out
    assert symmetry.activation_matching(network, a, loud, x)["0"].tolist() == [1, 0]


def test_dead_neurons_are_matched_to_what_is_left():
    network = mlp((4, 3, 2))
    a = fresh_weights(network, 0)
    dead = {key: w.clone() for key, w in a.items()}
    dead["1.weight"][1], dead["1.bias"][1] = 0, -1
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        few = [{key: w.to(dtype) for key, w in weights.items()} for weights in (dead, a)]
        found = symmetry.activation_matching(network, *few, torch.randn(50, 4))
        assert sorted(found["1"].tolist()) == [0, 1, 2]


def test_a_stream_read_in_several_places_adds_up():
    """The one stream of a residual network: all readers count, not the last alone."""
    network = residual_mlp(6, 2, width=5, hidden=4, blocks=2)
    a, b = (fresh_weights(network, seed) for seed in range(2))
    x, seen = torch.randn(60, 6, generator=torch.Generator().manual_seed(0)), [{}, {}]
    for weights, into in zip((a, b), seen, strict=True):
        see = lambda name, given, out, into=into: into.update({name: given})  # noqa: E731
        symmetry.watch(network, weights, x, ["2.enter", "3.enter", "5"], see)
    total = torch.zeros(5, 5)
    for reader in seen[0]:
        one, two = (
            (z - z.mean(0)) / (z - z.mean(0)).norm(dim=0).clamp(min=1e-12)
            for z in (part[reader] for part in seen)
        )
        total += one.T @ two
    best = max(
        itertools.permutations(range(5)), key=lambda p: float(total[torch.arange(5), list(p)].sum())
    )
    assert symmetry.activation_matching(network, a, b, x)["1"].tolist() == list(best)


def test_halves_of_the_connection_take_half_the_time_each():
    network, split = zoo.network("digits"), data.load("digits").train
    a, b = zoo.load("digits")[:2]
    orders = symmetry.weight_matching(network, a, b, seed=0)
    there = neurons.permute(network, b, orders)
    path = symmetry.connect_weight_matching(network, a, b, split)
    walk = exchanges.walk_back(network, b, orders)
    for t, point in ((0.25, mix((0.5, 0.5), (a, there))), (0.5, there), (0.75, walk(0.5))):
        assert all(torch.allclose(path(t)[key], point[key], atol=1e-6) for key in a)
    assert path.knots[:2] == (0.0, 0.5)
    assert path.knots[1:] == tuple(0.5 + t / 2 for t in walk.knots)


def test_behind_batch_norm_neurons_are_matched_with_the_statistics_of_their_own_weights():
    """Whatever the network's own are: those of another training, say."""
    network = nn.Sequential(nn.Linear(9, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    a, order = fresh_weights(network, 0), torch.tensor([3, 0, 5, 1, 4, 2])
    b = neurons.permute(network, a, {"0": order})
    x = inputs("mlp")
    home = symmetry.activation_matching(network, a, b, x)
    network[1].running_mean.fill_(5)  # at which no neuron fires
    assert torch.equal(symmetry.activation_matching(network, a, b, x)["0"], home["0"])
    assert same(neurons.permute(network, b, home), a)
    assert (network[1].running_mean == 5).all()
