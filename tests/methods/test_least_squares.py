import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modeconn_lite.activations import watch
from modeconn_lite.methods import least_squares as module
from modeconn_lite.methods.least_squares import Follower, least_squares, patches
from modeconn_lite.networks import HeConv2d, mlp, residual_mlp
from modeconn_lite.weights import apply, fresh_weights, to

NETWORKS = {
    "dense": (lambda: mlp((6, 8, 7, 3)), (60, 6)),
    "no bias, tanh": (
        lambda: nn.Sequential(nn.Linear(6, 8, bias=False), nn.Tanh(), nn.Linear(8, 3, bias=False)),
        (60, 6),
    ),
    "convnet": (
        lambda: nn.Sequential(
            HeConv2d(2, 4, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 3, 3, padding="same", padding_mode="circular", bias=False),
            nn.ReLU(),
            nn.Conv2d(3, 5, 2, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(5 * 4, 3),
        ),
        (90, 2, 8, 8),
    ),
    "residual": (lambda: residual_mlp(6, 3, width=5, hidden=6, blocks=2), (60, 6)),
}


def drawn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def a_case(kind):
    make, shape = NETWORKS[kind]
    network = make().double()
    a, b = (to(fresh_weights(network, seed), torch.float64) for seed in range(2))
    return network, a, b, drawn(*shape)


def readers(network):
    """The weights of all linear layers but the first, from the inputs up."""
    return [key for key, p in network.named_parameters() if p.dim() > 1][1:]


def in_parts(phi, y, size):
    return zip(phi.split(size), y.split(size), strict=True)


# --- One problem ---------------------------------------------------------------------------------


@settings(max_examples=50)
@given(st.integers(1, 30), st.integers(1, 12), st.integers(1, 9), st.integers(0, 9999))
def test_it_agrees_with_lstsq(rows, d, size, seed):
    """With a ridge, lstsq solves the system that has √λ I below."""
    phi, y = drawn(rows, d, seed=seed), drawn(rows, 3, seed=seed + 1)
    shift = 1e-3 * phi.square().sum() / d
    system = torch.cat([phi, shift.sqrt() * torch.eye(d).double()])
    wanted = torch.linalg.lstsq(system, F.pad(y, (0, 0, 0, d))).solution.T
    found = least_squares(in_parts(phi, y, size), rows, 1e-3)
    assert torch.allclose(found, wanted, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("rows", [9, 40])
def test_without_a_ridge_it_is_least_squares_itself(rows):
    phi, y = drawn(rows, 12), drawn(rows, 3, seed=1)
    found = least_squares(in_parts(phi, y, 7), rows, 0.0)
    assert torch.allclose(found, (torch.linalg.pinv(phi) @ y).T, atol=1e-8)
    if rows < 12:
        assert torch.allclose(phi @ found.T, y)
    single = least_squares(in_parts(phi.float(), y.float(), 7), rows, 0.0)
    assert single.dtype == torch.float64
    assert torch.allclose(single, found, atol=1e-3)


def test_as_the_ridge_vanishes_it_becomes_the_pseudo_inverse():
    phi = drawn(40, 3) @ drawn(3, 12, seed=1)  # of rank 3
    y = drawn(40, 2, seed=2)
    wanted = (torch.linalg.pinv(phi, rtol=1e-9) @ y).T
    gaps = [(least_squares([(phi, y)], 40, r) - wanted).norm() for r in (1e-2, 1e-5, 1e-8)]
    assert gaps[0] > 100 * gaps[1] > 1000 * gaps[2]
    assert gaps[2] < 1e-6 * wanted.norm()


def test_neither_unit_nor_number_of_images_changes_what_a_ridge_means():
    phi, y = drawn(40, 12), drawn(40, 2, seed=1)
    one = least_squares([(phi, y)], 40, 0.1)
    assert torch.allclose(least_squares([(1e3 * phi, 1e3 * y)], 40, 0.1), one)
    assert torch.allclose(least_squares([(phi, y), (phi, y)], 80, 0.1), one)


def test_nothing_heard_and_nothing_solvable():
    zero = torch.zeros(30, 4)
    assert torch.equal(least_squares([(zero, zero[:, :2])], 30), torch.zeros(2, 4).double())
    twice = drawn(30, 2).repeat(1, 2)
    for phi in (twice, twice[:3]):
        with pytest.raises(ValueError, match=r"too dependent for ridge = 0; .* such as 0.0001"):
            least_squares([(phi, phi)], len(phi), 0.0)
        least_squares([(phi, phi)], len(phi))
    for phi in (torch.full((30, 4), torch.nan), torch.full((3, 4), torch.inf)):
        with pytest.raises(ValueError, match="is not finite; scale"):
            least_squares([(phi, phi)], len(phi))
    for ridge in (-1, torch.nan, None):
        with pytest.raises(ValueError, match="ridge"):
            least_squares([(twice, twice)], 30, ridge)


# --- What a layer hears --------------------------------------------------------------------------


def test_patches_are_those_of_unfold():
    conv, h = nn.Conv2d(2, 4, (3, 2), stride=2, padding=1, dilation=(1, 2)), drawn(5, 2, 9, 8)
    wanted = F.unfold(h, (3, 2), dilation=(1, 2), padding=1, stride=2)  # (5, d, places)
    assert torch.equal(patches(conv, h).unflatten(0, (5, -1)).transpose(1, 2), wanted)
    rows = h[:, 0, 0]
    assert patches(nn.Linear(8, 2), rows) is rows


@pytest.mark.parametrize("mode", ["zeros", "circular", "reflect", "replicate"])
@pytest.mark.parametrize("padding", [0, (2, 1), "same", "valid"])
def test_a_convolution_is_its_patches_times_its_weights(mode, padding):
    conv = nn.Conv2d(3, 4, (3, 5), padding=padding, padding_mode=mode).double()
    h = drawn(5, 3, 6, 7)
    by_hand = patches(conv, h) @ conv.weight.flatten(1).T + conv.bias
    assert torch.allclose(by_hand, conv(h).flatten(2).transpose(1, 2).flatten(0, 1))


@pytest.mark.parametrize("kind", NETWORKS)
def test_what_is_heard_times_the_weight_is_what_the_layer_says(kind):
    network, a, b, x = a_case(kind)
    follow, seen = Follower(network, a, x), {}
    for tensor in readers(network):
        layer = tensor.removesuffix(".weight")
        watch(network, b, x, [layer], lambda name, given, out: seen.__setitem__(name, out))
        said = follow.heard(b, tensor, x) @ b[tensor].flatten(1).T
        if f"{layer}.bias" in b:
            said = said + b[f"{layer}.bias"]
        out = seen[layer] if seen[layer].dim() == 2 else seen[layer].movedim(1, 3).flatten(0, 2)
        assert torch.allclose(said, out)


# --- Readers that follow -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", NETWORKS)
def test_what_has_not_moved_stays(kind):
    network, a, _, x = a_case(kind)
    for tensor in readers(network):
        follow = Follower(network, a, x, ridge=1e-12)
        found = follow(a, [tensor])
        assert torch.allclose(apply(network, found, x), apply(network, a, x), atol=1e-6)
        assert follow.residual(found, tensor) < 1e-6
        assert [key for key in a if found[key] is not a[key]] == [tensor]


@pytest.mark.parametrize("kind", NETWORKS)
def test_readers_are_solved_as_by_lstsq_one_after_another(kind, monkeypatch):
    """And so however few images are taken at a time."""
    network, a, b, x = a_case(kind)
    first = next(key for key in a)
    moved, tensors = a | {first: b[first]}, readers(network)
    wanted, follow = moved, Follower(network, a, x, ridge=1e-9)
    for tensor in tensors:
        heard = follow.heard(wanted, tensor, x)
        said = follow.heard(a, tensor, x) @ a[tensor].flatten(1).T
        solution = torch.linalg.lstsq(heard, said, driver="gelsd").solution
        wanted = wanted | {tensor: solution.T.view_as(a[tensor])}
        before = follow.residual(moved | {k: wanted[k] for k in tensors if k != tensor}, tensor)
        assert follow.residual(wanted, tensor) <= before
    x_outputs = apply(network, wanted, x)
    for rows in (4096, 100, 7):
        monkeypatch.setattr(module, "ROWS", rows)
        found = Follower(network, a, x, ridge=1e-9)(moved, tensors)
        assert torch.allclose(apply(network, found, x), x_outputs, atol=1e-5)
    monkeypatch.setattr(module, "KEPT", 0)
    again = Follower(network, a, x, ridge=1e-9)
    assert torch.allclose(again(moved, tensors)[tensors[-1]], found[tensors[-1]])
    assert not again.known


def test_a_share_of_the_outputs_may_be_of_b():
    network, a, b, x = a_case("dense")
    follow = Follower(network, a, x, b=b, ridge=1e-12)
    theirs = {key: b[key] for key in list(b)[:4]}
    whole = follow(a | theirs, ["5.weight"], 1.0)  # b's features
    assert torch.allclose(apply(network, whole, x), apply(network, b, x), atol=1e-6)
    half, none = (follow(a | theirs, ["5.weight"], s) for s in (0.5, 0.0))
    for key in ("5.weight", "5.bias"):
        assert torch.allclose(half[key], (none[key] + whole[key]) / 2)
    assert torch.equal(none["5.bias"], a["5.bias"]) and torch.equal(whole["5.bias"], b["5.bias"])
    # A hidden layer has words of its own: it says what a's does, whatever the share.
    one, two = (follow(a | theirs, ["3.weight"], s)["3.weight"] for s in (0.0, 1.0))
    assert torch.equal(one, two)
    with pytest.raises(ValueError, match="give b"):
        Follower(network, a, x)(a, ["5.weight"], 0.5)


def test_what_cannot_follow_is_refused():
    network, a, _, x = a_case("dense")
    for tensor in ("5.bias", "nowhere.weight", "weight"):
        with pytest.raises(ValueError, match=f"no linear layer .* {tensor!r}"):
            Follower(network, a, x)(a, [tensor])
    with pytest.raises(ValueError, match=r"b\['1.weight'\] has shape"):
        Follower(network, a, x, b=fresh_weights(mlp((6, 9, 7, 3)), 0))
    with pytest.raises(ValueError, match="ridge"):
        Follower(network, a, x, ridge=-1)
    norm = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)).double()
    with pytest.raises(ValueError, match="layer '1' normalises"):
        Follower(norm, to(fresh_weights(norm, 0), torch.float64), x)


