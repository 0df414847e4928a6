"""Two neurons at a time change places: how a network gets its own order of neurons back.

Every state on the way is the same function, and what happens in between depends on the two neurons
alone. So a walk of thousands of exchanges is evaluated for the price of a few passes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from .chains import Chain, Swept, SweptPath
from .checks import check_indices, check_list, check_whole, describe
from .joins import concat
from .layout import Hidden, hidden_layers
from .neurons import butterflies, permute, reordered
from .paths import AnyPath, as_path
from .stages import Stages, run_stages
from .weights import Weights, check_weights, combined

Orders = dict[str, Tensor]
OUT_FLOATS = 524288  # outputs of the exchanges that are held at once: so that they stay in cache


def transpositions(order: Sequence[int] | Tensor) -> list[tuple[int, int]]:
    """Exchanges of two places that turn `order`, one after another, into 0, 1, 2, …

    Each sets one place right, so a permutation of n with c cycles takes n − c of them.

    Raises
    ------
    ValueError
        If the order is no permutation.
    """
    now, swaps = permutation(order), []
    for place in range(len(now)):
        while now[place] != place:
            other = now[place]
            swaps.append((place, other))
            now[place], now[other] = now[other], now[place]
    return swaps


def permutation(order: Sequence[int] | Tensor) -> list[int]:
    """An order as a list of numbers, each from 0 to n − 1 there once, or a `ValueError`."""
    if not isinstance(order, Sequence | Tensor) or isinstance(order, str):
        raise ValueError(f"order must be a list of whole numbers, not {describe(order)}")
    size = len(order) if not isinstance(order, Tensor) or order.dim() else 0
    return check_indices(order, size, "order", every=True).tolist()


def cycles(order: Sequence[int] | Tensor) -> list[list[int]]:
    """Cycles of two and more: each neuron stands where the one before it belongs.

    Raises
    ------
    ValueError
        If the order is no permutation.
    """
    order, found, seen = permutation(order), [], set()
    for start in range(len(order)):
        cycle, now = [], start
        while now not in seen:
            seen.add(now)
            cycle.append(now)
            now = order[now]
        if len(cycle) > 1:
            found.append(cycle)
    return found


def walk_back(
    network: nn.Module,
    b: Weights,
    orders: Orders,
    swaps: Mapping[str, Sequence[tuple[int, int]]] | None = None,
) -> SweptPath:
    """From the copy `permute(network, b, orders)` to b: two neurons at a time change places.

    Each exchange is a straight line, half-way along which both neurons are the same; that point
    is a knot too, since the loss peaks there.

    Parameters
    ----------
    network : nn.Module
        The architecture.
    b : Weights
        Where the path ends.
    orders : dict of str to Tensor, shape (n,)
        As from `weight_matching`.
    swaps : dict of str to lists of two places, optional
        For some layers, exchanges that undo their order; by default those of `transpositions`.

    Raises
    ------
    ValueError
        If an order is no permutation of a hidden layer, exchanges do not undo it, or the weights
        do not fit.
    """
    permute(network, b, orders)  # checks everything
    layers = {layer.name: layer for layer in hidden_layers(network)}
    if not isinstance(swaps, Mapping | None) or not (swaps or {}).keys() <= orders.keys():
        raise ValueError(
            f"swaps must be a dict from layers that have an order, {tuple(orders)}, not"
            f" {tuple(swaps) if isinstance(swaps, Mapping) else describe(swaps)}"
        )
    start = {name: torch.as_tensor(order).cpu().clone() for name, order in orders.items()}
    exchanges = []
    for name, order in start.items():
        now = order.tolist()
        for i, j in _chosen(swaps, name, order):
            exchanges.append(Exchange(layers[name], now[i], now[j], (i, j)))
            now[i], now[j] = now[j], now[i]
        if now != sorted(now):
            raise ValueError(f"these exchanges do not undo the order of layer {name!r}")
    return WalkBack(network, b, start, exchanges).path("walk back", half_way=True)


def _chosen(
    swaps: Mapping[str, Sequence[tuple[int, int]]] | None, name: str, order: Tensor
) -> Sequence[tuple[int, int]]:
    """The exchanges that a caller wants in this layer, or the usual ones."""
    if swaps is None or name not in swaps:
        return transpositions(order)
    what = f"the exchanges of layer {name!r}"
    for pair in check_list(swaps[name], what, "pairs of places", least=0):
        for place in check_list(
            pair, f"each exchange of layer {name!r}", "places", least=2, most=2
        ):
            check_whole(place, f"a place in {what}", high=len(order) - 1)
    return swaps[name]


def with_walk_back(network: nn.Module, line: AnyPath, b: Weights, orders: Orders) -> AnyPath:
    """A line to the copy of b, then the walk back: half the time for each."""
    line, walk = as_path(line), walk_back(network, b, orders)
    return concat(line, walk, name=f"{line.name} + swaps", equal="paths")


@dataclass(frozen=True)
class Exchange:
    """Neurons p and q of one layer: p leaves the first of two places for the second, q comes."""

    layer: Hidden
    p: int
    q: int
    places: tuple[int, int]


class WalkBack(Chain):
    """What `walk_back` knows: exchanges, one after another.

    Attributes
    ----------
    exchanges : list of Exchange
    """

    def __init__(
        self, network: nn.Module, b: Weights, start: Orders, exchanges: Sequence[Exchange]
    ) -> None:
        self.layers, self.b, self.exchanges = hidden_layers(network), b, list(exchanges)
        self.states = [start]
        for step in exchanges:
            now = self.states[-1] | {step.layer.name: self.states[-1][step.layer.name].clone()}
            now[step.layer.name][list(step.places)] = now[step.layer.name][list(step.places[::-1])]
            self.states.append(now)

    def corner(self, k: int) -> Weights:
        """The copy of b after k exchanges."""
        return reordered(self.layers, self.b, self.states[k])

    @cached_property
    def lengths(self) -> Tensor:
        """How far each exchange leads: shape (exchanges,), float64.

        Both neurons go from one to the other: √2 times their distance.
        """
        found = torch.zeros(len(self.exchanges), dtype=torch.float64)
        for layer, steps in self._by_layer(torch.arange(len(self.exchanges))):
            rows = butterflies(self.b, layer)
            p, q = self._pairs(steps)
            found[steps] = (rows[p].double() - rows[q].double()).norm(dim=1).cpu() * 2**0.5
        return found

    def outputs(self, network: nn.Module, t: Tensor, x: Tensor) -> Iterator[Swept]:
        """As `forward.sweep`. Between two exchanges the function is that of b."""
        check_weights(self.b, like=network)
        x = x.to(next(iter(self.b.values())))
        stages, (done, share) = Stages(network, self.b, x), self.where(t)
        still = (share == 0).nonzero()[:, 0]
        if len(still):
            for images, out in stages.outputs(self.b, x):
                yield still, images, out[None]
        moving = (share > 0).nonzero()[:, 0]
        for layer, rows in self._by_layer(done[moving]):
            rows = moving[rows]
            place = _place(stages, layer)
            if place is None:
                for row in rows.tolist():
                    k, to = int(done[row]), float(share[row])
                    weights = combined((1 - to, to), (self.corner(k), self.corner(k + 1)))
                    for images, out in stages.outputs(weights, x):
                        yield torch.tensor([row]), images, out[None]
            else:
                p, q = self._pairs(done[rows])
                yield from _swept(stages, self.b, layer, place, (p, q, share[rows]), rows, x)

    def _by_layer(self, steps: Tensor) -> Iterator[tuple[Hidden, Tensor]]:
        """For each layer, which of these exchanges are in it."""
        names = [self.exchanges[k].layer.name for k in steps.tolist()]
        for layer in self.layers:
            rows = [i for i, name in enumerate(names) if name == layer.name]
            if rows:
                yield layer, torch.tensor(rows)

    def _pairs(self, steps: Tensor) -> tuple[Tensor, Tensor]:
        chosen = [self.exchanges[k] for k in steps.tolist()]
        return torch.tensor([s.p for s in chosen]), torch.tensor([s.q for s in chosen])


def _place(stages: Stages, layer: Hidden) -> tuple[int, int] | None:
    """The stages that compute a layer and read it, if nothing between them has weights."""
    names = [stage.keys for stage in stages.chain]
    own, read = set(layer.incoming), {s.tensor for s in layer.outgoing}
    first = next((i for i, keys in enumerate(names) if own & keys), -1)
    last = next((i for i, keys in enumerate(names) if read & keys), -1)
    simple = first >= 0 and own == names[first] and len(read) == 1
    simple = simple and last > first and not set().union(*names[first + 1 : last])
    return (first, last) if simple and stages.chain[last].linear else None


def _swept(
    stages: Stages,
    b: Weights,
    layer: Hidden,
    place: tuple[int, int],
    exchanges: tuple[Tensor, Tensor, Tensor],
    rows: Tensor,
    x: Tensor,
) -> Iterator[Swept]:
    """Outputs while neurons p and q of b change places, by a share each: three times (P,).

    Only what these two send changes: the rest of what is read stays as it is.
    """
    (first, last), (reads,) = place, layer.outgoing
    below, between = stages.chain[: first + 1], stages.chain[first + 1 : last]
    reader, above = stages.chain[last], stages.chain[last + 1 :]
    c = b[reads.tensor]
    c = (c.unflatten(1, (layer.size, -1)) if reader.dense else c).transpose(0, 1)
    # c is what reads each neuron: (neurons, m, each), or (neurons, m, …) of a convolution.
    silent = {key: torch.zeros_like(b[key]) for key in reader.keys - {reads.tensor}}

    def sent(z: Tensor) -> Tensor:
        """What neurons with these pre-activations, (neurons, images, …), send on: likewise."""
        h = run_stages(between, b, z.transpose(0, 1))
        return (h if h.dim() > 2 else h.unflatten(1, (len(z), -1))).transpose(0, 1)

    for images in stages.chunks(len(x)):
        z = run_stages(below, b, stages.own(x[images])).transpose(0, 1).contiguous()
        h = sent(z.clone()).contiguous()  # (neurons, images, each or …)
        all_sent = h.transpose(0, 1)
        read = reader(b, all_sent.flatten(1) if reader.dense else all_sent)  # (images, m, …)
        room = max(read.numel(), 4 * h[0].numel())
        for some in torch.arange(len(rows)).split(max(1, OUT_FLOATS // room)):  # P exchanges
            p, q, share = (found[some].to(z.device) for found in exchanges)
            changes = [(h[p], -c[p]), (h[q], -c[q])]
            if (share == 0.5).all():  # both are the same then
                changes.append((sent(torch.lerp(z[p], z[q], 0.5)), c[p] + c[q]))
            else:
                changes += [
                    (sent(_on_the_way(z, *e)), _on_the_way(c, *e))
                    for e in ((p, q, share), (q, p, share))
                ]
            terms, columns = (torch.stack(found, 1) for found in zip(*changes, strict=True))
            if reader.dense:  # (P, terms, images, each) and (P, terms, m, each)
                heard = terms.transpose(2, 3).flatten(1, 2)  # (P, terms · each, images)
                readers = columns.transpose(1, 2).flatten(2)  # (P, m, terms · each)
                if above:  # which take numbers image after image
                    wide = heard.transpose(1, 2), readers.transpose(1, 2)
                    out = torch.baddbmm(read[None], *wide)  # (P, images, m)
                else:  # for the few numbers of an output this is faster
                    out = torch.baddbmm(read.T[None], readers, heard).transpose(1, 2)
            else:
                weights = [silent | {reads.tensor: w} for w in columns.transpose(1, 2)]
                heard = terms.transpose(1, 2)  # (P, images, terms, …)
                out = read + torch.stack(list(map(reader, weights, heard)))  # (P, images, m, …)
            out = run_stages(above, b, out.flatten(0, 1)).unflatten(0, (len(some), -1))
            yield rows[some], images, out


def _on_the_way(of: Tensor, start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """Rows that have gone a share of the way from some to others."""
    return torch.lerp(of[start], of[end], share.to(of).view(-1, *[1] * (of.dim() - 1)))
