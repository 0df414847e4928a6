"""Chapter 6. Layers that follow: whatever moves below, they go on saying what they said.

Each of them is a least-squares problem over all images and, for a convolution, all places. Images
come a chunk at a time: however many there are, memory is the same.
"""

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..anatomy import batch_norms
from ..checks import (
    check_inputs,
    check_list,
    check_network,
    check_number,
    check_word,
    describe,
)
from ..networks import ResidualBlock
from ..neurons import tried_layers
from ..stages import Stages, run_stages
from ..weights import Weights, check_weights
from .least_squares import RIDGE, least_squares

ROWS = 4096  # images, or places of images, at a time
KEPT = 16_777_216  # numbers of a layer's targets that are kept between two calls: 64 megabytes


def patches(module: nn.Module, h: Tensor) -> Tensor:
    """What a linear layer multiplies its weights with: shape (images · places, d).

    For `nn.Linear` its inputs; for `nn.Conv2d` all patches of them, at every place, channels
    first, as its weight has them: `weight.flatten(1)`.

    Raises
    ------
    ValueError
        For another module, a convolution in groups, or h of another shape.
    """
    if not isinstance(module, nn.Linear | nn.Conv2d) or getattr(module, "groups", 1) != 1:
        raise ValueError(f"module must be a Linear, or a Conv2d of 1 group, not {describe(module)}")
    axes, n = module.weight.dim(), module.weight.shape[1]
    if not isinstance(h, Tensor) or h.dim() != axes or h.shape[1] != n:
        shape = f"(images, {n}" + (")" if axes == 2 else ", height, width)")
        raise ValueError(f"h must be a tensor of shape {shape}, not {describe(h)}")
    if isinstance(module, nn.Linear):
        return h
    how = "constant" if module.padding_mode == "zeros" else module.padding_mode
    h = F.pad(h, module._reversed_padding_repeated_twice, mode=how)
    spans = [(k - 1) * d + 1 for k, d in zip(module.kernel_size, module.dilation, strict=True)]
    if any(side < span for side, span in zip(h.shape[2:], spans, strict=True)):
        raise ValueError(f"h must be as large as the kernel, {spans}, not {list(h.shape[2:])}")
    found = F.unfold(h, module.kernel_size, module.dilation, stride=module.stride)
    return found.transpose(1, 2).flatten(0, 1)


