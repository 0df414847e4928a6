from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import same
from torch import nn
from torch.func import functional_call

from modeconn_lite import data, exchanges, zoo
from modeconn_lite.activations import watch
from modeconn_lite.evaluation import profile
from modeconn_lite.forward import outputs
from modeconn_lite.layout import hidden_layers
from modeconn_lite.methods import handovers
from modeconn_lite.networks import mlp, residual_mlp
from modeconn_lite.neurons import permute
from modeconn_lite.paths import FunctionPath
from modeconn_lite.weights import apply, fresh_weights, to

NETWORKS = {
    "deep": (lambda: mlp((9, 8, 7, 6, 3)), (30, 9)),
    "no bias, tanh": (
        lambda: nn.Sequential(nn.Linear(9, 7, bias=False), nn.Tanh(), nn.Linear(7, 3, bias=False)),
        (30, 9),
    ),
    "convnet": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 5, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(5, 4, 3, padding=1, padding_mode="circular"),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(4 * 16, 6),
            nn.ReLU(),
            nn.Linear(6, 3),
        ),
        (20, 2, 8, 8),
    ),
    "residual": (lambda: residual_mlp(9, 3, width=8, hidden=6, blocks=2), (30, 9)),
}


def a_case(kind, seed=0):
    make, shape = NETWORKS[kind]
    network, g = make().double(), torch.Generator().manual_seed(seed)
    b = to(fresh_weights(network, seed), torch.float64)
    x = torch.randn(shape, generator=g, dtype=torch.float64)
    split = data.Split(x, torch.arange(len(x)) % 3, "noise", classes=tuple("abc"))
    layers = hidden_layers(network)
    return network, b, split, {n.name: torch.randperm(n.size, generator=g) for n in layers}


@pytest.mark.parametrize("given_data", [False, True])
@pytest.mark.parametrize("kind", NETWORKS)
def test_nothing_changes_but_while_a_neuron_is_muted_and_restored(kind, given_data):
    network, b, split, orders = a_case(kind)
    path = handovers.free_walk_back(network, b, orders, split if given_data else None)
    assert same(path(0.0), permute(network, b, orders))
    assert same(path(1.0), b)
    t = sorted({*path.knots, *torch.linspace(0, 1, 97).tolist()})
    plain = FunctionPath(path.function)
    fast, slow = outputs(network, path, t, split.x), outputs(network, plain, t, split.x)
    assert torch.allclose(fast, slow, atol=1e-9)
    assert torch.allclose(path.travelled(t), plain.travelled(t), rtol=1e-7, atol=1e-9)
    starts = [k for k, word in enumerate(path.labels) if word == "mute"]
    ends = [k for k, word in enumerate(path.labels) if word == "restore"]
    assert len(starts) == len(ends) == len(orders)
    for start, end in zip(starts, ends, strict=True):
        words = path.labels[start + 1 : end]
        assert words[::2] == ("receive",) * len(words[::2])
        assert words[1::2] == ("hand over",) * len(words[1::2])
        low, high = path.knots[start + 1], path.knots[end]
        still = [i for i, time in enumerate(t) if low <= time <= high]
        assert torch.allclose(slow[still], slow[still[:1]], atol=1e-9)
    assert torch.allclose(slow[[0, -1]], apply(network, b, split.x), atol=1e-9)


@given(st.permutations(range(7)), st.integers(0, 6))
@settings(max_examples=40)
def test_pieces_are_counted(order, idle):
    """L + 1 hand-overs a cycle, L − 1 if the spare neuron's own; two pieces each, and one more."""
    network = mlp((4, 7, 2))
    b = fresh_weights(network, 0)
    b["3.weight"][:, idle] = 0
    path = handovers.free_walk_back(network, b, {"1": torch.tensor(order)})
    assert same(path(0.0), permute(network, b, {"1": order})) and same(path(1.0), b)
    cycles = exchanges.cycles(order)
    if not cycles:
        assert path.labels == () and same(path(0.4), b)
        return
    overs = sum(len(cycle) + (-1 if idle in cycle else 1) for cycle in cycles)
    assert Counter(path.labels) == {"receive": overs + 1, "hand over": overs} or not overs
    assert len(path.knots) == 2 * overs + 2


def test_with_a_dead_neuron_the_loss_is_the_same_all_along():
    network, split = zoo.network("digits-wide"), data.load("digits").test
    b = zoo.load("digits-wide")[1]
    b["3.weight"][:, 5] = 0
    order = torch.randperm(128, generator=torch.Generator().manual_seed(0))
    path = handovers.free_walk_back(network, b, {"1": order})
    assert set(path.labels) == {"receive", "hand over"}
    found = profile(network, path, split)
    assert float(found.loss.max() - found.loss.min()) < 1e-6
    plain = profile(network, FunctionPath(path.function), split, points=[0.0, 0.111, 0.5, 0.777, 1])
    assert torch.allclose(plain.loss, found.loss[:1].expand(5), atol=1e-6)


