import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from modeconn_lite import neurons
from modeconn_lite.layout import hidden_layers
from modeconn_lite.networks import cnn3, mlp, residual_mlp
from modeconn_lite.weights import fresh_weights, to, weights_of


def apply(network, state, x):
    """With running statistics among the state, which modeconn_lite's own `apply` refuses."""
    return functional_call(network, state, (x,))


sizes = st.integers(1, 7)


@st.composite
def networks(draw):
    """Random chains of every kind of layer that is understood, and inputs for them."""
    kind = draw(st.sampled_from(["mlp", "conv", "residual"]))
    activation = draw(
        st.sampled_from([nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.GELU, nn.Mish, nn.Hardswish])
    )
    bias, norm = draw(st.booleans()), draw(st.booleans())
    x = torch.randn(9, 2, 4, 4, dtype=torch.float64)
    if kind == "residual":
        return residual_mlp(32, 3, width=draw(sizes), hidden=draw(sizes), blocks=draw(sizes)), x
    layers: list[nn.Module] = []
    width = 2
    for new in draw(st.lists(sizes, min_size=1, max_size=3)) if kind == "conv" else []:
        layers.append(nn.Conv2d(width, new, 3, padding=1, bias=bias))
        layers += [nn.BatchNorm2d(new)] if norm else []
        layers += [activation(), nn.Dropout2d(0.3)]
        width = new
    if kind == "conv" and draw(st.booleans()):
        layers.append(nn.MaxPool2d(2))
    layers.append(nn.Flatten())
    pixels = 4 if any(isinstance(m, nn.MaxPool2d) for m in layers) else 16
    width = width * pixels
    for new in draw(st.lists(sizes, min_size=0 if kind == "conv" else 1, max_size=3)):
        layers.append(nn.Linear(width, new, bias=bias))
        layers += [nn.BatchNorm1d(new)] if norm else []
        layers += [activation(), nn.Dropout(0.3)]
        width = new
    return nn.Sequential(*layers, nn.Linear(width, 3, bias=bias)), x


def trained_like(network, seed):
    """Weights and running statistics that are not all zeros and ones."""
    g = torch.Generator().manual_seed(seed)
    state = {}
    for key, value in network.double().eval().state_dict().items():
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=g, dtype=torch.float64)
            state[key] = noise.abs() + 0.5 if "running_var" in key else noise
    return state


def draw_orders(data, network):
    seed = data.draw(st.integers(0, 2**31))
    g = torch.Generator().manual_seed(seed)
    layers = hidden_layers(network)
    return {layer.name: torch.randperm(layer.size, generator=g) for layer in layers}


@settings(max_examples=60)
@given(networks(), st.data())
def test_a_permuted_network_is_the_same_function(case, data):
    network, x = case
    state = trained_like(network, 0)
    moved = neurons.permute(network, state, draw_orders(data, network))
    assert torch.allclose(apply(network, moved, x), apply(network, state, x), atol=1e-9)
    assert moved.keys() == state.keys()


@settings(max_examples=60)
@given(networks(), st.data())
def test_a_rescaled_network_is_the_same_function(case, data):
    network, x = case
    state = trained_like(network, 1)
    for layer in hidden_layers(network):
        factor = torch.rand(layer.size, dtype=torch.float64) * 3 + 0.1
        if layer.homogeneous:
            scaled = neurons.scale(network, state, {layer.name: factor})
            assert torch.allclose(apply(network, scaled, x), apply(network, state, x), atol=1e-8)
        else:
            with pytest.raises(ValueError, match=f"layer {layer.name!r} has an activation"):
                neurons.scale(network, state, {layer.name: factor})


@settings(max_examples=40)
@given(networks())
def test_butterflies_out_and_in_again_without_loss(case):
    network, _ = case
    state = trained_like(network, 2)
    for layer in hidden_layers(network):
        rows = neurons.butterflies(state, layer)
        assert rows.shape[0] == layer.size
        blank = {key: torch.zeros_like(value) for key, value in state.items()}
        again = neurons.with_butterflies(blank, layer, rows)
        for s in layer.slices:
            assert torch.equal(again[s.tensor], state[s.tensor])


@settings(max_examples=40)
@given(networks(), st.data())
def test_permuting_moves_whole_butterflies(case, data):
    network, _ = case
    state = trained_like(network, 3)
    for layer in hidden_layers(network):
        order = torch.randperm(layer.size)
        moved = neurons.permute(network, state, {layer.name: order})
        rows = neurons.butterflies(state, layer)
        assert torch.equal(neurons.butterflies(moved, layer), rows[order])


def test_a_butterfly_is_incoming_bias_outgoing():
    network = mlp((3, 4, 2))
    w = fresh_weights(network, 0)
    (layer,) = hidden_layers(network)
    expected = torch.cat([w["1.weight"], w["1.bias"][:, None], w["3.weight"].T], 1)
    assert torch.equal(neurons.butterflies(w, layer), expected)


