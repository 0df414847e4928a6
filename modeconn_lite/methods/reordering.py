"""Chapter 5. How B's neurons get their own order back: by which exchanges, or by none at all.

What happens while two neurons change places depends on these two alone, so a cycle can be undone
by cheap pairs or by dear ones (`exchanges_by`). With one neuron to spare it costs nothing
(`free_walk_back`): the spare neuron learns what another one receives, takes over what it sends,
and leaves that one to spare.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from graphlib import TopologicalSorter
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..activations import watch
from ..checks import check_choice, check_indices, check_split, check_whole, describe
from ..data import Split
from ..evaluation import evaluate
from ..exchanges import Orders, walk_back
from ..forward import Part, Stages, SweptPath, sweep
from ..layout import Hidden, Slice, hidden_layers
from ..neurons import butterflies, permute, reordered, tried_layers, with_butterflies
from ..paths import AnyPath, concat, polychain
from ..times import from_steps, sorted_times
from ..weights import Weights, check_weights, combined

Pairs = list[tuple[int, int]]
Choice = Literal["sum", "largest", "worst", "random"]
LONGEST = 1024  # cycles up to this length are undone by the best tree, in some two seconds
AT_ONCE = 4096  # pairs on one walk, which remembers where all neurons stand after each

# --- Which exchanges -----------------------------------------------------------------------------


def exchanges_by(
    order: Sequence[int] | Tensor, cost: Tensor, choose: Choice = "sum", *, seed: int = 0
) -> Pairs:
    """Exchanges of two places that turn `order` into 0, 1, 2, …, chosen by a cost of pairs.

    A cycle of L neurons takes L − 1 exchanges. Drawn as chords of a circle on which the neurons
    stand in the cycle's order, the pairs are a tree without crossings, and each such tree will
    do; there are L^(L−2) sequences [1]_ [2]_. The best tree is found by dynamic programming over
    arcs of the circle. A cycle longer than 1,024 is cut first, by its best pair, greedily.

    Parameters
    ----------
    order : integers, shape (n,)
        A permutation: place i holds neuron order[i].
    cost : Tensor, shape (n, n)
        Of exchanging neurons p and q; symmetric. For instance `exchange_losses`.
    choose : str
        "sum" for the least sum, "largest" for the least largest cost, "worst" for the greatest
        sum, "random" for pairs as in a sequence drawn with equal chances from all L^(L−2).
    seed : int
        What "random" draws under.

    Returns
    -------
    list of pairs of places
        For `exchanges.walk_back(..., swaps={name: ...})`.

    Raises
    ------
    ValueError
        If the order is no permutation, cost is no matrix of finite numbers for its pairs, or
        there is no such choice.

    Notes
    -----
    O(L³) for a cycle of length L.

    References
    ----------
    .. [1] Dénes, The representation of a permutation as the product of a minimal number of
       transpositions, and its connection with the theory of graphs, 1959.
    .. [2] Goulden and Yong, Tree-like properties of cycle factorizations, 2002.
    """
    check_choice(choose, "choose", ("sum", "largest", "worst", "random"))
    check_whole(seed, "seed")
    n = len(order) if isinstance(order, Sequence | Tensor) and not isinstance(order, str) else 0
    order = check_indices(order, n, "order", every=True).tolist()
    if not isinstance(cost, Tensor) or cost.shape != (n, n):
        raise ValueError(f"cost must be a matrix for {n} neurons, not {describe(cost)}")
    if not torch.isfinite(cost).all() or not torch.equal(cost, cost.T):
        raise ValueError("cost must be finite, and the same for (p, q) and (q, p)")
    cost = cost.detach().double().cpu() * (-1 if choose == "worst" else 1)
    generator = torch.Generator().manual_seed(seed)
    todo, places = _cycles(order), []
    where = {neuron: place for place, neuron in enumerate(order)}
    while todo:
        cycle = todo.pop()
        if choose != "random" and len(cycle) <= LONGEST:
            pairs = [(cycle[i], cycle[j]) for i, j in _tree(cost[cycle][:, cycle], choose)]
        else:  # one exchange makes two cycles of one
            i, j = _drawn(len(cycle), generator) if choose == "random" else _cut(cost, cycle)
            pairs = [(cycle[i], cycle[j])]
            todo += [part for part in (cycle[i:j], cycle[j:] + cycle[:i]) if len(part) > 1]
        for p, q in pairs:
            places.append((where[p], where[q]))
            where[p], where[q] = where[q], where[p]
    return places


def _cycles(order: Sequence[int]) -> list[list[int]]:
    """Cycles of two and more: each neuron stands where the one before it belongs."""
    found, seen = [], set()
    for start in range(len(order)):
        cycle, now = [], start
        while now not in seen:
            seen.add(now)
            cycle.append(now)
            now = order[now]
        if len(cycle) > 1:
            found.append(cycle)
    return found


def _tree(cost: Tensor, choose: str) -> Pairs:
    """The best tree of chords without crossings on L points of a circle, in an order that works.

    A tree on an arc i … j: the farthest chord (i, k) from i, and a tree on k … j. With the chord
    (i, k) itself, trees on i … m and m + 1 … k hang on its ends. Row d of a table is for arcs of
    d + 1 points, column i for the one that starts, or that ends, at i.
    """
    size, inf = len(cost), torch.inf
    add = torch.maximum if choose == "largest" else torch.add
    starts, ends, chords = (torch.full((size, size), inf, dtype=torch.float64) for _ in range(3))
    starts[0] = ends[0] = -inf if choose == "largest" else 0.0
    splits, farthest = (torch.zeros(size, size, dtype=torch.int64) for _ in range(2))
    for d in range(1, size):
        right = ends[:d].flip(0)[:, d:]  # trees that end at i + d, the longest first
        best, splits[d, : size - d] = add(starts[:d, : size - d], right).min(0)
        chords[d, : size - d] = add(best, cost.diagonal(d))
        best, far = add(chords[1 : d + 1, : size - d], right).min(0)
        starts[d, : size - d] = ends[d, d:] = best
        farthest[d, : size - d] = far + 1
    pairs, todo = [], [(0, size - 1)]
    while todo:
        i, j = todo.pop()
        if i < j:
            k = i + int(farthest[j - i, i])
            m = i + int(splits[k - i, i])
            pairs.append((i, k))
            todo += [(i, m), (m + 1, k), (k, j)]
    return _in_turn(pairs, size)


def _in_turn(pairs: Pairs, size: int) -> Pairs:
    """Chords in a sequence that undoes the cycle: at each point, they must come around it."""
    after: TopologicalSorter = TopologicalSorter({pair: () for pair in pairs})
    for point in range(size):
        own = [pair for pair in pairs if point in pair]
        own.sort(key=lambda pair: (sum(pair) - 2 * point) % size)
        for first, second in zip(own[1:], own, strict=False):
            after.add(second, first)
    return list(after.static_order())


def _cut(cost: Tensor, cycle: list[int]) -> tuple[int, int]:
    """The best pair of a long cycle."""
    inside = cost[cycle][:, cycle].fill_diagonal_(torch.inf)
    i, j = divmod(int(inside.argmin()), len(cycle))
    return min(i, j), max(i, j)


def _drawn(size: int, generator: torch.Generator) -> tuple[int, int]:
    """A first pair, as likely as there are sequences that start with it.

    A pair s apart leaves cycles of s and L − s, to be undone in s^(s−2) (L−s)^(L−s−2) ways, and
    their L − 2 exchanges mix in binom(L−2, s−1) ways.
    """
    s = torch.arange(1, size, dtype=torch.float64)
    other = size - s
    logs = (s - 2) * s.log() + (other - 2) * other.log() - s.lgamma() - other.lgamma()
    gap = 1 + int(torch.multinomial((logs - logs.max()).exp(), 1, generator=generator))
    i = int(torch.randint(size, (1,), generator=generator))
    j = (i + gap) % size
    return min(i, j), max(i, j)


@torch.no_grad()
def exchange_losses(network: nn.Module, b: Weights, name: str, split: Split) -> Tensor:
    """What the loss rises by half-way through each possible exchange: (n, n), nats, float64.

    Parameters
    ----------
    network : nn.Module
        The architecture, without BatchNorm.
    b : Weights
    name : str
        Of a hidden layer.
    split : Split
        Where losses are measured.

    Raises
    ------
    ValueError
        If there is no such layer, or weights, network and split do not fit.

    Notes
    -----
    There are n (n − 1)/2. For wide layers take distances of neurons: on digits their ranks and
    those of losses correlate by 0.7 to 0.8.
    """
    layers = {layer.name: layer for layer in tried_layers(network, check_split(split).x)}
    if name not in layers:
        raise ValueError(f"no hidden layer {name!r}; this network has {tuple(layers)}")
    size = layers[name].size
    pairs = torch.triu_indices(size, size, 1)  # (2, P)
    losses = torch.zeros(pairs.shape[1], dtype=torch.float64)
    for few in torch.arange(pairs.shape[1]).split(AT_ONCE):
        swaps = [pair for pair in pairs[:, few].T.tolist() for _ in range(2)]  # there and back
        walk = walk_back(network, b, {name: torch.arange(size)}, {name: swaps})
        half_way = (torch.arange(len(few), dtype=torch.float64) * 2 + 0.5) / len(swaps)
        for rows, images, out in sweep(network, walk, half_way, split.x, None):
            labels = split.y[images].to(out.device).expand(len(out), -1)
            each = F.cross_entropy(out.transpose(1, 2), labels, reduction="none")
            losses[few[rows]] += each.double().sum(1).cpu()
    found = torch.zeros(size, size, dtype=torch.float64)
    found[pairs[0], pairs[1]] = losses / len(split) - evaluate(network, b, split).loss
    return found + found.T


# --- No exchanges at all --------------------------------------------------------------------------


def free_walk_back(
    network: nn.Module, b: Weights, orders: Orders, split: Split | None = None
) -> AnyPath:
    """From the copy `permute(network, b, orders)` to b through one spare neuron in each layer.

    A neuron that nothing reads is to spare. If a layer has none, the one that is missed least is
    muted on a straight line first and restored at the end: see `muted`. In between, no output
    changes. Layers come one after another. A cycle of L neurons takes L + 1 hand-overs of
    two straight pieces each, the spare neuron's own cycle L − 1; then it receives its own again.

    Parameters
    ----------
    network : nn.Module
        The architecture.
    b : Weights
        Where the path ends.
    orders : dict of str to Tensor, shape (n,)
        As from `transport_matching`.
    split : Split, optional
        On which the neuron to mute is chosen, and its mean taken.

    Returns
    -------
    path
        Its labels say what each piece is: "mute", "receive", "hand over", "restore".

    Raises
    ------
    ValueError
        If an order is no permutation of a hidden layer, or weights and split do not fit.
    """
    permute(network, b, orders)  # checks everything
    layers = hidden_layers(network)
    todo = {name: torch.as_tensor(order).cpu() for name, order in orders.items()}
    parts: list[AnyPath] = []
    for layer in layers:
        steps = _cycles(todo[layer.name].tolist()) if layer.name in todo else []
        if not steps:
            continue
        spare, silent = muted(network, b, layer, split)
        order = todo.pop(layer.name)
        here, there = (reordered(layers, w, todo | {layer.name: order}) for w in (b, silent))
        walk = HandOvers(network, reordered(layers, silent, todo), layer, order, spare)
        if silent is b:
            parts.append(walk)
        else:
            end = reordered(layers, b, todo)
            parts.append(polychain([here, there], name="mute", labels=("mute",)))
            parts.append(walk)
            parts.append(polychain([walk.end, end], name="restore", labels=("restore",)))
    return concat(*parts, name="free walk back") if parts else walk_back(network, b, orders)


def muted(
    network: nn.Module, b: Weights, layer: Hidden, split: Split | None = None
) -> tuple[int, Weights]:
    """A neuron of the layer to spare, and b in which nothing reads it.

    That is the first that nothing reads in b; then b is returned as it is. Otherwise the one that
    its readers miss least: with data, its mean goes into their biases, if they have any, and what
    they miss is its deviation times what it sends. (To take the one whose silence gives the least
    loss instead would be to fit the data: on test images it does worse.) Without data, it is the
    one with the smallest product of what it receives and what it sends, in lengths.

    Raises
    ------
    ValueError
        If weights, network and split do not fit.
    """
    sent = Hidden(layer.name, layer.size, layer.outgoing)
    idle = (butterflies(b, sent) == 0).all(1).nonzero()[:, 0].tolist()
    if idle:
        return idle[0], b
    if split is None:
        received = Hidden(layer.name, layer.size, [s for s in layer.slices if s.axis == 0])
        missed = butterflies(b, received).norm(dim=1) * butterflies(b, sent).norm(dim=1)
        means = {}
    else:
        tried_layers(network, check_split(split).x)
        missed, means = _heard(network, b, layer, split.x)
    spare = int(missed.argmin())
    return spare, _without(b, layer, spare, means)


def _heard(
    network: nn.Module, b: Weights, layer: Hidden, x: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """What readers would miss of each neuron, squared, (n,), and its means as each hears it."""
    missed, means = torch.zeros(layer.size, dtype=torch.float64), {}
    readers = {s.tensor.removesuffix(".weight"): s for s in layer.outgoing}

    def note(name: str, given: Tensor, out: Tensor) -> None:
        s = readers[name]
        values = given.transpose(0, 1) if given.dim() > 2 else given.unflatten(1, (layer.size, -1))
        values = values.flatten(1)[..., None] if given.dim() > 2 else values.transpose(0, 1)
        mean = values.mean(1, keepdim=True)  # values: (n, images or their pixels, each)
        if f"{name}.bias" not in b:
            mean = torch.zeros_like(mean)
        spread = (values - mean).square().mean(1)  # (n, each)
        own = _columns(b, s, layer.size).square().sum((0, 3))  # (n, each)
        means[name] = mean[:, 0]
        missed.add_((own * spread).double().sum(1).cpu())

    watch(network, b, x, readers, note)
    return missed, means


def _columns(b: Weights, s: Slice, size: int) -> Tensor:
    """What reads each neuron in one tensor: (m, n, each, pixels of a kernel or 1)."""
    return b[s.tensor].reshape(len(b[s.tensor]), size, s.each, -1)


def _without(b: Weights, layer: Hidden, neuron: int, means: dict[str, Tensor]) -> Weights:
    """b in which nothing reads this neuron, its mean in the readers' biases."""
    silent = dict(b)
    for s in layer.outgoing:
        name = s.tensor.removesuffix(".weight")
        columns = _columns(b, s, layer.size).clone()
        if f"{name}.bias" in b and name in means:
            constant = columns[:, neuron].sum(2) @ means[name][neuron]  # (m,)
            silent[f"{name}.bias"] = b[f"{name}.bias"] + constant
        columns[:, neuron] = 0
        silent[s.tensor] = columns.view_as(b[s.tensor])
    return silent