class Follower:
    """Keeps what a network's layers say, as closely as their weights can, whatever moves below.

    Parameters
    ----------
    network : nn.Module
        The architecture.
    a : Weights
        With which layers say what they are to go on saying; biases apart, which stay [1]_.
    x : Tensor, shape (images, …)
        The images on which they do.
    ridge : float
        As for `least_squares`.
    b : Weights, optional
        Other weights, of which the outputs may become a share of what is said.

    Raises
    ------
    ValueError
        If the weights or inputs do not fit, the network is not understood, or it normalises.

    References
    ----------
    .. [1] Anokhin and Yarotsky, Low-loss connection of weight vectors: distribution-based
       approaches, 2020, Eq. 9, 10 and section 4.
    """

    def __init__(
        self,
        network: nn.Module,
        a: Weights,
        x: Tensor,
        *,
        ridge: float = RIDGE,
        b: Weights | None = None,
    ) -> None:
        check_weights(a, like=check_network(network), name="a")
        if b is not None:
            check_weights(b, like=a, name="b")
        tried_layers(network, check_inputs(x))
        if norms := batch_norms(network):
            raise ValueError(
                f"layer {norms[0]!r} normalises, so what is heard depends on the images that come"
                " together; weight adjustment knows networks without BatchNorm"
            )
        self.a, self.b, self.x = a, b, x.to(next(iter(a.values())))
        self.ridge = check_number(ridge, "ridge", low=0)
        self.stages = Stages(network, a, self.x)
        self.outputs = [key for stage in self.stages.chain for key in stage.names.values()][-1]
        self.outputs = self.outputs.removesuffix("bias").removesuffix("weight") + "weight"
        self.known: dict[tuple[str, str, int, int], Tensor] = {}

    @torch.no_grad()
    def __call__(self, weights: Weights, tensors: Sequence[str], share: float = 0.0) -> Weights:
        """The weights in which these tensors are solved for, one after another.

        Parameters
        ----------
        weights : Weights
        tensors : sequence of str
            Weights of linear layers, from the inputs up.
        share : float
            How much of the outputs is to be b's, and of their bias. What hidden layers say in a
            and in b are words of two languages: there it is a's whatever the share.

        Raises
        ------
        ValueError
            If the weights do not fit, a tensor is no weight of a linear layer, the share is not in
            [0, 1] or there is no b, or as `least_squares`.
        """
        check_weights(weights, like=self.a)
        self._check_share(share)
        for tensor in check_list(tensors, "tensors", "names", least=0):
            rows = len(self.x) * len(self._heard(self.a, tensor, self.x[:1]))
            parts = (
                (self._heard(weights, tensor, self.x[images]), self._targets(tensor, images, share))
                for images in self._chunks(rows // len(self.x))
            )
            found = least_squares(parts, rows, self.ridge)
            weights = weights | {tensor: found.view_as(weights[tensor]).to(weights[tensor])}
            bias = tensor[: -len("weight")] + "bias"
            if share and tensor == self.outputs and self.b and bias in weights:
                weights[bias] = torch.lerp(self.a[bias], self.b[bias], share)
        return weights

    @torch.no_grad()
    def residual(self, weights: Weights, tensor: str, share: float = 0.0) -> float:
        """How far a layer is from saying what it should: ‖Φ Wᵀ − Y‖ / ‖Y‖.

        Errors are those of a call.
        """
        check_weights(weights, like=self.a)
        self._check_share(share)
        missed = wanted = 0.0
        for images in self._chunks(len(self._heard(self.a, tensor, self.x[:1]))):
            y = self._targets(tensor, images, share)
            said = self._heard(weights, tensor, self.x[images]) @ weights[tensor].flatten(1).T
            missed += float((said - y).double().square().sum())
            wanted += float(y.double().square().sum())
        if not math.isfinite(missed):
            raise ValueError(f"what {tensor!r} says is not finite; scale the weights down")
        return (missed / wanted) ** 0.5 if wanted else missed**0.5

    def heard(self, weights: Weights, tensor: str, x: Tensor) -> Tensor:
        """What a weight is multiplied with: shape (images · places, d).

        Raises
        ------
        ValueError
            If the weights or inputs do not fit, or no linear layer has a weight of this name.
        """
        check_weights(weights, like=self.a)
        if check_inputs(x).shape[1:] != self.x.shape[1:]:
            wanted, found = (tuple(t.shape[1:]) for t in (self.x, x))
            raise ValueError(f"x holds inputs of shape {found}; {wanted} is what the network takes")
        return self._heard(weights, tensor, x.to(self.x))

    def _check_share(self, share: float) -> None:
        if check_number(share, "share", low=0, high=1) and self.b is None:
            raise ValueError("a share of b's outputs is asked for; give b")

    def _chunks(self, places: int) -> Iterator[slice]:
        """Slices of the images: ROWS places in each, unless activations then became too many."""
        step = max(1, min(ROWS // places, 16 * self.stages.step))
        for start in range(0, len(self.x), step):
            yield slice(start, min(start + step, len(self.x)))

    def _heard(self, weights: Weights, tensor: str, x: Tensor) -> Tensor:
        """`heard`, of what is known to fit."""
        stages = self.stages.chain
        check_word(tensor, "each of tensors")
        at = next((i for i, stage in enumerate(stages) if tensor in stage.keys), len(stages))
        module = stages[at].module if at < len(stages) else None
        known = isinstance(module, nn.Linear | nn.Conv2d | ResidualBlock)
        if not known or not tensor.endswith("weight"):
            raise ValueError(f"no linear layer of this network has a weight {tensor!r}")
        h = run_stages(stages[:at], weights, self.stages.own(x))
        if tensor.endswith(".leave.weight") and isinstance(module, ResidualBlock):
            # What its forward does before it leaves.
            enter = tensor.replace(".leave.", ".enter.")
            bias = weights.get(enter.removesuffix("weight") + "bias")
            h = F.linear(h, weights[enter], bias).relu()
        return h if isinstance(module, ResidualBlock) else patches(module, h)

    def _targets(self, tensor: str, images: slice, share: float = 0.0) -> Tensor:
        """What a layer should say, without its bias: shape (images · places, m)."""
        said = self._said("a", self.a, tensor, images)
        if share and tensor == self.outputs and self.b:
            said = torch.lerp(said, self._said("b", self.b, tensor, images), share)
        return said

    def _said(self, who: str, weights: Weights, tensor: str, images: slice) -> Tensor:
        key = who, tensor, images.start, images.stop
        if key in self.known:
            return self.known[key]
        heard = self._heard(weights, tensor, self.x[images])
        said = heard @ weights[tensor].flatten(1).T
        count = images.stop - images.start
        if said.numel() // count * len(self.x) <= KEPT:
            self.known[key] = said
        return said
