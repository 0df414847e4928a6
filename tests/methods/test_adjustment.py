import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modeconn_lite import data, zoo
from modeconn_lite.data import Split
from modeconn_lite.evaluation import profile
from modeconn_lite.layout import hidden_layers
from modeconn_lite.methods import METHODS, adjustment, arcs, handovers, transport
from modeconn_lite.methods.adjustment import connect_adjusted, connect_butterflies, moves
from modeconn_lite.methods.follower import Follower
from modeconn_lite.networks import HeConv2d, cnn3, mlp, residual_mlp
from modeconn_lite.neurons import permute
from modeconn_lite.paths import FunctionPath, Path, segment
from modeconn_lite.weights import apply, distance, fresh_weights, to

NETWORKS = {
    "one layer": (lambda: mlp((6, 9, 3)), (50, 6)),
    "deep": (lambda: mlp((6, 9, 8, 7, 3)), (50, 6)),
    "no bias": (lambda: mlp((6, 9, 8, 3), bias=False), (50, 6)),
    "convnet": (
        lambda: nn.Sequential(
            HeConv2d(2, 4, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 5, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(5 * 9, 7),
            nn.ReLU(),
            nn.Linear(7, 3),
        ),
        (30, 2, 6, 6),
    ),
    "only convolutions": (lambda: cnn3(4, side=6, classes=3), (30, 1, 6, 6)),
    "residual": (lambda: residual_mlp(6, 3, width=8, hidden=7, blocks=2), (50, 6)),
    "linear": (lambda: nn.Linear(6, 3), (50, 6)),
}
CONNECT = {"wa": connect_adjusted, "butterfly": connect_butterflies}


def a_case(kind, seed=0, images=None):
    make, shape = NETWORKS[kind]
    network, g = make().double(), torch.Generator().manual_seed(seed)
    a, b = (to(fresh_weights(network, 2 * seed + k), torch.float64) for k in range(2))
    x = torch.randn((images or shape[0], *shape[1:]), generator=g, dtype=torch.float64)
    return network, a, b, labelled(x)


def labelled(x):
    return Split(x, torch.arange(len(x)) % 3, "noise", classes=tuple("abc"))


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a)


# --- Every path ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", adjustment.KINDS)
@pytest.mark.parametrize("way", CONNECT)
def test_every_path_leads_from_a_to_b_to_the_bit(name, kind, way):
    network, a, b, split = a_case(name)
    before = {key: value.clone() for key, value in network.named_parameters()}
    path = CONNECT[way](network, a, b, split, kind=kind)
    assert same(path(0.0), a) and same(path(1.0), b)
    assert len(path.labels) == len(path.knots) - 1
    for one, two in zip(path.corners(), path.corners()[1:], strict=False):
        assert distance(one, two) < 100  # nothing is missing, nothing jumps out of sight
    assert profile(network, path, split, 21).worst_loss < 100
    assert all(torch.equal(p, before[key]) for key, p in network.named_parameters())
    if kind != "transport":
        assert isinstance(path, Path)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("way", CONNECT)
def test_without_undoing_transport_ends_at_a_copy_of_b(name, way):
    network, a, b, split = a_case(name)
    path = CONNECT[way](network, a, b, split, kind="transport", undo=False)
    out = apply(network, path(1.0), split.x)
    assert torch.allclose(out, apply(network, b, split.x))
    if name == "linear":
        return
    assert not same(path(1.0), b)
    free = CONNECT[way](network, a, b, split, kind="transport", walk=handovers.free_walk_back)
    assert same(free(1.0), b) and free.name.endswith("+ free walk back")
    assert same(free(0.25), path(0.5))
    swapped = CONNECT[way](network, a, b, split, kind="transport")
    assert same(swapped(0.5), path(1.0)) and swapped.name.endswith("+ walk back")


@pytest.mark.parametrize("kind", adjustment.KINDS)
def test_solved_anew_at_each_time_or_straight_between_breakpoints(kind):
    """Both are the same at the breakpoints, and meet as these become more."""
    network, a, b, split = a_case("deep")
    exact = connect_adjusted(network, a, b, split, kind=kind, breakpoints=None, undo=False)
    assert isinstance(exact, FunctionPath) and len(exact.knots) == 8
    gaps = []
    for breakpoints in (5, 17):
        path = connect_adjusted(
            network, a, b, split, kind=kind, breakpoints=breakpoints, undo=False
        )
        assert path.labels.count("move") == 3 * (breakpoints - 1)
        for t in path.knots:
            assert distance(path(t), exact(t)) < 1e-6 * (1 + distance(a, b))
        gaps.append(max(distance(path(t), exact(t)) for t in torch.linspace(0, 1, 57).tolist()))
    assert gaps[1] < 0.5 * gaps[0]