class HandOvers(SweptPath):
    """The order of one layer undone through a spare neuron: `end` all along, as a function.

    Parameters
    ----------
    network : nn.Module
        The architecture.
    end : Weights
        Where the path ends; nothing in them reads the spare neuron.
    layer : Hidden
    order : Tensor, shape (n,)
        Which neuron stands in each place at the start.
    spare : int
    """

    def __init__(
        self, network: nn.Module, end: Weights, layer: Hidden, order: Tensor, spare: int
    ) -> None:
        self.end, self.order, self.spare = end, order.tolist(), spare
        self.received, self.sent = (
            Hidden(layer.name, layer.size, [s for s in layer.slices if s.axis == axis])
            for axis in (0, 1)
        )
        # A place receives what a neuron does, then takes over what it sends from another place.
        self.steps: list[tuple[str, int, int]] = []  # "receive", place, neuron; "hand over", places
        for place, giver, neuron in _moves(self.order, spare):
            self.steps += [("receive", place, neuron), ("hand over", place, giver)]
        self.steps.append(("receive", spare, spare))
        count = len(self.steps)
        knots = (*(k / count for k in range(count)), 1.0)
        labels = tuple(kind for kind, _, _ in self.steps)
        super().__init__(self._point, "hand-overs", knots, labels=labels)

    def _corner(self, k: int) -> Weights:
        received, sent = list(self.order), list(self.order)
        for kind, place, other in self.steps[:k]:
            if kind == "receive":
                received[place] = other
            else:
                sent[place], sent[other] = sent[other], sent[place]
        weights = self.end
        for part, order in ((self.received, received), (self.sent, sent)):
            weights = with_butterflies(weights, part, butterflies(self.end, part)[order])
        return weights

    def _point(self, t: float) -> Weights:
        along = min(max(t, 0.0), 1.0) * len(self.steps)
        k = min(int(along + 1e-9), len(self.steps) - 1)
        share = min(max(round(along - k, 9), 0.0), 1.0)
        if share in (0, 1):
            return self._corner(k + int(share))
        return combined((1 - share, share), (self._corner(k), self._corner(k + 1)))

    @cached_property
    def lengths(self) -> Tensor:
        """Of each piece: (pieces,), float64."""
        received = butterflies(self.end, self.received).double().cpu()
        sends = butterflies(self.end, self.sent).double().cpu().norm(dim=1)
        now, found, neuron = list(self.order), [], self.spare
        for kind, place, other in self.steps:
            if kind == "receive":
                neuron = other
                found.append(float((received[neuron] - received[now[place]]).norm()))
                now[place] = neuron
            else:  # what it sends leaves one place and comes to the other
                found.append(2**0.5 * float(sends[neuron]))
        return torch.tensor(found, dtype=torch.float64)

    def travelled(self, t: Sequence[float] | Tensor) -> Tensor:
        """Length from the first of the sorted times to each of them: shape (T,)."""
        along = sorted_times(t, self).clamp(0, 1) * len(self.steps)
        whole = along.floor().long().clamp(max=len(self.steps) - 1)
        far = from_steps(self.lengths)[whole] + (along - whole) * self.lengths[whole]
        return far - far[0]

    def length(self, points: int = 101) -> float:
        """Euclidean length from t = 0 to t = 1."""
        return float(self.lengths.sum())

    def outputs(self, network: nn.Module, t: Tensor, x: Tensor) -> Iterator[Part]:
        """As `forward.sweep`: the same at all times, so computed once."""
        check_weights(self.end, like=network)
        x = x.to(next(iter(self.end.values())))
        for images, out in Stages(network, self.end, x).outputs(self.end, x):
            yield torch.arange(len(t)), images, out[None]


def _moves(order: list[int], spare: int) -> Iterator[tuple[int, int, int]]:
    """Hand-overs that undo an order: (the place that is to spare, the one that gives, neuron).

    The place to spare is filled by the neuron that belongs there, until the spare neuron's own
    is. Then a neuron of another cycle is put there for as long as its cycle takes.
    """
    where = {neuron: place for place, neuron in enumerate(order)}
    for cycle in sorted(_cycles(order), key=lambda cycle: spare not in cycle):
        if spare not in cycle:
            first = cycle[0]
            yield spare, where[first], first
            where[first], where[spare] = spare, where[first]
        while where[spare] != spare:
            place = where[spare]
            yield place, where[place], place
            where[place], where[spare] = place, where[place]
