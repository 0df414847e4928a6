import odd_networks
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modeconn_lite import forward, stages
from modeconn_lite.anatomy import facts
from modeconn_lite.forward import outputs
from modeconn_lite.joins import concat
from modeconn_lite.methods.dropout import merged, walk
from modeconn_lite.networks import cnn3, mlp, residual_mlp
from modeconn_lite.paths import FunctionPath, bezier, polychain, segment
from modeconn_lite.sheets import triangle
from modeconn_lite.times import grid
from modeconn_lite.weights import apply, fresh_weights, to, weights_of

NETWORKS = {
    "mlp": mlp((16, 9, 7, 3)),
    "no bias": mlp((16, 5, 3), bias=False),
    "residual": residual_mlp(16, 3, width=6, hidden=5),
    "cnn": cnn3(3, side=4, classes=3),
    "in place": nn.Sequential(
        nn.Flatten(), nn.Linear(16, 5), nn.ReLU(inplace=True), nn.Linear(5, 3)
    ),
    "ends in a view": nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.Identity()),
    "no chain": type("Wrapped", (nn.Module,), {"forward": lambda self, x: self.body(x)})(),
}
NETWORKS["no chain"].body = mlp((16, 5, 3))
NETWORKS["hooked"] = mlp((16, 5, 3))
NETWORKS["hooked"][1].register_forward_hook(lambda module, inputs, out: out.tanh())
NETWORKS["weight norm"] = mlp((16, 5, 3))
torch.nn.utils.parametrizations.weight_norm(NETWORKS["weight norm"][1])
X = torch.randn(23, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@odd_networks.warned
@pytest.mark.parametrize("name", odd_networks.ODD)
def test_odd_networks_give_what_a_naive_loop_gives(name, monkeypatch):
    """Whatever they share, hide and remember; and nothing of the caller's changes."""
    make, shape, _ = odd_networks.ODD[name]

    def make_again():
        torch.manual_seed(0)
        return make()

    network = make_again()
    x = torch.randn(9, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    a, b = (odd_networks.drawn(network, seed) for seed in range(2))
    line, t = segment(a, b), [0.0, 0.3, 1.0]
    wanted = torch.stack([odd_networks.naive(make_again, line(ti), x) for ti in t])
    before = {key: value.clone() for key, value in network.state_dict().items()}
    own, ends = list(network.parameters()), [weights_copy(w) for w in (a, b)]
    monkeypatch.setattr(stages, "CHUNK_FLOATS", (64, 64))  # several chunks
    for path in (line, FunctionPath(line), polychain([a, line(0.3), b])):
        times = [0.0, 0.5, 1.0] if path.name == "polychain" else t
        assert torch.allclose(outputs(network, path, times, x), wanted, atol=1e-9), path
        for i, ti in enumerate(times):  # by itself
            assert torch.allclose(outputs(network, path, [ti], x)[0], wanted[i], atol=1e-9)
    assert all(p is q for p, q in zip(network.parameters(), own, strict=True))
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    for w, old in zip((a, b), ends, strict=True):
        assert all(torch.equal(w[key], old[key]) for key in old)


def weights_copy(weights):
    return {key: value.clone() for key, value in weights.items()}


def test_a_function_s_points_come_one_by_one_and_are_noted_once():
    network, called, noted = mlp((16, 5, 3)), [], []
    a, b = (odd_networks.drawn(network, seed) for seed in range(2))
    path = FunctionPath(lambda t: called.append(t) or segment(a, b)(t))
    parts = list(forward.sweep(network, path, grid(3), X, None, noted.append))
    assert [int(at) for at, _, _ in parts] == [0, 1, 2]
    assert called == [0.0, 0.5, 1.0]
    assert len(noted) == 3
    noted.clear()
    list(forward.sweep(network, segment(a, b), grid(4), X, None, noted.append))
    assert len(noted) == 4
    assert torch.equal(noted[0]["1.weight"], a["1.weight"])


def some_paths(network):
    shapes = {key: p.shape for key, p in network.named_parameters()}
    g = torch.Generator().manual_seed(1)
    a, b, c = (
        {key: torch.randn(shape, generator=g, dtype=torch.float64) for key, shape in shapes.items()}
        for _ in range(3)
    )
    first, last = next(iter(a)), list(a)[-1]
    return {
        "segment": segment(a, b),
        "beyond": segment(b, a),
        "polychain": polychain([a, c, b]),
        "bezier": bezier([a, c, b]),
        "only the last tensor moves": segment(a, a | {last: b[last]}),
        "only the first tensor moves": segment(a, a | {first: b[first]}),
        "nothing moves": segment(a, dict(a)),
        "pieces": concat(segment(a, a | {last: b[last]}), segment(a | {last: b[last]}, c)),
        "function": FunctionPath(bezier([a, b, c])),
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_equal_the_naive_loop(name, monkeypatch):
    network = NETWORKS[name].eval()
    monkeypatch.setattr(stages, "CHUNK_FLOATS", (160, 160))  # several chunks
    monkeypatch.setattr(forward, "POINT_FLOATS", 300)  # points take turns
    monkeypatch.setattr(forward, "PART_FLOATS", 300)  # and so do images
    for label, path in some_paths(network).items():
        t = grid(7, path.knots) if label != "beyond" else torch.tensor([-0.5, 0.2, 1.5])
        naive = torch.stack([apply(network, path(ti), X) for ti in t.tolist()])
        assert torch.allclose(outputs(network, path, t, X), naive, atol=1e-10), label


def test_points_that_take_turns_share_the_first_layer(monkeypatch):
    """Once for each anchor, however many points are held at once."""
    network, images = mlp((16, 7, 5, 3)), []
    a, b, c = (to(fresh_weights(network, seed), torch.float64) for seed in range(3))

    def linear(h, weight, bias=None):
        images.extend([len(h)] if len(weight) == 7 else [])
        return torch.addmm(bias, h, weight.T)

    monkeypatch.setattr(stages.F, "linear", linear)
    monkeypatch.setattr(forward, "POINT_FLOATS", 1)
    outputs(network, bezier([a, b, c]), grid(9), X)
    # And two images twice, for the trial of the chain, which runs the network itself, too.
    assert sum(images) - 3 * len(X) < len(X)


@settings(max_examples=25)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.lists(st.floats(-2, 2), min_size=2, max_size=4),
    st.booleans(),
)
def test_any_mix_of_anchors_on_any_mlp(hidden, coefficients, bias):
    """Coefficients need not sum to one: then even equal layers do not stand still."""
    network = mlp((16, *hidden, 3), bias=bias)
    anchors = [to(fresh_weights(network, k), torch.float64) for k in range(len(coefficients))]
    anchors[1] = anchors[0] | {"1.weight": anchors[1]["1.weight"]}
    c = torch.tensor(coefficients, dtype=torch.float64)
    path = polychain(anchors)
    path = type(path)(path.anchors, lambda t: c.repeat(len(t), 1) * (1 + t[:, None]), "mix")
    naive = torch.stack([apply(network, path(t), X) for t in (0.0, 0.5)])
    assert torch.allclose(outputs(network, path, [0.0, 0.5], X), naive, atol=1e-9)


def test_sheets():
    network = NETWORKS["mlp"]
    sheet = triangle(*(to(fresh_weights(network, s), torch.float64) for s in range(3)))
    points = [[0.0, 0.0], [0.2, 0.3], [0.0, 1.0]]
    naive = torch.stack([apply(network, sheet(*p), X) for p in points])
    assert torch.allclose(outputs(network, sheet, points, X), naive, atol=1e-10)


def count_rows(network, run):
    """How many rows pass through each linear layer while `run` runs, once the network is known."""
    rows = {}
    run()

    def counting(h, weight, bias=None):
        rows[tuple(weight.shape)] = rows.get(tuple(weight.shape), 0) + len(h)
        return h @ weight.T + (0 if bias is None else bias)

    original = stages.F.linear
    stages.F.linear = counting
    try:
        run()
    finally:
        stages.F.linear = original
    return rows


def test_what_stands_still_is_computed_once():
    network = mlp((16, 9, 7, 3))
    paths = some_paths(network)
    t = grid(41)

    def cost(label):
        return count_rows(network, lambda: outputs(network, paths[label], t, X))

    n = len(X)
    whole = cost("segment")
    assert whole[(9, 16)] == 2 * n  # once per anchor, not once per point
    assert whole[(7, 9)] == 41 * n
    last = cost("only the last tensor moves")
    assert last == {(9, 16): n, (7, 9): n, (3, 7): 2 * n}
    still = cost("nothing moves")
    assert still == {(9, 16): n, (7, 9): n, (3, 7): n}
    single = count_rows(network, lambda: outputs(network, paths["polychain"], [0.3], X))
    assert single == {(9, 16): n, (7, 9): n, (3, 7): n}  # a lone point: its mix, not its anchors


def test_a_polychain_pays_for_the_anchors_of_its_piece():
    network = mlp((16, 9, 3))
    anchors = [to(fresh_weights(network, k), torch.float64) for k in range(5)]
    path = polychain(anchors)
    rows = count_rows(network, lambda: outputs(network, path, grid(41), X))
    pieces = 4
    assert rows[(9, 16)] == pieces * 2 * len(X)


def test_buffers_follow_the_weights():
    a, b = (to(fresh_weights(odd_networks.Scaled(), s), torch.float64) for s in range(2))
    for path in (segment(a, b), FunctionPath(segment(a, b))):
        assert outputs(odd_networks.Scaled(), path, [0.5], X).dtype == torch.float64


def test_nothing_to_look_at_is_refused():
    network = mlp((16, 5, 3))
    a, b = (to(fresh_weights(network, s), torch.float64) for s in range(2))
    with pytest.raises(ValueError, match="give at least one input"):
        outputs(network, segment(a, b), [0.5], X[:0])
    with pytest.raises(ValueError, match="no point to look at"):
        outputs(network, segment(a, b), [], X)


def unread(network, weights, other):
    """Half of each hidden layer unread: by the half above it, and at the top by the outputs."""
    a = {key: value.clone() for key, value in weights.items()}
    a["3.weight"][:4, 5:] = 0  # the lower half is read, but only by neurons nobody reads
    a["5.weight"][:, 4:] = 0
    b = {key: value.clone() for key, value in a.items()}
    b["1.weight"][5:], b["1.bias"][5:] = other["1.weight"][5:], other["1.bias"][5:]
    b["3.weight"][4:], b["3.bias"][4:] = other["3.weight"][4:], other["3.bias"][4:]
    return a, b


@pytest.mark.parametrize("hidden", [(9,), (9, 7), (9, 8, 7), (9, 9, 9, 9)])
def test_a_dropout_path_costs_at_most_three_passes_a_piece(hidden):
    """In multiplications; a piece of (a) or (b) takes fewer than two, the one of (c) some more."""
    network = mlp((16, *hidden, 3))
    a, b = (to(fresh_weights(network, s), torch.float64) for s in range(2))
    names = [str(2 * k + 1) for k in range(len(hidden))]
    kept = [{n: [*first, 4] for n in names} for first in ([0, 2, 3], [1, 2, 5])]
    kept = [{n: k[n][: h // 2] for n, h in zip(names, hidden, strict=True)} for k in kept]
    whole = merged(walk(network, a, b, *kept))
    assert ("c" in whole.labels) == (len(hidden) > 1)
    pieces, t = len(whole.labels), grid(20 * len(whole.labels) + 1, whole.knots)
    rows = count_rows(network, lambda: outputs(network, whole, t, X))
    shapes = [tuple(w.shape) for name, w in a.items() if w.dim() == 2]
    layers = {shape: shapes.count(shape) for shape in shapes}
    work = sum(rows[o, i] * o * i for o, i in layers)
    once = sum(count * o * i for (o, i), count in layers.items()) * len(X)
    assert work <= 3 * pieces * once
    assert rows[9, 16] == pieces * len(X)  # the first layer: one pass a piece


def test_training_mode_and_gradients_of_the_caller_are_left_alone():
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(16, 5), nn.Dropout(0.5), nn.Linear(5, 3)
    ).train()
    a, b = (to(fresh_weights(network, s), torch.float64) for s in range(2))
    one, two = (outputs(network, segment(a, b), [0.3], X) for _ in range(2))
    assert torch.equal(one, two)  # no dropout in evaluation
    assert network.training
    assert torch.is_grad_enabled()


LINE = segment(*(weights_of(mlp((16, 5, 3))) for _ in range(2)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": None}, "network must be an nn.Module"),
        ({"network": mlp}, "network must be an nn.Module"),
        ({"network": nn.Linear}, "the class Linear"),
        ({"network": LINE.anchors[0]}, "network must be an nn.Module"),
        ({"network": mlp((16, 6, 3))}, "has shape"),
        ({"network": mlp((16, 5, 5, 3))}, "do not fit Sequential"),
        ({"path": None}, "path|function"),
        ({"path": LINE.anchors[0]}, "path|function"),
        ({"path": "linear"}, "path|function"),
        ({"t": 0.5}, "t must be a list of times"),
        ({"t": None}, "t must be a list of times, not None"),
        ({"t": "0.5"}, "t must be a list of times, not '0.5'"),
        ({"t": [[0.5]]}, r"t must be a list of times, not of shape \(1, 1\)"),
        ({"t": [None]}, "t must be a list of times"),
        ({"t": []}, "no point to look at"),
        ({"t": [float("nan")]}, "no point at t = nan"),
        ({"x": None}, "x must be a floating-point tensor, not None"),
        ({"x": X[:0]}, "give at least one input"),
        ({"x": X.long()}, "x must be a floating-point tensor"),
        ({"x": X * torch.inf}, "x holds NaN or infinity"),
        ({"x": X.flatten(1)[:, :9]}, r"layer '1' \(Linear\) takes .*\(images, 16\), not \(2, 9\)"),
        ({"x": X[0, 0, 0, 0]}, "give at least one input"),
        ({"x": X[:, 0, 0, 0]}, "layer '0' .*fails on inputs of shape"),
        ({"statistics": X}, "statistics must be a Split"),
    ],
)
def test_bad_calls_of_outputs(change, message):
    arguments = {"network": mlp((16, 5, 3)), "path": LINE, "t": [0.5], "x": X, "statistics": None}
    with pytest.raises(ValueError, match=message):
        outputs(**(arguments | change))


def test_points_of_a_sheet_are_pairs():
    network = mlp((16, 5, 3))
    sheet = triangle(*(fresh_weights(network, s) for s in range(3)))
    for t in ([0.5], [[0.5]], [[0.1, 0.2, 0.3]], 0.5):
        with pytest.raises(ValueError, match=r"t must be a list of pairs \(u, v\)"):
            outputs(network, sheet, t, X)


def test_a_network_that_gives_no_row_for_each_image_is_refused():
    network = nn.Sequential(nn.Linear(4, 3), nn.Flatten(0))
    line = segment(*(fresh_weights(network, s) for s in range(2)))
    with pytest.raises(ValueError, match="each of the 2 inputs needs a row"):
        outputs(network, line, [0.5], torch.zeros(9, 4))
    network = nn.Linear(4, 3)  # a lone image, without an axis for images
    line = segment(*(fresh_weights(network, s) for s in range(2)))
    with pytest.raises(ValueError, match=r"takes inputs of shape \(images, 4\), not \(2,\)"):
        outputs(network, line, [0.5], torch.zeros(4))


@pytest.mark.parametrize("t", [[True, False], [10**400], {0.0, 1.0}])
def test_what_are_no_times(t):
    with pytest.raises(ValueError, match="t must be a list of times"):
        outputs(mlp((16, 5, 3)), LINE, t, X)


def test_one_tensor_in_another_precision_is_named_also_by_a_network_that_is_known():
    network, x = mlp((16, 5, 3)), X.float()
    outputs(network, LINE, [0.5], x)
    mixed = LINE.anchors[0] | {"1.weight": LINE.anchors[0]["1.weight"].double()}
    with pytest.raises(ValueError, match=r"layer '1' \(Linear\) fails on inputs.*dtype"):
        outputs(network, segment(mixed, mixed), [0.5], x)


def test_a_parameter_may_be_a_single_number():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.tensor(2.0))

        def forward(self, x):
            return x * self.factor

    one, two = {"factor": torch.tensor(1.0)}, {"factor": torch.tensor(3.0)}
    x = torch.randn(5, 3)
    assert torch.allclose(outputs(Scaled(), segment(one, two), [0.5], x)[0], 2 * x)


def test_what_nothing_reads_may_move_for_nothing():
    network = mlp((16, 9, 7, 3))
    a, b = unread(network, *(to(fresh_weights(network, s), torch.float64) for s in range(2)))
    n, t = len(X), grid(21)
    rows = count_rows(network, lambda: outputs(network, segment(a, b), t, X))
    assert rows == {(9, 16): n, (7, 9): n, (3, 7): n}
    out = outputs(network, segment(a, b), t, X)
    assert torch.equal(out, out[:1].expand_as(out))  # unchanged to the bit
    assert torch.allclose(out[10], apply(network, segment(a, b)(0.5), X), atol=1e-12)
    b["5.weight"][:, 4:] = 1  # now somebody reads them
    naive = apply(network, segment(a, b)(0.5), X)
    assert torch.allclose(outputs(network, segment(a, b), [0.5], X)[0], naive, atol=1e-12)


def test_a_network_whose_trial_fails_has_no_unread_neurons(monkeypatch):
    network = mlp((16, 9, 7, 3))
    a, b = unread(network, *(to(fresh_weights(network, s), torch.float64) for s in range(2)))
    facts(network)["tried", 1, 4, 4] = "no"
    rows = count_rows(network, lambda: outputs(network, segment(a, b), grid(21), X))
    assert rows[(7, 9)] == 21 * len(X)
