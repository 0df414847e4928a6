"""Training of flows by the loss half-way, a *Bijection*, and what a step of it costs."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path as FilePath

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ..checkpoints import architecture, digest
from ..checks import check_number, check_split, check_whole
from ..data import Split
from ..neurons import with_butterflies
from ..training import Augment, augmented_twice
from ..weights import Weights, apply, copy_of, stack
from .fitting import Fit, FlowTraining
from .flow_training import new_flow, parted
from .flows import neuron_sample, the_layer
from .invertible import Flow


def fit_bijection(
    network: nn.Module,
    many: Sequence[Weights],
    split: Split,
    kind: str = "rnvp",
    *,
    layers: int = 6,
    hidden: int = 64,
    epochs: int = 60,
    pairs: int = 8,
    images: int = 512,
    t: float | None = 0.5,
    augment: Augment | None = None,
    shuffle: bool = True,
    rate: float = 2e-3,
    weight_decay: float = 1e-2,
    held_out: int = 0,
    seed: int = 0,
    progress: bool = False,
    checkpoint: str | FilePath | None = None,
) -> FlowTraining:
    """A flow whose paths have a low loss half-way [1]_: *Bijection* training, Eq. 8 at t = ½.

    Minimises the mean of L(ν⁻¹[cos(πt/2) ν(A) + sin(πt/2) ν(B)]) over pairs A ≠ B. The gradient
    passes through ν and ν⁻¹. Each pair comes once in an epoch: half-way its order makes no
    difference, and a t drawn uniformly makes up for it.

    Parameters
    ----------
    network : nn.Module
        The architecture, of one hidden layer.
    many : sequence of Weights
        Two networks or more, the more the better.
    split : Split
        The images and labels of the loss.
    kind : str
        With "iaf" a step takes many times as long; see `cost_of_a_step`.
    layers, hidden, rate, weight_decay, seed, progress, checkpoint
        As for `fit_likelihood`.
    epochs, pairs, images : int
        Passes over all pairs; pairs, and images drawn for all of them, in one step.
    t : float, optional
        Where on the path the loss is taken; None draws it anew for each pair, uniformly from 0 to
        1, as Eq. 8 does before its authors settle for the middle. (At another fixed t, a pair is
        seen in one order only.)
    augment : function, optional
        Changes a batch of images with a generator, as for `training.train`: best as the networks
        themselves were trained, or the loss is low on the split's own images alone.
    shuffle : bool
        Whether B's neurons come in a new random order each time. The network is the same, the
        pair another one: without it, few networks are soon learned by heart.
    held_out : int
        So many of the last networks are not learned from; the pairs of them choose the epoch.

    Raises
    ------
    ValueError
        As `fit_likelihood`, or if split and network do not fit.

    Notes
    -----
    What the paper does not have is `shuffle` and `augment`. Without both, a flow of 16 small
    networks learns pairs and images by heart, and leads unseen pairs below the arc.

    References
    ----------
    .. [1] Anokhin and Yarotsky, Low-loss connection of weight vectors: distribution-based
       approaches, 2020, section 3.3.
    """
    pairs, images = check_whole(pairs, "pairs", low=1), check_whole(images, "images", low=1)
    check_split(split)
    t = None if t is None else check_number(t, "t", low=0, high=1)
    rows = neuron_sample(network, many)
    own, others = parted(rows, held_out)
    if len(others) == 1:
        raise ValueError("held_out is 1, and one network makes no pair; hold out 0, or 2 or more")
    flow = new_flow(network, own.flatten(0, 1), kind, layers, hidden, seed)
    x, y = _fitting_images(network, many[0], split)
    tried = {}
    if augment is not None:
        few = augmented_twice(augment, x[:8])
        apply(network, many[0], few)
        tried["augmented images"] = few.cpu()
    loss_at = _LossAt(network, flow, rows, stack(many))
    learned = torch.tensor(list(combinations(range(len(own)), 2)))
    unseen = torch.tensor([*combinations(range(len(own), len(rows)), 2)] or [(0, 1)])

    def losses(g: torch.Generator) -> Iterator[Tensor]:
        for chosen in torch.randperm(len(learned), generator=g).split(pairs):
            order = torch.rand(len(chosen), rows.shape[1], generator=g).argsort(1)
            some = torch.randperm(len(y), generator=g)[:images].to(y.device)
            seen = x[some] if augment is None else augment(x[some], g)
            at = torch.rand(len(chosen), generator=g) if t is None else torch.tensor(t)
            yield loss_at(at, learned[chosen], seen, y[some], order if shuffle else None).mean()

    def judge() -> Tensor:
        places = torch.tensor([0.25, 0.5, 0.75] if t is None else [t])
        each = [pair.expand(len(places), 2) for pair in unseen]
        return torch.stack([loss_at(places, pair, x, y).mean() for pair in each]).mean()

    words = {
        "pairs": repr(pairs),
        "t": repr(t),
        "shuffle": repr(shuffle),
        "trained by": "loss half-way",
    }
    words |= {"augment": "None" if augment is None else "given", "drawn": repr(images)}
    words |= {"images": digest([x]), "labels": digest([y])}
    words |= {"layers": digest([], architecture(network))}
    fit = Fit(flow, epochs, rate, weight_decay, held_out, seed, rows, words, tried)
    return fit.run(losses, judge, progress, checkpoint)


class _LossAt:
    """The loss at some t between pairs of networks, as a function of the flow's parameters."""

    def __init__(self, network: nn.Module, flow: Flow, rows: Tensor, many: Weights) -> None:
        self.network, self.layer = copy_of(network).eval(), the_layer(network)
        self.flow, self.rows = flow, rows
        self.many = {key: w.detach() for key, w in many.items()}

    def __call__(
        self, t: Tensor, pairs: Tensor, x: Tensor, y: Tensor, order: Tensor | None = None
    ) -> Tensor:
        """Mean loss at t, shape (P,) or (), between these pairs, (P, 2): shape (P,).

        The second network's neurons come in this order, shape (P, n), if one is given.
        """
        i, j = pairs.to(self.rows.device).T
        a, b = self.rows[i], self.rows[j]  # (P, n, D)
        if order is not None:
            b = b.gather(1, order.to(b.device)[..., None].expand_as(b))
        angle = (math.pi / 2 * t).to(a).expand(len(a))
        cos, sin = angle.cos(), angle.sin()
        start, end = self.flow.latent(a), self.flow.latent(b)
        rows = self.flow.neurons(cos[:, None, None] * start + sin[:, None, None] * end)

        def outputs(rows: Tensor, one: Weights, two: Weights, cos: Tensor, sin: Tensor) -> Tensor:
            # What is no part of a neuron, the output bias, moves around its midpoint.
            rest = {k: (w + two[k]) / 2 + (cos - sin) * (w - two[k]) / 2 for k, w in one.items()}
            weights = with_butterflies(rest, self.layer, rows)
            return functional_call(self.network, weights, (x,))

        one, two = ({key: w[k] for key, w in self.many.items()} for k in (i, j))
        out = vmap(outputs)(rows, one, two, cos, sin)  # (P, images, classes)
        nats = F.cross_entropy(out.flatten(0, 1), y.repeat(len(pairs)), reduction="none")
        return nats.view(len(pairs), -1).mean(1)


