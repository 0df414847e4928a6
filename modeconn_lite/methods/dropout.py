"""Dropout stability: a path through networks of which half the neurons are switched off.

The path is made of two moves. (a) Only the last layer moves: the outputs are linear in t, so a
convex loss stays below its worse end. (b) Only neurons that nothing reads move: the outputs stay
as they are. The slides to [1]_ give the path for three layers; here it is for any depth, for
neurons and for channels, with biases and odd widths. In the middle a third move saves many of
these: (c) readers change over from neurons to equal copies of them.

A walk is a path of straight pieces whose labels say what kind of move each is: "a", "b", "c", or
"d" for a direct line, on which anything may happen.

Hidden layers are counted from 0. `kept` names the neurons that stay, at most half of each layer.

References
----------
.. [1] Kuditipudi et al., Explaining Landscape Connectivity of Low-cost Solutions for Multilayer
   Nets, 2019.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import check_network, check_split, check_truth, check_whole, describe
from ..data import Split
from ..evaluation import profile
from ..joins import backward, concat
from ..neurons import mute
from ..paths import AnyPath, Path, polychain
from ..weights import Weights, check_weights
from .base import Method
from .stability import Kept, dropped, find_kept, layers_of, places_of, stability

Places = list[Tensor]  # for each hidden layer, which units hold a network's kept neurons, in order


@dataclass(frozen=True)
class Certificate:
    """The theorem's bound and what was measured on the path, in nats.

    Attributes
    ----------
    ends : pair of float
        Losses of A and B.
    epsilon : float
        What dropping costs: the largest ε of any suffix of layers of both, and no less than 0.
    highest : float
        Highest loss seen on the path.
    """

    ends: tuple[float, float]
    epsilon: float
    highest: float

    @property
    def bound(self) -> float:
        """max{L(A), L(B)} + ε."""
        return max(self.ends) + self.epsilon

    @property
    def holds(self) -> bool:
        """Whether the path stays below the bound, up to rounding."""
        return self.highest <= self.bound + 1e-6 * (1 + abs(self.bound))


def path_to_dropped(network: nn.Module, w: Weights, kept: Kept) -> Path:
    """From a network to its fully dropped version, in 4 (p − 2) + 2 moves for p layers of weights.

    From the top down, the idle half of each layer is made into a copy of the network with one
    more layer dropped (b), the last layer swings over to the copy (a), the kept half is made the
    same (b), and the last layer swings back (a). At the end all switched-off neurons are zero.
    For three layers these are states (1) to (7) of the slides to [1]_.

    Parameters
    ----------
    network : nn.Module
        The architecture: a plain chain; see `stability.layers_of`.
    w : Weights
        Where the path starts.
    kept : dict of str to integers
        For each hidden layer the neurons that stay, at most half of them.

    Raises
    ------
    ValueError
        If the weights do not fit, the network is no plain chain, or more than half of a layer is
        kept.

    References
    ----------
    .. [1] Kuditipudi et al., Explaining Landscape Connectivity of Low-cost Solutions for
       Multilayer Nets, 2019.
    """
    matrices = _Matrices(network, w)
    front = places_of(matrices.layers, kept)
    back = [elsewhere(units, units, n) for units, n in zip(front, matrices.sizes, strict=True)]
    top = len(front)  # the last layer's index among the p weight matrices
    home = dict(enumerate(front))
    half = [matrices.rescaled(s, home) for s in range(top + 1)]  # the kept blocks, times n / kept

    points, moves, now = [w], [], w

    def step(move: str, new: Weights) -> None:
        nonlocal now
        points.append(new)
        moves.append(move)
        now = new

    step("a", matrices.put(now, top, None, front[-1], half[top]))
    for s in range(top - 1, 0, -1):
        new = matrices.put(now, s, back[s], front[s - 1], half[s], front[s])
        for q in range(s + 1, top):
            new = matrices.put(new, q, back[q], back[q - 1], half[q], front[q])
        step("b", new)
        step("a", matrices.put(now, top, None, back[-1], half[top]))
        step("b", matrices.put(now, s, front[s], front[s - 1], half[s]))  # biases are its own
        step("a", matrices.put(now, top, None, front[-1], half[top]))
    step("b", matrices.alone(now, front))
    return polychain(points, name="to dropped", labels=moves)


def between_dropped(network: nn.Module, start: Weights, a: Kept, b: Weights, kept: Kept) -> Path:
    """From dropped A, whose idle neurons are unread, to dropped B, at home in B's own units.

    Five moves at any depth. B's kept neurons are written into units that A does not use (b), and
    the last layer swings over to them (a). Those that do not yet stand where they belong are
    written there a second time (b). Now readers everywhere change over to the neurons at home (c):
    what they read then is equal, so the outputs stay as they are. The rest is cleaned (b). If (c)
    moves the last layer only, as for two layers of weights, it is called (a).

    Parameters
    ----------
    network : nn.Module
        The architecture.
    start : Weights
        A with all its hidden layers dropped.
    a, kept : dict of str to integers
        The neurons that stay of A, and of B.
    b : Weights
        B, not dropped.

    Raises
    ------
    ValueError
        As `walk`; if a neuron of `start` is read that A does not keep.
    """
    matrices = _Matrices(network, b)
    check_weights(start, like=b, name="start")
    home, used = places_of(matrices.layers, kept), places_of(matrices.layers, a)
    for layer, units in zip(matrices.layers, used, strict=True):
        idle = mute(network, start, {layer.name: units}, rescale=False)
        reader = layer.outgoing[0].tensor
        if not torch.equal(idle[reader], start[reader]):
            raise ValueError(
                f"start is not dropped: in {reader!r} it reads neurons of layer {layer.name!r} that"
                " `a` does not keep; use stability.dropped"
            )
    guest = [elsewhere(u, h, n) for u, h, n in zip(used, home, matrices.sizes, strict=True)]
    top = len(home)
    half = [matrices.rescaled(s, dict(enumerate(home))) for s in range(top + 1)]
    bias = {key: b[key] for key in b if key not in matrices.inner}

    def placed(now: Weights, at: Places, reading: Places, who: list[Tensor]) -> Weights:
        """B's kept neurons number `who` at these units, reading those."""
        for q, few in enumerate(who):
            below = reading[q - 1] if q else None
            now = matrices.put(now, q, at[q][few], below, half[q][few], home[q][few])
        return now

    everyone = [torch.arange(len(units)) for units in home]
    away = [(g != h).nonzero()[:, 0] for g, h in zip(guest, home, strict=True)]
    points = [start, placed(start, guest, guest, everyone)]
    points.append(matrices.put(points[-1], top, None, guest[-1], half[top]) | bias)
    points.append(placed(points[-1], home, home, away))
    over = placed(points[-1], home, home, everyone)
    points.append(matrices.put(over, top, None, home[-1], half[top]))
    points.append(matrices.alone(points[-1], home))
    turned = [key for key in start if not torch.equal(points[3][key], points[4][key])]
    change = "c" if set(turned) - {matrices.tensors[top]} else "a"
    return polychain(points, name="between dropped", labels=("b", "a", "b", change, "b"))


