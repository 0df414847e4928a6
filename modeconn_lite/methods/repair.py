"""Chapter 2. REPAIR: neurons half-way between two networks get back the spread that they lost."""

import torch
from torch import Tensor, nn

from ..activations import watch
from ..checks import check_inputs, check_network, check_number
from ..neurons import tried_layers
from ..paths import FunctionPath, segment
from ..weights import Weights, check_weights


def repair(
    network: nn.Module, weights: Weights, a: Weights, b: Weights, t: float, x: Tensor
) -> Weights:
    """REPAIR [1]_: give hidden neurons the statistics that their ends had.

    Layer after layer, incoming weights and biases are changed so that over x the mean and the
    standard deviation of each neuron's pre-activation are (1 − t) times a's plus t times b's.

    Parameters
    ----------
    network : nn.Module
        The architecture.
    weights : Weights
        What is repaired, usually (1 − t) a + t b.
    a, b : Weights
        The ends, b in an order matched to a's.
    t : float
        How far it is from a to b, from 0 to 1.
    x : Tensor, shape (images, …)

    Raises
    ------
    ValueError
        If weights or inputs do not fit, the network is not understood, t is out of range, or a
        hidden layer has BatchNorm (recompute its statistics instead) or no bias.

    Notes
    -----
    One forward pass over x for each of a, b and the weights.

    References
    ----------
    .. [1] Jordan et al., REPAIR: REnormalizing Permuted Activations for Interpolation Repair,
       2023.
    """
    check_number(t, "t", low=0, high=1)
    check_weights(weights, like=check_network(network))
    for name, w in (("a", a), ("b", b)):
        check_weights(w, like=weights, name=name)
    mine, theirs = moments(network, a, x), moments(network, b, x)
    return _with_moments(network, weights, _between(mine, theirs, t), x)


def repaired(network: nn.Module, a: Weights, b: Weights, x: Tensor) -> FunctionPath:
    """The straight line from a to b with every point between repaired; the ends are a and b.

    Parameters and errors are those of `repair`. Each point costs one forward pass over x.
    """
    check_weights(a, like=check_network(network), name="a")
    line, mine, theirs = segment(a, b), moments(network, a, x), moments(network, b, x)

    def point(t: float) -> Weights:
        w = line(t)
        if t in (0, 1):
            return w
        return _with_moments(network, w, _between(mine, theirs, t), x)

    return FunctionPath(point, "line + REPAIR")


@torch.no_grad()
def moments(network: nn.Module, weights: Weights, x: Tensor) -> dict[str, Tensor]:
    """Mean and standard deviation over x of every hidden pre-activation: {layer: (2, n)}."""
    found: dict[str, Tensor] = {}

    def note(name: str, given: Tensor, out: Tensor) -> None:
        found[name] = _mean_and_deviation(out)

    watch(network, weights, x, _computing(network, x), note)
    return found


@torch.no_grad()
def _with_moments(
    network: nn.Module, weights: Weights, goal: dict[str, Tensor], x: Tensor
) -> Weights:
    changed = dict(weights)

    def mend(name: str, given: Tensor, out: Tensor) -> Tensor:
        (mean, deviation), (wanted, spread) = _mean_and_deviation(out), goal[name]  # (n,) each
        # A neuron that is constant over x has no deviation to rescale, but for rounding.
        rounding = 10 * torch.finfo(out.dtype).eps * mean.abs()
        factor = torch.where(deviation > rounding, spread / deviation, 1.0)  # (n,)
        w, bias = f"{name}.weight", f"{name}.bias"
        changed[w] = weights[w] * factor.view(-1, *[1] * (weights[w].dim() - 1))
        changed[bias] = (weights[bias] - mean) * factor + wanted
        shape = (1, -1, *[1] * (out.dim() - 2))  # (1, n), or (1, n, 1, 1) for filters
        return (out - mean.view(shape)) * factor.view(shape) + wanted.view(shape)

    watch(network, weights, x, goal, mend)  # later layers see the mended ones
    return changed


def _between(mine: dict[str, Tensor], theirs: dict[str, Tensor], t: float) -> dict[str, Tensor]:
    return {name: (1 - t) * mine[name] + t * theirs[name] for name in mine}


def _mean_and_deviation(out: Tensor) -> Tensor:
    """Of each neuron over images (and pixels): shape (2, n)."""
    over = [axis for axis in range(out.dim()) if axis != 1]
    mean = out.mean(over, keepdim=True)
    spread = (out - mean).square().mean(over)  # several times as fast as torch.std_mean
    return torch.stack([mean.flatten(), spread.sqrt()])


def _computing(network: nn.Module, x: Tensor) -> set[str]:
    """Names of the layers whose outputs are hidden neurons."""
    layers = tried_layers(check_network(network), check_inputs(x))
    rows = {tensor for layer in layers for tensor in layer.incoming}
    names = {tensor.rpartition(".")[0] for tensor in rows}
    for name in names:
        if not isinstance(network.get_submodule(name), nn.Linear | nn.Conv2d):
            raise ValueError(f"layer {name!r} normalises: recompute its statistics instead")
        if f"{name}.bias" not in rows:
            raise ValueError(f"layer {name!r} has no bias, so its means cannot be set; add one")
    return names
