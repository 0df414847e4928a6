"""Chapter 5, the sequel. Two networks fused into one, also of different widths, by transport.

Singh and Jaggi, Model Fusion via Optimal Transport, 2020.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..activations import watch
from ..anatomy import LINEAR, chain
from ..checks import check_inputs, check_network, check_number
from ..layout import hidden_layers
from ..neurons import tried_layers
from ..weights import Weights, check_weights, mix
from .transport import ground_cost, plan

# What shapes tell apart, and what does nothing here: activations and pooling are left.
_APART = (*LINEAR, nn.Flatten, nn.Dropout, nn.Dropout2d, nn.Identity)


@dataclass(frozen=True)
class _Link:
    """One layer of a plain chain: its name, its neurons, and columns for each neuron it reads."""

    name: str
    size: int
    below: int = 0
    each: int = 1


def fuse(
    network_a: nn.Module,
    a: Weights,
    network_b: nn.Module,
    b: Weights,
    *,
    x: Tensor | None = None,
    regularisation: float | None = None,
    share: float = 0.5,
) -> Weights:
    """One network of b's architecture: (1 − share) of a, carried over to b, and share of b [1]_.

    Parameters
    ----------
    network_a, a, network_b, b, x, regularisation
        As for `carried`.
    share : float
        How much of b, from 0 to 1.

    Raises
    ------
    ValueError
        As `carried`, or if share is no such number.

    References
    ----------
    .. [1] Singh and Jaggi, Model Fusion via Optimal Transport, 2020.
    """
    check_number(share, "share", low=0, high=1)
    there = carried(network_a, a, network_b, b, x=x, regularisation=regularisation)
    return mix((1 - share, share), (there, b))


def carried(
    network_a: nn.Module,
    a: Weights,
    network_b: nn.Module,
    b: Weights,
    *,
    x: Tensor | None = None,
    regularisation: float | None = None,
) -> Weights:
    """a in b's architecture: each neuron the mean of those that are carried to its place.

    From the inputs up, with a plan P between n neurons of a and m of b (masses 1/n and 1/m), what
    a layer reads is carried by n P: each neuron of a is shared out, so that readers hear as much
    as before. Then its own neurons are averaged by m Pᵀ: rows sum to one, a barycentre each [1]_.
    (The paper writes m P in both places, which is the same for n = m. For other widths it
    multiplies what readers hear by m/n.)

    Parameters
    ----------
    network_a, network_b : nn.Module
        Plain chains, MLPs or convnets, of the same depth; hidden widths may differ.
    a, b : Weights
    x : Tensor, shape (images, …), optional
        Inputs on which neurons are compared by their activations, as their readers see them. By
        default they are compared by what they receive.
    regularisation : float, optional
        As for `plan`.

    Returns
    -------
    Weights
        For network_b.

    Raises
    ------
    ValueError
        If the networks are no plain chains, or differ in activations or in shapes other than
        hidden widths; if weights or inputs do not fit; or as `plan`.

    References
    ----------
    .. [1] Singh and Jaggi, Model Fusion via Optimal Transport, 2020.
    """
    check_weights(a, like=check_network(network_a, "network_a"), name="a")
    check_weights(b, like=check_network(network_b, "network_b"), name="b")
    ours, theirs = _links(network_a, a), _links(network_b, b)
    _check_alike(ours, a, theirs, b)
    _check_between(network_a, network_b)
    seen = [{}, {}]
    if x is not None:
        seen = [_clouds(network_a, a, ours, x), _clouds(network_b, b, theirs, x)]
    found, below = {}, None
    for one, two in zip(ours, theirs, strict=True):
        w, bias = a[f"{one.name}.weight"], a.get(f"{one.name}.bias")
        if below is not None:
            columns = w.unflatten(1, (one.below, one.each))
            w = torch.einsum("oie...,ij->oje...", columns, below.to(w)).flatten(1, 2)
        if one is not ours[-1]:
            if x is None:
                points = [_rows(w, bias), _rows(b[f"{two.name}.weight"], b.get(f"{two.name}.bias"))]
            else:
                points = [seen[0][one.name], seen[1][two.name]]
            shares = plan(ground_cost(*points), regularisation=regularisation)  # (n, m)
            means = two.size * shares.T
            w = torch.einsum("mn,n...->m...", means.to(w), w)
            bias = None if bias is None else means.to(bias) @ bias
            below = one.size * shares
        found[f"{two.name}.weight"] = w
        if bias is not None:
            found[f"{two.name}.bias"] = bias
    return {key: found[key] for key in b}


def _links(network: nn.Module, weights: Weights) -> list[_Link]:
    """The layers of a plain chain, outputs included."""
    layers, links = hidden_layers(network), []
    below = (0, 1)
    for layer in layers:
        extra = [t for t in layer.incoming if t.rpartition(".")[0] != layer.name]
        if extra or len(layer.outgoing) != 1:
            raise ValueError(
                f"hidden layer {layer.name!r} is no link of a plain chain: it has"
                f" {len(layer.outgoing)} readers and also {extra or 'nothing else'}; fusion needs"
                " MLPs or convnets without BatchNorm and residual streams"
            )
        links.append(_Link(layer.name, layer.size, *below))
        below = (layer.size, layer.outgoing[0].each)
    if not links:
        raise ValueError(f"{type(network).__name__} has no hidden layer, so nothing to carry")
    last = layers[-1].outgoing[0].tensor
    return [*links, _Link(last.removesuffix(".weight"), len(weights[last]), *below)]


def _check_alike(ours: list[_Link], a: Weights, theirs: list[_Link], b: Weights) -> None:
    """Networks that differ in hidden widths alone."""
    if len(ours) != len(theirs):
        raise ValueError(
            f"a has {len(ours) - 1} hidden layers and b has {len(theirs) - 1}; fusion needs as many"
        )
    for k, (one, two) in enumerate(zip(ours, theirs, strict=True)):
        shapes = [(*w[f"{link.name}.weight"].shape,) for link, w in ((one, a), (two, b))]
        free = [  # what widths do not explain: outputs, columns for each neuron below, kernels
            (shape[0] if k == len(ours) - 1 else 0, link.each if k else shape[1], *shape[2:])
            for shape, link in zip(shapes, (one, two), strict=True)
        ]
        biases = [f"{link.name}.bias" in w for link, w in ((one, a), (two, b))]
        if free[0] != free[1] or biases[0] != biases[1]:
            with_bias = [" and a bias" if there else " and no bias" for there in biases]
            raise ValueError(
                f"layer {one.name!r} of a has weights of shape {shapes[0]}{with_bias[0]}, layer"
                f" {two.name!r} of b {shapes[1]}{with_bias[1]}; only hidden widths may differ"
            )


def _check_between(network_a: nn.Module, network_b: nn.Module) -> None:
    """The same activations and pooling, in the same order. For the rest shapes have spoken."""
    kinds = [
        [type(module).__name__ for _, module in chain(network) if not isinstance(module, _APART)]
        for network in (network_a, network_b)
    ]
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"between its layers a has {kinds[0]}, b has {kinds[1]}; only hidden widths may differ"
        )


def _rows(w: Tensor, bias: Tensor | None) -> Tensor:
    """What each neuron receives, as a point: (n, D)."""
    return w.flatten(1) if bias is None else torch.cat([w.flatten(1), bias[:, None]], 1)


def _clouds(network: nn.Module, w: Weights, links: list[_Link], x: Tensor) -> dict[str, Tensor]:
    """Each hidden neuron's activations over images and pixels, as a point: (n, samples)."""
    tried_layers(network, check_inputs(x))
    read = {links[k + 1].name: links[k] for k in range(len(links) - 1)}
    found: dict[str, Tensor] = {}

    def note(name: str, given: Tensor, out: Tensor) -> None:
        link = read[name]
        found[link.name] = given.reshape(len(given), link.size, -1).transpose(0, 1).flatten(1)

    watch(network, w, x, read, note)
    return found
