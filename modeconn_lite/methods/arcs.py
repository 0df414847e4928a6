"""Chapter 4. Keep the shape of the cloud: neurons as a sample, and the arc that leaves its law.

Half-way along the straight line a cloud of neurons has lost half of its variance. Along the arc
none is lost: of two independent Gaussian samples of one law, every point of the arc is another.
"""

import torch
from torch import nn

from ..checks import check_network, check_split
from ..data import Split
from ..layout import hidden_layers
from ..paths import Path, quarter_turn
from ..weights import Weights, check_weights
from .base import Method


def arc(network: nn.Module, a: Weights, b: Weights) -> Path:
    """The arc μ + cos(πt/2) (a − μ) + sin(πt/2) (b − μ), μ being the mean of all neurons [1]_.

    If a's and b's neurons are independent samples of one Gaussian law, so are the neurons at every
    t; and whatever their law is, mean and covariance stay what they are, in expectation.

    Parameters
    ----------
    network : nn.Module
        The architecture; what its hidden neurons are is derived from it.
    a, b : Weights

    Returns
    -------
    Path
        A mix of a, b and μ, from a to b. It is no longer a shortest way: √2 π/4 times as long as
        the line, for independent ends and μ = 0.

    Raises
    ------
    ValueError
        If a and b do not fit the network, or it is not understood.

    See Also
    --------
    mean_neuron : what μ is, number by number.

    References
    ----------
    .. [1] Anokhin and Yarotsky, Low-loss connection of weight vectors: distribution-based
       approaches, 2020, Proposition 1.
    """
    return quarter_turn(a, b, mean_neuron(network, a, b))  # which checks everything


def mean_neuron(network: nn.Module, a: Weights, b: Weights) -> Weights:
    """Weights all of whose neurons are the mean neuron of a and b together.

    Of a layer's incoming weights, biases and other vectors that is the mean over its neurons. The
    weights that produce the outputs belong to the neurons that they read: theirs is the mean over
    those. An output bias belongs to no neuron; it gets the midpoint of both, and so its arc is a
    straight line at another pace. (Released code [1]_ takes midpoints for all biases of deep
    networks, whose neurons' biases then shrink as along a line.)

    Raises
    ------
    ValueError
        If the network is not understood, or the weights do not fit.

    References
    ----------
    .. [1] github.com/avecplezir/distribution-based-connectivity
    """
    check_weights(a, like=check_network(network), name="a")
    check_weights(b, like=a, name="b")
    layers = hidden_layers(network)
    rows = {s for layer in layers for s in layer.incoming}
    read = {s.tensor: (layer.size, s.each) for layer in layers for s in layer.outgoing}
    found = {}
    for name in a:
        both = torch.stack([a[name], b[name]])  # (2, …)
        if name in rows:
            mean = both.mean((0, 1), keepdim=True)
        elif name in read:
            each = both.unflatten(2, read[name])  # (2, outputs, neurons, each, …)
            mean = each.mean((0, 2), keepdim=True).expand_as(each).flatten(2, 3)
        else:
            mean = both.mean(0, keepdim=True)
        found[name] = mean.expand_as(both)[0].clone()
    return found


def connect_arc(network: nn.Module, a: Weights, b: Weights, split: Split) -> Path:
    """The arc from a to b. No data is needed; see `arc`."""
    check_split(split)
    return arc(network, a, b)


METHODS = (Method("arc", "Arc", connect_arc),)
