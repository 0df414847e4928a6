"""Networks with BatchNorm, run with running statistics that belong to the weights."""

import math
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .anatomy import batch_norms, facts
from .running import Runner
from .stages import BATCH, alone
from .weights import Weights, copy_of

# Activations of a layer while statistics are taken: as many images at a time as memory allows.
STATISTICS_FLOATS = (33_554_432, 268_435_456)


class WithStatistics:
    """A network with BatchNorm, run with statistics that belong to the weights."""

    def __init__(self, network: nn.Module, example: Tensor) -> None:
        self.network, self.norms = network, batch_norms(network)
        self.runner = Runner(network, example)
        self.tried = False

    def outputs(
        self, weights: Weights, x: Tensor, images: Tensor
    ) -> Iterator[tuple[slice, Tensor]]:
        """Outputs for x, statistics being those of `images`: some images at a time."""
        state = weights | self.statistics(weights, images)
        if not self.tried:
            alone(self.runner, state, x)
            self.tried = True
        for start in range(0, len(x), BATCH):
            part = slice(start, min(start + BATCH, len(x)))
            yield part, self.runner(state, x[part])

    def statistics(self, weights: Weights, images: Tensor) -> Weights:
        """Running means and variances, as one pass over all images in training mode leaves them.

        If there are too many for one pass: those of several parts, pooled.
        """
        norms = {name: self.network.get_submodule(name) for name in self.norms}
        flat = next((n for n, m in norms.items() if isinstance(m, nn.BatchNorm1d)), None)
        if len(images) == 1 and flat is not None:
            raise ValueError(
                f"one image has no variance for layer {flat!r} to normalise by; give more with"
                " statistics="
            )
        seen: dict[tuple[str, int], list[tuple[int, Tensor, Tensor]]] = {}
        uses: Counter[str] = Counter()  # of a layer in one pass: it may stand in several places

        def note(name: str, module: Any, given: tuple[Tensor, ...], out: Tensor) -> None:
            vectors = (module.running_mean, module.running_var)  # of this part: momentum is 1
            mean, variance = (v.to(torch.float64, copy=True) for v in vectors)
            count = given[0].numel() // given[0].shape[1]
            seen.setdefault((name, uses[name]), []).append((count, mean, variance))
            uses[name] += 1

        def set_hooks(copied: nn.Module) -> None:
            for name in norms:
                module: Any = copied.get_submodule(name)
                module.reset_running_stats()
                module.momentum = 1.0
                module.train().register_forward_hook(partial(note, name))

        for part in self.parts(weights, images):
            uses.clear()
            self.runner(weights, part, set_hooks)
        found: Weights = {}
        for name, module in norms.items():
            between = isinstance(module, nn.modules.batchnorm._BatchNorm)
            each = [_pooled(parts, between) for (n, _), parts in seen.items() if n == name]
            for key, vectors in zip(("mean", "var"), zip(*each, strict=True), strict=False):
                mean = torch.stack(vectors).mean(0).to(images)
                found[f"{name}.running_{key}".strip(".")] = mean
        return found

    def parts(self, weights: Weights, images: Tensor) -> Iterator[Tensor]:
        """All the images at once, or even parts of them in an order that is no order."""
        known, key = facts(self.network), ("widest", *images.shape[1:])
        if key not in known:
            known[key] = self.widest(weights, images[:1])
        room = STATISTICS_FLOATS[images.device.type != "cpu"]
        count = math.ceil(len(images) / max(room // known[key], BATCH))
        if count == 1:
            yield images
            return
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        for rows in order.tensor_split(count):  # even: none of one image
            yield images[rows.to(images.device)]

    def widest(self, weights: Weights, image: Tensor) -> int:
        """The most numbers that a module gives for one image."""
        sizes = [image.numel()]

        def note(module: nn.Module, given: Any, out: Any) -> None:
            if isinstance(out, Tensor):
                sizes.append(out.numel())

        def set_hooks(copied: nn.Module) -> None:
            for module in copied.modules():
                module.register_forward_hook(note)

        self.runner(weights, image, set_hooks)
        return max(sizes)


def settled(network: nn.Module, weights: Weights, x: Tensor) -> nn.Module:
    """The network, or with BatchNorm a copy that holds the statistics of these weights over x.

    A network's own statistics may belong to other weights.
    """
    if not batch_norms(network):
        return network
    example = next(iter(weights.values()))
    statistics = WithStatistics(network, example).statistics(weights, x.to(example))
    copied = copy_of(network)
    copied.load_state_dict(statistics, strict=False)
    return copied


def _pooled(parts: list[tuple[int, Tensor, Tensor]], between: bool) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance of all, from those of parts; with the variance between them."""
    counts = torch.tensor([count for count, _, _ in parts], dtype=torch.float64)
    shares = (counts / counts.sum()).to(parts[0][1].device)
    means, variances = (torch.stack(vectors) for vectors in list(zip(*parts, strict=True))[1:])
    mean = shares @ means  # (n,)
    if not between or len(parts) == 1:
        return mean, shares @ variances
    counts = counts.to(mean.device)
    squares = (counts - 1) @ variances + counts @ (means - mean).square()
    return mean, squares / (counts.sum() - 1)
