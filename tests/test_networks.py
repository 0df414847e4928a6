import pytest
import torch
from torch import nn

from modeconn_lite.networks import (
    ResidualBlock,
    batch_norms,
    chain,
    cnn3,
    conv2fc1,
    mlp,
    residual_mlp,
    vgg,
)


@pytest.mark.parametrize(
    ("network", "shape", "parameters"),
    [
        (mlp((64, 64, 64, 64, 10)), (64,), 3 * (64 * 64 + 64) + 650),
        (mlp((784, 2000, 10)), (1, 28, 28), 784 * 2000 + 2000 + 20010),
        (mlp((6, 5, 3), bias=False), (2, 3), 45),
        (residual_mlp(64, 10, width=16, hidden=8), (64,), 65 * 16 + 2 * (17 * 8 + 9 * 16) + 170),
        (cnn3(), (1, 28, 28), 9 * 32 + 2 * 9 * 32 * 32 + 25088 * 10),
        (conv2fc1(), (3, 32, 32), 25 * 3 * 32 + 32 + 25 * 32 * 64 + 64 + 31370),
        (vgg(11), (3, 32, 32), 9_750_922),
        (vgg(16), (3, 32, 32), 15_245_130),
    ],
)
def test_shapes_and_sizes(network, shape, parameters):
    assert network.eval()(torch.zeros(2, *shape)).shape in ((2, 10), (2, 3))
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_vgg_16_has_thirteen_convolutions_and_three_linear_layers():
    kinds = [type(m) for m in vgg(16).modules()]
    assert sum(issubclass(k, nn.Conv2d) for k in kinds) == 13
    assert kinds.count(nn.Linear) == 3
    assert kinds.count(nn.Dropout) == 2
    with pytest.raises(ValueError, match="depth must be one of"):
        vgg(13)


def test_residual_block_adds_its_input():
    block = ResidualBlock(4, 3)
    nn.init.zeros_(block.leave.weight)
    nn.init.zeros_(block.leave.bias)
    x = torch.randn(2, 4)
    assert torch.equal(block(x), x)


def test_he_initialisation():
    conv = vgg(11)[6]
    assert float(conv.weight.detach().std()) == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.02)
    assert float(conv.bias.detach().abs().max()) == 0


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


def test_bad_sizes():
    with pytest.raises(ValueError, match="at least two positive widths"):
        mlp((3,))
