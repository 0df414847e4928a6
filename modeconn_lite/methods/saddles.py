"""Chapter 2. Swapping two neurons without a hill: Brea's valley, and curvature at its saddle."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import grad, jacrev

from ..checks import check_inputs, check_network, check_whole, describe
from ..layout import Hidden, hidden_layers
from ..neurons import swap
from ..paths import Path, polychain
from ..weights import Weights, apply, check_weights, from_vector, to_vector

Loss = Callable[[Tensor, Tensor], Tensor]
LARGEST_HESSIAN = 2000  # parameters; beyond, a dense Hessian takes minutes and gigabytes


def permutation_valley(
    network: nn.Module,
    weights: Weights,
    layer: str,
    i: int,
    j: int,
    x: Tensor,
    y: Tensor,
    *,
    loss: Loss = F.cross_entropy,
    steps: int = 12,
    iterations: int = 40,
    polish: int = 10,
) -> Path:
    """From a solution to its copy with neurons i and j exchanged, in a valley [1]_.

    The difference of the two neurons' incoming vectors (biases included) is shortened in equal
    steps; after each, everything else is minimised again on all of x with L-BFGS. Once both
    vectors are equal, only the sum of the two outgoing vectors matters: exchanging them along a
    straight line leaves the function as it is. Then the same way back, with i and j exchanged.

    Parameters
    ----------
    network : nn.Module
        The architecture.
    weights : Weights
        The solution.
    layer : str
        Name of the hidden layer.
    i, j : int
        Two of its neurons.
    x : Tensor, shape (images, …)
        Training inputs.
    y : Tensor, shape (images, …)
        Training targets.
    loss : function
        (outputs, targets) -> mean loss.
    steps : int
        From the start to the collision.
    iterations : int
        Of L-BFGS at each of them.
    polish : int
        How many times as many at the collision, so that it is a minimum among its like.

    Returns
    -------
    Path
        A polychain of 2 (steps + polish) points. At its middle, t = ½, half-way on the plateau,
        the two neurons are equal in every weight. Its end is `neurons.swap(…)` of its start to
        the bit.

    Raises
    ------
    ValueError
        If the weights or inputs do not fit, there is no such layer or neuron, i = j, `loss` is no
        function to one finite number, or steps, iterations or polish are not positive.

    Notes
    -----
    Up to (steps + polish) · iterations turns of L-BFGS, each of one pass over x, forward and
    back, or a few.

    References
    ----------
    .. [1] Brea et al., Weight-space Symmetry in Deep Networks Gives Rise to Permutation Saddles,
       Connected by Equal-loss Valleys across the Loss Landscape, 2019.
    """
    check_weights(weights, like=check_network(network))
    swap(network, weights, layer, i, j)  # checks the names
    if i == j:
        raise ValueError(f"i and j must be two neurons, not {i} twice")
    for name, count in {"steps": steps, "iterations": iterations, "polish": polish}.items():
        check_whole(count, name, low=1)
    x = _check_loss(network, weights, x, y, loss)
    hidden = next(h for h in hidden_layers(network) if h.name == layer)
    there = [weights]
    start = float(_gap(weights, hidden, i, j))
    for k in range(1, steps + 1):
        gap = start * (1 - k / steps)

        def within(w: Weights, gap: float = gap) -> Weights:
            return _with_gap(w, hidden, i, j, gap)

        for _ in range(1 if k < steps else polish):
            there.append(_minimised(network, there[-1], x, y, loss, within, iterations))
    back = [swap(network, w, layer, i, j) for w in reversed(there)]
    return polychain([*there, *back], name="valley")


def _check_loss(network: nn.Module, weights: Weights, x: Tensor, y: Tensor, loss: Loss) -> Tensor:
    """The inputs, once they and the targets have given one finite number as their loss."""
    check_inputs(x)
    if not isinstance(y, Tensor) or y.shape[:1] != x.shape[:1]:
        raise ValueError(
            f"y must be a tensor with a target for each of {len(x)} inputs, not {describe(y)}"
        )
    if not callable(loss):
        raise ValueError(f"loss must be a function (outputs, targets), not {describe(loss)}")
    with torch.no_grad():
        out = apply(network, weights, x)
        try:
            value = loss(out, y)
        except Exception as error:
            raise ValueError(
                f"loss fails on outputs of shape {tuple(out.shape)} and targets {describe(y)}:"
                f" {(str(error) or type(error).__name__).splitlines()[0]}"
            ) from error
    if not isinstance(value, Tensor) or value.dim() or not torch.isfinite(value):
        raise ValueError(
            f"loss must give one finite number, as a tensor of shape (), not {describe(value)}"
        )
    return x.detach()


def _gap(weights: Weights, hidden: Hidden, i: int, j: int) -> Tensor:
    """Length of the difference of two neurons' incoming vectors: shape ()."""
    parts = [(weights[name][i] - weights[name][j]).reshape(-1) for name in hidden.incoming]
    return torch.cat(parts).norm()  # (D,) → ()


