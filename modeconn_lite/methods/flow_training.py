"""Training of the flows of chapter 4 by the likelihood of neurons.

Released code [1]_ lacks it. By the loss half-way they are trained in `bijection`; which ones ship
is in `flow_recipes`.

References
----------
.. [1] github.com/avecplezir/distribution-based-connectivity
"""

from collections.abc import Iterator, Sequence
from pathlib import Path as FilePath

import torch
from torch import Tensor, nn

from ..checks import check_number, check_whole
from ..weights import Weights
from .fitting import Fit, FlowTraining
from .flows import neuron_parts, neuron_sample
from .invertible import Flow


def fit_likelihood(
    network: nn.Module,
    many: Sequence[Weights],
    kind: str = "rnvp",
    *,
    layers: int = 6,
    hidden: int = 64,
    epochs: int = 8,
    batch: int = 256,
    rate: float = 5e-4,
    weight_decay: float = 1e-2,
    jitter: float = 0.2,
    held_out: int = 0,
    seed: int = 0,
    progress: bool = False,
    checkpoint: str | FilePath | None = None,
) -> FlowTraining:
    """A flow under which the neurons of these networks are most likely [1]_: *Flow* training.

    Maximises the mean of log η(ν(x)) + log |det ∂ν/∂x| over neurons x, η being the standard
    Gaussian density.

    Parameters
    ----------
    network : nn.Module
        The architecture, of one hidden layer.
    many : sequence of Weights
        Two networks or more.
    kind, layers, hidden
        As for `Flow`.
    epochs, batch : int
        Passes over all neurons, and neurons in one step of Adam.
    rate, weight_decay : float
        Of Adam; the rate falls to zero along half a cosine, the decay is decoupled.
    jitter : float
        Standard deviation of noise on the neurons in training, in standardised units. Neurons that
        are all alike, as dead ones may be, would else have no density.
    held_out : int
        So many of the last networks are not learned from, but choose the epoch.
    seed : int
        Draws initial weights, noise and the order of neurons. Equal on one machine.
    progress : bool
        Whether to show a bar.
    checkpoint : path, optional
        As for `training.train`: written after every epoch; an interrupted call continues there.

    Raises
    ------
    ValueError
        If a number is out of range, networks do not fit, fewer than two are left to learn from,
        the loss diverges, or a checkpoint belongs to another training.

    References
    ----------
    .. [1] Anokhin and Yarotsky, Low-loss connection of weight vectors: distribution-based
       approaches, 2020, section 3.3.
    """
    batch = check_whole(batch, "batch", low=1)
    jitter = check_number(jitter, "jitter", low=0)
    rows = neuron_sample(network, many)
    own, others = parted(rows, held_out)
    x, unseen = own.flatten(0, 1), others.flatten(0, 1)
    flow = new_flow(network, x, kind, layers, hidden, seed)

    def losses(g: torch.Generator) -> Iterator[Tensor]:
        for chosen in torch.randperm(len(x), generator=g).split(batch):
            noise = torch.randn(len(chosen), flow.size, generator=g).to(x) @ flow.root
            yield -flow.log_density(x[chosen.to(x.device)] + jitter * noise).mean()

    words = {"batch": repr(batch), "jitter": repr(jitter), "trained by": "likelihood"}
    fit = Fit(flow, epochs, rate, weight_decay, held_out, seed, rows, words)
    return fit.run(losses, lambda: -flow.log_density(unseen).mean(), progress, checkpoint)


def parted(rows: Tensor, held_out: int) -> tuple[Tensor, Tensor]:
    """Networks to learn from, and those held out."""
    own = len(rows) - check_whole(held_out, "held_out")
    if own < 2:
        raise ValueError(
            f"of {len(rows)} networks, {held_out} held out leave {max(own, 0)} to learn from; a"
            " flow needs two at least, and serves others the better the more there are"
        )
    return rows[:own], rows[own:]


def new_flow(network: nn.Module, x: Tensor, kind: str, layers: int, hidden: int, seed: int) -> Flow:
    """An untrained flow that standardises these neurons, in their precision and place."""
    check_whole(layers, "layers", low=1)
    if x.dtype.itemsize < 4:
        raise ValueError(
            f"a flow is not trained in {x.dtype}; give weights.to(w, torch.float32) of each"
            " network: the flow then serves those in half precision too"
        )
    flow = Flow(neuron_parts(network), kind, layers=layers, hidden=hidden, seed=seed).to(x)
    flow.fit_gaussian(x)
    return flow
