"""Chapter 5. How B's neurons get their own order back for nothing, given one neuron to spare.

The spare neuron learns what another one receives, takes over what it sends, and leaves that one to
spare: `free_walk_back`.
"""

from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor, nn

from ..activations import watch
from ..batch_statistics import settled
from ..chains import Chain, Swept
from ..checks import check_network, check_split, describe
from ..data import Split
from ..exchanges import Orders, cycles, walk_back
from ..joins import concat
from ..layout import Hidden, Slice, hidden_layers
from ..neurons import butterflies, permute, reordered, tried_layers, with_butterflies
from ..paths import AnyPath, polychain
from ..stages import Stages
from ..weights import Weights, check_weights


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
        steps = cycles(todo[layer.name].tolist()) if layer.name in todo else []
        if not steps:
            continue
        spare, silent = muted(network, b, layer, split)
        order = todo.pop(layer.name)
        here, there = (reordered(layers, w, todo | {layer.name: order}) for w in (b, silent))
        chain = HandOvers(network, reordered(layers, silent, todo), layer, order, spare)
        walk = chain.path("hand-overs", labels=[kind for kind, _, _ in chain.steps])
        if silent is b:
            parts.append(walk)
        else:
            end = reordered(layers, b, todo)
            parts.append(polychain([here, there], name="mute", labels=("mute",)))
            parts.append(walk)
            parts.append(polychain([chain.end, end], name="restore", labels=("restore",)))
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
    check_weights(b, like=check_network(network), name="b")
    if not isinstance(layer, Hidden):
        raise ValueError(f"layer must be one of hidden_layers(network), not {describe(layer)}")
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

    watch(settled(network, b, x), b, x, readers, note)
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


class HandOvers(Chain):
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

    def corner(self, k: int) -> Weights:
        """The weights after k pieces."""
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

    def outputs(self, network: nn.Module, t: Tensor, x: Tensor) -> Iterator[Swept]:
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
    for cycle in sorted(cycles(order), key=lambda cycle: spare not in cycle):
        if spare not in cycle:
            first = cycle[0]
            yield spare, where[first], first
            where[first], where[spare] = spare, where[first]
        while where[spare] != spare:
            place = where[spare]
            yield place, where[place], place
            where[place], where[spare] = place, where[place]
