from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modeconn_lite import data, zoo
from modeconn_lite.evaluation import evaluate, profile
from modeconn_lite.methods import METHODS, dropout
from modeconn_lite.methods.dropout import (
    between_dropped,
    direct_walk,
    merged,
    path_to_dropped,
    walk,
)
from modeconn_lite.methods.stability import dropped, layers_of, stability
from modeconn_lite.networks import cnn3, mlp
from modeconn_lite.neurons import mute
from modeconn_lite.paths import Path, polychain
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


def check_moves(network, path: Path, x):
    """(a) moves the last layer only; (b) leaves the outputs unchanged, and to the bit.

    (c) moves more than the last layer, and leaves the outputs unchanged all along.
    """
    last = layers_of(network)[-1].outgoing[0].tensor
    head = {last, last.replace("weight", "bias")}
    for (one, two), move in zip(pairwise(path.corners()), path.labels, strict=True):
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


@settings(max_examples=30)
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
    assert len(path_to_dropped(network, a, kept_a).labels) == 4 * (p - 2) + 2
    assert len(whole.labels) == 8 * (p - 2) + 9
    assert whole.labels.count("c") <= (not same)
    check_moves(network, whole, X)
    check_moves(network, merged(whole), X)
    assert "bb" not in "".join(merged(whole).labels)
    first, *_, last = whole.corners()
    assert all(torch.equal(first[key], a[key]) for key in a)
    assert all(torch.equal(last[key], b[key]) for key in b)
    found = dropout.certificate(network, a, b, kept_a, kept_b, SPLIT)
    assert found.holds
    assert found.highest >= max(found.ends)


@settings(max_examples=20)
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

    path = polychain([a, b])
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
    assert "".join(found.labels) == "ababab"
    for state, (third, second, first) in zip(found.corners(), states, strict=True):
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
    end = path_to_dropped(network, a, kept_a).corners()[-1]
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
    for point in path_to_dropped(network, a, kept).corners():
        out = apply(network, point, X)
        near = [k for k, w in enumerate(wanted) if torch.allclose(out, w, atol=1e-12)]
        assert len(near) == 1
        met |= set(near)
    assert met == {0, 1, 2, 3}


@pytest.mark.parametrize("hidden", [(4, 4), (6, 4, 8), (4, 6, 4, 6)])
def test_the_last_layer_swings_to_one_more_dropped_layer_at_a_time(hidden):
    """(a) from the kept half to the copy: the copy has its own layer dropped, as all above it."""
    network = mlp((16, *hidden, 3))
    network = nn.Sequential(*(nn.Tanh() if isinstance(m, nn.ReLU) else m for m in network))
    a, _ = pair(network)
    kept = draw(network, 3)
    path = path_to_dropped(network, a, kept)
    swings = [k for k, move in enumerate(path.labels, start=1) if move == "a"]
    wanted = [len(hidden) - 1]  # from which layer on the network is dropped, after each swing
    for first in range(len(hidden) - 2, -1, -1):
        wanted += [first, first]
    for k, first in zip(swings, wanted, strict=True):
        out = apply(network, path.corners()[k], X)
        whole = apply(network, dropped(network, a, kept, first), X)
        assert torch.allclose(out, whole, atol=1e-12)


def test_between_dropped_networks_the_loss_is_below_the_worse_of_the_two():
    network = mlp((16, 9, 8, 7, 3))
    (a, b), kept_a, kept_b = pair(network), draw(network, 1), draw(network, 2)
    start = dropped(network, a, kept_a)
    across = between_dropped(network, start, kept_a, b, kept_b)
    ends = [evaluate(network, w, SPLIT).loss for w in (start, dropped(network, b, kept_b))]
    assert profile(network, across, SPLIT, 201).worst_loss <= max(ends) + 1e-12
    assert "".join(across.labels) == "babcb"
    equal = between_dropped(network, start, kept_a, b, kept_a)
    assert "".join(equal.labels) == "babab"


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_the_direct_path_has_seven_pieces_at_any_depth(depth):
    network = mlp((16, *[6] * depth, 3))
    a, b = pair(network)
    for kept_b in (draw(network, 0), draw(network, 1)):
        found = direct_walk(network, a, b, draw(network, 0), kept_b)
        assert "".join(found.labels) in ("dbababd", "dbabcbd")
        check_moves(network, found, X)
    assert all(torch.equal(found.corners()[-1][key], b[key]) for key in b)