def walk(network: nn.Module, a: Weights, b: Weights, kept_a: Kept, kept_b: Kept) -> Path:
    """A → dropped A → dropped B → B, neighbouring (b) moves not yet merged.

    For p layers of weights 8 (p − 2) + 9 moves.

    Parameters
    ----------
    network : nn.Module
        The architecture: a plain chain; see `stability.layers_of`.
    a, b : Weights
        Where the path starts and ends.
    kept_a, kept_b : dict of str to integers
        For each hidden layer the neurons that stay, at most half of them.

    Raises
    ------
    ValueError
        If the weights do not fit, the network is no plain chain, or more than half of a layer is
        kept.
    """
    _check_ends(network, a, b)
    out, back = path_to_dropped(network, a, kept_a), path_to_dropped(network, b, kept_b)
    across = between_dropped(network, out.anchors[-1], kept_a, b, kept_b)
    return concat(out, across, backward(back), name="dropout path")


def _check_ends(network: nn.Module, a: Weights, b: Weights) -> None:
    """Two weight vectors of the network."""
    check_weights(a, like=check_network(network), name="a")
    check_weights(b, like=a, name="b")


def merged(walk: AnyPath) -> Path:
    """The same with neighbouring (b) moves made at once: both move idle neurons only.

    Raises
    ------
    ValueError
        If the path has no labels to say what its moves are.
    """
    if not isinstance(walk, AnyPath) or not walk.labels:
        raise ValueError(f"a path with labels is needed, as `walk` gives it, not {describe(walk)}")
    moves, corners = walk.labels, walk.corners()
    inner = [k for k in range(1, len(moves)) if tuple(moves[k - 1 : k + 1]) != ("b", "b")]
    stops = [0, *inner, len(moves)]
    labels = [moves[k] for k in stops[:-1]]
    return polychain([corners[k] for k in stops], name=walk.name, labels=labels)


