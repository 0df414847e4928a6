"""Chapter 6. WA-ensembles: many heads on the layers that one network has below.

A layer of each network is solved for, so that on what the first network's layers compute it says
what it said on its own. All networks then share these layers: an ensemble for less than its price.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..checks import check_inputs, check_list, check_network, check_split, check_whole, check_word
from ..data import Split
from ..evaluation import Score
from ..stages import Stages, run_stages
from ..weights import Weights, check_weights
from .follower import Follower
from .least_squares import RIDGE


@dataclass(frozen=True)
class Ensemble:
    """Networks whose first stages are the same, and whose answers are averaged.

    Attributes
    ----------
    network : nn.Module
        The architecture.
    members : sequence of Weights
    layer : str
        The layer from which on they differ.
    """

    network: nn.Module
    members: Sequence[Weights]
    layer: str

    def __post_init__(self) -> None:
        check_network(self.network)
        check_word(self.layer, "layer")
        for k, w in enumerate(check_list(self.members, "members", "Weights")):
            check_weights(w, like=self.network if k == 0 else self.members[0], name=f"members[{k}]")

    @torch.no_grad()
    def probabilities(self, x: Tensor) -> Tensor:
        """Mean of the members' probabilities: shape (images, classes).

        What they share is computed once. Averaged are probabilities, as in the released code
        [1]_; the mean of outputs, which a last layer of averaged weights would give, is another.

        Raises
        ------
        ValueError
            If the inputs do not fit the network, which has no such layer, or outputs overflow.

        References
        ----------
        .. [1] github.com/avecplezir/distribution-based-connectivity
        """
        first = self.members[0]
        x = check_inputs(x).to(next(iter(first.values())))
        stages = Stages(self.network, first, x)
        at = _place(stages, self.layer)
        below, above = stages.chain[:at], stages.chain[at:]
        found = []
        for images in stages.chunks(len(x)):
            h = run_stages(below, first, stages.own(x[images]))
            heads = [run_stages(above, w, h.clone()).softmax(1) for w in self.members]
            found.append(torch.stack(heads).mean(0))
        p = torch.cat(found)
        if not torch.isfinite(p).all():
            raise ValueError("outputs of the ensemble are not finite: the weights overflow")
        return p

    def score(self, split: Split) -> Score:
        """Mean negative log-likelihood in nats, and accuracy.

        Raises
        ------
        ValueError
            As `probabilities`, or if the network gives no number for each class of the split.
        """
        p, y = self.probabilities(check_split(split).x), split.y
        if p.dim() != 2 or p.shape[1] < len(split.classes):
            raise ValueError(
                f"{split.name!r} has {len(split.classes)} classes, the network gives outputs of"
                f" shape {tuple(p.shape[1:])}; use a network with one output for each class"
            )
        y = y.to(p.device)
        nats = -p.gather(1, y[:, None]).clamp(min=torch.finfo(p.dtype).tiny).log()
        return Score(float(nats.double().mean()), float((p.argmax(1) == y).double().mean()))

    def cost(self, x: Tensor) -> tuple[int, int]:
        """Numbers stored, and multiplications for an image like those of x, shape (images, …)."""
        first = self.members[0]
        h = check_inputs(x)[:1].to(next(iter(first.values())))
        stages = Stages(self.network, first, h)
        at, stored, done = _place(stages, self.layer), 0, 0
        with torch.no_grad():
            for k, stage in enumerate(stages.chain):
                times = 1 if k < at else len(self.members)
                h = stage(first, h)
                stored += times * sum(first[key].numel() for key in stage.keys)
                weights = sum(first[key].numel() for key in stage.keys if first[key].dim() > 1)
                done += times * weights * (h[0, 0].numel() if h.dim() > 2 else 1)
        return stored, done


def wa_ensemble(
    network: nn.Module,
    weights: Sequence[Weights],
    split: Split,
    n: int = 1,
    *,
    ridge: float = RIDGE,
) -> Ensemble:
    """WA(n) of several networks: the n-th linear layer from the last is adjusted [1]_.

    Below it all compute what the first network does. In it each member has weights with which it
    comes closest, on the split, to saying what it says on its own, and its own bias; above it, its
    own layers. WA(1) shares all but the outputs' layer. With n the number of layers nothing is
    below, nothing is adjusted, and it is the ensemble of independent networks.

    Parameters
    ----------
    network : nn.Module
        The architecture. In residual networks blocks are not cut, and do not count.
    weights : sequence of Weights
    split : Split
        Its inputs are what layers are solved on.
    n : int
    ridge : float
        As for `least_squares`.

    Raises
    ------
    ValueError
        If weights and split do not fit, the network is not understood or normalises, or it has
        fewer than n linear layers.

    References
    ----------
    .. [1] Anokhin and Yarotsky, Low-loss connection of weight vectors: distribution-based
       approaches, 2020, section 6.
    """
    check_network(network)
    many = check_list(weights, "weights", "Weights")
    for k, w in enumerate(many):
        check_weights(w, like=many[0] if k else network, name=f"weights[{k}]")
    first, *others = many
    stages = Follower(network, first, check_split(split).x, ridge=ridge).stages
    linear = [i for i, stage in enumerate(stages.chain) if stage.linear]
    at = linear[-check_whole(n, "n", low=1, high=len(linear))]
    below = {key for stage in stages.chain[:at] for key in stage.keys}
    layer = next(iter(stages.chain[at].keys)).rpartition(".")[0]
    members = [first]
    for w in others:
        shared = w | {key: first[key] for key in below}
        follow = Follower(network, w, split.x, ridge=ridge)
        members.append(follow(shared, [f"{layer}.weight"]) if below else w)
    return Ensemble(network, members, layer)


def _place(stages: Stages, layer: str) -> int:
    """Which stage the layer is; the network itself, if it is a single layer, has no name."""
    weight = f"{layer}.weight" if layer else "weight"
    places = [i for i, stage in enumerate(stages.chain) if weight in stage.keys]
    if not places:
        raise ValueError(f"no stage of this network is a layer {layer!r} with a weight")
    return places[0]