def test_parts_that_do_not_fit_are_refused():
    phi, y = drawn(20, 4), drawn(20, 2)
    for parts, said in (
        ([], "parts are empty"),
        (None, "parts must be a list"),
        ([phi], "each of parts must be a list of matrices"),
        ([(phi, y, y)], "3 matrices given, 2 needed"),
        ([(phi, y[:10])], r"parts must be matrices .* shape \(20, 4\), and a tensor"),
        ([(phi, y[:, 0])], "parts must be matrices"),
        ([(phi[:, :0], y)], "parts must be matrices"),
        ([(phi, y), (phi, y[:, :1])], "of one d and one m"),
        ([(phi, y), (phi[:, :3], y)], "of one d and one m"),
        ([(phi.long(), y)], r"each of parts\['Φ'\] is torch.int64"),
        ([(phi, y / 0)], "not finite"),
        ([(phi.float() * 1e30, y)], "not finite"),
    ):
        with pytest.raises(ValueError, match=said):
            least_squares(parts, 20)
    for rows in (0, 1.5, None):
        with pytest.raises(ValueError, match="rows must be a whole number of at least 1"):
            least_squares([(phi, y)], rows)


def test_a_wrong_number_of_rows_changes_nothing_but_the_way():
    phi, y = drawn(20, 4), drawn(20, 2, seed=1)
    for rows in (1, 4, 100):
        assert torch.allclose(least_squares([(phi, y)], rows), least_squares([(phi, y)], 20))


