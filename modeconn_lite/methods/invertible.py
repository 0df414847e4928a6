"""Maps that can be walked both ways, and how much volume they make of little: flows' layers.

A `Flow` takes a neuron to a latent, the neuron's image under ν, and back.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import check_choice, check_list, check_whole, describe

LOG_SCALE = 2.0  # no layer stretches or shrinks a coordinate by more than e to this
NARROW = 1e-3  # least spread in any direction, against the mean one: dead neurons may have none


class Coupling(nn.Module):
    """Every second coordinate is stretched and shifted as the others say [1]_.

    Those others stay, so that the way back is known: as fast, and exact but for rounding.

    References
    ----------
    .. [1] Dinh, Sohl-Dickstein and Bengio, Density estimation using Real NVP, 2017.
    """

    def __init__(self, size: int, hidden: int, place: int) -> None:
        super().__init__()
        self.kept, self.moved = slice(place % 2, None, 2), slice(1 - place % 2, None, 2)
        kept, moved = len(range(size)[self.kept]), len(range(size)[self.moved])
        last = nn.Linear(hidden, 2 * moved)
        self.net = nn.Sequential(
            nn.Linear(kept, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(), last
        )
        _silence(last.weight, last.bias)

    def _scale_and_shift(self, x: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = self.net(x[..., self.kept]).chunk(2, -1)
        return _clamped(raw), shift

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Towards the latents, and the logarithm of how much volume grows: shapes (…, D), (…)."""
        log_scale, shift = self._scale_and_shift(x)
        z = x.clone()
        z[..., self.moved] = x[..., self.moved] * log_scale.exp() + shift
        return z, log_scale.sum(-1)

    def back(self, z: Tensor) -> Tensor:
        """The inverse."""
        log_scale, shift = self._scale_and_shift(z)
        x = z.clone()
        x[..., self.moved] = (z[..., self.moved] - shift) * (-log_scale).exp()
        return x


