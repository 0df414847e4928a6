import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modeconn_lite import data, dropout, scoreboard, zoo
from modeconn_lite.dropout import Walk, between_dropped, direct_walk, path_to_dropped, walk
from modeconn_lite.evaluation import evaluate, profile
from modeconn_lite.halves import dropped, find_kept, layers_of, stability
from modeconn_lite.networks import cnn3, mlp, residual_mlp
from modeconn_lite.weights import apply, fresh_weights, mix, to

X = torch.randn(12, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SPLIT = data.Split(X, torch.arange(12) % 3, "random", ("0", "1", "2"))
POOLED = nn.Sequential(
    *(nn.Conv2d(1, 5, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2)),
    *(nn.Conv2d(5, 7, 1), nn.ReLU(), nn.Flatten(), nn.Linear(28, 4), nn.ReLU(), nn.Linear(4, 3)),
)


def draw(network, seed):
    """A half of every layer, at random."""
    generator = torch.Generator().manual_seed(seed)
    return {
        layer.name: torch.randperm(layer.size, generator=generator)[: layer.size // 2]
        for layer in layers_of(network)
    }


def pair(network, seed=0):
    return [to(fresh_weights(network, s), torch.float64) for s in (seed, seed + 100)]


def check_moves(network, chain: Walk, x):
    """(a) moves the last layer only; (b) leaves the outputs unchanged, and to the bit.

    (c) moves more than the last layer, and leaves the outputs unchanged all along.
    """
    last = layers_of(network)[-1].outgoing[0].tensor
    head = {last, last.replace("weight", "bias")}
    assert len(chain.points) == len(chain.moves) + 1
    for one, two, move in zip(chain.points, chain.points[1:], chain.moves, strict=False):
        moved = {key for key in one if not torch.equal(one[key], two[key])}
        if move == "a":
            assert moved <= head
        if move == "b":
            assert not moved & head
            assert torch.equal(apply(network, one, x), apply(network, two, x))
        if move == "c":
            assert not moved <= head
            for t in (0.25, 0.5, 1.0):
                there = mix((1 - t, t), (one, two))
                assert torch.allclose(apply(network, there, x), apply(network, one, x), atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(2, 9), min_size=1, max_size=4),
    st.booleans(),
    st.sampled_from([nn.ReLU, nn.Tanh]),
    st.booleans(),
    st.integers(0, 99),
)
def test_the_bound_is_never_violated(hidden, bias, activation, same, seed):
    """The theorem on random networks, any depth, odd widths, biases or none."""
    network = mlp((16, *hidden, 3), bias=bias)
    network = nn.Sequential(*(activation() if isinstance(m, nn.ReLU) else m for m in network))
    (a, b), kept_a = pair(network, seed), draw(network, seed)
    kept_b = kept_a if same else draw(network, seed + 1)
    whole = walk(network, a, b, kept_a, kept_b)
    p = len(hidden) + 1
    assert len(path_to_dropped(network, a, kept_a).moves) == 4 * (p - 2) + 2
    assert len(whole.moves) == 8 * (p - 2) + 9
    assert whole.moves.count("c") <= (not same)
    check_moves(network, whole, X)
    check_moves(network, whole.merged(), X)
    assert "bb" not in whole.merged().moves
    assert all(torch.equal(whole.points[0][key], a[key]) for key in a)
    assert all(torch.equal(whole.points[-1][key], b[key]) for key in b)
    found = dropout.certificate(network, a, b, kept_a, kept_b, SPLIT)
    assert found.holds
    assert found.highest >= max(found.ends)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 9999), st.sampled_from(["cross-entropy", "squared", "absolute"]))
