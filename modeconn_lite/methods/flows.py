"""Chapter 4. When neurons are not Gaussian: an invertible map ν that makes them so, and back.

A network with one hidden layer is a sample of neurons. A `Flow` takes each neuron x, by itself, to
its latent z = ν(x). The path of two networks is an arc between latents, walked back through ν⁻¹:

    ψ(t) = ν⁻¹[cos(πt/2) ν(X) + sin(πt/2) ν(Y)].

If ν is affine this is the plain arc. `flow_training` and `bijection` learn ν; three maps ship.
"""

import copy
import json
import math
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from .. import zoo
from ..checks import (
    all_finite,
    check_choice,
    check_device,
    check_list,
    check_network,
    check_split,
    describe,
)
from ..data import Split
from ..layout import Hidden, hidden_layers
from ..neurons import butterflies, with_butterflies
from ..paths import FunctionPath
from ..weights import Weights, check_weights
from .arcs import arc
from .base import Method
from .invertible import Flow

FLOWS = {"rnvp-flow": "RNVP Flow", "iaf-flow": "IAF Flow", "rnvp-bijection": "RNVP Bijection"}


def the_layer(network: nn.Module) -> Hidden:
    """The hidden layer of a network that has one.

    Raises
    ------
    ValueError
        If it has more, or none, or is not understood.
    """
    layers = hidden_layers(check_network(network))
    if len(layers) != 1:
        raise ValueError(
            f"a flow moves the neurons of one hidden layer, and this {type(network).__name__} has"
            f" {len(layers)}: {[layer.name for layer in layers]}; arcs.arc takes any number"
        )
    return layers[0]


def neuron_parts(network: nn.Module) -> tuple[int, ...]:
    """How many numbers of a neuron stand in each tensor: (inputs, 1, outputs) for a plain MLP."""
    layer, shapes = the_layer(network), dict(network.named_parameters())
    own = [s.tensor for s in layer.slices if s.tensor in shapes]
    return tuple(shapes[tensor].numel() // layer.size for tensor in own)


def neuron_sample(network: nn.Module, many: Sequence[Weights]) -> Tensor:
    """The neurons of several networks, shape (networks, n, D): rows [incoming | bias | outgoing].

    The output bias is no part of any neuron.

    Raises
    ------
    ValueError
        If there are fewer than two networks, they do not fit, or they have not one hidden layer.
    """
    layer = the_layer(network)
    many = check_list(many, "the networks to learn from", "weights", least=2)
    for k, w in enumerate(many):
        check_weights(w, like=network, name=f"network {k}")
        check_weights(w, like=many[0], name=f"network {k}")
    return torch.stack([butterflies(w, layer) for w in many]).detach()


def check_flow(flow: Any, network: nn.Module) -> Flow:
    """A flow of this network's neurons.

    Raises
    ------
    ValueError
        If it is none, its neurons have other parts, or a number in it is not finite.
    """
    if not isinstance(flow, Flow):
        raise ValueError(f"flow must be a Flow, not {describe(flow)}")
    parts = neuron_parts(network)
    if flow.parts != parts:
        raise ValueError(
            f"this flow is of neurons with {flow.parts} numbers in each tensor; those of this"
            f" {type(network).__name__} have {parts}: train one with flow_training.fit_likelihood"
            " or bijection.fit_bijection, on networks like it"
        )
    if not all_finite(flow.state_dict()):
        raise ValueError("flow holds values that are not finite; train it at a smaller rate")
    return flow


def flow_path(
    network: nn.Module, a: Weights, b: Weights, flow: Flow, *, name: str = "flow"
) -> FunctionPath:
    """The path ν⁻¹[cos(πt/2) ν(X) + sin(πt/2) ν(Y)] of all neurons [1]_, Eq. 7.

    If ν takes the neurons' law to a standard Gaussian, the law stays at every t.

    Parameters
    ----------
    network : nn.Module
        The architecture, of one hidden layer and any width.
    a, b : Weights
        The path's ends, to the bit.
    flow : Flow
        ν, of neurons like these. It is used on the weights' device and in their precision, but no
        less than single.
    name : str
        How figures and tables call the path.

    Returns
    -------
    FunctionPath
        No mix of anchors: each point costs one ν⁻¹. The output bias, which is no part of a neuron,
        moves as in `arcs.arc`.

    Raises
    ------
    ValueError
        If weights, network and flow do not fit, or the network has not one hidden layer.

    References
    ----------
    .. [1] Anokhin and Yarotsky, Low-loss connection of weight vectors: distribution-based
       approaches, 2020.
    """
    layer, around = the_layer(network), arc(network, a, b)
    check_flow(flow, network)
    x, y = butterflies(a, layer), butterflies(b, layer)
    wide = torch.promote_types(x.dtype, torch.float32)  # in half precision ν⁻¹ would miss the ends
    x, y = x.to(wide), y.to(wide)
    own = copy.deepcopy(flow).to(x).requires_grad_(False)
    with torch.no_grad():
        start, end = own.latent(x), own.latent(y)

    @torch.no_grad()
    def weights_at(t: float) -> Weights:
        weights = around(t)
        if t in (0, 1):
            return weights
        cos, sin = math.sin(math.pi / 2 * (1 - t)), math.sin(math.pi / 2 * t)
        moved = with_butterflies(weights, layer, own.neurons(cos * start + sin * end))
        return {key: value.to(weights[key].dtype) for key, value in moved.items()}

    return FunctionPath(weights_at, name)


def load(name: str, device: torch.device | str = "cpu") -> Flow:
    """A trained flow that ships with the package, of the neurons of the zoo's "digits-wide".

    Parameters
    ----------
    name : str
        "rnvp-flow", "iaf-flow" or "rnvp-bijection". It learned from the set's first 16 networks.

    Raises
    ------
    ValueError
        If there is no such flow or device, or the file is damaged or missing; the message names it
        and the command that makes it.
    """
    check_choice(name, "name", FLOWS)
    return copy.deepcopy(_load(name)).to(check_device(device))


@cache
def _load(name: str) -> Flow:
    weights, about = zoo.shipped(name)
    options = json.loads(about["flow"])
    flow = Flow(options.pop("parts"), options.pop("kind"), **options)
    flow.load_state_dict(weights)
    return flow.requires_grad_(False)


def connect_flow(
    network: nn.Module, a: Weights, b: Weights, split: Split, *, name: str
) -> FunctionPath:
    """The path from a to b through a flow that ships. No data is needed; see `flow_path`."""
    check_split(split)
    return flow_path(network, a, b, load(name), name=FLOWS[name])


METHODS = tuple(Method(key, name, partial(connect_flow, name=key)) for key, name in FLOWS.items())
