import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modeconn_lite import data, zoo
from modeconn_lite.evaluation import profile
from modeconn_lite.layout import hidden_layers
from modeconn_lite.methods import arcs
from modeconn_lite.networks import mlp, residual_mlp
from modeconn_lite.neurons import butterflies, permute
from modeconn_lite.paths import segment
from modeconn_lite.weights import fresh_weights


def covariance(rows):
    rows = rows - rows.mean(0)
    return rows.T @ rows / len(rows)


def one_layer(rows, outputs):
    """A network with one hidden layer whose neurons are these rows [in | bias | out]."""
    n, width = rows.shape
    inputs = width - 1 - outputs
    into, bias, out = rows.split([inputs, 1, outputs], 1)
    weights = {"1.weight": into, "1.bias": bias[:, 0], "3.weight": out.T}
    return mlp((inputs, n, outputs)), weights | {"3.bias": torch.zeros(outputs).to(rows)}


def gaussian(n, seed, law):
    g = torch.Generator().manual_seed(seed)
    mean, root = law
    return mean + torch.randn(n, len(mean), generator=g, dtype=torch.float64) @ root.T


def a_law(width, seed=0):
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    return draw(width), draw(width, width) / width**0.5


def test_the_law_of_gaussian_neurons_stays_along_the_arc_and_shrinks_along_the_line():
    """Proposition 1 by moments: mean, covariance, and the fourth moment of a projection."""
    law = a_law(6)
    (network, a), (_, b) = (one_layer(gaussian(100_000, seed, law), 2) for seed in (1, 2))
    (layer,) = hidden_layers(network)
    wanted = law[1] @ law[1].T
    direction = torch.randn(6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for t in (0.25, 0.5, 0.8):
        kept, squeezed = (
            butterflies(p(t), layer) for p in (arcs.arc(network, a, b), segment(a, b))
        )
        assert torch.allclose(kept.mean(0), law[0], atol=0.02)
        assert torch.allclose(covariance(kept), wanted, atol=0.03)
        factor = (1 - t) ** 2 + t**2
        assert torch.allclose(covariance(squeezed), factor * wanted, atol=0.03)
        line = (kept - kept.mean(0)) @ direction
        kurtosis = float((line**4).mean() / (line**2).mean() ** 2)
        assert kurtosis == pytest.approx(3, abs=0.1)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), t=st.floats(0, 1))
def test_mean_and_covariance_of_any_sample_by_identity(seed, t):
    """For any two clouds, Gaussian or not: cos² and sin² of each, and twice their product."""
    g = torch.Generator().manual_seed(seed)
    x, y = (torch.rand(40, 5, generator=g, dtype=torch.float64) ** 3 for _ in range(2))
    (network, a), (_, b) = one_layer(x, 2), one_layer(y, 2)
    (layer,) = hidden_layers(network)
    rows, both = butterflies(arcs.arc(network, a, b)(t), layer), torch.cat([x, y])
    cos, sin, mean = math.cos(math.pi * t / 2), math.sin(math.pi * t / 2), both.mean(0)
    expected = mean + cos * (x.mean(0) - mean) + sin * (y.mean(0) - mean)
    assert torch.allclose(rows.mean(0), expected, atol=1e-9)
    cross = (x - x.mean(0)).T @ (y - y.mean(0)) / len(x)
    wanted = cos**2 * covariance(x) + sin**2 * covariance(y) + cos * sin * (cross + cross.T)
    assert torch.allclose(covariance(rows), wanted, atol=1e-9)


NETWORKS = {
    "mlp": lambda: mlp((9, 12, 11, 3)),
    "convnet": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 9, 3)
    ),
    "residual": lambda: residual_mlp(9, 3, width=8, hidden=6, blocks=2),
    "batch norm": lambda: nn.Sequential(
        nn.Linear(9, 5, bias=False), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_it_starts_at_a_ends_at_b_and_does_not_mind_the_order_of_neurons(name):
    network = NETWORKS[name]()
    a, b = fresh_weights(network, 0), fresh_weights(network, 1)
    path = arcs.arc(network, a, b)
    for end, weights in ((0.0, a), (1.0, b)):
        assert all(torch.equal(path(end)[key], weights[key]) for key in a)
    g = torch.Generator().manual_seed(0)
    orders = {x.name: torch.randperm(x.size, generator=g) for x in hidden_layers(network)}
    shuffled = arcs.arc(network, permute(network, a, orders), permute(network, b, orders))
    wanted = permute(network, path(0.3), orders)
    assert all(torch.allclose(shuffled(0.3)[key], wanted[key], atol=1e-6) for key in a)


def test_the_mean_neuron_by_hand():
    network = mlp((2, 2, 2))
    a = {"1.weight": torch.tensor([[1.0, 2], [3, 4]]), "1.bias": torch.tensor([1.0, 3])}
    a |= {"3.weight": torch.tensor([[1.0, 3], [5, 7]]), "3.bias": torch.tensor([0.0, 4])}
    b = {key: w + 2 for key, w in a.items()}
    mean = arcs.mean_neuron(network, a, b)
    assert mean["1.weight"].tolist() == [[3, 4], [3, 4]]
    assert mean["1.bias"].tolist() == [3, 3]
    assert mean["3.weight"].tolist() == [[3, 3], [7, 7]]
    assert mean["3.bias"].tolist() == [1, 5]


def test_pixels_of_a_flattened_convolution_keep_their_places():
    network = NETWORKS["convnet"]()
    a = fresh_weights(network, 0)
    a["3.weight"] = torch.arange(9.0).repeat(3, 4)  # every channel reads its nine pixels alike
    assert torch.equal(arcs.mean_neuron(network, a, a)["3.weight"], a["3.weight"])


def test_an_output_bias_goes_straight():
    network = mlp((4, 5, 3))
    a, b = fresh_weights(network, 0), fresh_weights(network, 1)
    line, there = b["3.bias"] - a["3.bias"], arcs.arc(network, a, b)(0.3)["3.bias"] - a["3.bias"]
    assert torch.allclose(there, line * (there @ line) / (line @ line), atol=1e-6)


def test_it_is_longer_than_the_line():
    network = mlp((50, 400, 50))
    a, b = fresh_weights(network, 0), fresh_weights(network, 1)
    ratio = arcs.arc(network, a, b).length() / segment(a, b).length()
    assert ratio == pytest.approx(math.pi / 2 / 2**0.5, rel=0.01)


def test_on_the_digits_it_is_a_row_of_the_scoreboard():
    network, digits = zoo.network("digits-wide"), data.load("digits")
    a, b = zoo.load("digits-wide")[:2]
    path = arcs.METHODS[0].connect(network, a, b, digits.train)
    seen = profile(network, path, digits.test)
    assert seen.worst_accuracy > profile(network, segment(a, b), digits.test).worst_accuracy


def test_what_it_refuses():
    network = mlp((4, 5, 3))
    a = fresh_weights(network, 0)
    with pytest.raises(ValueError, match="b"):
        arcs.arc(network, a, fresh_weights(mlp((4, 6, 3)), 0))
    for wrong in ({}, None, {key: w for key, w in a.items() if key != "3.bias"}):
        with pytest.raises(ValueError, match=r"a (must be|do not fit)"):
            arcs.mean_neuron(network, wrong, a)
        with pytest.raises(ValueError, match=r"b (must be|do not fit)"):
            arcs.mean_neuron(network, a, wrong)
    with pytest.raises(ValueError, match="LSTM"):
        odd = nn.Sequential(nn.LSTM(4, 3))
        arcs.arc(odd, fresh_weights(odd, 0), fresh_weights(odd, 1))
