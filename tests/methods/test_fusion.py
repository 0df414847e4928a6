import pytest
import torch
from torch import nn

from modeconn_lite import data, zoo
from modeconn_lite.evaluation import evaluate
from modeconn_lite.layout import hidden_layers
from modeconn_lite.methods import fusion
from modeconn_lite.networks import mlp, residual_mlp
from modeconn_lite.neurons import permute
from modeconn_lite.weights import apply, fresh_weights, mix, to


def convnet(channels=4, width=6, filters=3):
    return nn.Sequential(
        nn.Conv2d(1, filters, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(filters, channels, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(channels * 4, width),
        nn.ReLU(),
        nn.Linear(width, 3),
    )


NETWORKS = {"mlp": (lambda: mlp((9, 8, 7, 3)), (30, 9)), "convnet": (convnet, (30, 1, 4, 4))}


def a_case(kind, seed=0):
    make, shape = NETWORKS[kind]
    network, g = make().double(), torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=g, dtype=torch.float64)
    orders = {n.name: torch.randperm(n.size, generator=g) for n in hidden_layers(network)}
    return network, to(fresh_weights(network, seed), torch.float64), x, orders


def doubled(b, network):
    """Every hidden neuron twice, what reads it halved."""
    wide = dict(b)
    for layer in hidden_layers(network):
        for s in layer.slices:
            w = wide[s.tensor]
            if s.axis == 0:
                wide[s.tensor] = w.repeat_interleave(2, 0)
            else:
                halves = w.unflatten(1, (layer.size, s.each)).repeat_interleave(2, 1) / 2
                wide[s.tensor] = halves.flatten(1, 2)
    return wide


@pytest.mark.parametrize("by", ["weights", "activations"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_network_and_its_shuffled_copy_fuse_to_itself(kind, by):
    network, b, x, orders = a_case(kind)
    few = x if by == "activations" else None
    found = fusion.fuse(network, permute(network, b, orders), network, b, x=few)
    assert found.keys() == b.keys()
    assert torch.allclose(apply(network, found, x), apply(network, b, x), atol=1e-12)
    if few is None:  # neurons that are dead on x cannot be told apart by what they do there
        assert all(torch.allclose(found[key], b[key], atol=1e-12) for key in b)


@pytest.mark.parametrize("by", ["weights", "activations"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_network_of_double_width_that_is_the_same_function_fuses_to_it(kind, by):
    network, b, x, _ = a_case(kind)
    wide = mlp((9, 16, 14, 3)) if kind == "mlp" else convnet(8, 12, 6)
    wide, a = wide.double(), doubled(b, network)
    assert torch.allclose(apply(wide, a, x), apply(network, b, x))
    few = x if by == "activations" else None
    found = fusion.carried(wide, a, network, b, x=few)
    assert torch.allclose(apply(network, found, x), apply(network, b, x), atol=1e-12)
    if few is None:
        assert all(torch.allclose(found[key], b[key], atol=1e-12) for key in b)
    # The other way round: neurons are doubled, and what reads them is shared out.
    back = fusion.carried(network, b, wide, a, x=few)
    assert torch.allclose(apply(wide, back, x), apply(network, b, x))


def test_shares_and_entropic_plans():
    network, b, _, orders = a_case("mlp")
    a = to(fresh_weights(network, 1), torch.float64)
    there = fusion.carried(network, a, network, b)
    for share in (0.0, 0.3, 1.0):
        found = fusion.fuse(network, a, network, b, share=share)
        wanted = mix((1 - share, share), (there, b))
        assert all(torch.allclose(found[key], wanted[key]) for key in b)
    near = fusion.carried(network, permute(network, b, orders), network, b, regularisation=0.01)
    assert all(torch.allclose(near[key], b[key], atol=0.05) for key in b)
    evened = fusion.carried(network, a, network, b, regularisation=1e4)
    mean = a["1.weight"].mean(0).expand(8, 9)
    assert torch.allclose(evened["1.weight"], mean, atol=1e-3)  # all neurons are the mean one


def test_equal_widths_are_carried_by_a_permutation():
    network, b, x, _ = a_case("convnet")
    a = to(fresh_weights(network, 1), torch.float64)
    there = fusion.carried(network, a, network, b)
    assert torch.allclose(apply(network, there, x), apply(network, a, x), atol=1e-9)
    assert not any(torch.equal(there[key], a[key]) for key in ("0.weight", "6.weight"))


def test_fusion_beats_the_plain_average_on_digits():
    network, digits = zoo.network("digits"), data.load("digits")
    a, b = zoo.load("digits")[:2]
    plain = evaluate(network, mix((0.5, 0.5), (a, b)), digits.test).accuracy
    for x in (None, digits.train.x[:200]):
        fused = fusion.fuse(network, a, network, b, x=x)
        assert evaluate(network, fused, digits.test).accuracy > plain + 0.2


def test_weights_of_several_precisions_stay_what_they_are():
    network, b, _, _ = a_case("mlp")
    a = to(fresh_weights(network, 1), torch.float64)
    mixed = {key: w.double() if w.dim() == 1 else w.float() for key, w in a.items()}
    found = fusion.carried(network, mixed, network, b)
    wanted = fusion.carried(network, a, network, b)
    assert all(found[key].dtype == mixed[key].dtype for key in a)
    assert all(torch.allclose(found[key].double(), wanted[key], atol=1e-6) for key in a)


def test_networks_that_do_not_fit_are_refused():
    network = mlp((9, 8, 7, 3))
    w = fresh_weights(network, 0)

    def refused(other, match, **options):
        with pytest.raises(ValueError, match=match):
            fusion.fuse(other, fresh_weights(other, 0), network, w, **options)

    refused(mlp((9, 8, 3)), "a has 1 hidden layers and b has 2")
    refused(mlp((8, 8, 7, 3)), r"layer '1' of a has weights of shape \(8, 8\)")
    refused(mlp((9, 8, 7, 4)), "layer '5' of a has weights")
    refused(mlp((9, 8, 7, 3), bias=False), "and no bias, layer '1' of b")
    refused(residual_mlp(9, 3), "hidden layer '1' is no link of a plain chain")
    refused(nn.Sequential(nn.Linear(9, 3)), "no hidden layer")
    tanh = [nn.Tanh() if type(module) is nn.ReLU else module for module in network]
    refused(nn.Sequential(*tanh), r"a has \['Tanh', 'Tanh'\], b has \['ReLU', 'ReLU'\]")
    refused(network, "share must be", share=1.5)
    refused(network, "x must be", x="all")
    refused(network, "regularisation", regularisation=-1)
    with pytest.raises(ValueError, match="a do not fit"):
        fusion.fuse(network, {"w": torch.ones(2)}, network, w)