class InverseAutoregressive(nn.Module):
    """Each coordinate of a neuron is stretched and shifted as the latents before it say [1]_.

    From latents to neurons, x_i = z_i · exp(s_i(z_<i)) + m_i(z_<i), is a single pass of a masked
    network [2]_: all z are there. From neurons to latents takes D steps one after another, since
    z_i asks for z_1 … z_{i−1}. (The transpose, in which s and m read the x before, is fast towards
    the latents and slow back; it is called a masked autoregressive flow.)

    References
    ----------
    .. [1] Kingma et al., Improved Variational Inference with Inverse Autoregressive Flow, 2016.
    .. [2] Germain et al., MADE: Masked Autoencoder for Distribution Estimation, 2015.
    """

    into_mask: Tensor
    out_mask: Tensor

    def __init__(self, size: int, hidden: int, place: int) -> None:
        super().__init__()
        self.backwards = bool(place % 2)  # every second layer starts from the last coordinate
        self.into, self.out = nn.Linear(size, hidden), nn.Linear(hidden, 2 * size)
        _silence(self.out.weight, self.out.bias)
        last = torch.arange(hidden) * (size - 1) // hidden  # the last z that a hidden unit reads
        rank = torch.arange(size)
        into_mask = (rank <= last[:, None]).float()
        out_mask = (last < rank[:, None]).float().repeat(2, 1)  # of scales, then of shifts
        self.register_buffer("into_mask", into_mask, persistent=False)
        self.register_buffer("out_mask", out_mask, persistent=False)

    def _masked(self) -> tuple[Tensor, Tensor]:
        return self.into.weight * self.into_mask, self.out.weight * self.out_mask

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Towards the latents: as many steps as coordinates."""
        x = x.flip(-1) if self.backwards else x
        into, out = self._masked()
        seen = self.into.bias  # what hidden units have read, of the latents that are known
        latents, scales = [], []
        for i in range(x.shape[-1]):
            two = slice(i, None, x.shape[-1])  # this coordinate's scale and shift
            raw, shift = (seen.tanh() @ out[two].T + self.out.bias[two]).unbind(-1)
            log_scale = _clamped(raw)
            z = (x[..., i] - shift) * (-log_scale).exp()
            seen = seen + z[..., None] * into[:, i]
            latents.append(z)
            scales.append(log_scale.expand_as(z))
        z = torch.stack(latents, -1)
        return z.flip(-1) if self.backwards else z, -torch.stack(scales, -1).sum(-1)

    def back(self, z: Tensor) -> Tensor:
        """From latents to neurons: one pass."""
        z = z.flip(-1) if self.backwards else z
        into, out = self._masked()
        hidden = (z @ into.T + self.into.bias).tanh()
        raw, shift = (hidden @ out.T + self.out.bias).chunk(2, -1)
        x = z * _clamped(raw).exp() + shift
        return x.flip(-1) if self.backwards else x


KINDS = {"rnvp": Coupling, "iaf": InverseAutoregressive}


def _clamped(raw: Tensor) -> Tensor:
    return LOG_SCALE * (raw / LOG_SCALE).tanh()


@torch.no_grad()
def _silence(*parameters: Tensor) -> None:
    """Zeros, so that an untrained layer changes nothing."""
    for p in parameters:
        p.zero_()


class Flow(nn.Module):
    """An invertible map ν from neurons to latents, meant to be standard Gaussian.

    The first step is affine: `fit_gaussian` lets it make coordinates uncorrelated, with mean 0 and
    variance 1. The layers that follow change nothing until they are trained. Each neuron is moved
    by itself, whatever the others are.

    Parameters
    ----------
    parts : sequence of int
        How many numbers of a neuron stand in each tensor; see `neuron_parts`.
    kind : str
        "rnvp": both directions take one pass. "iaf": ν⁻¹ takes one pass, ν takes D steps one
        after another, D being the numbers of a neuron.
    layers, hidden : int
        Number of layers, and width of the networks in them. With no layer it is a Gaussian of
        full covariance, and its path an arc.
    seed : int
        Draws the layers' initial weights.

    Raises
    ------
    ValueError
        If there is no such kind, or a number is out of range.
    """

    mean: Tensor
    root: Tensor
    inverse: Tensor
    volume: Tensor

    def __init__(
        self,
        parts: Sequence[int],
        kind: str = "rnvp",
        *,
        layers: int = 6,
        hidden: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__()
        parts = check_list(parts, "parts", "whole numbers")
        self.parts = tuple(check_whole(p, "each of parts", low=1) for p in parts)
        self.kind, self.size = check_choice(kind, "kind", KINDS), sum(self.parts)
        check_whole(self.size, "the size of a neuron", low=2)
        self.hidden = check_whole(hidden, "hidden", low=1)
        self.register_buffer("mean", torch.zeros(self.size))
        self.register_buffer("root", torch.eye(self.size))  # of the covariance, symmetric
        self.register_buffer("inverse", torch.eye(self.size))
        self.register_buffer("volume", torch.zeros(()))  # log |det| of the inverse
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(check_whole(seed, "seed"))
            depth = check_whole(layers, "layers")
            self.layers = nn.ModuleList(KINDS[kind](self.size, hidden, k) for k in range(depth))

    @torch.no_grad()
    def fit_gaussian(self, x: Tensor) -> None:
        """Let the affine step standardise these neurons, shape (n, D).

        By the symmetric root of their covariance. Directions in which they hardly vary, or cannot
        because they are few, count as if they varied by `NARROW` of the mean.

        Raises
        ------
        ValueError
            If they are no such neurons, or none, or not finite.
        """
        rows = self._checked(x).reshape(-1, self.size).double()
        if not len(rows) or not torch.isfinite(rows).all():
            raise ValueError("a Gaussian needs neurons, one at least, whose numbers are all finite")
        covariance = (rows - rows.mean(0)).T @ (rows - rows.mean(0)) / len(rows)
        values, axes = torch.linalg.eigh(covariance)
        floor = NARROW**2 * values.mean().clamp(min=torch.finfo(torch.float32).tiny)
        spreads = values.clamp(min=floor).sqrt()
        self.mean.copy_(rows.mean(0))
        self.root.copy_((axes * spreads) @ axes.T)
        self.inverse.copy_((axes / spreads) @ axes.T)
        self.volume.copy_(-spreads.log().sum())

    def transform(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latents of neurons, and log |det ∂ν/∂x|: shape (…, D) → (…, D), (…)."""
        z = (self._checked(x) - self.mean) @ self.inverse
        volume = self.volume.expand(x.shape[:-1])
        for layer in self.steps:
            z, more = layer(z)
            volume = volume + more
        return z, volume

    def latent(self, x: Tensor) -> Tensor:
        """ν: latents of neurons, shape (…, D) → (…, D)."""
        return self.transform(x)[0]

    def neurons(self, z: Tensor) -> Tensor:
        """ν⁻¹: neurons of latents, shape (…, D) → (…, D)."""
        z = self._checked(z)
        for layer in reversed(self.steps):
            z = layer.back(z)
        return z @ self.root + self.mean

    def log_density(self, x: Tensor) -> Tensor:
        """log p(x) in nats, if latents are standard Gaussian: shape (…, D) → (…)."""
        z, volume = self.transform(x)
        return volume - (z.square().sum(-1) + self.size * math.log(2 * math.pi)) / 2

    @property
    def steps(self) -> list[Any]:
        """The layers, from neurons to latents: each a module that has `back` too."""
        return list(self.layers)

    def _checked(self, x: Tensor) -> Tensor:
        dense = isinstance(x, Tensor) and x.layout is torch.strided and not x.is_meta
        if not dense or not x.is_floating_point() or x.shape[-1:] != (self.size,):
            raise ValueError(
                f"this flow takes neurons of {self.size} numbers, a dense tensor of shape"
                f" (…, {self.size}), not {describe(x)}"
            )
        return x

    def __repr__(self) -> str:
        return (
            f"Flow({self.kind}, neurons of {self.size} numbers, {len(self.layers)} layers of"
            f" {self.hidden})"
        )