def test_the_neuron_that_is_missed_least_is_muted():
    """By what its readers hear of it beside its mean, measured on all images."""
    network, split = zoo.network("digits"), data.load("digits").train
    b = zoo.load("digits")[1]
    layer = hidden_layers(network)[1]
    read = lambda w, x: x.flatten(1) @ w["1.weight"].T + w["1.bias"]  # noqa: E731
    h = F.relu(F.relu(read(b, split.x)) @ b["3.weight"].T + b["3.bias"])
    heard = h @ b["5.weight"].T + b["5.bias"]
    missed = []
    for i in range(64):
        silent = {key: w.clone() for key, w in b.items()}
        silent["5.bias"] += silent["5.weight"][:, i] * h[:, i].mean()
        silent["5.weight"][:, i] = 0
        now = h @ silent["5.weight"].T + silent["5.bias"]
        missed.append((float((now - heard).square().sum(1).mean()), i, silent))
    spare, found = handovers.muted(network, b, layer, split)
    _, best, silent = min(missed, key=lambda one: one[0])
    assert spare == best
    assert all(torch.allclose(found[key], silent[key], atol=1e-6) for key in b)
    blind, found = handovers.muted(network, b, layer)
    product = b["5.weight"].norm(dim=0) * torch.cat([b["3.weight"], b["3.bias"][:, None]], 1).norm(
        dim=1
    )
    assert blind == int(product.argmin()) and not found["5.weight"][:, blind].any()
    assert torch.equal(found["5.bias"], b["5.bias"])


def test_behind_batch_norm_neurons_are_heard_with_the_statistics_of_these_weights():
    """Whatever the network's own are: those of another training, say."""
    layers = nn.Linear(9, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)
    network, g = nn.Sequential(*layers).double().eval(), torch.Generator().manual_seed(0)
    b, layer = to(fresh_weights(network, 0), torch.float64), hidden_layers(network)[0]
    x = 3 + 2 * torch.randn(50, 9, generator=g, dtype=torch.float64)
    split = data.Split(x, torch.arange(50) % 3, "noise", classes=tuple("abc"))
    z = x @ b["0.weight"].T + b["0.bias"]
    h = F.relu((z - z.mean(0)) / (z.var(0) + 1e-5).sqrt() * b["1.weight"] + b["1.bias"])
    missed = h.var(0) * b["3.weight"].square().sum(0)
    spare, silent = handovers.muted(network, b, layer, split)
    assert spare == int(missed.argmin())
    wanted = b["3.bias"] + b["3.weight"][:, spare] * h[:, spare].mean()
    assert torch.allclose(silent["3.bias"], wanted, atol=1e-9)
    assert not network[1].running_mean.any()


@pytest.mark.parametrize("kind", ["convnet", "residual", "no bias, tanh"])
def test_every_kind_of_reader_misses_what_is_measured(kind):
    """A stream is missed by all its readers; a filter by each pixel; without a bias, wholly."""
    network, b, split, _ = a_case(kind)
    for layer in hidden_layers(network):
        readers = [s.tensor.removesuffix(".weight") for s in layer.outgoing]

        def hears(weights, inputs, readers=readers):
            """What each reader makes of these inputs: of its own, or of those given."""
            seen = {}
            watch(network, weights, split.x, readers, lambda n, x, y: seen.update({n: (x, y)}))
            if inputs is None:
                return seen
            return {
                n: functional_call(
                    network.get_submodule(n),
                    {
                        key: weights[f"{n}.{key}"]
                        for key in dict(network.get_submodule(n).named_parameters())
                    },
                    (inputs[n][0],),
                )
                for n in readers
            }

        before = hears(b, None)
        missed, means = handovers._heard(network, b, layer, split.x)
        for i in range(layer.size):
            silent = handovers._without(b, layer, i, means)
            after = hears(silent, before)
            for n in readers:
                change = (after[n] - before[n][1]).transpose(0, 1).flatten(1)  # (m, images …)
                if f"{n}.bias" in b:
                    assert change.mean(1).abs().max() < 1e-9
            if kind != "convnet":  # whose neighbouring pixels are not independent
                total = sum(
                    float((after[n] - before[n][1]).square().sum(1).mean()) for n in readers
                )
                assert float(missed[i]) == pytest.approx(total, rel=1e-6, abs=1e-12)


def test_what_fits_no_walk_is_refused():
    network, b, split, _ = a_case("deep")
    with pytest.raises(ValueError, match="order of layer '1'"):
        handovers.free_walk_back(network, b, {"1": [0, 0, 1, 2, 3, 4, 5, 6]})
    with pytest.raises(ValueError, match="no hidden layer '2'"):
        handovers.free_walk_back(network, b, {"2": [1, 0]})
    with pytest.raises(ValueError, match="split"):
        handovers.free_walk_back(network, b, {"1": list(range(7, -1, -1))}, split.x)
    layer = hidden_layers(network)[0]
    with pytest.raises(ValueError, match="layer must be one of hidden_layers"):
        handovers.muted(network, b, "1")
    with pytest.raises(ValueError, match=r"b\['5.bias'\] holds 6 values that are not finite"):
        handovers.muted(network, b | {"5.bias": b["5.bias"] * torch.nan}, layer)
