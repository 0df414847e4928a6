import odd_networks
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
from modeconn_lite.running import Runner
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


# --- Networks that are not what they look like ----------------------------------------------------


@odd_networks.warned
@pytest.mark.parametrize("name", [n for n, odd in odd_networks.ODD.items() if not odd[2]])
def test_odd_networks_that_are_understood_are_understood_rightly(name):
    make, shape, _ = odd_networks.ODD[name]
    network = make()
    x = torch.randn(6, *shape, dtype=torch.float64)
    state = drawn_state(network)
    orders = {h.name: torch.arange(h.size).roll(1) for h in hidden_layers(network)}
    moved = neurons.permute(network, state, orders)
    run = Runner(network, x)
    with torch.no_grad():
        before = run(state, x)
        assert torch.allclose(run(moved, x), before, atol=1e-10)
        assert any(not torch.equal(moved[key], state[key]) for key in state)
        for layer in hidden_layers(network):
            if layer.homogeneous:
                factor = torch.rand(layer.size, dtype=torch.float64) * 3 + 0.1
                scaled = neurons.scale(network, state, {layer.name: factor})
                assert torch.allclose(run(scaled, x), before, atol=1e-9)
    if name != "sequences":
        assert neurons.tried_layers(network, x)


def drawn_state(network, seed=0):
    """Random weights and running statistics, in double precision."""
    g = torch.Generator().manual_seed(seed)
    state = {}
    for key, value in (*network.named_parameters(), *network.named_buffers()):
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=g, dtype=torch.float64)
            state[key] = noise.abs() + 0.5 if "running_var" in key else noise
    return state


@pytest.mark.parametrize("more", [(), (nn.BatchNorm1d(6),), (nn.BatchNorm1d(6), nn.BatchNorm1d(6))])
def test_factors_go_into_the_last_batch_norm(more):
    network = nn.Sequential(nn.Linear(3, 6), *more, nn.ReLU(), nn.Linear(6, 2))
    state, x = drawn_state(network), torch.randn(5, 3, dtype=torch.float64)
    scaled = neurons.scale(network, state, {"0": [0.5, 2.0, 3.0, 1.0, 0.1, 7.0]})
    run = Runner(network, x)
    assert torch.allclose(run(scaled, x), run(state, x), atol=1e-12)
    changed = {key for key in state if not torch.equal(scaled[key], state[key])}
    last = len(more)
    assert changed == {f"{last}.weight", f"{last}.bias", f"{last + 2}.weight"}


def test_a_trial_on_inputs_finds_what_weights_alone_do_not_tell():
    """Time steps are normalised, and there are as many as neurons."""
    network = nn.Sequential(
        nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2)
    )
    assert len(hidden_layers(network)) == 2
    assert len(neurons.tried_layers(network, torch.zeros(7, 4))) == 2
    with pytest.raises(ValueError, match=r"layer '0' gives outputs of shape \(3, 3, 3\) for 3 inp"):
        neurons.tried_layers(network, torch.zeros(7, 3, 4))
    with pytest.raises(ValueError, match=r"layer '0' .*\(images, 4\), not \(3, 5\)"):
        neurons.tried_layers(network, torch.zeros(7, 5))


def test_a_trial_finds_a_network_that_is_not_what_it_looks_like(monkeypatch):
    network, x = mlp((4, 5, 5, 3)), torch.randn(9, 4)
    assert neurons.tried_layers(network, x)
    wrong = hidden_layers(network)
    wrong[0].slices[0], wrong[1].slices[0] = wrong[1].slices[0], wrong[0].slices[0]
    monkeypatch.setattr(neurons, "hidden_layers", lambda network: wrong)
    assert neurons.tried_layers(network, x)  # the same network: tried before
    network[2] = nn.Tanh()
    for _ in range(2):
        with pytest.raises(ValueError, match=r"this Sequential .* change when its hidden neurons"):
            neurons.tried_layers(network, x)


def test_a_trial_is_made_once_for_each_shape_of_inputs(monkeypatch):
    network, tried = cnn3(3, side=4), []
    trial = neurons._trial
    monkeypatch.setattr(neurons, "_trial", lambda *a: tried.append(a[2]) or trial(*a))
    for n in (1, 5):
        neurons.tried_layers(network, torch.randn(n, 1, 4, 4))
    assert tried == [(1, 4, 4)]
    with pytest.raises(ValueError, match="layer '7'"):
        neurons.tried_layers(network, torch.randn(n, 1, 5, 5))
    with pytest.raises(ValueError, match=r"flatten the inputs first|for each|layer"):
        neurons.tried_layers(network, torch.randn(4, 4, 4))


