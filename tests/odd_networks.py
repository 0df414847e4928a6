"""Networks as they come: some understood to the neuron, most not, none to be run wrongly.

`ODD` maps a name to (a function that makes the network, the shape of one input, how the refusal of
its hidden layers reads, or nothing if they are understood).
"""

from __future__ import annotations

from types import MethodType

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils import weight_norm as old_weight_norm

from modeconn_lite.networks import HeConv2d, ResidualBlock, cnn3, mlp, residual_mlp

IMAGE = (1, 4, 4)


def warned(test):
    """Torch warns of two of these networks."""
    for text in ("dropout2d", ".*weight_norm.* is deprecated"):
        test = pytest.mark.filterwarnings(f"ignore:{text}")(test)
    return test


class Doubling(nn.Linear):
    def forward(self, x):
        return super().forward(x) * torch.arange(1.0, self.out_features + 1).to(x)


class Quiet(nn.Linear):
    """A subclass that computes the same; nobody can know."""


class Turning(nn.Flatten):
    def forward(self, x):
        return super().forward(x).roll(1, 1)


class Last(nn.Module):
    def forward(self, x):
        return x[:, -1]


class Turned(nn.Module):
    def forward(self, x):
        return x.roll(1, 1)


class Wrapped(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return self.body(x)


class Backwards(nn.Sequential):
    def forward(self, x):
        for module in reversed(self):
            x = module(x)
        return x


class Skip(nn.Module):
    """Two modules in one chain that share a memory: the first keeps x, the second adds it."""

    def __init__(self, memory, adds):
        super().__init__()
        self.memory, self.adds = memory, adds

    def forward(self, x):
        if self.adds:
            return x + self.memory["x"]
        self.memory["x"] = x
        return x


class Borrowing(nn.Module):
    """Uses the weight of a layer that is not registered in it."""

    def __init__(self, other):
        super().__init__()
        self.__dict__["other"] = other

    def forward(self, x):
        return x @ self.other.weight.T


class Counting(nn.Module):
    """Keeps a count of its calls in a buffer, in evaluation mode too, and adds it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return x + self.calls


class Remembering(nn.Linear):
    """Computes something from its weights once, and never again."""

    seen = None

    def forward(self, x):
        if self.seen is None:
            self.seen = self.weight.detach().square().sum()
        return super().forward(x) * self.seen


class Clipping(nn.Linear):
    """Clips its weights in place before it uses them."""

    def forward(self, x):
        with torch.no_grad():
            self.weight.clamp_(-0.05, 0.05)
        return super().forward(x)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.GRU(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("factor", torch.full((16,), 0.5))
        self.linear = nn.Linear(16, 3)

    def forward(self, x):
        return self.linear(x.flatten(1) * self.factor)


def changed(network, change):
    change(network)
    return network


def hooked(network, layer, hook, pre=False):
    module = network[layer]
    (module.register_forward_pre_hook if pre else module.register_forward_hook)(hook)
    return network


def own_forward(network, layer, forward):
    network[layer].forward = forward
    return network


def twice():
    layer = nn.Linear(8, 8)
    return nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU(), nn.Linear(8, 5))


def twice_inside():
    part = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
    return nn.Sequential(part, part, nn.Linear(8, 3))


def tied():
    network = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Linear(8, 3))
    network[2].weight = network[0].weight
    return network


def tied_bias():
    network = mlp((16, 5, 5, 3))
    network[3].bias = network[1].bias
    return network


def repeated_relu():
    relu = nn.ReLU()
    return nn.Sequential(
        nn.Flatten(), nn.Linear(16, 6), relu, nn.Linear(6, 5), relu, nn.Linear(5, 3)
    )


def skip():
    memory: dict = {}
    return nn.Sequential(
        *(nn.Flatten(), nn.Linear(16, 5), nn.Tanh(), Skip(memory, False)),
        *(nn.Linear(5, 5), nn.Tanh(), Skip(memory, True), nn.Linear(5, 3)),
    )


def borrowing():
    first = nn.Linear(16, 16, bias=False)
    return nn.Sequential(nn.Flatten(), first, nn.Tanh(), Borrowing(first), nn.Linear(16, 3))


def surgery():
    network = mlp((16, 6, 3))  # as after taking two neurons out by hand: attributes say 6
    network[1].weight = nn.Parameter(torch.randn(4, 16))
    network[1].bias = nn.Parameter(torch.randn(4))
    network[3].weight = nn.Parameter(torch.randn(3, 4))
    return network


def broadcast_bias():
    return changed(mlp((16, 6, 3)), lambda n: setattr(n[1], "bias", nn.Parameter(torch.ones(1))))


def lazy():
    network = nn.Sequential(nn.Flatten(), nn.LazyLinear(6), nn.ReLU(), nn.LazyLinear(3))
    network(torch.zeros(1, 16))
    return network


def block(change):
    network = residual_mlp(16, 3, width=6, hidden=5, blocks=1)
    change(network[2])
    return network


class Own(ResidualBlock):
    def forward(self, x):
        return super().forward(x) * 2


def conv(*more, channels=4, inside=()):
    return nn.Sequential(nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(), *inside, *more)


def without_relu(self, x):
    return self[3](self[1](self[0](x)))


def flat(size):
    return nn.Flatten(), nn.Linear(size, 3)


L, F_ = nn.Linear, nn.Flatten
ODD = {
    # --- Understood -------------------------------------------------------------------------------
    "mlp": (lambda: mlp((16, 6, 5, 3)), IMAGE, ""),
    "cnn": (lambda: cnn3(3, side=4, classes=3), IMAGE, ""),
    "residual": (lambda: residual_mlp(16, 3, width=6, hidden=5), IMAGE, ""),
    "nested": (
        lambda: nn.Sequential(F_(), nn.Sequential(L(16, 6), nn.Tanh()), mlp((6, 4, 3))),
        IMAGE,
        "",
    ),
    "one ReLU twice": (repeated_relu, IMAGE, ""),
    "flattened twice": (lambda: nn.Sequential(F_(), L(16, 6), F_(), nn.ReLU(), L(6, 3)), IMAGE, ""),
    "flattened filters twice": (lambda: conv(F_(), *flat(64)), IMAGE, ""),
    "BatchNorm1d": (
        lambda: nn.Sequential(F_(), L(16, 6), nn.BatchNorm1d(6), nn.ReLU(), L(6, 3)),
        IMAGE,
        "",
    ),
    "two BatchNorm1d": (
        lambda: nn.Sequential(F_(), L(16, 6), nn.BatchNorm1d(6), nn.BatchNorm1d(6), L(6, 3)),
        IMAGE,
        "",
    ),
    "BatchNorm2d": (lambda: conv(*flat(64), inside=(nn.BatchNorm2d(4),)), IMAGE, ""),
    "no vectors": (lambda: conv(*flat(64), inside=(nn.BatchNorm2d(4, affine=False),)), IMAGE, ""),
    "BatchNorm1d of single pixels": (
        lambda: conv(nn.AdaptiveAvgPool2d(1), F_(), nn.BatchNorm1d(4), nn.ReLU(), L(4, 3)),
        IMAGE,
        "",
    ),
    "residual stream with BatchNorm": (
        lambda: nn.Sequential(
            F_(), L(16, 6), nn.BatchNorm1d(6), ResidualBlock(6, 4), nn.BatchNorm1d(6), L(6, 3)
        ),
        IMAGE,
        "",
    ),
    "in place": (lambda: nn.Sequential(F_(), L(16, 6), nn.ReLU(inplace=True), L(6, 3)), IMAGE, ""),
    "starts in place": (
        lambda: nn.Sequential(nn.ReLU(inplace=True), F_(), L(16, 6), nn.ELU(inplace=True), L(6, 3)),
        IMAGE,
        "",
    ),
    "pooled inputs": (lambda: nn.Sequential(nn.MaxPool2d(2), *mlp((4, 5, 3))), IMAGE, ""),
    "strides and reflections": (
        lambda: nn.Sequential(
            HeConv2d(1, 4, 3, padding=1, padding_mode="reflect"),
            nn.GELU(),
            nn.Conv2d(4, 5, 2, stride=2),
            nn.Mish(),
            *flat(20),
        ),
        IMAGE,
        "",
    ),
    "dropout everywhere": (
        lambda: conv(nn.Dropout2d(0.5), F_(), nn.Dropout(0.5), L(64, 3)),
        IMAGE,
        "",
    ),
    "no bias": (lambda: mlp((16, 5, 3), bias=False), IMAGE, ""),
    "lazy, run once": (lazy, IMAGE, ""),
    "neurons cut out by hand": (surgery, IMAGE, ""),
    "sequences": (lambda: nn.Sequential(L(4, 5), nn.ReLU(), L(5, 3)), (4,), ""),
    # --- Shapes that do not fit -------------------------------------------------------------------
    "Linear on sequences, flattened": (
        lambda: nn.Sequential(L(4, 5), nn.ReLU(), *flat(15)),
        (3, 4),
        "layer '3' .*reads 15 inputs, but layer '0' has 5",
    ),
    "MaxPool2d on sequences": (
        lambda: nn.Sequential(L(4, 6), nn.MaxPool2d((1, 2)), nn.Flatten(), L(9, 3)),
        (3, 4),
        "layer '1' .*works on channels, but features of layer '0'",
    ),
    "AvgPool2d on features": (
        lambda: nn.Sequential(L(4, 6), nn.AvgPool2d((1, 2)), nn.Flatten(), L(9, 3)),
        (3, 4),
        "layer '1' .*works on channels",
    ),
    "BatchNorm1d over time": (
        lambda: nn.Sequential(L(4, 6), nn.BatchNorm1d(3), nn.ReLU(), nn.Flatten(), L(18, 3)),
        (3, 4),
        "layer '1' .*normalises 3 features",
    ),
    "BatchNorm1d over time as long as wide": (
        lambda: nn.Sequential(L(4, 3), nn.BatchNorm1d(3), nn.ReLU(), L(3, 3), Last()),
        (3, 4),
        "layer '4' is Last",
    ),
    "no Flatten": (
        lambda: nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), L(4, 3), F_(), L(48, 3)),
        IMAGE,
        "layer '2' .*works on features, but channels of layer '0'",
    ),
    "Flatten before BatchNorm1d": (
        lambda: conv(F_(), nn.BatchNorm1d(64), L(64, 3)),
        IMAGE,
        "layer '3' .*normalises 64 features, but layer '0' has 4",
    ),
    "partly flattened": (
        lambda: nn.Sequential(nn.Conv2d(1, 4, 1), nn.Flatten(2), L(16, 3), nn.Flatten(), L(12, 3)),
        IMAGE,
        "layer '1' .*must flatten all",
    ),
    "flattened over the images": (
        lambda: nn.Sequential(nn.Flatten(0, 1), nn.Flatten(1), L(16, 3)),
        IMAGE,
        "layer '0' .*must flatten all",
    ),
    "unflattened": (
        lambda: nn.Sequential(
            F_(), L(16, 12), nn.Unflatten(1, (3, 2, 2)), nn.Conv2d(3, 2, 1), *flat(8)
        ),
        IMAGE,
        "layer '2' is Unflatten",
    ),
    "Dropout2d on features": (
        lambda: nn.Sequential(F_(), L(16, 6), nn.Dropout2d(0.2), L(6, 3)),
        IMAGE,
        "layer '2' .*works on channels",
    ),
    "groups": (
        lambda: conv(nn.Conv2d(4, 4, 1, groups=2), *flat(64)),
        IMAGE,
        "layer '2' .*has 2 groups",
    ),
    "a bias for all": (broadcast_bias, IMAGE, "layer '1' .*bias of shape"),
    # --- Modules that are not understood ----------------------------------------------------------
    "LayerNorm": (
        lambda: nn.Sequential(F_(), L(16, 6), nn.LayerNorm(6), nn.ReLU(), L(6, 3)),
        IMAGE,
        "layer '2' is LayerNorm",
    ),
    "LayerNorm twice": (
        lambda: nn.Sequential(F_(), L(16, 6), nn.LayerNorm(6), L(6, 6), nn.LayerNorm(6), L(6, 3)),
        IMAGE,
        "layer '2' is LayerNorm",
    ),
    "GroupNorm": (lambda: conv(nn.GroupNorm(2, 4), *flat(64)), IMAGE, "layer '2' is GroupNorm"),
    "PReLU": (
        lambda: nn.Sequential(F_(), L(16, 6), nn.PReLU(6), L(6, 3)),
        IMAGE,
        "layer '2' is PReLU",
    ),
    "Softmax inside": (
        lambda: nn.Sequential(F_(), L(16, 6), nn.Softmax(1), L(6, 3)),
        IMAGE,
        "layer '2' is Softmax",
    ),
    "GLU": (lambda: nn.Sequential(F_(), L(16, 6), nn.GLU(), L(3, 3)), IMAGE, "layer '2' is GLU"),
    "Conv1d": (
        lambda: nn.Sequential(nn.Conv1d(3, 5, 2), nn.ReLU(), *flat(15)),
        (3, 4),
        "layer '0' is Conv1d",
    ),
    "ConvTranspose2d": (
        lambda: conv(nn.ConvTranspose2d(4, 2, 1), *flat(32)),
        IMAGE,
        "layer '2' is ConvTranspose2d",
    ),
    "PixelShuffle": (
        lambda: conv(nn.PixelShuffle(2), *flat(64)),
        IMAGE,
        "layer '2' is PixelShuffle",
    ),
    "ChannelShuffle": (
        lambda: conv(nn.ChannelShuffle(2), nn.Conv2d(4, 2, 1), *flat(32)),
        IMAGE,
        "layer '2' is ChannelShuffle",
    ),
    "InstanceNorm2d": (
        lambda: conv(nn.InstanceNorm2d(4), *flat(64)),
        IMAGE,
        "layer '2' is InstanceNorm2d",
    ),
    "LocalResponseNorm": (
        lambda: conv(nn.LocalResponseNorm(2), *flat(64)),
        IMAGE,
        "layer '2' is LocalResponseNorm",
    ),
    "GRU": (Recurrent, (3, 4), "layer 'Recurrent' is Recurrent"),
    "wrapped": (lambda: Wrapped(mlp((16, 5, 3))), IMAGE, "layer 'Wrapped' is Wrapped"),
    "backwards": (
        lambda: Backwards(L(5, 3), nn.ReLU(), L(16, 5), F_()),
        IMAGE,
        "layer 'Backwards' is Backwards",
    ),
    "buffer": (Scaled, IMAGE, "layer 'Scaled' is Scaled"),
    # --- Not what they look like ------------------------------------------------------------------
    "subclass with a forward": (
        lambda: nn.Sequential(F_(), Doubling(16, 6), nn.ReLU(), L(6, 3)),
        IMAGE,
        r"layer '1' \(Doubling\) is of a class derived from Linear",
    ),
    "subclass without": (
        lambda: nn.Sequential(F_(), Quiet(16, 6), nn.ReLU(), L(6, 3)),
        IMAGE,
        r"layer '1' \(Quiet\) is of a class derived from Linear",
    ),
    "subclass of Flatten": (lambda: conv(Turning(), L(64, 3)), IMAGE, r"layer '2' \(Turning\)"),
    "subclass of ResidualBlock": (
        lambda: nn.Sequential(F_(), L(16, 6), Own(6, 4), L(6, 3)),
        IMAGE,
        r"layer '2' \(Own\)",
    ),
    "block of other layers": (
        lambda: block(lambda b: setattr(b, "enter", nn.Sequential(L(6, 5), Turned()))),
        IMAGE,
        r"layer '2' \(ResidualBlock\) holds something else",
    ),
    "block with a hook": (
        lambda: block(lambda b: b.leave.register_forward_hook(lambda m, i, o: o.roll(1, 1))),
        IMAGE,
        "layer '2' .*holds something else",
    ),
    "block of other widths": (
        lambda: block(lambda b: setattr(b, "leave", L(5, 1))),
        IMAGE,
        "layer '2' .*adds 1 to 6",
    ),
    "Linear's own forward": (
        lambda: own_forward(mlp((16, 5, 3)), 1, lambda x: x[:, :5].sinh()),
        IMAGE,
        "layer '1' .*has a forward",
    ),
    "ReLU's own forward": (
        lambda: own_forward(mlp((16, 5, 3)), 2, lambda x: x.relu().roll(1, 1)),
        IMAGE,
        "layer '2' .*has a forward",
    ),
    "the chain's own forward": (
        lambda: changed(
            mlp((16, 5, 3)), lambda n: setattr(n, "forward", MethodType(without_relu, n))
        ),
        IMAGE,
        "layer 'Sequential' is Sequential",
    ),
    "hook": (
        lambda: hooked(mlp((16, 5, 3)), 1, lambda m, i, o: o * torch.arange(5).to(o)),
        IMAGE,
        "layer '1' .*has forward hooks",
    ),
    "hook on ReLU": (
        lambda: hooked(mlp((16, 5, 3)), 2, lambda m, i, o: o.roll(1, 1)),
        IMAGE,
        "layer '2' .*has forward hooks",
    ),
    "hook before": (
        lambda: hooked(mlp((16, 5, 3)), 3, lambda m, i: (i[0].roll(1, 1),), pre=True),
        IMAGE,
        "layer '3' .*has forward hooks",
    ),
    "hook on the chain": (
        lambda: changed(
            mlp((16, 5, 3)), lambda n: n.register_forward_hook(lambda m, i, o: o.roll(1, 1))
        ),
        IMAGE,
        "it has forward hooks",
    ),
    "hook on a nested chain": (
        lambda: nn.Sequential(
            F_(),
            changed(
                nn.Sequential(L(16, 5), nn.ReLU()),
                lambda n: n.register_forward_hook(lambda m, i, o: o.roll(1, 1)),
            ),
            L(5, 3),
        ),
        IMAGE,
        "layer '1' is Sequential",
    ),
    "weight_norm": (
        lambda: changed(mlp((16, 5, 3)), lambda n: parametrizations.weight_norm(n[1])),
        IMAGE,
        "layer '1' .*has parametrized weights",
    ),
    "weight_norm as it was": (
        lambda: changed(mlp((16, 5, 3)), lambda n: old_weight_norm(n[1])),
        IMAGE,
        "layer '1' .*weight_norm",
    ),
    "spectral_norm": (
        lambda: changed(mlp((16, 5, 3)), lambda n: parametrizations.spectral_norm(n[3])),
        IMAGE,
        "layer '3' .*has parametrized weights",
    ),
    "spectral_norm as it was": (
        lambda: changed(mlp((16, 5, 3)), lambda n: old_spectral_norm(n[1])),
        IMAGE,
        "layer '1' .*spectral_norm",
    ),
    "orthogonal": (
        lambda: changed(mlp((16, 5, 3)), lambda n: parametrizations.orthogonal(n[1])),
        IMAGE,
        "layer '1' .*has parametrized weights",
    ),
    "pruned": (
        lambda: changed(mlp((16, 5, 3)), lambda n: prune.random_unstructured(n[1], "weight", 0.5)),
        IMAGE,
        "layer '1' .*pruning",
    ),
    "a mask as a parametrization": (
        lambda: changed(
            mlp((16, 5, 3)),
            lambda n: parametrize.register_parametrization(n[1], "bias", nn.Softplus()),
        ),
        IMAGE,
        "layer '1' .*has parametrized weights",
    ),
    # --- Used twice, and states -------------------------------------------------------------------
    "one layer twice": (twice, (8,), "'2.weight' is another name of a parameter"),
    "one chain twice": (twice_inside, (8,), "'1.0.weight' is another name"),
    "tied": (tied, (8,), "'2.weight' is another name"),
    "tied bias": (tied_bias, IMAGE, "'3.bias' is another name"),
    "skip": (skip, IMAGE, "layer '3' is Skip"),
    "borrowed weights": (borrowing, IMAGE, "layer '3' is Borrowing"),
    "counting": (
        lambda: nn.Sequential(F_(), L(16, 5), Counting(), L(5, 3)),
        IMAGE,
        "layer '2' is Counting",
    ),
    "remembering": (
        lambda: nn.Sequential(F_(), Remembering(16, 5), nn.ReLU(), L(5, 3)),
        IMAGE,
        r"layer '1' \(Remembering\)",
    ),
    "clipping": (
        lambda: nn.Sequential(F_(), Clipping(16, 5), nn.ReLU(), L(5, 3)),
        IMAGE,
        r"layer '1' \(Clipping\)",
    ),
}


def drawn(network, seed):
    """Random weights, in double precision."""
    g = torch.Generator().manual_seed(seed)
    return {
        key: torch.randn(p.shape, generator=g, dtype=torch.float64)
        for key, p in network.named_parameters()
    }


def naive(make, weights, x, statistics=True):
    """What the network says with these weights loaded into it, statistics taken on x or not."""
    network = make().double()
    with torch.no_grad():
        for key, p in network.named_parameters():
            p.copy_(weights[key])
        network.eval()
        for module in network.modules() if statistics else ():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.train().momentum = 1.0
        if any(m.training for m in network.modules()):
            network(x.clone())
        return network.eval()(x.clone())
