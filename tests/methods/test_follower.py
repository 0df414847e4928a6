"""Layers that follow, on every kind of network, against lstsq and F.unfold."""

import pytest
import torch
import torch.nn.functional as F
from small_networks import drawn
from torch import nn

from modeconn_lite.activations import watch
from modeconn_lite.methods import follower as module
from modeconn_lite.methods.follower import Follower, patches
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


def a_case(kind):
    make, shape = NETWORKS[kind]
    network = make().double()
    a, b = (to(fresh_weights(network, seed), torch.float64) for seed in range(2))
    return network, a, b, drawn(*shape)


def readers(network):
    """The weights of all linear layers but the first, from the inputs up."""
    return [key for key, p in network.named_parameters() if p.dim() > 1][1:]


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


def test_patches_need_images_as_large_as_the_kernel():
    conv = nn.Conv2d(2, 4, 3, padding=1, dilation=2)
    assert len(patches(conv, drawn(2, 2, 3, 4))) == 2 * 1 * 2
    with pytest.raises(ValueError, match=r"large as the kernel, \[5, 5\], not \[4, 5\]"):
        patches(conv, drawn(2, 2, 2, 3))


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
