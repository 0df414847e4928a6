import pytest
import torch
from torch import nn

from modeconn_lite.networks import ResidualBlock, cnn3, conv2fc1, mlp, residual_mlp, vgg


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


def test_bad_sizes():
    with pytest.raises(ValueError, match="1 widths given, at least 2 needed"):
        mlp((3,))
    for sizes in ((3, 0), (3.0, 2), (3, True), (3, "2"), "32", 3, None, {3: 1, 2: 1}):
        with pytest.raises(ValueError, match="sizes"):
            mlp(sizes)
    for make, options in (
        (residual_mlp, {"inputs": 3, "classes": 0}),
        (residual_mlp, {"inputs": 3, "classes": 2, "blocks": -1}),
        (residual_mlp, {"inputs": 3, "classes": 2, "hidden": 1.5}),
        (cnn3, {"channels": 0}),
        (cnn3, {"side": "28"}),
        (conv2fc1, {"classes": None}),
        (vgg, {"depth": 11.0}),
        (vgg, {"depth": 11, "dropout": 1.5}),
        (vgg, {"depth": 11, "dropout": float("nan")}),
    ):
        with pytest.raises(ValueError, match=f"{list(options)[-1]} must be"):
            make(**options)