def direct_walk(network: nn.Module, a: Weights, b: Weights, kept_a: Kept, kept_b: Kept) -> Path:
    """A → dropped A and dropped B → B each in one straight line (d): seven pieces at any depth.

    All layers are dropped at once, which asks for more than dropout stability: the line itself
    must be low, as noise stability promises ([1]_, with ten pieces). Parameters are those of
    `walk`.

    References
    ----------
    .. [1] Kuditipudi et al., Explaining Landscape Connectivity of Low-cost Solutions for
       Multilayer Nets, 2019.
    """
    _check_ends(network, a, b)
    start, end = dropped(network, a, kept_a), dropped(network, b, kept_b)
    across = between_dropped(network, start, kept_a, b, kept_b)
    points = [a, *across.anchors[:-1], end, b]  # cleaning up here means: B's own idle neurons
    return polychain(points, name="direct dropout path", labels=["d", *across.labels, "d"])


def connect(
    network: nn.Module, a: Weights, b: Weights, split: Split, *, direct: bool = False, **search: Any
) -> Path:
    """The dropout path from a to b, its halves searched on `split`; see `find_kept`.

    Parameters
    ----------
    network : nn.Module
        The architecture.
    a, b : Weights
        Where the path starts and ends.
    split : Split
        On which the halves are searched.
    direct : bool
        Whether to take the seven pieces of `direct_walk`.
    **search
        Options of `find_kept`.

    Raises
    ------
    ValueError
        As `walk` and `find_kept`.
    """
    _check_ends(network, a, b)
    check_truth(direct, "direct")
    kept = [find_kept(network, w, split, **search) for w in (a, b)]
    if direct:
        return direct_walk(network, a, b, *kept)
    return merged(walk(network, a, b, *kept))


def certificate(
    network: nn.Module,
    a: Weights,
    b: Weights,
    kept_a: Kept,
    kept_b: Kept,
    split: Split,
    *,
    points: int = 5,
) -> Certificate:
    """Highest loss measured on the dropout path, and the bound of the theorem.

    Parameters
    ----------
    network, a, b, kept_a, kept_b
        As for `walk`.
    split : Split
        Where losses are measured.
    points : int
        Evaluations on each piece, two at least; a convex loss is highest at a knot, which is
        always one.

    Raises
    ------
    ValueError
        As `walk`; if points are too few.
    """
    check_split(split)
    check_whole(points, "points", low=2)
    path = merged(walk(network, a, b, kept_a, kept_b))
    seen = profile(network, path, split, (points - 1) * (len(path.knots) - 1) + 1)
    costs = [
        *stability(network, a, kept_a, split),
        *stability(network, b, kept_b, split),
    ]
    ends = (float(seen.loss[0]), float(seen.loss[-1]))
    return Certificate(ends, max(0.0, *costs), seen.worst_loss)


