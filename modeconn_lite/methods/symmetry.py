"""Chapter 2. Are A and B the same network, shuffled? Matching B's neurons to A's.

In which order B's neurons resemble A's most (`weight_matching`, `activation_matching`). How B gets
its own order back is in `exchanges`, what else fails half-way in `repair`, the valley between a
network and its shuffled copy in `saddles`.
"""

import torch
from torch import Tensor, nn

from ..activations import watch
from ..batch_statistics import settled
from ..checks import check_inputs, check_network, check_split, check_whole
from ..data import Split
from ..exchanges import Orders, with_walk_back
from ..layout import Hidden, hidden_layers
from ..neurons import best_order, butterflies, permute, reordered, tried_layers
from ..paths import AnyPath, segment
from ..weights import Weights, check_weights, inner, norm
from .base import and_to_copy
from .repair import repaired

# --- Matching ------------------------------------------------------------------------------------


def weight_matching(
    network: nn.Module,
    a: Weights,
    b: Weights,
    *,
    seed: int,
    restarts: int = 3,
    max_sweeps: int = 100,
) -> Orders:
    """Orders of b's hidden neurons that bring b's weights closest to a's, layer by layer.

    Maximises the inner product ⟨a, π(b)⟩ over all permutations π, which is the same as minimising
    the distance. With all layers but one held fixed this is a linear assignment problem and solved
    exactly; layers take turns in random order until none improves [1]_. The result is a local
    optimum, the best of the start from the order given and of `restarts` random ones.

    Parameters
    ----------
    network : nn.Module
        The architecture.
    a, b : Weights
    seed : int
        What turns and random starts are drawn under.
    restarts : int
        How many random starts.
    max_sweeps : int
        How many turns each layer gets at most, from each start.

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
    One sweep over layers of n neurons with D numbers each costs O(n² D) multiplications and
    O(n³) for the assignment, which dominates in practice from n = 512 on.

    References
    ----------
    .. [1] Ainsworth et al., Git Re-Basin: Merging Models modulo Permutation Symmetries, 2023.
    """
    _check_pair(network, a, b)
    check_whole(seed, "seed")
    check_whole(restarts, "restarts")
    check_whole(max_sweeps, "max_sweeps", low=1)
    layers = hidden_layers(network)
    likeness = _Likeness(layers, a, b)
    random = torch.Generator().manual_seed(seed)
    # Below this a gain is rounding, and turns would never end.
    small = max(1e-12, torch.finfo(next(iter(a.values())).dtype).eps) * norm(a) * norm(b)
    best, best_value = {}, -float("inf")
    for start in range(restarts + 1):
        orders = {layer.name: torch.arange(layer.size) for layer in layers}
        if start:
            orders = {n: torch.randperm(len(o), generator=random) for n, o in orders.items()}
        orders = _in_turns(layers, orders, likeness, small, max_sweeps, random)
        value = inner(a, reordered(layers, b, orders))
        if value > best_value:
            best, best_value = orders, value
    return best


def _check_pair(network: nn.Module, a: Weights, b: Weights) -> None:
    """Two weight vectors of the network."""
    check_weights(a, like=check_network(network), name="a")
    check_weights(b, like=a, name="b")


class _Likeness:
    """Inner products of a's neurons with b's, layer by layer, the other layers in any order."""

    def __init__(self, layers: list[Hidden], a: Weights, b: Weights) -> None:
        self.layers, self.b = layers, b
        self.fixed: dict[str, Tensor] = {}  # (n, n), from what stays in place: pixels, classes
        self.shared: dict[str, Hidden] = {}  # the rest of a layer
        self.mine: dict[str, Tensor] = {}  # a's neurons in it, (n, D)
        self.seen: dict[str, tuple[Tensor, Tensor]] = {}  # b's (n, D) and the result, last turn
        places = [s.tensor for layer in layers for s in layer.slices if s.tensor in b]
        for layer in layers:
            own = [s for s in layer.slices if s.tensor in b]
            alone = Hidden(layer.name, layer.size, [s for s in own if places.count(s.tensor) == 1])
            shared = Hidden(layer.name, layer.size, [s for s in own if places.count(s.tensor) > 1])
            self.fixed[layer.name] = torch.zeros(())
            if alone.slices:
                self.fixed[layer.name] = butterflies(a, alone) @ butterflies(b, alone).T
            if shared.slices:
                self.shared[layer.name] = shared
                self.mine[layer.name] = butterflies(a, shared)

    def __call__(self, name: str, orders: Orders) -> Tensor:
        """Shape (n, n): neurons of a × neurons of b, the other layers in these orders."""
        if name not in self.shared:
            return self.fixed[name]
        tensors = {s.tensor: self.b[s.tensor] for s in self.shared[name].slices}
        others = {n: order for n, order in orders.items() if n != name}
        theirs = butterflies(reordered(self.layers, tensors, others), self.shared[name])  # (n, D)
        if name in self.seen:  # in later turns few of the other layers' neurons change places
            old, gains = self.seen[name]  # (n, D), (n, n)
            new = (theirs != old).any(0)  # (D,)
            if 2 * int(new.sum()) <= len(new):
                gains = gains + self.mine[name][:, new] @ (theirs - old)[:, new].T
                self.seen[name] = theirs, gains
                return gains
        gains = self.fixed[name] + self.mine[name] @ theirs.T
        self.seen[name] = theirs, gains
        return gains


