"""Chapter 2. Are A and B the same network, shuffled? Matching B's neurons to A's.

In which order B's neurons resemble A's most (`weight_matching`, `activation_matching`), and how B
gets its own order back (`walk_back`). What else fails half-way is in `repair`, the valley between
a network and its shuffled copy in `saddles`.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from .data import Split
from .neurons import Hidden, butterflies, hidden_layers, permute
from .paths import AnyPath, FunctionPath, segment
from .repair import repaired, watch
from .weights import Weights, check_weights, inner, mix, norm

Orders = dict[str, Tensor]


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
    exactly; layers take turns in random order until none improves (Ainsworth et al. 2023). The
    result is a local optimum, the best of the start from the order given and of `restarts` random
    ones.

    Returns
    -------
    For `neurons.permute(network, b, orders)`: for each hidden layer an order, shape (n,).

    Raises
    ------
    ValueError
        If a and b differ in shape, the network is not understood, or an option is out of range.

    Notes
    -----
    One sweep over layers of n neurons with D numbers each costs O(n² D) multiplications and
    O(n³) for the assignment, which dominates in practice from n = 512 on.
    """
    check_weights(b, like=check_weights(a, name="a"), name="b")
    if restarts < 0 or max_sweeps < 1:
        raise ValueError(f"need restarts ≥ 0 and max_sweeps ≥ 1; got {restarts=}, {max_sweeps=}")
    layers = hidden_layers(network)
    places = [s.tensor for layer in layers for s in layer.slices if s.tensor in b]
    fixed, moving, mine, seen = {}, {}, {}, {}
    for layer in layers:
        own = [s for s in layer.slices if s.tensor in b]
        # What no other layer reorders is compared once: pixels, biases, classes.
        alone = Hidden(layer.name, layer.size, [s for s in own if places.count(s.tensor) == 1])
        shared = Hidden(layer.name, layer.size, [s for s in own if places.count(s.tensor) > 1])
        fixed[layer.name] = torch.zeros(())
        if alone.slices:
            fixed[layer.name] = butterflies(a, alone) @ butterflies(b, alone).T
        if shared.slices:
            moving[layer.name], mine[layer.name] = shared, butterflies(a, shared)

    def similarity(name: str, orders: Orders) -> Tensor:
        """Inner products of a's neurons with b's, the other layers in their present order."""
        if name not in moving:
            return fixed[name]
        tensors = {s.tensor: b[s.tensor] for s in moving[name].slices}
        others = {n: order for n, order in orders.items() if n != name}
        theirs = butterflies(permute(network, tensors, others), moving[name])
        old, gains = seen.get(name, (theirs, None))
        new = (theirs != old).any(0)
        if gains is None or 2 * int(new.sum()) > len(new):
            gains = fixed[name] + mine[name] @ theirs.T
        else:  # in later turns few of the other layers' neurons still change places
            gains = gains + mine[name][:, new] @ (theirs - old)[:, new].T
        seen[name] = theirs, gains
        return gains

    random = torch.Generator().manual_seed(seed)
    # Below this a gain is rounding, and turns would never end.
    small = max(1e-12, torch.finfo(next(iter(a.values())).dtype).eps) * norm(a) * norm(b)
    best, best_value = {}, -float("inf")
    for start in range(restarts + 1):
        orders = {layer.name: torch.arange(layer.size) for layer in layers}
        if start:
            orders = {n: torch.randperm(len(o), generator=random) for n, o in orders.items()}
        for _ in range(max_sweeps):
            improved = False
            for k in torch.randperm(len(layers), generator=random).tolist():
                name, rows = layers[k].name, torch.arange(layers[k].size)
                gains = similarity(name, orders).cpu()
                order = _assign(gains)
                gain = (gains[rows, order] - gains[rows, orders[name]]).double().sum()
                if gain > small:
                    improved, orders = True, orders | {name: order}
            if not improved:
                break
        value = inner(a, permute(network, b, orders))
        if value > best_value:
            best, best_value = orders, value
    return best


