"""Chapter 5. By which exchanges B's neurons get their own order back: dear ones or cheap ones.

What happens while two neurons change places depends on these two alone, so a cycle can be undone
by cheap pairs or by dear ones. How it is undone for nothing is in `handovers`.
"""

from collections.abc import Sequence
from graphlib import TopologicalSorter
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import check_choice, check_numbers, check_split, check_whole, describe
from ..data import Split
from ..evaluation import evaluate
from ..exchanges import cycles, permutation, walk_back
from ..forward import sweep
from ..neurons import tried_layers
from ..weights import Weights

Pairs = list[tuple[int, int]]
Choice = Literal["sum", "largest", "worst", "random"]
LONGEST = 1024  # cycles up to this length are undone by the best tree, in some two seconds
AT_ONCE = 4096  # pairs on one walk, which remembers where all neurons stand after each


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
    seed, order = check_whole(seed, "seed"), permutation(order)
    wanted = f"a matrix for {len(order)} neurons"
    numbers = check_numbers(cost, "cost", wanted)  # (n, n)
    if numbers.layout is not torch.strided or numbers.shape != (len(order),) * 2:
        raise ValueError(f"cost must be {wanted}, not {describe(cost)}")
    cost = numbers
    if not torch.isfinite(cost).all() or not torch.equal(cost, cost.T):
        raise ValueError("cost must be finite, and the same for (p, q) and (q, p)")
    cost = cost * (-1 if choose == "worst" else 1)
    generator = torch.Generator().manual_seed(seed)
    todo, places = cycles(order), []
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
    if not isinstance(name, str) or name not in layers:
        raise ValueError(f"no hidden layer {name!r}; this network has {tuple(layers)}")
    size, here = layers[name].size, evaluate(network, b, split).loss
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
    found[pairs[0], pairs[1]] = losses / len(split) - here
    return found + found.T