# --- What happens on the way ---------------------------------------------------------------------


def test_one_hidden_layer_is_equation_10():
    network, a, b, split = a_case("one layer")
    x = split.x
    logits = (x @ a["1.weight"].T + a["1.bias"]).relu() @ a["3.weight"].T
    for kind, route in (("linear", segment(a, b)), ("arc", arcs.arc(network, a, b))):
        path = connect_adjusted(network, a, b, split, kind=kind, breakpoints=5, ridge=1e-10)
        assert path.knots == pytest.approx([0, *(1 / 3 + k / 12 for k in range(5)), 1])
        for k in range(5):
            here, wanted = path(path.knots[k + 1]), route(k / 4)
            for key in ("1.weight", "1.bias"):
                assert torch.allclose(here[key], wanted[key])
            phi = (x @ wanted["1.weight"].T + wanted["1.bias"]).relu()
            solution = torch.linalg.lstsq(phi, logits, driver="gelsd").solution.T
            assert torch.allclose(here["3.weight"], solution, atol=1e-5)
            assert torch.equal(here["3.bias"], a["3.bias"])


@pytest.mark.parametrize("kind", ["linear", "arc"])
def test_the_points_between_the_legs_are_those_of_the_paper(kind):
    """Θ_k: b's layers below k, the k-th W_k^A X_{k−1}^A [X_{k−1}^B]⁺, a's from there on."""
    network, a, b, split = a_case("deep")
    xs = {"a": split.x, "b": split.x}
    adjusted = connect_adjusted(network, a, b, split, kind=kind, ridge=1e-10)
    butterfly = connect_butterflies(network, a, b, split, kind=kind, ridge=1e-10)
    layers, thetas = ("1", "3", "5", "7"), []
    for k, layer in enumerate(layers[:-1]):
        for name, w in {"a": a, "b": b}.items():
            xs[name] = (xs[name] @ w[f"{layer}.weight"].T + w[f"{layer}.bias"]).relu()
        reader = f"{layers[k + 1]}.weight"
        solution = torch.linalg.lstsq(xs["b"], xs["a"] @ a[reader].T, driver="gelsd").solution.T
        here = adjusted(2 * (k + 1) / 7)
        thetas.append(here)
        assert torch.allclose(here[reader], solution, atol=1e-5)
        for key in a:
            if int(key[0]) <= int(layer):
                assert torch.equal(here[key], b[key])
            elif key != reader:
                assert torch.equal(here[key], a[key])
    for k, theta in enumerate(thetas[:-1], 1):  # the last one is skipped
        there = butterfly(k / 3)
        assert all(torch.allclose(there[key], theta[key], atol=1e-6) for key in a)
    assert len(butterfly.knots) == 4


def test_for_one_hidden_layer_butterflies_are_the_line_the_arc_and_transport():
    network, a, b, split = a_case("one layer")
    wanted = {
        "linear": segment(a, b),
        "arc": arcs.arc(network, a, b),
        "transport": transport.connect_transport(network, a, b, split),
    }
    for kind, path in wanted.items():
        found = connect_butterflies(network, a, b, split, kind=kind)
        for t in (0.0, 0.1, 0.3, 0.7, 1.0):
            assert distance(found(t), path(t)) < 1e-6


def test_transport_of_what_neurons_receive_chooses_the_order():
    network, a, b, split = a_case("one layer")
    orders = transport.transport_matching(network, a, b, blocks=(1, 1, 0))
    path = connect_adjusted(network, a, b, split, kind="transport", undo=False)
    assert same(path(1.0), permute(network, b, orders))


@pytest.mark.parametrize("name", ["deep", "convnet", "residual"])
@pytest.mark.parametrize("way", CONNECT)
def test_a_shuffled_copy_of_a_is_reached_with_its_outputs(name, way):
    """Transport finds it layer by layer, though each but the first is an adjusted one by then."""
    network, a, _, split = a_case(name, images=200)
    g = torch.Generator().manual_seed(0)
    orders = {n.name: torch.randperm(n.size, generator=g) for n in hidden_layers(network)}
    b = permute(network, a, orders)
    path = CONNECT[way](network, a, b, split, kind="transport", undo=False, ridge=1e-12)
    assert same(path(1.0), a)
    seen = profile(network, path, split, 31)
    assert float(seen.loss.max() - seen.loss.min()) < 1e-6