def _in_turns(
    layers: list[Hidden],
    orders: Orders,
    likeness: _Likeness,
    small: float,
    max_sweeps: int,
    random: torch.Generator,
) -> Orders:
    """Let layers take turns in random order, each matched exactly, until none gains."""
    for _ in range(max_sweeps):
        improved = False
        for k in torch.randperm(len(layers), generator=random).tolist():
            name, rows = layers[k].name, torch.arange(layers[k].size)
            gains = likeness(name, orders).cpu()
            order = best_order(gains)
            gain = (gains[rows, order] - gains[rows, orders[name]]).double().sum()
            if gain > small:
                improved, orders = True, orders | {name: order}
        if not improved:
            break
    return orders


def activation_matching(network: nn.Module, a: Weights, b: Weights, x: Tensor) -> Orders:
    """Orders of b's hidden neurons whose activations on x correlate best with a's.

    Each layer is one linear assignment problem on the correlations between a's and b's neurons
    over the inputs (and pixels, for filters), as their readers see them: after the activation and
    pooling [1]_ [2]_. Layers do not depend on one another. Where a residual stream is read in
    several places, the correlations are added.

    Parameters
    ----------
    network : nn.Module
        The architecture.
    a, b : Weights
    x : Tensor, shape (images, …)
        Inputs.

    Returns
    -------
    dict of str to Tensor, shape (n,)
        As from `weight_matching`.

    Raises
    ------
    ValueError
        If a and b do not fit the network, or it is not understood, or not what it looks like on
        these inputs.

    References
    ----------
    .. [1] Li et al., Convergent Learning: Do Different Neural Networks Learn the Same
       Representations?, 2016.
    .. [2] Ainsworth et al., Git Re-Basin: Merging Models modulo Permutation Symmetries, 2023.
    """
    _check_pair(network, a, b)
    layers = tried_layers(network, check_inputs(x))
    readers = {s.tensor.rpartition(".")[0] for layer in layers for s in layer.outgoing}
    seen = []
    for weights in (a, b):
        inputs: dict[str, Tensor] = {}

        def note(name: str, given: Tensor, out: Tensor, into: dict[str, Tensor] = inputs) -> None:
            into[name] = given

        watch(settled(network, weights, x), weights, x, readers, note)
        seen.append(inputs)
    orders = {}
    for layer in layers:
        total = torch.zeros(layer.size, layer.size, dtype=torch.float64)
        for s in layer.outgoing:
            reader = s.tensor.rpartition(".")[0]
            mine, theirs = (_standardised(inputs[reader], layer.size) for inputs in seen)
            total += (mine @ theirs.T).double().cpu()  # (n, n)
        orders[layer.name] = best_order(total)
    return orders


def _standardised(given: Tensor, size: int) -> Tensor:
    """Each neuron's activations as a unit vector around zero: (size, samples). Dead ones: zero."""
    rows = given.reshape(len(given), size, -1).transpose(0, 1).reshape(size, -1)  # (n, samples)
    rows = rows - rows.mean(1, keepdim=True)
    least = max(1e-12, torch.finfo(rows.dtype).tiny)
    return rows / rows.norm(dim=1, keepdim=True).clamp(min=least)


# --- Connections ---------------------------------------------------------------------------------


def connect_weight_matching(
    network: nn.Module,
    a: Weights,
    b: Weights,
    split: Split,
    *,
    seed: int = 0,
    undo: bool = True,
) -> AnyPath:
    """Weight matching, a straight line from a to the copy of b, then the walk back to b's order.

    Parameters
    ----------
    network : nn.Module
        The architecture.
    a, b : Weights
        Where the path starts and ends.
    split : Split
        Weights are matched without data; its inputs only show whether the network is understood.
    seed : int
        As for `weight_matching`.
    undo : bool
        False ends the path at the copy, which is the same function as b but another point.
    """
    tried_layers(network, check_split(split).x)
    orders = weight_matching(network, a, b, seed=seed)
    line = segment(a, permute(network, b, orders), name="weight matching")
    return with_walk_back(network, line, b, orders) if undo else line


def connect_activation_matching(
    network: nn.Module,
    a: Weights,
    b: Weights,
    split: Split,
    *,
    repair: bool = False,
    undo: bool = True,
) -> AnyPath:
    """The same with activation matching on the training inputs, with or without REPAIR.

    Parameters
    ----------
    network, a, b, undo
        As for `connect_weight_matching`.
    split : Split
        Its inputs are those on which activations are compared and repaired.
    repair : bool
        Whether to repair the straight line.
    """
    orders = activation_matching(network, a, b, check_split(split).x)
    there = permute(network, b, orders)
    line = repaired(network, a, there, split.x) if repair else segment(a, there)
    return with_walk_back(network, line, b, orders) if undo else line


METHODS = (
    *and_to_copy("weights", "Weight matching + line", connect_weight_matching),
    *and_to_copy("activations", "Activation matching + line", connect_activation_matching),
    *and_to_copy(
        "activations-repair",
        "Activation matching + line + REPAIR",
        connect_activation_matching,
        repair=True,
    ),
)
