"""What flows through a network: the inputs and outputs of its layers, seen and changed."""

import copy
from collections.abc import Callable, Iterable
from functools import partial

from torch import Tensor, nn

from .weights import Weights, apply

# (name of a layer, its input, its output) -> None, or what takes the output's place
See = Callable[[str, Tensor, Tensor], Tensor | None]


def watch(
    network: nn.Module, weights: Weights, x: Tensor, names: Iterable[str], see: See
) -> Tensor:
    """Run a copy of the network, show `see` each named layer's input and output, return outputs.

    Parameters
    ----------
    network : nn.Module
        The architecture.
    weights : Weights
        The weights it is run with.
    x : Tensor, shape (images, …)
        The inputs; they follow the weights' device and precision.
    names : iterable of str
        Layers, as `network.named_modules()` names them.
    see : function of a layer's name, input and output
        What it returns, unless None, takes the output's place from there on.

    Returns
    -------
    Tensor, shape (images, classes)
    """

    def show(name: str, module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> Tensor | None:
        return see(name, given[0], out)

    network = copy.deepcopy(network).eval()
    for name in names:
        network.get_submodule(name).register_forward_hook(partial(show, name))
    return apply(network, weights, x.to(next(iter(weights.values()))))