@settings(max_examples=40)
@given(st.integers(0, 9999), st.integers(1, 12), st.sampled_from(["linear", "arc", "transport"]))
def test_the_last_leg_is_never_worse_than_its_worse_end(seed, width, kind):
    """Loss is convex in the weights and biases of the outputs' layer."""
    network, g = mlp((4, width, 3)).double(), torch.Generator().manual_seed(seed)
    a, b = (
        {key: 3 * torch.randn(w.shape, generator=g, dtype=torch.float64) for key, w in w.items()}
        for w in [fresh_weights(network, 0)] * 2
    )
    split = labelled(torch.randn(20, 4, generator=g, dtype=torch.float64))
    path = connect_adjusted(network, a, b, split, kind=kind, breakpoints=2, undo=False)
    start, *between, end = (
        F.cross_entropy(apply(network, path(t), split.x), split.y)
        for t in torch.linspace(2 / 3, 1, 9, dtype=torch.float64).tolist()
    )
    assert max(between) <= max(start, end) + 1e-9


@pytest.mark.parametrize("kind", adjustment.KINDS)
@pytest.mark.parametrize("widths", [(40,), (40, 40, 40)])
def test_with_no_more_images_than_neurons_nothing_is_lost(widths, kind):
    """The paper's condition: features that are independent carry any outputs."""
    network, split = mlp((6, *widths, 3)).double(), a_case("deep", images=12)[3]
    a, b = (to(fresh_weights(network, seed), torch.float64) for seed in range(2))
    path = connect_adjusted(
        network, a, b, split, kind=kind, breakpoints=None, ridge=1e-9, undo=False
    )
    before = apply(network, a, split.x)
    legs = len(path.knots) - 1
    for t in torch.linspace(0, (legs - 1) / legs, 13, dtype=torch.float64).tolist():
        assert torch.allclose(apply(network, path(t), split.x), before, atol=1e-4)
    more = labelled(torch.cat([split.x, a_case("deep", seed=1, images=500)[3].x]))
    path = connect_adjusted(network, a, b, more, kind=kind, breakpoints=None, undo=False)
    assert not torch.allclose(apply(network, path(0.5), split.x), before, atol=1e-3)


def test_the_outputs_may_become_those_of_b_on_the_way():
    network, a, b, split = a_case("one layer", images=8)
    path = connect_adjusted(network, a, b, split, to_b=True, ridge=1e-10)
    for share in (0.0, 0.3, 1.0):  # at breakpoints
        wanted = (1 - share) * apply(network, a, split.x) + share * apply(network, b, split.x)
        got = apply(network, path((1 + share) / 3), split.x)
        assert torch.allclose(got, wanted, atol=1e-5)
    assert torch.equal(path(2 / 3)["3.bias"], b["3.bias"])
    assert same(path(1.0), b)


def test_readers_go_to_their_solution_before_the_layer_moves():
    """Where features depend on each other there are many; the first leg leads to the shortest."""
    network, a, b, split = a_case("one layer", images=6)  # fewer than the nine neurons
    path = connect_adjusted(network, a, b, split, ridge=1e-10)
    start = path(1 / 3)
    assert [key for key in a if not torch.equal(start[key], a[key])] == ["3.weight"]
    assert start["3.weight"].norm() < a["3.weight"].norm()
    for t in (0.0, 0.1, 0.2, 1 / 3):
        out = apply(network, path(t), split.x)
        assert torch.allclose(out, apply(network, a, split.x), atol=1e-6)


def test_a_residual_stream_moves_layer_by_layer_and_all_its_readers_follow():
    network, a, b, split = a_case("residual")
    steps = moves(network)
    assert [move.rows.name for move in steps] == ["1", "2.enter", "2.leave", "3.enter", "3.leave"]
    assert [move.readers for move in steps] == [
        ["2.enter.weight", "3.enter.weight", "5.weight"],
        ["2.leave.weight"],
        ["3.enter.weight", "5.weight"],
        ["3.leave.weight"],
        ["5.weight"],
    ]
    path = connect_adjusted(network, a, b, split)
    for k in range(len(steps)):
        here = path((2 * k + 2) / 11)
        for other in steps[: k + 1]:
            assert all(torch.equal(here[key], b[key]) for key in other.rows.incoming)
    # All that read the stream say what they said, as closely as they can.
    follow, end = Follower(network, a, split.x), path(2 / 11)
    for tensor in steps[0].readers:
        assert follow.residual(end, tensor) < follow.residual(end | {tensor: a[tensor]}, tensor)