def elsewhere(taken: Tensor, goal: Tensor, n: int) -> Tensor:
    """Units among n for neurons that are to stand at `goal`, none of them taken: goal's shape.

    A neuron whose goal is free goes there; the others wait in units that are nobody's goal.
    """
    busy = set(taken.tolist())
    spare = iter([u for u in range(n) if u not in busy and u not in set(goal.tolist())])
    return torch.tensor([u if u not in busy else next(spare) for u in goal.tolist()])


class _Matrices:
    """The weight matrices W_0 … W_top of a chain, addressed by neurons of both sides."""

    def __init__(self, network: nn.Module, w: Weights) -> None:
        self.layers = layers_of(network)
        self.w = check_weights(w, like=network)
        self.sizes = [layer.size for layer in self.layers]
        readers = [layer.outgoing[0] for layer in self.layers]
        self.tensors = [f"{self.layers[0].name}.weight", *(s.tensor for s in readers)]
        self.widths = [1, *(s.each for s in readers)]
        self.inner = {t for layer in self.layers for t in layer.incoming} | {self.tensors[-1]}

    def _columns(self, s: int, units: Tensor) -> Tensor:
        """Columns of W_s that read these units: several each behind a flattened convolution."""
        width = self.widths[s]
        return (units[:, None] * width + torch.arange(width)).reshape(-1)  # (units · width,)

    def rescaled(self, s: int, home: Mapping[int, Tensor]) -> Tensor:
        """W_s between kept neurons, times n / kept of those it reads."""
        block = self.w[self.tensors[s]]  # (n_s, inputs), or (n_s, channels, height, width)
        if s < len(self.sizes):
            block = block[home[s].to(block.device)]  # (kept_s, …)
        if s == 0:
            return block
        columns = self._columns(s, home[s - 1]).to(block.device)  # (kept below · width,)
        return block[:, columns] * (self.sizes[s - 1] / len(home[s - 1]))

    def put(
        self,
        now: Weights,
        s: int,
        rows: Tensor | None,
        columns: Tensor | None,
        block: Tensor,
        source: Tensor | None = None,
    ) -> Weights:
        """`now` with rows of W_s that read through `block` the units `columns`, and nothing else.

        Parameters
        ----------
        rows : Tensor, shape (r,), or None
            Units of layer s; None for all of them (the last layer).
        columns : Tensor, shape (c,), or None
            Units of the layer below; None for all inputs (the first layer).
        block : Tensor, shape (r, c · width, …)
        source : Tensor, shape (r,), or None
            Whose biases these rows take, in the network whose blocks these are.
        """
        old = now[self.tensors[s]]
        rows = torch.arange(len(old)) if rows is None else rows
        fresh = old.new_zeros(len(rows), *old.shape[1:])  # (r, inputs, …)
        if columns is None:
            fresh = block
        else:
            fresh[:, self._columns(s, columns).to(old.device)] = block
        changed = now | {self.tensors[s]: old.index_copy(0, rows.to(old.device), fresh)}
        if source is not None:
            for key in self.layers[s].incoming[1:]:  # the bias, if there is one
                own = self.w[key][source.to(old.device)]  # (r,)
                changed[key] = now[key].index_copy(0, rows.to(old.device), own)
        return changed

    def alone(self, now: Weights, places: Places) -> Weights:
        """`now` with every neuron zero that is not among the places."""
        changed = dict(now)
        for layer, units in zip(self.layers, places, strict=True):
            for key in layer.incoming:
                mask = torch.zeros(layer.size).index_fill(0, units, 1.0).to(now[key])  # (n,)
                changed[key] = now[key] * mask.view(-1, *[1] * (now[key].dim() - 1))
        return changed


METHODS = (Method("dropout", "Dropout path", connect),)
