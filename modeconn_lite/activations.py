"""What flows through a network: the inputs and outputs of its layers, seen and changed."""

from collections.abc import Callable, Iterable
from functools import partial

from torch import Tensor, nn

from .checks import check_inputs, check_network, describe
from .running import Runner
from .weights import Weights, check_weights

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

    Raises
    ------
    ValueError
        If the weights or the inputs do not fit the network, or there is no such layer.
    """
    check_weights(weights, like=check_network(network))
    check_inputs(x)
    if not isinstance(names, Iterable) or isinstance(names, str):
        raise ValueError(f"names must be a list of names of layers, not {describe(names)}")
    names, known = list(names), {name for name, _ in network.named_modules()}
    for name in names:
        if name not in known:
            raise ValueError(f"no layer {name!r}; this network has {tuple(sorted(known - {''}))}")
    if not callable(see):
        raise ValueError(f"see must be a function (name, input, output), not {describe(see)}")

    def show(name: str, module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> Tensor | None:
        seen = see(name, given[0], out)
        if seen is not None and (not isinstance(seen, Tensor) or seen.shape != out.shape):
            raise ValueError(
                f"see must return None or an output of shape {tuple(out.shape)} for layer"
                f" {name!r}, not {describe(seen)}"
            )
        return seen

    def set_hooks(copied: nn.Module) -> None:
        for name in names:
            copied.get_submodule(name).register_forward_hook(partial(show, name))

    example = next(iter(weights.values()))
    return Runner(network, example)(weights, x.to(example), set_hooks)
