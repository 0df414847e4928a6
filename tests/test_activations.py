import pytest
import torch
from torch import nn

from modeconn_lite.activations import watch
from modeconn_lite.networks import mlp
from modeconn_lite.weights import apply, fresh_weights, to

NETWORK = mlp((4, 5, 3))
W = to(fresh_weights(NETWORK, 0), torch.float64)
X = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))


def test_what_flows_in_and_out_of_named_layers_is_seen():
    seen = {}
    out = watch(
        NETWORK, W, X, ["1", "3"], lambda name, given, out: seen.update({name: (given, out)})
    )
    assert torch.equal(out, apply(NETWORK, W, X.double()))
    assert list(seen) == ["1", "3"]
    assert torch.equal(seen["1"][0], X.double())  # in the weights' precision
    assert torch.allclose(seen["1"][1], X.double() @ W["1.weight"].T + W["1.bias"])
    assert torch.equal(seen["3"][0], seen["1"][1].relu())
    assert torch.equal(seen["3"][1], out)


def test_what_is_returned_takes_the_output_s_place_from_there_on():
    names = []

    def silence(name, given, out):
        names.append(name)
        return torch.zeros_like(out) if name == "1" else None

    out = watch(NETWORK, W, X, ["3", "1"], silence)
    assert torch.equal(out, W["3.bias"].expand(7, 3))
    assert names == ["1", "3"]  # as they run, not as they are named


def test_the_caller_s_network_is_left_as_it_was():
    network = nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.5), nn.Linear(5, 3)).train()
    w = fresh_weights(network, 0)
    before = {key: value.clone() for key, value in w.items()}
    one, two = (watch(network, w, X, ["0"], lambda *_: None) for _ in range(2))
    assert torch.equal(one, two)  # no dropout while watching
    assert network.training
    assert not any(m._forward_hooks for m in network.modules())
    assert all(torch.equal(w[key], before[key]) for key in w)


def test_bad_input():
    with pytest.raises(ValueError, match=r"no layer '9'; this network has \('0', '1', '2', '3'\)"):
        watch(NETWORK, W, X, ["9"], lambda *_: None)
    with pytest.raises(ValueError, match="see must be a function"):
        watch(NETWORK, W, X, ["1"], None)
    with pytest.raises(ValueError, match=r"layer .1. .*takes .*not \(7, 5\)"):
        watch(NETWORK, W, torch.zeros(7, 5), ["1"], lambda *_: None)
    with pytest.raises(ValueError, match=r"network must be an nn.Module"):
        watch(W, W, X, ["1"], lambda *_: None)
    for x in (X[:0], X * float("nan"), X.long(), None, "x"):
        with pytest.raises(ValueError, match=r"^x "):
            watch(NETWORK, W, x, ["1"], lambda *_: None)


def test_what_fails_in_the_caller_s_function_is_told_as_it_is():
    def see(name, given, out):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        watch(NETWORK, W, X, ["1"], see)


def test_layers_that_keep_something_are_copied_too():
    network = mlp((4, 5, 3))
    network[1].register_buffer("calls", torch.zeros(()))
    network[1].register_forward_pre_hook(lambda module, given: module.calls.add_(1) and None)
    watch(network, fresh_weights(network, 0), X, ["3"], lambda *_: None)
    assert network[1].calls == 0
    with pytest.raises(ValueError, match="missing"):
        watch(NETWORK, {"1.weight": W["1.weight"]}, X, ["1"], lambda *_: None)


def test_what_is_seen_and_what_takes_its_place():
    for names in ("1", None, 1):
        with pytest.raises(ValueError, match="names must be a list of names of layers"):
            watch(NETWORK, W, X, names, lambda *_: None)
    for wrong in (lambda name, x, out: out[:, :1], lambda name, x, out: "out"):
        with pytest.raises(ValueError, match=r"see must return None or an output of shape"):
            watch(NETWORK, W, X, ["1"], wrong)