def test_muting_removes_exactly_the_dropped_neurons():
    network = mlp((3, 5, 2))
    w = to(fresh_weights(network, 0), torch.float64)
    x = torch.randn(7, 3, dtype=torch.float64)
    muted = neurons.mute(network, w, {"1": [0, 3]})
    hidden = (x @ w["1.weight"].T + w["1.bias"]).relu()[:, [0, 3]]
    expected = 5 / 2 * hidden @ w["3.weight"][:, [0, 3]].T + w["3.bias"]
    assert torch.allclose(apply(network, muted, x), expected)
    assert torch.equal(muted["1.weight"], w["1.weight"])
    plain = neurons.mute(network, w, {"1": [0, 3]}, rescale=False)
    assert torch.equal(plain["3.weight"][:, [0, 3]], w["3.weight"][:, [0, 3]])
    assert float(plain["3.weight"][:, [1, 2, 4]].abs().max()) == 0


@settings(max_examples=40)
@given(networks(), st.data())
def test_idle_neurons_may_do_what_they_like(case, data):
    """Type (b) moves: what nothing reads can change without effect."""
    network, x = case
    state = trained_like(network, 4)
    layers = [layer for layer in hidden_layers(network) if layer.size > 1]
    for layer in layers:
        muted = neurons.mute(network, state, {layer.name: [0]})
        changed = dict(muted)
        for s in layer.slices:
            if s.axis == 0 and "running" not in s.tensor:
                changed[s.tensor] = muted[s.tensor].clone()
                changed[s.tensor][1:] += 1.7
        assert torch.equal(apply(network, changed, x), apply(network, muted, x))


def test_swap():
    network = cnn3(4, side=4)
    w = to(fresh_weights(network, 0), torch.float64)
    x = torch.randn(3, 1, 4, 4, dtype=torch.float64)
    moved = neurons.swap(network, w, "4", 0, 2)
    assert torch.equal(moved["4.weight"], w["4.weight"][[2, 1, 0, 3]])
    before, after = (v["7.weight"].view(10, 4, 16) for v in (w, moved))  # 16 pixels a filter
    assert torch.equal(after, before[:, [2, 1, 0, 3]])
    assert torch.equal(moved["2.weight"], w["2.weight"])
    assert torch.allclose(apply(network, moved, x), apply(network, w, x))


def test_nothing_is_mutated():
    network = mlp((3, 5, 2))
    w = fresh_weights(network, 0)
    before = {key: value.clone() for key, value in w.items()}
    neurons.permute(network, w, {"1": [4, 3, 2, 1, 0]})
    neurons.mute(network, w, {"1": [1]})
    neurons.scale(network, w, {"1": [2.0] * 5})
    assert all(torch.equal(w[key], before[key]) for key in w)


def test_bad_arguments():
    network = mlp((3, 5, 2))
    w = weights_of(network)
    with pytest.raises(ValueError, match=r"no hidden layer '2'; this network has \('1',\)"):
        neurons.permute(network, w, {"2": [0]})
    with pytest.raises(ValueError, match="no permutation of 5"):
        neurons.permute(network, w, {"1": [0, 0, 1, 2, 3]})
    with pytest.raises(ValueError, match="keep between 1 and 5"):
        neurons.mute(network, w, {"1": []})
    with pytest.raises(ValueError, match="5 positive factors"):
        neurons.scale(network, w, {"1": [1.0, 1.0, 1.0, 1.0, 0.0]})
    with pytest.raises(ValueError, match="there is no 9"):
        neurons.swap(network, w, "1", 0, 9)
    (layer,) = hidden_layers(network)
    with pytest.raises(ValueError, match=r"shape \(5, 6\), not \(5, 2\)"):
        neurons.with_butterflies(w, layer, torch.zeros(5, 2))


class Gathers(TorchDispatchMode):
    """Counts how often a tensor's entries are picked by an index."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in (
            torch.ops.aten.index.Tensor,
            torch.ops.aten.index_select.default,
            torch.ops.aten.gather.default,
        )
        return func(*args, **(kwargs or {}))


def test_a_permuted_copy_costs_one_gather_for_each_tensor():
    for network in (mlp((9, 6, 5, 4, 3)), residual_mlp(9, 3, width=6, hidden=5, blocks=2)):
        w = fresh_weights(network, 0)
        orders = {h.name: torch.randperm(h.size) for h in hidden_layers(network)}
        with Gathers() as seen:
            moved = neurons.permute(network, w, orders)
        changed = [key for key in w if moved[key] is not w[key]]
        assert seen.count == len(changed) == len(w) - 1  # all but the output bias