# --- Bad calls ------------------------------------------------------------------------------------


NETWORK = mlp((3, 5, 2))
W = weights_of(NETWORK)
WIDER = weights_of(mlp((3, 7, 2)))
BAD_ORDERS = [
    [0, 0, 1, 2, 3],
    [0, 1, 2, 3],
    [0, 1, 2, 3, 5],
    [-1, 0, 1, 2, 3],
    [0.0, 1.7, 2.0, 3.0, 4.0],
    torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0]),
    torch.ones(5, dtype=torch.bool),
    [[0, 1, 2, 3, 4]],
    "01234",
    None,
    3,
    [],
]


@pytest.mark.parametrize("order", BAD_ORDERS)
def test_what_is_no_permutation_is_refused(order):
    with pytest.raises(ValueError, match="order of layer '1'"):
        neurons.permute(NETWORK, W, {"1": order})


@pytest.mark.parametrize(
    "kept",
    [
        torch.tensor([True, False, True, False, False]),
        [True, False, True, False, True],
        [0, 0],
        [5],
        [-1],
        [0.5],
        [],
        None,
        "0",
        1,
        [[0, 1]],
    ],
)
def test_what_names_no_neurons_is_refused(kept):
    with pytest.raises(ValueError, match=r"kept\['1'\]"):
        neurons.mute(NETWORK, W, {"1": kept})


@pytest.mark.parametrize(
    "factors",
    [
        [1.0, 1.0, 1.0, 1.0, 0.0],
        [1.0, 1.0, 1.0, 1.0, -2.0],
        [1.0, 1.0, 1.0, 1.0, float("inf")],
        [1.0, 1.0, 1.0, 1.0, float("nan")],
        [1.0, 1.0, 1.0, 1.0, 1e-50],  # zero in single precision
        [1.0, 1.0, 1.0, 1.0, 1e-40],  # one over it is infinite there
        [1.0, 1.0, 1.0, 1.0, 1e300],
        [1.0] * 4,
        [[1.0] * 5],
        2.0,
        "1.0",
        None,
        [None] * 5,
    ],
)
def test_what_is_no_factor_is_refused(factors):
    with pytest.raises(ValueError, match="layer '1'"):
        neurons.scale(NETWORK, W, {"1": factors})


@pytest.mark.parametrize(
    ("i", "j"), [(0, 5), (-1, 2), (0, 1.0), (True, 2), (0, "1"), (None, 1), (0, 1.5)]
)
def test_what_is_no_neuron_is_refused(i, j):
    with pytest.raises(ValueError, match="a neuron of layer '1', must be a whole number"):
        neurons.swap(NETWORK, W, "1", i, j)
    assert torch.equal(neurons.swap(NETWORK, W, "1", 2, 2)["1.weight"], W["1.weight"])


