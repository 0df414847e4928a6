import pytest
import torch
from torch import nn

from modeconn_lite.networks import cnn3, mlp
from modeconn_lite.noise import noise_sensitivity
from modeconn_lite.weights import apply, fresh_weights, to


def linear_on_top(weight):
    """Two layers without activation or bias, the upper one given."""
    network = nn.Sequential(nn.Linear(3, 8, bias=False), nn.Linear(8, len(weight), bias=False))
    w = to(fresh_weights(network, 0), torch.float64)
    return network, w | {"1.weight": weight}


def test_an_isometry_passes_noise_undamped():
    turn = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64)).Q
    network, w = linear_on_top(turn)
    x = torch.randn(20, 3, dtype=torch.float64)
    for size in (0.5, 2.0):
        assert noise_sensitivity(network, w, x, size=size)["0"] == pytest.approx(size**2)


def test_a_linear_layer_passes_what_its_norm_says():
    """Mean of |W noise|² is |noise|² times |W|² / n (Arora et al. 2018, for Gaussian noise)."""
    weight = torch.randn(4, 8, dtype=torch.float64)
    network, w = linear_on_top(weight)
    x = torch.randn(1, 3, dtype=torch.float64).expand(40_000, 3)
    z = x[:1] @ w["0.weight"].T
    expected = 0.25 * z.norm() ** 2 * weight.norm() ** 2 / 8 / (z @ weight.T).norm() ** 2
    assert noise_sensitivity(network, w, x)["0"] == pytest.approx(float(expected), rel=0.03)


def test_every_layer_of_mlps_and_convnets_by_itself():
    for network, x in (
        (mlp((9, 7, 5, 3)), torch.randn(30, 9)),
        (cnn3(4, side=4), torch.randn(30, 1, 4, 4)),
    ):
        w = fresh_weights(network, 0)
        before = apply(network, w, x)
        found = noise_sensitivity(network, w, x, seed=1)
        assert all(value > 0 for value in found.values())
        assert found == noise_sensitivity(network, w, x, seed=1)
        less = noise_sensitivity(network, w, x, size=1e-4, seed=1)
        assert max(less.values()) < 1e-6
        assert torch.equal(apply(network, w, x), before)


def test_bad_input():
    network = mlp((9, 7, 3))
    w, x = fresh_weights(network, 0), torch.randn(4, 9)
    with pytest.raises(ValueError, match="positive size, not 0"):
        noise_sensitivity(network, w, x, size=0)
    with pytest.raises(ValueError, match=r"1\.weight"):
        noise_sensitivity(network, {k: v for k, v in w.items() if k != "1.weight"}, x)