def test_an_a_move_stays_below_its_worse_end_for_convex_losses(seed, loss):
    network = mlp((16, 6, 5, 3))
    a, b = pair(network, seed)
    b = a | {key: b[key] for key in ("5.weight", "5.bias")}
    target = torch.randn(12, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def value(w):
        out = apply(network, w, X)
        if loss == "cross-entropy":
            return float(F.cross_entropy(out, SPLIT.y))
        return float((out - target).abs().pow(2 if loss == "squared" else 1).mean())

    path = dropout.polychain([a, b])
    worst = max(value(path(t)) for t in torch.linspace(0, 1, 11).tolist())
    assert worst <= max(value(a), value(b)) + 1e-12


def test_the_three_layer_path_of_the_slides():
    """States (1) to (7), block for block."""
    network = mlp((3, 4, 4, 2), bias=False)
    w = {key: torch.randn(v.shape, dtype=torch.float64) for key, v in pair(network)[0].items()}
    w1, w2, w3 = w.values()
    l1, l2, c2, d2, r2, l3, r3 = (
        *(w1[:2], w2[:2, :2], w2[:2, 2:], w2[2:, :2], w2[2:, 2:], w3[:, :2], w3[:, 2:]),
    )
    b1, o2, o3, o1 = w1[2:], torch.zeros(2, 2), torch.zeros(2, 2), torch.zeros(2, 3)
    states = [
        ((l3, r3), ((l2, c2), (d2, r2)), (l1, b1)),
        ((2 * l3, o3), ((l2, c2), (d2, r2)), (l1, b1)),
        ((2 * l3, o3), ((l2, c2), (2 * l2, o2)), (l1, b1)),
        ((o3, 2 * l3), ((l2, c2), (2 * l2, o2)), (l1, b1)),
        ((o3, 2 * l3), ((2 * l2, o2), (2 * l2, o2)), (l1, b1)),
        ((2 * l3, o3), ((2 * l2, o2), (2 * l2, o2)), (l1, b1)),
        ((2 * l3, o3), ((2 * l2, o2), (o2, o2)), (l1, o1)),
    ]
    found = path_to_dropped(network, w, {"1": [0, 1], "3": [0, 1]})
    assert found.moves == "ababab"
    for state, (third, second, first) in zip(found.points, states, strict=True):
        assert torch.equal(state["5.weight"], torch.cat(third, 1))
        assert torch.equal(state["3.weight"], torch.cat([torch.cat(row, 1) for row in second]))
        assert torch.equal(state["1.weight"], torch.cat(first))


@pytest.mark.parametrize(
    ("network", "x"),
    [
        (cnn3(5, side=4, classes=3), X.view(-1, 1, 4, 4)),
        (POOLED, X.view(-1, 1, 4, 4)),
        (mlp((16, 7, 5, 3)), X),
    ],
    ids=["cnn3", "pooled", "mlp"],
)
def test_convnets_flatten_biases_and_odd_widths(network, x):
    a, b = pair(network)
    kept_a, kept_b = draw(network, 1), draw(network, 2)
    check_moves(network, walk(network, a, b, kept_a, kept_b), x)
    check_moves(network, direct_walk(network, a, b, kept_a, kept_b), x)
    end = path_to_dropped(network, a, kept_a).points[-1]
    assert torch.allclose(
        apply(network, end, x), apply(network, dropped(network, a, kept_a), x), atol=1e-12
    )
    split = data.Split(x, SPLIT.y, "random", SPLIT.classes)
    assert dropout.certificate(network, a, b, kept_a, kept_b, split).holds


def test_the_path_visits_every_suffix_and_nothing_else():
    """The outputs at all knots are those of the p partially dropped networks."""
    network = mlp((16, 6, 7, 5, 3))  # tanh: of so few ReLUs, all those kept may be silent
    network = nn.Sequential(*(nn.Tanh() if isinstance(m, nn.ReLU) else m for m in network))
    a, _ = pair(network)
    kept = draw(network, 3)
    wanted = [apply(network, a, X)]
    wanted += [apply(network, dropped(network, a, kept, i), X) for i in range(3)]
    met = set()
    for point in path_to_dropped(network, a, kept).points:
        out = apply(network, point, X)
        near = [k for k, w in enumerate(wanted) if torch.allclose(out, w, atol=1e-12)]
        assert len(near) == 1
        met |= set(near)
    assert met == {0, 1, 2, 3}


def test_between_dropped_networks_the_loss_is_below_the_worse_of_the_two():
    network = mlp((16, 9, 8, 7, 3))
    (a, b), kept_a, kept_b = pair(network), draw(network, 1), draw(network, 2)
    start = dropped(network, a, kept_a)
    across = between_dropped(network, start, kept_a, b, kept_b)
    ends = [evaluate(network, w, SPLIT)[0] for w in (start, dropped(network, b, kept_b))]
    assert profile(network, across.path(), SPLIT, 201).worst_loss <= max(ends) + 1e-12
    assert across.moves == "babcb"
    equal = between_dropped(network, start, kept_a, b, kept_a)
    assert equal.moves == "babab"


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_the_direct_path_has_seven_pieces_at_any_depth(depth):
    network = mlp((16, *[6] * depth, 3))
    a, b = pair(network)
    for kept_b in (draw(network, 0), draw(network, 1)):
        found = direct_walk(network, a, b, draw(network, 0), kept_b)
        assert found.moves in ("dbababd", "dbabcbd")
        check_moves(network, found, X)
    assert all(torch.equal(found.points[-1][key], b[key]) for key in b)


@pytest.mark.parametrize("method", ["random", "greedy", "magnitude"])
def test_find_kept(method):
    network = mlp((16, 7, 6, 3))
    a, _ = pair(network)
    kept = find_kept(network, a, SPLIT, method=method, trials=8, seed=1)
    assert [len(units.unique()) for units in kept.values()] == [3, 3]
    again = find_kept(network, a, SPLIT, method=method, trials=8, seed=1)
    assert all(torch.equal(kept[name], again[name]) for name in kept)
    if method == "random":
        first = find_kept(network, a, SPLIT, method=method, trials=1, seed=1)
        costs = [max(stability(network, a, k, SPLIT)) for k in (kept, first)]
        assert costs[0] <= costs[1]


def test_magnitude_keeps_what_matters():
    """Three neurons do the work; the others are too weak to matter."""
    network = mlp((16, 6, 3))
    a, _ = pair(network)
    weak = torch.tensor([0, 3, 5])
    a["1.weight"][weak] *= 1e-3
    assert find_kept(network, a, SPLIT, method="magnitude")["1"].tolist() == [1, 2, 4]


def test_stability_is_measured_on_every_suffix():
    network = mlp((16, 6, 7, 3))
    a, _ = pair(network)
    kept = draw(network, 0)
    base = evaluate(network, a, SPLIT)[0]
    first, second = stability(network, a, kept, SPLIT)
    assert second == pytest.approx(evaluate(network, dropped(network, a, kept, 1), SPLIT)[0] - base)
    both = dict(dropped(network, a, kept))
    assert first == pytest.approx(evaluate(network, both, SPLIT)[0] - base)
    factor = torch.zeros(7, dtype=torch.float64)
    factor[kept["3"]] = 7 / 3
    assert torch.allclose(both["5.weight"], a["5.weight"] * factor)
    assert torch.equal(both["3.bias"], a["3.bias"])


def test_training_with_dropout_makes_stable():
    """On every one of six pairs, and by a wide margin in the mean."""
    network, digits = zoo.network("digits"), data.load("digits")
    worst = {}
    for name in ("digits", "digits-dropout"):
        weights = zoo.load(name)
        assert all(evaluate(network, w, digits.test)[1] >= 0.95 for w in weights)
        paths = [
            dropout.connect(network, *weights[i : i + 2], digits.train) for i in range(0, 12, 2)
        ]
        worst[name] = [profile(network, path, digits.test, 105).worst_accuracy for path in paths]
    assert all(x > y for x, y in zip(worst["digits-dropout"], worst["digits"], strict=True))
    assert sum(worst["digits-dropout"]) / 6 > 0.94
    assert sum(worst["digits"]) / 6 < 0.90


def test_it_is_on_the_scoreboard():
    network, weights = zoo.network("digits"), zoo.load("digits")
    path = scoreboard.METHODS["dropout"].connect(
        network, weights[0], weights[1], data.load("digits").train
    )
    assert path.name == "dropout path"
    assert scoreboard.METHODS["dropout"].name == "Dropout path"


class TestDisconnectedMinima:
    """Chapter 3's data set: five samples, three neurons, a teacher of two."""

    x = torch.tensor([-2.0, -1, 0, 1, 2])
    y = torch.tensor([3.0, 1, 0, 1, 3])
    teacher = torch.tensor([[1.0, 2, -1], [1, -2, -1], [0, 0, 0]])  # rows (a, w, b)
    other = torch.tensor([[1.0, 2, 1], [1, -2, 1], [-1, 0, 2]])

    @staticmethod
    def output(neurons, x):
        a, w, b = neurons.T
        return ((x[:, None] * w + b).relu() * a).sum(1)

    def test_both_are_minima_and_even_the_same_function(self):
        for neurons in (self.teacher, self.other):
            assert torch.equal(self.output(neurons, self.x), self.y)
        line = torch.linspace(-9, 9, 181, dtype=torch.float64)
        one, two = (self.output(n.double(), line) for n in (self.teacher, self.other))
        assert torch.allclose(one, two, atol=1e-12)

    def test_the_proof_s_step(self):
        """Second differences are positive, and two hinges facing inwards are positive at 0."""
        assert (self.y.diff().diff() > 0).all()
        a, _, b = self.other[:2].T
        assert (a * b.relu()).sum() > self.y[2] == 0


@pytest.mark.parametrize("h", [2, 3, 5, 8])
def test_a_zigzag_needs_every_neuron(h):
    """h + 2 samples of which h neurons make every second difference change its sign."""
    x = torch.arange(h + 2.0)
    kinks, signs = torch.arange(1.0, h + 1), torch.tensor([(-1.0) ** j for j in range(h)])
    sizes = torch.full((h,), 2.0)
    sizes[0] = 1
    y = ((x[:, None] - kinks).relu() * signs * sizes).sum(1)
    assert torch.equal(y.diff().diff().sign(), signs)
    assert math.comb(h, h // 2) >= 2


def test_bad_input():
    network = mlp((16, 6, 5, 3))
    a, b = pair(network)
    kept = draw(network, 0)
    with pytest.raises(ValueError, match=r"must name the hidden layers \['1', '3'\]"):
        walk(network, a, b, kept, {"1": [0]})
    with pytest.raises(ValueError, match="between 1 and 2 different neurons of layer '3'"):
        path_to_dropped(network, a, kept | {"3": [0, 1, 2]})
    with pytest.raises(ValueError, match=r"hidden layers \['1', '3'\], not \['1', '9'\]"):
        path_to_dropped(network, a, {"1": [0], "9": [0]})
    with pytest.raises(ValueError, match="no link of a plain chain"):
        layers_of(residual_mlp(16, 3, width=6, hidden=5))
    norm = nn.Sequential(nn.Linear(16, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3))
    with pytest.raises(ValueError, match=r"'0' is no link .*1\.weight"):
        layers_of(norm)
    with pytest.raises(ValueError, match="no hidden layer"):
        layers_of(mlp((16, 3)))
    with pytest.raises(ValueError, match="one neuron"):
        find_kept(mlp((16, 1, 3)), pair(mlp((16, 1, 3)))[0], SPLIT)
    with pytest.raises(ValueError, match="method must be"):
        find_kept(network, a, SPLIT, method="luck")
    with pytest.raises(ValueError, match="at least one trial"):
        find_kept(network, a, SPLIT, trials=0)
    with pytest.raises(ValueError, match=r"b\['1\.weight'\]"):
        walk(network, a, b | {"1.weight": b["1.weight"][:, :3]}, kept, kept)