@torch.no_grad()
def activation_matching(network: nn.Module, a: Weights, b: Weights, x: Tensor) -> Orders:
    """Orders of b's hidden neurons whose activations on x correlate best with a's.

    Each layer is one linear assignment problem on the correlations between a's and b's neurons
    over the inputs (and pixels, for filters), as their readers see them: after the activation and
    pooling (Li et al. 2016; Ainsworth et al. 2023). Layers do not depend on one another. Where a
    residual stream is read in several places, the correlations are added.

    x : inputs, shape (images, …). Returns and raises as `weight_matching`.
    """
    check_weights(b, like=check_weights(a, name="a"), name="b")
    layers = hidden_layers(network)
    readers = {s.tensor.rpartition(".")[0] for layer in layers for s in layer.outgoing}
    seen = []
    for weights in (a, b):
        inputs: dict[str, Tensor] = {}

        def keep(name: str, given: Tensor, out: Tensor, kept: dict[str, Tensor] = inputs) -> None:
            kept[name] = given

        watch(network, weights, x, readers, keep)
        seen.append(inputs)
    orders = {}
    for layer in layers:
        total = torch.zeros(layer.size, layer.size, dtype=torch.float64)
        for s in layer.outgoing:
            reader = s.tensor.rpartition(".")[0]
            mine, theirs = (_standardised(inputs[reader], layer.size) for inputs in seen)
            total += (mine @ theirs.T).double().cpu()
        orders[layer.name] = _assign(total)
    return orders


def _assign(gain: Tensor) -> Tensor:
    """The order that maximises sum_i gain[i, order[i]]: shape (n,)."""
    rows, columns = linear_sum_assignment(gain.detach().cpu().numpy(), maximize=True)
    order = torch.as_tensor(columns)
    assert torch.equal(order.sort().values, torch.as_tensor(rows)), "no bijection"
    return order


def _standardised(given: Tensor, size: int) -> Tensor:
    """Each neuron's activations as a unit vector around zero: (size, samples). Dead ones: zero."""
    rows = given.reshape(len(given), size, -1).transpose(0, 1).reshape(size, -1)
    rows = rows - rows.mean(1, keepdim=True)
    return rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-12)


# --- From a copy back to the original ------------------------------------------------------------


def transpositions(order: Sequence[int] | Tensor) -> list[tuple[int, int]]:
    """Exchanges of two places that turn `order`, one after another, into 0, 1, 2, …

    Each sets one place right, so a permutation of n with c cycles takes n − c of them.
    """
    now = torch.as_tensor(order).tolist()
    swaps = []
    for place in range(len(now)):
        while now[place] != place:
            other = now[place]
            swaps.append((place, other))
            now[place], now[other] = now[other], now[place]
    return swaps


def walk_back(network: nn.Module, b: Weights, orders: Orders) -> FunctionPath:
    """From the copy `permute(network, b, orders)` to b: two neurons at a time change places.

    Each exchange is a straight line, half-way along which both neurons are the same; that point
    is a knot too, since the loss peaks there. (A function of t, for anchors would fill memory.)
    """
    now = {name: torch.as_tensor(order).clone() for name, order in orders.items()}
    states = [now]
    for name, order in orders.items():
        for i, j in transpositions(order):
            now = now | {name: now[name].clone()}
            now[name][[i, j]] = now[name][[j, i]]
            states.append(now)
    swaps = len(states) - 1

    @lru_cache(maxsize=4)
    def copy_after(k: int) -> Weights:
        return permute(network, b, states[k])

    def point(t: float) -> Weights:
        k = min(int(t * swaps + 1e-9), max(swaps - 1, 0))  # the exchange that is going on
        share = min(max(round(t * swaps - k, 9), 0.0), 1.0)
        if share == 0:
            return dict(copy_after(k))
        return mix((1 - share, share), (copy_after(k), copy_after(k + 1)))

    knots = (*(k / (2 * swaps) for k in range(2 * swaps)), 1.0) if swaps else (0.0, 1.0)
    return FunctionPath(point, "walk back", knots)


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

    undo : False ends the path at the copy, which is the same function as b but another point.
    """
    orders = weight_matching(network, a, b, seed=seed)
    line = segment(a, permute(network, b, orders), name="weight matching")
    return _in_halves(line, walk_back(network, b, orders)) if undo else line


def connect_activation_matching(
    network: nn.Module,
    a: Weights,
    b: Weights,
    split: Split,
    *,
    repair: bool = False,
    undo: bool = True,
) -> AnyPath:
    """The same with activation matching on the training inputs, with or without REPAIR."""
    orders = activation_matching(network, a, b, split.x)
    there = permute(network, b, orders)
    line = repaired(network, a, there, split.x) if repair else segment(a, there)
    return _in_halves(line, walk_back(network, b, orders)) if undo else line


def _in_halves(line: AnyPath, walk: FunctionPath) -> FunctionPath:
    """First the line, then the walk, half the time for each however many pieces the walk has."""
    knots = (*(t / 2 for t in line.knots[:-1]), *(0.5 + t / 2 for t in walk.knots))
    return FunctionPath(
        lambda t: line(2 * t) if t < 0.5 else walk(2 * t - 1), f"{line.name} + swaps", knots
    )