def test_training_with_dropout_makes_stable():
    """On every one of six pairs, and by a wide margin in the mean."""
    network, digits = zoo.network("digits"), data.load("digits")
    worst = {}
    for name in ("digits", "digits-dropout"):
        weights = zoo.load(name)
        assert all(evaluate(network, w, digits.test).accuracy >= 0.95 for w in weights)
        paths = [
            dropout.connect(network, *weights[i : i + 2], digits.train) for i in range(0, 12, 2)
        ]
        worst[name] = [profile(network, path, digits.test, 105).worst_accuracy for path in paths]
    assert all(x > y for x, y in zip(worst["digits-dropout"], worst["digits"], strict=True))
    assert sum(worst["digits-dropout"]) / 6 > 0.94
    assert sum(worst["digits"]) / 6 < 0.90


def test_it_is_on_the_scoreboard():
    network, weights = zoo.network("digits"), zoo.load("digits")
    path = METHODS["dropout"].connect(network, *weights[:2], data.load("digits").train)
    assert path.name == "dropout path"
    assert METHODS["dropout"].name == "Dropout path"


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
    """Chapter 3: h + 2 samples on which no neuron can be spared, whatever the others do."""
    network = mlp((1, h, 1)).double()
    x = torch.arange(h + 2.0, dtype=torch.float64)[:, None]
    kinks = torch.arange(1.0, h + 1, dtype=torch.float64)
    signs = torch.tensor([(-1.0) ** j for j in range(h)], dtype=torch.float64)
    sizes = torch.where(kinks == 1, 1.0, 2.0)
    w = {
        "1.weight": torch.ones(h, 1, dtype=torch.float64),
        "1.bias": -kinks,
        "3.weight": (signs * sizes)[None],
        "3.bias": torch.zeros(1, dtype=torch.float64),
    }

    def bends(w):
        """Second differences of the network's outputs: shape (h,)."""
        return apply(network, w, x)[:, 0].diff().diff()

    y = apply(network, w, x)[:, 0]
    assert y.tolist() == [0, *(float(j % 2 == 0) for j in range(1, h + 2))]
    assert torch.equal(bends(w).sign(), signs)
    for i in range(h):  # without neuron i the samples are no zigzag any more
        rest = mute(network, w, {"1": [j for j in range(h) if j != i]}, rescale=False)
        assert bends(rest)[i] == 0

    # Any network's second differences are sums of tents at its kinks; a neuron helps those of its
    # own sign whose tent it stands under, and that is one at most. So fewer than h do not do.
    def tents(kink):
        return (1 - (kink[:, None] - kinks).abs()).clamp(min=0)  # (neurons, h)

    other = to(fresh_weights(network, h), torch.float64)
    kink = -other["1.bias"] / other["1.weight"][:, 0]
    grows = other["3.weight"][0] * other["1.weight"][:, 0].abs()
    assert torch.allclose(bends(other), grows @ tents(kink))
    everywhere = tents(torch.linspace(-1, h + 2, 50 * (h + 3) + 1, dtype=torch.float64)) > 0
    for sign in (1, -1):
        assert int(everywhere[:, signs == sign].sum(1).max()) == 1


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
    with pytest.raises(ValueError, match=r"b\['1\.weight'\]"):
        walk(network, a, b | {"1.weight": b["1.weight"][:, :3]}, kept, kept)