def test_patches_are_of_linear_layers_alone():
    h = drawn(3, 4, 6, 6)
    for layer in (nn.Conv2d(4, 4, 3, groups=2), nn.ConvTranspose2d(4, 2, 3), nn.ReLU(), None):
        with pytest.raises(ValueError, match="module must be a Linear, or a Conv2d of 1 group"):
            patches(layer, h)
    for layer, wrong in (
        (nn.Conv2d(4, 2, 3), h[0]),
        (nn.Conv2d(3, 2, 3), h),
        (nn.Linear(6, 2), h),
    ):
        with pytest.raises(ValueError, match=r"h must be a tensor of shape \(images, \d"):
            patches(layer, wrong)


def test_a_follower_refuses_what_does_not_fit():
    network, a, b, x = a_case("dense")
    follow = Follower(network, a, x, b=b)
    for share in (-0.1, 1.1, torch.nan, "1", None):
        with pytest.raises(ValueError, match="share must be a finite number"):
            follow(b, ["5.weight"], share)
        with pytest.raises(ValueError, match="share must be a finite number"):
            follow.residual(b, "5.weight", share)
    for weights in (to(b, torch.float32), None, {}, {key: b[key] for key in list(b)[1:]}):
        for ask in (
            lambda w: follow(w, ["3.weight"]),
            lambda w: follow.residual(w, "3.weight"),
            lambda w: follow.heard(w, "3.weight", x),
        ):
            with pytest.raises(ValueError, match="weights"):
                ask(weights)
    with pytest.raises(ValueError, match="tensors must be a list of names"):
        follow(b, "3.weight")
    with pytest.raises(ValueError, match="each of tensors must be a string"):
        follow(b, [["3.weight"]])
    with pytest.raises(ValueError, match=r"x holds inputs of shape \(5,\); \(6,\) is what"):
        follow.heard(b, "3.weight", x[:, :5])
    with pytest.raises(ValueError, match=r"what '3.weight' says is not finite"):
        follow.residual({key: w * 1e200 for key, w in b.items()}, "3.weight")
