"""The book's architectures.

Weights live outside (see `weights`); a network here is an architecture with some initial values.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from .checks import check_list, check_number, check_whole


class HeConv2d(nn.Conv2d):
    """A convolution initialised as in the VGG experiments: normal, variance 2 / (k² · out)."""

    def reset_parameters(self) -> None:
        fan_out = self.kernel_size[0] * self.kernel_size[1] * self.out_channels
        nn.init.normal_(self.weight, std=(2 / fan_out) ** 0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class ResidualBlock(nn.Module):
    """x + W₂ relu(W₁ x + b₁) + b₂: two linear layers around which the input is carried.

    Its input and its result have shape (images, width).

    Parameters
    ----------
    width : int
        Of the stream that is carried.
    hidden : int
        Neurons between the two layers.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.enter = nn.Linear(width, hidden)
        self.leave = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.leave(self.enter(x).relu())


def mlp(sizes: Sequence[int], *, bias: bool = True) -> nn.Sequential:
    """A fully connected ReLU network, e.g. `mlp((64, 64, 64, 64, 10))`: three hidden layers.

    Parameters
    ----------
    sizes : sequence of int
        Input width, hidden widths, number of classes. Images are flattened.
    bias : bool
        Whether the linear layers have biases.

    Raises
    ------
    ValueError
        If there are fewer than two widths, or one is no positive whole number.
    """
    sizes = check_list(sizes, "sizes", "widths", least=2)
    sizes = [check_whole(width, f"sizes[{k}]", low=1) for k, width in enumerate(sizes)]
    layers: list[nn.Module] = [nn.Flatten()]
    for width_in, width_out in pairwise(sizes):
        layers += [nn.Linear(width_in, width_out, bias=bias), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def residual_mlp(
    inputs: int, classes: int, *, width: int = 64, hidden: int = 64, blocks: int = 2
) -> nn.Sequential:
    """A small residual MLP: a linear layer in, `blocks` residual blocks, a linear layer out.

    Parameters
    ----------
    inputs, classes : int
        Widths of the input, which is flattened, and of the output.
    width, hidden, blocks : int
        Of the residual stream, of each block's hidden layer, and how many blocks.

    Raises
    ------
    ValueError
        If one is no positive whole number; there may be no block.
    """
    sizes = {"inputs": inputs, "classes": classes, "width": width, "hidden": hidden}
    for name, size in sizes.items():
        check_whole(size, name, low=1)
    check_whole(blocks, "blocks")
    body = [ResidualBlock(width, hidden) for _ in range(blocks)]
    return nn.Sequential(
        nn.Flatten(), nn.Linear(inputs, width), *body, nn.ReLU(), nn.Linear(width, classes)
    )


def cnn3(channels: int = 32, *, side: int = 28, classes: int = 10) -> nn.Sequential:
    """Three 3×3 'same' convolutions and a linear layer, without biases and pooling [1]_.

    Input: shape (images, 1, side, side).

    Parameters
    ----------
    channels : int
        Filters of each convolution.
    side : int
        Height and width of an image.
    classes : int

    Raises
    ------
    ValueError
        If one is no positive whole number.

    References
    ----------
    .. [1] Kuditipudi et al., Explaining Landscape Connectivity of Low-cost Solutions for
       Multilayer Nets, 2019.
    """
    for name, size in {"channels": channels, "side": side, "classes": classes}.items():
        check_whole(size, name, low=1)
    layers: list[nn.Module] = []
    for width_in in (1, channels, channels):
        layers += [nn.Conv2d(width_in, channels, 3, padding=1, bias=False), nn.ReLU()]
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(channels * side * side, classes, bias=False)
    )


def conv2fc1(classes: int = 10) -> nn.Sequential:
    """Conv2FC1 [1]_: two 5×5 convolutions, then a linear layer 3136 → classes.

    Input: shape (images, 3, 32, 32).

    References
    ----------
    .. [1] Anokhin and Yarotsky, Low-loss Connection of Weight Vectors: Distribution-based
       Approaches, 2020.
    """
    check_whole(classes, "classes", low=1)
    layers: list[nn.Module] = []
    for width_in, width_out in ((3, 32), (32, 64)):
        conv = HeConv2d(width_in, width_out, 5, padding=2)
        layers += [conv, nn.ReLU(), nn.MaxPool2d(3, stride=2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 7 * 7, classes))


VGG_BLOCKS = {
    11: ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    16: ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
}


def vgg(depth: int = 16, *, classes: int = 10, dropout: float = 0.5) -> nn.Sequential:
    """VGG-11 or VGG-16 for 32×32 images, without BatchNorm [1]_.

    Input: shape (images, 3, 32, 32). The classifier is 512-512-512-classes with dropout before
    its first two linear layers while training; evaluation leaves nothing out.

    Parameters
    ----------
    depth : int
        11 or 16 layers with weights.
    classes : int
    dropout : float
        The share of neurons that is left out.

    Raises
    ------
    ValueError
        If the depth is another, or one of the others is out of range.

    References
    ----------
    .. [1] Garipov et al., Loss Surfaces, Mode Connectivity, and Fast Ensembling of DNNs, 2018.
    """
    if check_whole(depth, "depth") not in VGG_BLOCKS:
        raise ValueError(f"depth must be one of {tuple(VGG_BLOCKS)}, not {depth}")
    check_whole(classes, "classes", low=1)
    check_number(dropout, "dropout", low=0, high=1)
    layers: list[nn.Module] = []
    width_in = 3
    for block in VGG_BLOCKS[depth]:
        for width_out in block:
            layers += [HeConv2d(width_in, width_out, 3, padding=1), nn.ReLU()]
            width_in = width_out
        layers.append(nn.MaxPool2d(2))
    layers.append(nn.Flatten())
    for _ in range(2):
        layers += [nn.Dropout(dropout), nn.Linear(512, 512), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(512, classes))