class TestBadCalls:
    network = mlp((16, 6, 5, 3))
    a, b = pair(network)
    kept = draw(network, 0)

    def calls(self, network=None, a=None, b=None, kept=None):
        network = self.network if network is None else network
        a, b = self.a if a is None else a, self.b if b is None else b
        kept = self.kept if kept is None else kept
        yield lambda: path_to_dropped(network, a, kept)
        yield lambda: walk(network, a, b, kept, kept)
        yield lambda: direct_walk(network, a, b, kept, kept)
        yield lambda: dropout.certificate(network, a, b, kept, kept, SPLIT)

    @pytest.mark.parametrize("wrong", ["mlp", nn.Linear, torch.zeros(2), 3])
    def test_no_network_and_no_weights(self, wrong):
        for call in self.calls(network=wrong):
            with pytest.raises(ValueError, match=r"network must be an nn\.Module"):
                call()
        for call in (*self.calls(a=wrong), *list(self.calls(b=wrong))[1:]):
            with pytest.raises(ValueError, match="must be a non-empty dict of tensors"):
                call()
        nan = {key: w * torch.nan for key, w in self.a.items()}
        for call in (*self.calls(a=nan), *list(self.calls(b=nan))[1:]):
            with pytest.raises(ValueError, match="not finite"):
                call()

    @pytest.mark.parametrize(
        "units",
        [
            [True, False, True, False, False, False],
            torch.tensor([True, False, True, False, False, False]),
            [0.0, 1.0],
            [0, -1],
            [0, 6],
            [0, 0],
            [0, 1, 2, 3],
            [],
            "01",
            2,
        ],
    )
    def test_kept(self, units):
        for call in self.calls(kept={"1": units, "3": [0, 1]}):
            with pytest.raises(ValueError, match=r"kept\['1'\]|of layer '1'"):
                call()
        for wrong in ([0, 1], "1", {"1": [0]}):
            for call in self.calls(kept=wrong):
                with pytest.raises(ValueError, match="kept must"):
                    call()

    def test_points(self):
        for points in (0, 1, 2.5, True, None):
            with pytest.raises(ValueError, match="points must be a whole number of at least 2"):
                dropout.certificate(
                    self.network, self.a, self.b, self.kept, self.kept, SPLIT, points=points
                )

    def test_split(self):
        for wrong in (None, X, "digits"):
            with pytest.raises(ValueError, match="split must be"):
                dropout.certificate(self.network, self.a, self.b, self.kept, self.kept, wrong)
            with pytest.raises(ValueError, match="split must be"):
                dropout.connect(self.network, self.a, self.b, wrong)
        with pytest.raises(ValueError, match="direct must be True or False, not 'no'"):
            dropout.connect(self.network, self.a, self.b, SPLIT, direct="no")

    def test_merging_what_has_no_labels(self):
        for wrong in (polychain([self.a, self.b]), None, "walk", self.a):
            with pytest.raises(ValueError, match="a path with labels is needed"):
                merged(wrong)

    def test_between_networks_that_are_not_dropped(self):
        start = dropped(self.network, self.a, self.kept)
        assert between_dropped(self.network, start, self.kept, self.b, self.kept)
        with pytest.raises(ValueError, match=r"in '\d\.weight' it reads neurons of layer"):
            between_dropped(self.network, self.a, self.kept, self.b, self.kept)
        with pytest.raises(ValueError, match="start must be a non-empty dict"):
            between_dropped(self.network, None, self.kept, self.b, self.kept)

    def test_hooks(self):
        network = mlp((16, 6, 5, 3))
        network[2].register_forward_hook(lambda module, given, out: out.roll(1, 1))
        for call in self.calls(network):
            with pytest.raises(ValueError, match=r"layer '2' .*has forward hooks"):
                call()


def test_the_certificate_takes_the_worst_of_both_networks_and_of_all_suffixes():
    network = mlp((16, 6, 5, 3))
    a, b = pair(network)
    kept_a, kept_b = draw(network, 1), draw(network, 2)
    found = dropout.certificate(network, a, b, kept_a, kept_b, SPLIT)
    costs = [*stability(network, a, kept_a, SPLIT), *stability(network, b, kept_b, SPLIT)]
    assert found.epsilon == pytest.approx(max(0.0, *costs))
    assert found.ends == pytest.approx([evaluate(network, w, SPLIT).loss for w in (a, b)])
    assert found.bound == max(found.ends) + found.epsilon
    path = merged(walk(network, a, b, kept_a, kept_b))
    seen = profile(network, path, SPLIT, 4 * len(path.labels) + 1)
    assert found.highest == pytest.approx(seen.worst_loss)
    for off, holds in ((0.0, True), (1e-7, True), (0.1, False)):
        there = dropout.Certificate((0.1, 1.0), 0.5, 1.5 + off)
        assert there.holds == holds


def test_idle_units_for_neurons_that_are_in_each_other_s_way():
    found = dropout.elsewhere(torch.tensor([0, 2, 5]), torch.tensor([2, 1, 0]), 7)
    assert found.tolist() == [3, 1, 4]  # 1 is free; 3 and 4 are nobody's goal


def test_merging_keeps_every_corner_where_something_else_begins():
    network = mlp((16, 6, 5, 3))
    a, b = pair(network)
    whole = walk(network, a, b, draw(network, 1), draw(network, 2))
    short = merged(whole)
    assert short.name == whole.name
    letters = "".join(whole.labels)
    while "bb" in letters:
        letters = letters.replace("bb", "b")
    assert "".join(short.labels) == letters
    corners = whole.corners()
    for corner in short.corners():
        assert any(all(torch.equal(corner[k], c[k]) for k in c) for c in corners)
