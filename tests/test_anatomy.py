import gc
import weakref

import odd_networks
import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from modeconn_lite.anatomy import batch_norms, chain, facts, is_plain, oddity
from modeconn_lite.networks import cnn3, mlp
from modeconn_lite.weights import apply, fresh_weights


def test_chain_unrolls_and_names_parameters():
    network = nn.Sequential(
        nn.Flatten(), nn.Sequential(nn.Linear(4, 3), nn.ReLU()), cnn3(2, side=4)
    )
    names = [name for name, module in chain(network) if list(module.parameters())]
    assert names == ["1.0", "2.0", "2.2", "2.4", "2.7"]
    assert all(f"{name}.weight" in dict(network.named_parameters()) for name in names)


def test_chain_keeps_a_module_that_stands_twice():
    relu = nn.ReLU()
    network = nn.Sequential(relu, nn.Linear(2, 2), relu)
    assert [type(m) for _, m in chain(network)] == [nn.ReLU, nn.Linear, nn.ReLU]


def test_chain_does_not_take_apart_what_it_cannot():
    shared = nn.Linear(2, 2)
    hooked = mlp((2, 2, 2))
    hooked.register_forward_hook(lambda *_: None)
    for network in (nn.Sequential(shared, nn.ReLU(), shared), hooked, nn.GRU(2, 2)):
        assert chain(network) == [("", network)]


def test_batch_norms_are_named():
    assert batch_norms(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))) == ["1"]
    assert batch_norms(mlp((2, 2))) == []


def test_they_are_kept_while_the_network_is_the_same():
    network, other = mlp((4, 5, 3)), mlp((4, 5, 3))
    facts(network)["seen"] = 1
    assert facts(network) == {"seen": 1}
    assert facts(other) == {}
    with torch.no_grad():
        network[1].weight.add_(1)  # its numbers are no facts
    assert facts(network) == {"seen": 1}


@pytest.mark.parametrize(
    "change",
    [
        lambda n: n.append(nn.ReLU()),
        lambda n: n.__setitem__(2, nn.Tanh()),
        lambda n: n[1].register_forward_hook(lambda *_: None),
        lambda n: n[1].register_forward_pre_hook(lambda *_: None),
        lambda n: n.register_forward_hook(lambda *_: None),
        lambda n: setattr(n[2], "forward", torch.tanh),
        lambda n: setattr(n[2], "inplace", True),
        lambda n: setattr(n[0], "start_dim", 2),
        lambda n: setattr(n[1], "weight", nn.Parameter(torch.zeros(6, 4))),
        lambda n: setattr(n[1].weight, "data", torch.zeros(6, 4)),
        lambda n: setattr(n[3], "bias", n[1].bias),
        lambda n: setattr(n[3], "bias", None),
        lambda n: n[1].register_buffer("more", torch.zeros(1)),
        lambda n: n[1].__class__.__setattr__(n[1], "__class__", odd_networks.Quiet),
        lambda n: n[2].eval(),
        lambda n: odd_networks.parametrizations.weight_norm(n[1]),
    ],
)
def test_they_are_forgotten_when_it_changes(change):
    network = mlp((4, 5, 3))
    facts(network)["seen"] = 1
    change(network)
    assert facts(network) == {}


def test_they_keep_no_network_alive():
    network = mlp((4, 5, 3))
    w = fresh_weights(network, 0)
    apply(network, w, torch.zeros(2, 4))
    facts(network)["seen"] = 1
    gone = weakref.ref(network)
    del network
    gc.collect()
    assert gone() is None


def test_a_network_that_cannot_be_hashed_has_none():
    class Equal(nn.Linear):
        __hash__ = None

        def __eq__(self, other):
            return True

    facts(Equal(2, 2))["seen"] = 1
    assert facts(Equal(2, 2)) == {}


def test_a_network_that_never_ran_is_named():
    with pytest.raises(ValueError, match=r"'1\.weight' has no shape yet; run the network once"):
        facts(nn.Sequential(nn.Flatten(), nn.LazyLinear(3)))


def test_hooks_on_all_modules_count():
    network = mlp((4, 5, 3))
    facts(network)["seen"] = 1
    handle = register_module_forward_hook(lambda *_: None)
    try:
        assert facts(network) == {}
        assert "global forward hooks" in oddity(network[1])
    finally:
        handle.remove()
    assert is_plain(network[1])
