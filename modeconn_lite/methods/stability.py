"""Chapter 3. Which half of a network to keep, what it costs to switch the other half off, and how
much of the noise in a layer arrives at the outputs.

Hidden layers are counted from 0. `kept` names, for each of them, the neurons that stay.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ..activations import watch
from ..batch_statistics import settled
from ..checks import (
    check_choice,
    check_indices,
    check_inputs,
    check_network,
    check_number,
    check_split,
    check_whole,
    describe,
)
from ..data import Split
from ..evaluation import evaluate
from ..layout import Hidden, hidden_layers
from ..neurons import butterflies, mute, tried_layers
from ..weights import Weights, check_weights

Kept = Mapping[str, Tensor | Sequence[int]]
Search = Literal["random", "greedy", "magnitude"]


def layers_of(network: nn.Module) -> list[Hidden]:
    """The hidden layers of a network that the path is defined for: a chain, each read by the next.

    Raises
    ------
    ValueError
        For a residual stream or BatchNorm; the message names the layer.
    """
    layers = hidden_layers(network)
    for layer in layers:
        own = {f"{layer.name}.weight", f"{layer.name}.bias"}
        strange = [tensor for tensor in layer.incoming if tensor not in own]
        if strange or len(layer.outgoing) != 1:
            raise ValueError(
                f"hidden layer {layer.name!r} is no link of a plain chain: it has"
                f" {len(layer.outgoing)} readers and also {strange or 'nothing else'}; the dropout"
                " path needs an MLP or convnet without BatchNorm and residual streams"
            )
    if not layers:
        raise ValueError(f"{type(network).__name__} has no hidden layer, so nothing to drop")
    return layers


def dropped(network: nn.Module, w: Weights, kept: Kept, from_layer: int = 0) -> Weights:
    """Hidden layers `from_layer` and above keep only their kept neurons, rescaled by n / kept.

    Outgoing weights are rescaled and biases are not, which is right for any activation. The
    switched-off neurons stay as they are, but nothing reads them.

    Parameters
    ----------
    network : nn.Module
        The architecture.
    w : Weights
    kept : dict of str to integers
        For each hidden layer the neurons that stay, at most half of them.
    from_layer : int
        The first hidden layer that is dropped, counted from 0.

    Raises
    ------
    ValueError
        If the weights do not fit, the network is no plain chain, there is no such layer, or
        `kept` does not name each of its hidden layers and from one neuron to half of them.
    """
    layers = layers_of(network)
    places = places_of(layers, kept)
    check_whole(from_layer, "from_layer", high=len(layers) - 1)
    names = [layer.name for layer in layers]
    return mute(network, w, dict(list(zip(names, places, strict=True))[from_layer:]))


def stability(network: nn.Module, w: Weights, kept: Kept, split: Split) -> list[float]:
    """ε of every suffix of layers: what dropping layers i and above costs, in nats.

    Entry i is for the network whose hidden layers i, i + 1, … are dropped, so entry 0 is the
    fully dropped one. The theorem needs the largest of them. Parameters and errors are those of
    `dropped`; losses are measured on `split`.

    Notes
    -----
    One forward pass for each hidden layer, and one more.
    """
    check_weights(w, like=check_network(network))
    tried_layers(network, check_split(split).x)
    count = len(layers_of(network))
    places_of(layers_of(network), kept)
    base = evaluate(network, w, split).loss
    losses = [evaluate(network, dropped(network, w, kept, i), split).loss for i in range(count)]
    return [loss - base for loss in losses]


def find_kept(
    network: nn.Module,
    w: Weights,
    split: Split,
    *,
    method: Search = "greedy",
    trials: int = 20,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Which ⌊n/2⌋ neurons of each hidden layer to keep, so that no suffix of layers costs much.

    Parameters
    ----------
    network : nn.Module
        The architecture.
    w : Weights
    split : Split
        Where losses are measured.
    method : str
        "random": the best of `trials` draws of all layers at once. "greedy": from the top layer
        down, the best of `trials` draws of that layer, those above being settled. "magnitude":
        the neurons whose incoming and outgoing weights have the largest product of lengths.
    trials : int
        How many draws.
    seed : int
        What they are drawn under.

    Returns
    -------
    dict of str to Tensor, shape (⌊n/2⌋,)
        For each hidden layer the neurons to keep, in rising order.

    Raises
    ------
    ValueError
        If the weights do not fit, the network is no plain chain, a layer has one neuron only, or
        an option is out of range.

    Notes
    -----
    "random" and "greedy" take `trials` forward passes for each hidden layer, "magnitude" none.
    """
    check_choice(method, "method", ("random", "greedy", "magnitude"))
    check_whole(trials, "trials", low=1)
    check_whole(seed, "seed")
    check_weights(w, like=check_network(network))
    tried_layers(network, check_split(split).x)
    layers = layers_of(network)
    for layer in layers:
        if layer.size < 2:
            raise ValueError(f"layer {layer.name!r} has one neuron; no half of it can be kept")
    generator = torch.Generator().manual_seed(seed)

    def draw(layer: Hidden) -> Tensor:
        return torch.randperm(layer.size, generator=generator)[: layer.size // 2].sort().values

    def cost(kept: dict[str, Tensor], from_layer: int) -> float:
        names = [layer.name for layer in layers[from_layer:]]
        muted = mute(network, w, {name: kept[name] for name in names})
        return evaluate(network, muted, split).loss

    if method == "magnitude":
        return {layer.name: _strongest(w, layer) for layer in layers}
    if method == "random":
        draws = [{layer.name: draw(layer) for layer in layers} for _ in range(trials)]
        return min(draws, key=lambda kept: max(cost(kept, i) for i in range(len(layers))))
    kept: dict[str, Tensor] = {}
    for i in range(len(layers) - 1, -1, -1):
        halves = [kept | {layers[i].name: draw(layers[i])} for _ in range(trials)]
        kept = min(halves, key=lambda half: cost(half, i))
    return {layer.name: kept[layer.name] for layer in layers}


def places_of(layers: list[Hidden], kept: Kept) -> list[Tensor]:
    """The kept units of every layer, checked."""
    if not isinstance(kept, Mapping):
        raise ValueError(f"kept must be a dict from names of hidden layers, not {describe(kept)}")
    missing = [layer.name for layer in layers if layer.name not in kept]
    if missing or len(kept) != len(layers):
        raise ValueError(
            f"kept must name the hidden layers {[layer.name for layer in layers]}, not {list(kept)}"
        )
    places = []
    for layer in layers:
        units = check_indices(kept[layer.name], layer.size, f"kept[{layer.name!r}]")
        if len(units) > layer.size // 2:
            raise ValueError(
                f"keep between 1 and {layer.size // 2} different neurons of layer {layer.name!r},"
                f" half of its {layer.size}, so that the others can hold a copy; got {len(units)}"
            )
        places.append(units)
    return places


def _strongest(w: Weights, layer: Hidden) -> Tensor:
    """The half whose incoming and outgoing weights have the largest product of lengths."""
    rows, reader = butterflies(w, layer), layer.outgoing[0].tensor  # (n, D)
    width = w[reader].numel() // layer.size
    strength = rows[:, :-width].norm(dim=1) * rows[:, -width:].norm(dim=1)  # (n,)
    return strength.topk(layer.size // 2).indices.sort().values.cpu()


@torch.no_grad()
def noise_sensitivity(
    network: nn.Module, w: Weights, x: Tensor, *, size: float = 0.5, seed: int = 0
) -> dict[str, float]:
    """How much the outputs change when noise is added to a hidden layer, for each layer alone.

    The noise is Gaussian, drawn anew for each input, and has `size` times the length of that
    layer's pre-activation z. The sensitivity is the mean over inputs of

        |f(z + noise) − f(z)|² / |f(z)|²,

    as in [1]_, where the noise has another length. Noise that passed undamped would give size².

    Parameters
    ----------
    network : nn.Module
        The architecture.
    w : Weights
    x : Tensor, shape (images, …)
    size : float
        Length of the noise in lengths of z.
    seed : int
        What the noise is drawn under.

    Returns
    -------
    dict of str to float
        For each hidden layer the sensitivity.

    Raises
    ------
    ValueError
        If the weights or inputs do not fit, the network is not understood, size is not positive,
        or outputs are zero, so that no change is small against them.

    Notes
    -----
    One forward pass a layer, and one more.

    References
    ----------
    .. [1] Arora et al., Stronger Generalization Bounds for Deep Nets via a Compression Approach,
       2018.
    """
    check_weights(w, like=check_network(network))
    check_number(size, "size", low=0, open_low=True)
    check_whole(seed, "seed")
    layers = tried_layers(network, check_inputs(x))
    network, generator = settled(network, w, x), torch.Generator().manual_seed(seed)

    def disturb(name: str, given: Tensor, out: Tensor) -> Tensor:
        noise = torch.randn(out.shape, generator=generator, dtype=out.dtype).to(out.device)
        over = tuple(range(1, out.dim()))
        lengths = [torch.linalg.vector_norm(z, dim=over, keepdim=True) for z in (out, noise)]
        return out + size * lengths[0] / lengths[1] * noise

    calm = watch(network, w, x, set(), disturb)
    if not calm.flatten(1).any(1).all():
        raise ValueError("the outputs for some inputs are all zero; leave these inputs out")
    found = {}
    for layer in layers:
        moved = watch(network, w, x, {layer.name}, disturb)
        change = (moved - calm).square().flatten(1).sum(1) / calm.square().flatten(1).sum(1)
        found[layer.name] = check_number(float(change.mean()), f"noise behind layer {layer.name!r}")
    return found
