"""Chapter 5. Carry each neuron of A to one of B, for the least total of squared distances.

Two clouds of neurons, a plan that says how much of each of A's goes to each of B's, and the path
that follows from it. How B gets its own order back is in `reordering` and `handovers`, what else
a plan is good for in `fusion`.

Exact plans are found in two ways, which agree. `plan` is for clouds of any sizes and asks POT's
network simplex. Between clouds of one size a plan is a permutation and the problem an assignment:
`transport_matching` asks SciPy, which is somewhat faster.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..checks import (
    all_finite,
    check_list,
    check_network,
    check_number,
    check_split,
    check_truth,
    check_whole,
    describe,
)
from ..data import Split
from ..exchanges import Orders, with_walk_back
from ..joins import concat
from ..layout import Hidden, hidden_layers
from ..neurons import best_order, butterflies, permute, reordered, scale, tried_layers
from ..paths import AnyPath, segment
from ..weights import Weights, check_weights
from .base import Method
from .handovers import free_walk_back

Blocks = Sequence[float]

# --- Clouds and what it costs to carry one to the other -------------------------------------------


def cloud(weights: Weights, layer: Hidden, blocks: Blocks = (1, 1, 1)) -> Tensor:
    """A layer's neurons as points, such that squared distances weigh the blocks so: (n, D).

    Parameters
    ----------
    weights : Weights
    layer : Hidden
        One of `hidden_layers`.
    blocks : three numbers of at least 0
        Weights of the blocks incoming, bias (and BatchNorm's vectors) and outgoing.

    Raises
    ------
    ValueError
        If there are not three such numbers, all are zero, or as `butterflies`.
    """
    roots = [share**0.5 for share in _checked_blocks(blocks)]
    rows, factors = butterflies(weights, layer), []  # (n, D), and one for each column
    for s in layer.slices:
        if s.tensor in weights:
            block = 2 if s.axis == 1 else int(weights[s.tensor].dim() == 1)
            factors += [roots[block]] * (weights[s.tensor].numel() // layer.size)
    return rows * torch.tensor(factors, dtype=torch.float64).to(rows)


def _checked_blocks(blocks: Any) -> list[float]:
    shares = check_list(blocks, "blocks", "weights of blocks", least=3, most=3)
    shares = [check_number(share, f"blocks[{k}]", low=0) for k, share in enumerate(shares)]
    if not any(shares):
        raise ValueError("blocks are all zero; one of incoming, bias, outgoing must count")
    return shares


def ground_cost(one: Tensor, two: Tensor) -> Tensor:
    """Squared distances between the points of two clouds: (n, D), (m, D) → (n, m), float64.

    Raises
    ------
    ValueError
        If they are no such clouds.
    """
    for name, points in {"one": one, "two": two}.items():
        _check_matrix(points, name)
    if one.shape[1] != two.shape[1]:
        raise ValueError(f"points of {one.shape[1]} and of {two.shape[1]} numbers have no distance")
    x, y = one.double(), two.double()
    squares = x.square().sum(1)[:, None] + y.square().sum(1)
    return torch.addmm(squares, x, y.T, alpha=-2).clamp(min=0)


def _check_matrix(value: Any, name: str) -> Tensor:
    dense = isinstance(value, Tensor) and value.layout is torch.strided and not value.is_meta
    if not dense or value.dim() != 2 or not value.is_floating_point():
        raise ValueError(f"{name} must be a dense matrix of floats, not {describe(value)}")
    if not value.numel() or not torch.isfinite(value).all():
        raise ValueError(f"{name} is empty or holds values that are not finite")
    return value


def normalised(network: nn.Module, weights: Weights) -> Weights:
    """The same function, every hidden neuron receiving weights and bias of length one together.

    The length moves on to what reads the neuron, from the inputs up, so that two networks that
    differ by such factors alone become the same one. (A residual stream and its blocks scale each
    other: there one pass is a convention.) What a neuron receives behind BatchNorm is the last
    one's weight and bias. Neurons that receive nothing stay as they are.

    Raises
    ------
    ValueError
        If no factor passes through a hidden layer, the weights do not fit the network, or what
        reads a neuron overflows.
    """
    for layer in hidden_layers(network):
        twice = scale(network, weights, {layer.name: [2.0] * layer.size})
        rows = [s for s in layer.slices if s.axis == 0 and s.tensor in weights]
        moved = [s for s in rows if twice[s.tensor] is not weights[s.tensor]]
        length = butterflies(weights, Hidden(layer.name, layer.size, moved)).double().norm(dim=1)
        alive = length > torch.finfo(next(iter(weights.values())).dtype).tiny
        weights = scale(network, weights, {layer.name: (1 / length).where(alive, 1.0)})
        if not all_finite(weights):
            raise ValueError(
                f"lengths of layer {layer.name!r} overflow in what reads it; use"
                " weights.to(..., torch.float64), or scale the weights down"
            )
    return weights


# --- Plans ---------------------------------------------------------------------------------------


def plan(cost: Tensor, *, regularisation: float | None = None, rounds: int = 20_000) -> Tensor:
    """How much of each of n points goes to each of m, at the least cost: (n, m), float64.

    All of the n have mass 1/n, all of the m have 1/m. For n = m the exact plan is a permutation
    over n: plans are then the doubly stochastic matrices over n, whose corners are the
    permutations (Birkhoff), and the network simplex ends in a corner.

    Parameters
    ----------
    cost : Tensor, shape (n, m)
    regularisation : float, optional
        None for an exact plan. Otherwise the plan P that minimises ⟨P, cost⟩ − ε · entropy(P), ε
        being this many times the mean cost, by Sinkhorn's algorithm, large factors kept as
        logarithms [1]_. Masses come out right to a hundredth at worst.
    rounds : int
        How many of Sinkhorn's rounds at most. A smaller regularisation needs more.

    Raises
    ------
    ValueError
        If cost is no matrix of finite numbers, an option is out of range, or the plan does not
        come within the rounds given.

    References
    ----------
    .. [1] Peyré and Cuturi, Computational Optimal Transport, 2019, sections 4.2 and 4.4.
    """
    import ot  # late: it takes a second, and only this function needs it

    n, m = _check_matrix(cost, "cost").shape
    check_whole(rounds, "rounds", low=1)
    scaled, tiny = cost.detach().double().cpu(), torch.finfo(torch.float64).tiny
    scaled = scaled / scaled.abs().max().clamp(min=tiny)  # first, for a sum may overflow
    scaled = (scaled / scaled.abs().mean().clamp(min=tiny)).numpy()
    masses = ot.unif(n), ot.unif(m)
    if regularisation is not None:
        check_number(regularisation, "regularisation", low=0, open_low=True)
        with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
            raw: Any = ot.sinkhorn(
                *masses,
                scaled,
                regularisation,
                method="sinkhorn_stabilized",
                numItermax=rounds,
                stopThr=1e-3 / m,  # no point receives a thousandth more or less than it should
            )
        found = torch.as_tensor(raw)
        if not all((found.sum(k) * size - 1).abs().max() <= 0.01 for k, size in ((0, m), (1, n))):
            raise ValueError(
                f"masses are not yet right after {rounds} rounds; give a regularisation larger"
                f" than {regularisation:g}, or more rounds"
            )
        return found
    raw, log = ot.emd(*masses, scaled, numItermax=10_000_000, log=True)
    if log["warning"]:
        raise ValueError(f"no exact plan for these costs: {log['warning']}")
    exact = torch.as_tensor(raw)
    if n == m:
        assert torch.allclose(exact * n, _as_matrix(rounded(exact)), atol=1e-6), "no permutation"
    return exact


def rounded(plan: Tensor) -> Tensor:
    """The permutation nearest to a plan: the order that keeps most of its mass, shape (n,).

    Row i goes to column order[i]. All permutations have the same length as matrices, so the
    nearest is the one whose inner product with the plan is largest.

    Raises
    ------
    ValueError
        If the plan is not square, or no matrix of finite numbers.
    """
    if len(set(_check_matrix(plan, "plan").shape)) > 1:
        raise ValueError(f"a plan of shape {tuple(plan.shape)} has no permutation near it")
    return best_order(plan)


def _as_matrix(order: Tensor) -> Tensor:
    """A permutation as a matrix: one in row i and column order[i]."""
    return torch.eye(len(order), dtype=torch.float64)[order]


# --- Matching ------------------------------------------------------------------------------------


def transport_matching(
    network: nn.Module,
    a: Weights,
    b: Weights,
    *,
    blocks: Blocks = (1, 1, 1),
    normalise: bool = False,
    max_sweeps: int = 20,
) -> Orders:
    """Orders of b's hidden neurons: where optimal transport carries a's, layer by layer.

    From the inputs up, each layer's cloud is carried to b's at the least cost, counting what has
    a known order already: inputs and outputs, and the layers matched so far. Then layers whose
    neighbours have changed places take another turn, now counting all of their blocks, if that
    costs less. For one hidden layer that is the paper's method [1]_ and needs one turn. Equal
    blocks make each turn shorten the distance between a and the copy of b, as weight matching
    does, so turns end; unequal ones weigh the weights between two layers in two ways, and turns
    may go round in circles until `max_sweeps`.

    Parameters
    ----------
    network : nn.Module
        The architecture.
    a, b : Weights
    blocks : three numbers of at least 0
        As for `cloud`.
    normalise : bool
        Whether to match the `normalised` networks.
    max_sweeps : int
        How many turns a layer gets at most.

    Returns
    -------
    dict of str to Tensor, shape (n,)
        For each hidden layer an order, for `neurons.permute(network, b, orders)`.

    Raises
    ------
    ValueError
        If a and b do not fit the network, it is not understood, or an option is out of range.

    Notes
    -----
    Lengths of neurons are the same in every order, so inner products serve for squared distances.

    References
    ----------
    .. [1] Anokhin and Yarotsky, Low-loss connection of weight vectors: distribution-based
       approaches, 2020, section 3.4.
    """
    check_weights(a, like=check_network(network), name="a")
    check_weights(b, like=a, name="b")
    _checked_blocks(blocks)
    check_truth(normalise, "normalise")
    check_whole(max_sweeps, "max_sweeps", low=1)
    if normalise:
        a, b = normalised(network, a), normalised(network, b)
    layers, orders = hidden_layers(network), {}
    owner = {(s.tensor, s.axis): layer.name for layer in layers for s in layer.slices}
    beside = {
        layer.name: [(s, owner.get((s.tensor, 1 - s.axis))) for s in layer.slices if s.tensor in b]
        for layer in layers
    }
    waiting = {layer.name for layer in layers}
    for _ in range(max_sweeps):
        for layer in [layer for layer in layers if layer.name in waiting]:
            waiting.discard(layer.name)
            known = [s for s, other in beside[layer.name] if other is None or other in orders]
            others = {name: order for name, order in orders.items() if name != layer.name}
            theirs = reordered(layers, {s.tensor: b[s.tensor] for s in known}, others)
            part = Hidden(layer.name, layer.size, known)
            order = _carried(cloud(a, part, blocks), cloud(theirs, part, blocks), orders, layer)
            if order is not None:
                orders[layer.name] = order
                waiting |= {other for _, other in beside[layer.name] if other in orders}
        if not waiting:
            break
    return {layer.name: orders[layer.name] for layer in layers}


def _carried(mine: Tensor, theirs: Tensor, orders: Orders, layer: Hidden) -> Tensor | None:
    """The order that carries one cloud to the other, unless the layer's own is as good."""
    gain = (mine @ theirs.T).cpu()  # (n, n)
    if not all_finite({"gain": gain}):
        raise ValueError(f"distances in layer {layer.name!r} overflow; scale the weights down")
    order = best_order(gain)
    if layer.name in orders:
        rows = torch.arange(layer.size)
        better = (gain[rows, order] - gain[rows, orders[layer.name]]).double().sum()
        # Below this a gain is rounding, and turns would never end.
        if better <= torch.finfo(gain.dtype).eps * float(mine.norm() * theirs.norm()):
            return None
    return order


# --- Connections ---------------------------------------------------------------------------------


def connect_transport(
    network: nn.Module, a: Weights, b: Weights, split: Split, *, undo: bool = True, **options: Any
) -> AnyPath:
    """Both stages [1]_: the line from a to the copy of b, then exchanges that undo the order.

    Parameters
    ----------
    network : nn.Module
        The architecture.
    a, b : Weights
        Where the path starts and ends.
    split : Split
        Neurons are carried without data; its inputs only show whether the network is understood.
    undo : bool
        False ends the path at the copy, which is the same function as b but another point.
    **options
        Of `transport_matching`.

    References
    ----------
    .. [1] Anokhin and Yarotsky, Low-loss connection of weight vectors: distribution-based
       approaches, 2020, section 3.4.
    """
    check_truth(undo, "undo")
    line, orders = _line(network, a, b, split, options)
    return with_walk_back(network, line, b, orders) if undo else line


def connect_free(
    network: nn.Module, a: Weights, b: Weights, split: Split, **options: Any
) -> AnyPath:
    """The same line, and the order undone through a spare neuron: see `handovers`.

    Parameters are those of `connect_transport`; the spare neuron is chosen on the split.
    """
    line, orders = _line(network, a, b, split, options)
    walk = free_walk_back(network, b, orders, split)
    return concat(line, walk, name=f"{line.name} + free swaps", equal="paths")


def _line(
    network: nn.Module, a: Weights, b: Weights, split: Split, options: dict[str, Any]
) -> tuple[AnyPath, Orders]:
    tried_layers(network, check_split(split).x)
    orders = transport_matching(network, a, b, **options)
    return segment(a, permute(network, b, orders), name="optimal transport"), orders


def _to_copy(network: nn.Module, a: Weights, b: Weights, split: Split) -> AnyPath:
    return connect_transport(network, a, b, split, undo=False)


METHODS = (
    Method("transport-copy", "OT + line, to a copy of B", _to_copy, to_copy=True),
    Method("transport", "OT + swaps back to B", connect_transport),
    Method("transport-free", "OT + free swaps", connect_free),
)
