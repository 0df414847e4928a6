import pytest
import torch
from torch import nn

from modeconn_lite.data import Split
from modeconn_lite.evaluation import evaluate
from modeconn_lite.methods.stability import (
    dropped,
    find_kept,
    layers_of,
    noise_sensitivity,
    stability,
)
from modeconn_lite.networks import cnn3, mlp, residual_mlp
from modeconn_lite.weights import apply, fresh_weights, to

X = torch.randn(12, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SPLIT = Split(X, torch.arange(12) % 3, "random", ("0", "1", "2"))


def draw(network, seed):
    """A half of every layer, at random."""
    generator = torch.Generator().manual_seed(seed)
    return {
        layer.name: torch.randperm(layer.size, generator=generator)[: layer.size // 2]
        for layer in layers_of(network)
    }


def drawn(network, seed=0):
    return to(fresh_weights(network, seed), torch.float64)


@pytest.mark.parametrize("method", ["random", "greedy", "magnitude"])
def test_find_kept(method):
    network = mlp((16, 7, 6, 3))
    a = drawn(network)
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
    a = drawn(network)
    weak = torch.tensor([0, 3, 5])
    a["1.weight"][weak] *= 1e-3
    assert find_kept(network, a, SPLIT, method="magnitude")["1"].tolist() == [1, 2, 4]


def test_stability_is_measured_on_every_suffix():
    network = mlp((16, 6, 7, 3))
    a = drawn(network)
    kept = draw(network, 0)
    base = evaluate(network, a, SPLIT).loss
    first, second = stability(network, a, kept, SPLIT)
    top = evaluate(network, dropped(network, a, kept, 1), SPLIT).loss
    assert second == pytest.approx(top - base)
    both = dict(dropped(network, a, kept))
    assert first == pytest.approx(evaluate(network, both, SPLIT).loss - base)
    factor = torch.zeros(7, dtype=torch.float64)
    factor[kept["3"]] = 7 / 3
    assert torch.allclose(both["5.weight"], a["5.weight"] * factor)
    assert torch.equal(both["3.bias"], a["3.bias"])


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


def test_a_network_that_has_no_halves_is_refused():
    with pytest.raises(ValueError, match="no link of a plain chain"):
        layers_of(residual_mlp(16, 3, width=6, hidden=5))
    norm = nn.Sequential(nn.Linear(16, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3))
    with pytest.raises(ValueError, match=r"'0' is no link .*1\.weight"):
        layers_of(norm)
    with pytest.raises(ValueError, match="no hidden layer"):
        layers_of(mlp((16, 3)))
    narrow = mlp((16, 1, 3))
    with pytest.raises(ValueError, match="one neuron"):
        find_kept(narrow, drawn(narrow), SPLIT)


def test_bad_input():
    network = mlp((16, 6, 5, 3))
    a = drawn(network)
    with pytest.raises(ValueError, match="method must be"):
        find_kept(network, a, SPLIT, method="luck")
    with pytest.raises(ValueError, match="at least one trial"):
        find_kept(network, a, SPLIT, trials=0)
    with pytest.raises(ValueError, match=r"must name the hidden layers \['1', '3'\]"):
        dropped(network, a, {"1": [0]})
    with pytest.raises(ValueError, match="between 1 and 2 different neurons of layer '3'"):
        stability(network, a, {"1": [0], "3": [0, 1, 2]}, SPLIT)
    network = mlp((9, 7, 3))
    w, x = fresh_weights(network, 0), torch.randn(4, 9)
    with pytest.raises(ValueError, match="positive size, not 0"):
        noise_sensitivity(network, w, x, size=0)
    with pytest.raises(ValueError, match=r"1\.weight"):
        noise_sensitivity(network, {k: v for k, v in w.items() if k != "1.weight"}, x)
