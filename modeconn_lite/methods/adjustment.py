"""Chapter 6. Move a layer from A's weights to B's, and let what reads it follow.

One linear layer after another goes from A's weights to B's, by a line, an arc or to where
transport carries it. Whoever reads its neurons is solved for by least squares, so that it goes on
saying what it said in A: weight adjustment. When only the outputs' own layer is left, it goes to
B's on a straight line, along which the loss is convex. For one hidden layer these are Eq. 9 and 10
of the paper [1]_, for several its section 4. The least squares are in `least_squares`, what else
they are good for in `wa_ensemble`.

.. [1] Anokhin and Yarotsky, Low-loss connection of weight vectors: distribution-based approaches,
   2020.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from ..checks import (
    check_choice,
    check_network,
    check_split,
    check_truth,
    check_whole,
    describe,
)
from ..data import Split
from ..exchanges import Orders, walk_back
from ..joins import concat
from ..layout import Hidden, hidden_layers
from ..neurons import best_order, butterflies, permute, with_butterflies
from ..paths import AnyPath, FunctionPath, Path, polychain, quarter_turn, segment
from ..weights import Weights, check_weights, combined
from .base import Method, and_to_copy
from .follower import Follower
from .least_squares import RIDGE

KINDS = {"linear": "linear", "arc": "arc", "transport": "optimal transport"}
BREAKPOINTS = 11

Back = Callable[[nn.Module, Weights, Orders], AnyPath]


@dataclass(frozen=True)
class Move:
    """A linear layer that goes from A's weights to B's, and who reads what it computes.

    Attributes
    ----------
    layer : str
        The hidden layer whose neurons it computes, or to which it adds, in a residual stream.
    rows : Hidden
        These neurons with what they receive here alone.
    readers : list of str
        The weights that read them further up, from the inputs up.
    butterflies : Hidden
        The neurons with what they receive here and what reads them further up.
    """

    layer: str
    rows: Hidden
    readers: list[str]
    butterflies: Hidden


def moves(network: nn.Module) -> list[Move]:
    """All linear layers but that of the outputs, from the inputs up.

    Raises
    ------
    ValueError
        If the network is not understood, or its outputs are no layer's of their own.
    """
    tensors = [name for name, _ in check_network(network).named_parameters()]
    layers, found, left = hidden_layers(network), [], set()
    for module in dict.fromkeys(tensor.rpartition(".")[0] for tensor in tensors):
        weight = f"{module}.weight"
        layer = next((layer for layer in layers if weight in layer.incoming), None)
        if layer is None:
            left.add(module)
            continue
        own = [s for s in layer.slices if s.axis == 0 and s.tensor.rpartition(".")[0] == module]
        later = tensors[tensors.index(weight) :]
        reads = [s for s in layer.outgoing if s.tensor in later]
        rows, both = Hidden(module, layer.size, own), Hidden(module, layer.size, own + reads)
        found.append(Move(layer.name, rows, [s.tensor for s in reads], both))
    if len(left) > 1:
        raise ValueError(
            f"layers {sorted(left)} give the outputs together, which are then convex in none of"
            " them; let one linear layer read the residual stream"
        )
    return found


def connect_adjusted(
    network: nn.Module,
    a: Weights,
    b: Weights,
    split: Split,
    *,
    kind: str = "linear",
    breakpoints: int | None = BREAKPOINTS,
    ridge: float = RIDGE,
    images: int | None = None,
    to_b: bool = False,
    undo: bool = True,
    walk: Back = walk_back,
) -> AnyPath:
    """Joint weight adjustment: every layer moves from a's weights to b's, its readers follow.

    For each layer but the last, two legs: its readers go to the least-squares solution where a
    stands (they may differ from it where features depend on each other, or in a deeper layer,
    where they have changed), then the layer moves. The last leg is that of the outputs. After the
    k-th layer's legs the network is Θ_{k+1}^{AB} of the paper [1]_: b's layers up to the k-th, an
    adjusted one, a's from there on.

    Parameters
    ----------
    network : nn.Module
        The architecture: MLP, convnet or residual MLP, without BatchNorm.
    a, b : Weights
    split : Split
        Its inputs are what readers are solved on; labels play no part.
    kind : str
        How a layer moves: "linear"; "arc", about the mean of its neurons; "transport", on a line
        to where transport of its incoming weights and biases carries it, which ends at a copy of b.
    breakpoints : int, optional
        A path that is piecewise linear, through the solutions at so many times in each leg. None
        solves at each t anew: a function of t that need not be continuous in the ridge's absence.
    ridge : float
        As for `least_squares`.
    images : int, optional
        Use only the first so many of the split.
    to_b : bool
        Whether the outputs become b's while the last hidden layer moves, instead of staying a's
        until the last leg.
    undo : bool
        False ends the path at the copy of b, where transport leads.
    walk : function of (network, b, orders)
        How the copy becomes b: `exchanges.walk_back` or `handovers.free_walk_back`.

    Raises
    ------
    ValueError
        If weights and split do not fit, the network is not understood or normalises, an option is
        out of range, or the ridge is too small.

    Notes
    -----
    A hidden layer costs `breakpoints` least-squares problems. In a network of several layers each
    of them has the images pass through the layers below again. All corners are kept; where their
    moving layers do not fit into memory, None computes them as they are looked at.

    The released code [2]_ solves at each t, leaves the first leg out, walks the last one on an arc
    where the layer moves on an arc, which convexity says nothing about, and leaves biases out of
    the cost of transport. There the convolutional paths end before they reach b.

    The residual networks' case is only sketched in the paper and is ours: the layers of a stream
    move one after another, and all that read it further up follow each of them; what blocks carry
    around themselves has no weights to follow with.

    References
    ----------
    .. [1] Anokhin and Yarotsky, Low-loss connection of weight vectors: distribution-based
       approaches, 2020, sections 3.5 and 4.
    .. [2] github.com/avecplezir/distribution-based-connectivity
    """
    if breakpoints is not None:
        check_whole(breakpoints, "breakpoints", low=2)
    check_truth(to_b, "to_b")
    follow = _follower(network, a, b, split, kind, ridge, images, undo, walk)
    steps, here, goal, orders, legs = moves(network), a, b, {}, []
    for move in steps:
        if kind == "transport" and move.layer not in orders:
            orders[move.layer] = _order(here, goal, move.rows)
            goal = permute(network, goal, {move.layer: orders[move.layer]})
        outputs = to_b and move is steps[-1]
        legs += _adjusted(follow, move, here, goal, kind, breakpoints, outputs)
        here = legs[-1](1.0)
    legs.append(polychain([here, goal], labels=("outputs",)))
    name = f"{KINDS[kind]} + WA"
    return _whole(network, legs, name, b, orders, walk if undo else None)


def connect_butterflies(
    network: nn.Module,
    a: Weights,
    b: Weights,
    split: Split,
    *,
    kind: str = "linear",
    ridge: float = RIDGE,
    images: int | None = None,
    undo: bool = True,
    walk: Back = walk_back,
) -> AnyPath:
    """Layer by layer as `connect_adjusted`, but a layer and its reader move together.

    Adjusted are only the points between the legs: a, Θ_2, …, Θ_{p−1}, b for p linear layers. In a
    leg the butterflies, a neuron with what it receives and what reads it, go on a line, on an arc
    about their mean, or on a line to where transport carries them. For one hidden layer this is
    the line, the arc, or transport itself.

    Parameters and errors are those of `connect_adjusted`.
    """
    follow = _follower(network, a, b, split, kind, ridge, images, undo, walk)
    steps, here, goal, orders, legs = moves(network), a, b, {}, []
    for move in steps:
        there = _next(follow, move, here, goal, steps)
        if kind == "transport" and move.layer not in orders:
            # What many read is in two orders at once while its readers are solved for.
            part = move.butterflies if len(move.readers) == 1 else move.rows
            orders[move.layer] = _order(here, there, part)
            goal = permute(network, goal, {move.layer: orders[move.layer]})
            there = _next(follow, move, here, goal, steps)
        route = _route(kind, here, there, move.butterflies)
        anchors = [here | anchor for anchor in route.anchors]
        legs.append(replace(route, anchors=anchors, domain=(0.0, 1.0), labels=("move",)))
        here = there
    name = f"{KINDS[kind]} + butterfly"
    legs = legs or [polychain([a, b], labels=("outputs",))]
    return _whole(network, legs, name, b, orders, walk if undo else None)


def _follower(
    network: nn.Module,
    a: Weights,
    b: Weights,
    split: Split,
    kind: str,
    ridge: float,
    images: int | None,
    undo: bool,
    walk: Back,
) -> Follower:
    """What lets readers follow, all options checked."""
    check_choice(kind, "kind", KINDS)
    check_truth(undo, "undo")
    if not callable(walk) or isinstance(walk, type | nn.Module):
        raise ValueError(f"walk must be a function, such as walk_back, not {describe(walk)}")
    check_weights(b, like=check_network(network), name="b")
    if images is not None:
        split = split.take(check_whole(images, "images", low=1, high=len(check_split(split))))
    return Follower(network, a, check_split(split).x, ridge=ridge, b=b)


def _adjusted(
    follow: Follower,
    move: Move,
    here: Weights,
    goal: Weights,
    kind: str,
    breakpoints: int | None,
    outputs: bool,
) -> list[AnyPath]:
    """Two legs: the readers of a layer are solved for, then it moves and they follow."""
    route = _route(kind, here, _moved(move, here, goal), move.rows)

    def point(s: float) -> Weights:
        return follow(here | route(s), move.readers, s if outputs else 0.0)

    ends = {0.0: point(0.0), 1.0: point(1.0)}
    first = polychain([here, ends[0.0]], labels=("adjust",))
    if breakpoints is None:
        return [first, FunctionPath(lambda s: ends.get(s) or point(s), labels=("move",))]
    between = [point(k / (breakpoints - 1)) for k in range(1, breakpoints - 1)]
    corners = [ends[0.0], *between, ends[1.0]]
    return [first, polychain(corners, labels=("move",) * (breakpoints - 1))]


def _next(
    follow: Follower, move: Move, here: Weights, goal: Weights, steps: Sequence[Move]
) -> Weights:
    """The point Θ at which a layer has come to its goal; after the last one, the goal itself."""
    if move is steps[-1]:
        return goal
    return follow(_moved(move, here, goal), move.readers)


def _moved(move: Move, here: Weights, goal: Weights) -> Weights:
    """The weights where one layer has come to its goal and nobody has followed yet."""
    return here | {key: goal[key] for key in move.rows.incoming}


def _order(here: Weights, there: Weights, part: Hidden) -> Tensor:
    """Where transport carries these neurons, at the least total of squared distances.

    Lengths of neurons are the same in every order, so inner products serve for distances.
    """
    return best_order(butterflies(here, part) @ butterflies(there, part).T)


def _route(kind: str, here: Weights, there: Weights, part: Hidden) -> Path:
    """How what differs between two points moves: a path of the tensors that do.

    An arc's centre is the mean of the neurons of both; for an output bias, the midpoint.
    """
    own = {s.tensor for s in part.slices}
    moving = [key for key in here if key in own or here[key] is not there[key]]
    start, end = ({key: w[key] for key in moving} for w in (here, there))
    if kind != "arc":
        return segment(start, end)
    rows = torch.stack([butterflies(w, part) for w in (start, end)])  # (2, n, D)
    middle = combined((0.5, 0.5), (start, end))
    centre = with_butterflies(middle, part, rows.mean((0, 1)).expand_as(rows[0]))
    return quarter_turn(start, end, centre)


def _whole(
    network: nn.Module,
    legs: Sequence[AnyPath],
    name: str,
    b: Weights,
    orders: Orders,
    walk: Back | None,
) -> AnyPath:
    """All legs in equal times; then, for half of the whole, the walk from a copy to b."""
    line = concat(*legs, name=name, equal="paths")
    if walk is None or not orders:
        return line
    back = walk(network, b, orders)
    return concat(line, back, name=f"{name} + {back.name}", equal="paths")


METHODS = (
    Method("linear-wa", "Linear + WA", connect_adjusted),
    Method("arc-wa", "Arc + WA", partial(connect_adjusted, kind="arc")),
    *and_to_copy("transport-wa", "OT + WA", connect_adjusted, kind="transport"),
    Method("linear-butterfly", "Linear + Butterfly", connect_butterflies),
    Method("arc-butterfly", "Arc + Butterfly", partial(connect_butterflies, kind="arc")),
    *and_to_copy("transport-butterfly", "OT + Butterfly", connect_butterflies, kind="transport"),
)