def _with_gap(weights: Weights, hidden: Hidden, i: int, j: int, gap: float) -> Weights:
    """Both neurons moved along their difference until its length is `gap`; their mean stays."""
    factor = gap / _gap(weights, hidden, i, j) if gap else 0.0
    changed = dict(weights)
    for name in hidden.incoming:
        one, two = weights[name][i], weights[name][j]  # (inputs, …) each, () for a bias
        mean, half = (one + two) / 2, factor * (one - two) / 2
        places = torch.tensor([i, j], device=one.device)
        pair = torch.stack([mean + half, mean - half])  # (2, inputs, …)
        changed[name] = weights[name].index_copy(0, places, pair)
    return changed


def _minimised(
    network: nn.Module, weights: Weights, x: Tensor, y: Tensor, loss: Loss, to: Callable, turns: int
) -> Weights:
    """Descend with L-BFGS among the weights that `to` allows; never ends higher than it starts."""
    free = {key: w.detach().clone().requires_grad_() for key, w in weights.items()}
    settings = {"history_size": 20, "tolerance_grad": 1e-12, "tolerance_change": 1e-16}
    optimiser = torch.optim.LBFGS(
        list(free.values()), max_iter=turns, line_search_fn="strong_wolfe", **settings
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = loss(apply(network, to(free), x), y)
        value.backward()
        return value

    optimiser.step(closure)
    return {key: w.detach() for key, w in to(free).items()}


def curvature(
    network: nn.Module, weights: Weights, x: Tensor, y: Tensor, *, loss: Loss = F.cross_entropy
) -> tuple[float, Tensor]:
    """Length of the loss's gradient, and the eigenvalues of its Hessian in rising order, (M,).

    Parameters
    ----------
    network : nn.Module
        The architecture.
    weights : Weights
        The point, of M parameters.
    x, y : Tensor, shape (images, …)
        Inputs and targets.
    loss : function
        (outputs, targets) -> mean loss.

    Raises
    ------
    ValueError
        For more than 2000 parameters: the dense Hessian has M² entries. If the weights or inputs
        do not fit, or `loss` is no function to one finite number.
    """
    check_weights(weights, like=check_network(network))
    vector = to_vector(weights).detach()  # (M,)
    if len(vector) > LARGEST_HESSIAN:
        raise ValueError(
            f"the Hessian of {len(vector)} parameters is too large; use at most {LARGEST_HESSIAN}"
        )

    x = _check_loss(network, weights, x, y, loss)

    def at(v: Tensor) -> Tensor:
        return loss(apply(network, from_vector(v, weights), x), y)

    slope, hessian = grad(at)(vector), jacrev(grad(at))(vector)  # (M,), (M, M)
    if not (torch.isfinite(slope.norm()) and torch.isfinite(hessian).all()):
        raise ValueError("the loss is so steep here that its derivatives overflow")
    return float(slope.norm()), torch.linalg.eigvalsh(hessian)