# --- Options -------------------------------------------------------------------------------------


def test_how_many_images_are_used():
    network, a, b, split = a_case("one layer")
    for connect in CONNECT.values():
        some = connect(network, a, b, split, images=12)
        assert distance(some(0.5), connect(network, a, b, split.take(12))(0.5)) == 0
    few, all_of_them = (
        connect_adjusted(network, a, b, split, images=n, ridge=1e-3) for n in (12, None)
    )
    assert profile(network, all_of_them, split).worst_loss < profile(network, few, split).worst_loss


def test_half_precision_works():
    network, a, b, split = a_case("one layer")
    a, b = (to(w, torch.bfloat16) for w in (a, b))
    path = connect_adjusted(network.bfloat16(), a, b, split)
    assert path(0.5)["3.weight"].dtype == torch.bfloat16 and same(path(1.0), b)


def test_bad_calls_are_refused():
    network, a, b, split = a_case("one layer")
    for connect in CONNECT.values():
        with pytest.raises(ValueError, match="kind must be one of"):
            connect(network, a, b, split, kind="curve")
        for images in (0, 51, 1.5):
            with pytest.raises(ValueError, match="images must be a whole number"):
                connect(network, a, b, split, images=images)
        with pytest.raises(ValueError, match="split must be a Split"):
            connect(network, a, b, split.x)
        with pytest.raises(ValueError, match="ridge"):
            connect(network, a, b, split, ridge=-1)
        with pytest.raises(ValueError, match=r"b\['1.weight'\] has shape"):
            connect(network, a, fresh_weights(mlp((6, 5, 3)).double(), 0), split)
        with pytest.raises(ValueError, match="b must be a non-empty dict of tensors"):
            connect(network, a, None, split)
        for undo in ("False", 0, None):
            with pytest.raises(ValueError, match="undo must be True or False"):
                connect(network, a, b, split, undo=undo)
        for walk in (None, "swaps", network):
            with pytest.raises(ValueError, match="walk must be a function, such as walk_back"):
                connect(network, a, b, split, walk=walk)
    with pytest.raises(ValueError, match="to_b must be True or False"):
        connect_adjusted(network, a, b, split, to_b="no")
    with pytest.raises(ValueError, match=r"network must be an nn\.Module"):
        moves(None)
    for breakpoints in (1, 2.5, "2"):
        with pytest.raises(ValueError, match="breakpoints"):
            connect_adjusted(network, a, b, split, breakpoints=breakpoints)
    norm = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)).double()
    w = to(fresh_weights(norm, 0), torch.float64)
    with pytest.raises(ValueError, match="layer '1' normalises"):
        connect_adjusted(norm, w, w, split)
    headless = nn.Sequential(*residual_mlp(6, 3, width=3)[:4])
    with pytest.raises(ValueError, match="give the outputs together"):
        moves(headless)


# --- On trained networks -------------------------------------------------------------------------


def test_on_trained_networks_it_loses_little():
    network, digits = zoo.network("digits"), data.load("digits")
    a, b = zoo.load("digits")[:2]
    worst = {
        key: profile(network, METHODS[key].connect(network, a, b, digits.train), digits.train, 21)
        for key in ("linear", "linear-butterfly", "linear-wa", "transport-wa-copy")
    }
    worst = [found.worst_accuracy for found in worst.values()]
    assert worst == sorted(worst)
    assert worst[2] > 0.98


def test_with_as_many_images_as_neurons_a_ridge_is_needed():
    """Some direction is then hardly heard, and what is said in it is shouted."""
    network, digits = zoo.network("digits-wide"), data.load("digits")
    a, b = zoo.load("digits-wide")[16:18]
    worst = {}
    for images in (64, 128, 256):  # of 128 neurons
        for ridge in (1e-8, 1e-3):
            path = connect_adjusted(network, a, b, digits.train, images=images, ridge=ridge)
            worst[images, ridge] = profile(network, path, digits.test, 21).worst_accuracy
    assert worst[128, 1e-8] < 0.7 < 0.9 < min(worst[64, 1e-8], worst[256, 1e-8])
    assert all(worst[images, 1e-3] > 0.9 for images in (64, 128, 256))