@dataclass(frozen=True)
class StepCost:
    """What a step of a training costs: seconds of the processor, and megabytes kept for gradients.

    Attributes
    ----------
    seconds, megabytes : float
    """

    seconds: float
    megabytes: float


@torch.enable_grad()
def cost_of_a_step(
    network: nn.Module,
    many: Sequence[Weights],
    split: Split,
    kind: str = "rnvp",
    *,
    layers: int = 6,
    hidden: int = 64,
    pairs: int = 8,
    images: int = 512,
    times: int = 3,
) -> StepCost:
    """What one step of `fit_bijection` costs: why it is not done with "iaf".

    The gradient passes ν and ν⁻¹. One of them takes D steps one after another in an autoregressive
    flow, and what each of them saw is kept.

    Parameters
    ----------
    network, many, split, kind, layers, hidden, pairs, images
        As for `fit_bijection`; all pairs are of the first two networks.
    times : int
        So often is it done; the least seconds count.

    Raises
    ------
    ValueError
        As `fit_bijection`.
    """
    for name, value in {"times": times, "pairs": pairs, "images": images}.items():
        check_whole(value, name, low=1)
    rows = neuron_sample(network, many)
    x, y = (each[:images] for each in _fitting_images(network, many[0], split))
    flow = new_flow(network, rows.flatten(0, 1), kind, layers, hidden, seed=0)
    loss_at, half = _LossAt(network, flow, rows, stack(many)), torch.tensor(0.5)
    chosen = torch.tensor([[0, 1]]).expand(pairs, 2)
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    seconds = math.inf
    for _ in range(times):
        kept.clear()
        start = time.process_time()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = loss_at(half, chosen, x, y).mean()
        loss.backward()
        seconds = min(seconds, time.process_time() - start)
    bytes_kept = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    return StepCost(seconds, bytes_kept / 1e6)


def _fitting_images(network: nn.Module, weights: Weights, split: Split) -> tuple[Tensor, Tensor]:
    """Images and labels on the weights' device, once one image has passed through the network."""
    like = next(iter(weights.values()))
    x, y = check_split(split).x.to(like), split.y.to(like.device)
    outputs = apply(network, weights, x[:1]).shape[-1]
    if outputs < len(split.classes):
        raise ValueError(f"the network has {outputs} outputs for {len(split.classes)} classes")
    return x, y