CALLS = {
    "permute": lambda network, w: neurons.permute(network, w, {"1": [4, 3, 2, 1, 0]}),
    "swap": lambda network, w: neurons.swap(network, w, "1", 0, 1),
    "mute": lambda network, w: neurons.mute(network, w, {"1": [0]}),
    "scale": lambda network, w: neurons.scale(network, w, {"1": [2.0] * 5}),
}
BAD_WEIGHTS = {
    "wider": WIDER,
    "deeper": weights_of(mlp((3, 5, 5, 2))),
    "fewer": {key: W[key] for key in ("1.weight", "1.bias", "3.weight")},
    "nan": W | {"1.weight": W["1.weight"] * torch.nan},
    "infinite": W | {"3.bias": W["3.bias"] / 0},
    "whole": W | {"1.weight": W["1.weight"].long()},
    "meta": {key: w.to("meta") for key, w in W.items()},
    "sparse": W | {"1.weight": W["1.weight"].to_sparse()},
    "lists": {key: w.tolist() for key, w in W.items()},
    "none": None,
    "string": "W",
    "empty": {},
    "network": NETWORK,
    "tensor": W["1.weight"],
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", BAD_WEIGHTS)
def test_weights_that_do_not_fit_are_refused(call, name):
    with pytest.raises(ValueError, match=r"weights"):
        CALLS[call](NETWORK, BAD_WEIGHTS[name])


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("network", [None, "mlp", nn.Linear, W, torch.zeros(3)])
def test_no_network(call, network):
    with pytest.raises(ValueError, match=r"network must be an nn\.Module"):
        CALLS[call](network, W)


@pytest.mark.parametrize("wrong", [None, [4, 3, 2, 1, 0], "1", torch.arange(5)])
def test_no_dictionary_of_layers(wrong):
    for call in (neurons.permute, neurons.mute, neurons.scale):
        with pytest.raises(ValueError, match="must be a dict from names of hidden layers"):
            call(NETWORK, W, wrong)


@pytest.mark.parametrize("name", ["2", "3", "", None, 1, ("1",)])
def test_no_such_layer(name):
    for call in (neurons.permute, neurons.mute, neurons.scale):
        with pytest.raises(ValueError, match=r"no hidden layer .*; this network has \('1',\)"):
            call(NETWORK, W, {name: [0]})
    with pytest.raises(ValueError, match=r"no hidden layer .*; this network has \('1',\)"):
        neurons.swap(NETWORK, W, name, 0, 1)


def test_buffers_among_the_weights_must_fit_too():
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    state = {k: v for k, v in network.state_dict().items() if v.is_floating_point()}
    whole = dict(network.state_dict())  # with a count among them: no neuron owns it
    moved = neurons.permute(network, whole, {"0": [3, 2, 1, 0]})
    assert moved["1.num_batches_tracked"] is whole["1.num_batches_tracked"]
    for key, wrong in (
        ("1.running_mean", torch.zeros(5)),
        ("1.running_var", torch.full((4,), torch.nan)),
        ("1.running_mean", None),
    ):
        with pytest.raises(ValueError, match=rf"weights\['{key}'\]"):
            neurons.permute(network, state | {key: wrong}, {"0": [3, 2, 1, 0]})
    with pytest.raises(ValueError, match="unknown"):
        neurons.permute(network, state | {"1.other": torch.zeros(4)}, {"0": [3, 2, 1, 0]})


def test_butterflies_of_what_is_not_there():
    (layer,) = hidden_layers(NETWORK)
    with pytest.raises(ValueError, match="layer must be one of hidden_layers"):
        neurons.butterflies(W, "1")
    with pytest.raises(ValueError, match="weights must be a non-empty dict of tensors"):
        neurons.butterflies(NETWORK, layer)
    with pytest.raises(ValueError, match="nothing of layer '1'"):
        neurons.butterflies({"5.weight": W["1.weight"]}, layer)
    with pytest.raises(ValueError, match=r"'1\.weight' has shape \(7, 3\); the 5 neurons"):
        neurons.butterflies(WIDER, layer)
    with pytest.raises(
        ValueError, match=r"'3\.weight' has shape \(2, 7\); .* 5 places on its axis 1"
    ):
        neurons.reordered([layer], W | {"3.weight": WIDER["3.weight"]}, {"1": [4, 3, 2, 1, 0]})
    for rows in (None, [[0.0] * 6] * 5, torch.zeros(5, 6, dtype=torch.int64)):
        with pytest.raises(ValueError, match="rows must be a floating-point tensor"):
            neurons.with_butterflies(W, layer, rows)


def test_a_filter_s_place_is_counted_in_pixels():
    """An axis of n · each columns, no more and no less."""
    network = cnn3(4, side=4)
    w, last = fresh_weights(network, 0), hidden_layers(network)[-1]
    for width in (4, 16, 63, 65, 128):
        with pytest.raises(ValueError, match="need 64 places on its axis 1"):
            neurons.butterflies(w | {"7.weight": torch.zeros(10, width)}, last)


@pytest.mark.parametrize(
    "change", [torch.Tensor.long, torch.Tensor.to_sparse, lambda w: w.to("meta"), lambda w: w + 0j]
)
def test_butterflies_of_what_are_no_weights(change):
    layer = neurons.hidden_layers(NETWORK)[0]
    wrong = W | {"1.weight": change(W["1.weight"])}
    for call in (
        lambda: neurons.butterflies(wrong, layer),
        lambda: neurons.with_butterflies(wrong, layer, neurons.butterflies(W, layer)),
    ):
        with pytest.raises(ValueError, match=r"weights\['1\.weight'\] is"):
            call()
