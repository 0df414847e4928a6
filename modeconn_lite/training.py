"""Training many copies of a network at once, each with its own seed and its own order of data.

The copies are stacked along a leading axis and run by `torch.func.vmap`, so that a dozen small
networks cost little more than one. They never touch each other: the result equals training them
one by one.
"""

import copy
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path as FilePath

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn
from torch.func import functional_call, vmap
from tqdm.auto import tqdm

from .data import Split
from .networks import batch_norms
from .weights import (
    Weights,
    check_weights,
    fresh_weights,
    load,
    save,
    stack,
    to_vector,
    unstack,
)

# Factor on the learning rate, as a function of the fraction of training that is done.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
    # Garipov et al. (2018): constant for half, linear to 1 % at nine tenths, then 1 %.
    "plateau": lambda done: min(1.0, max(0.01, 1 - 0.99 * (done - 0.5) / 0.4)),
}
# Multiplications in one step below which a second thread gains nothing on an idle machine, and
# loses much on a busy one, where each of many small operations would wait for it.
SMALL_STEP = 50_000_000
Augment = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Training:
    """What `train` returns.

    Attributes
    ----------
    seeds : tuple of int
        One for each network.
    weights : list of Weights
        The trained networks, in the order of the seeds.
    loss : Tensor, shape (epochs, networks)
        Mean training loss in nats.
    snapshots : dict of int to list of Weights
        For each epoch asked for, the networks as they were after it (0: untrained).
    """

    seeds: tuple[int, ...]
    weights: list[Weights] = field(repr=False)
    loss: Tensor = field(repr=False)
    snapshots: dict[int, list[Weights]] = field(repr=False)


def train(
    network: nn.Module,
    split: Split,
    seeds: Sequence[int],
    *,
    epochs: int,
    rate: float = 0.1,
    schedule: str = "cosine",
    batch: int = 64,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    start: Sequence[Weights] | None = None,
    augment: Augment | None = None,
    snapshots: Sequence[int] = (),
    progress: bool = False,
    checkpoint: str | FilePath | None = None,
    device: torch.device | str | None = None,
) -> Training:
    """Train one copy of `network` per seed with SGD on cross-entropy, all copies at once.

    Parameters
    ----------
    network : nn.Module
        The architecture; its own weights are neither used nor changed.
    split : Split
        The training images, shape (n, …), and labels, shape (n,).
    seeds : sequence of int
        Each fixes a network's initial weights, its order of the data, its augmentation and its
        dropout masks. The same seed gives the same network in whatever company it trains.
    epochs, batch : int
        Passes over the split, and images in one step of each network.
    rate, momentum, weight_decay : float
        Of SGD, as in `torch.optim.SGD`.
    schedule : str
        "constant", "cosine" or "plateau"; see `SCHEDULES`.
    start : sequence of Weights, optional
        Initial weights, if not drawn from the seeds.
    augment : function, optional
        Changes a batch of images, shape (batch, …), with a generator of the network's own.
    snapshots : sequence of int
        Epochs after which the networks are copied as they are; 0 copies the initial ones.
    progress : bool
        Whether to show a bar.
    checkpoint : path, optional
        A file that is written after every epoch and from which an interrupted call of the same
        training continues, or returns at once if it was finished. Delete it when the result is
        safe.
    device : device, optional
        Where to train; by default where the images are.

    Raises
    ------
    ValueError
        If the network has BatchNorm (its buffers are no weights), the schedule is unknown, a
        number is out of range, starting points do not fit, the loss diverges, or a checkpoint
        belongs to another training.

    Notes
    -----
    Networks with dropout train one after another, each under its own seed: masks drawn for a
    whole stack would depend on the company.

    Examples
    --------
    >>> from modeconn_lite import data, train
    >>> from modeconn_lite.networks import mlp
    >>> some = data.load("digits").train.take(200)
    >>> done = train(mlp((64, 16, 10)), some, seeds=(0, 1), epochs=5)
    >>> done, done.loss.shape
    (Training(seeds=(0, 1)), torch.Size([5, 2]))
    >>> bool((done.loss[-1] < 0.5 * done.loss[0]).all())
    True
    """
    settings = _Settings(epochs, batch, rate, schedule, momentum, weight_decay, snapshots)
    _check(network, seeds, settings)
    network = copy.deepcopy(network).train()  # dropout is for training, whatever the caller's mode
    first = _starting_points(network, seeds, start)
    device = torch.device(device or split.x.device)
    state = _State(stack(first), len(seeds), snapshots, device)
    about = f"{settings} seeds={tuple(seeds)} augmented={augment is not None}"
    about += f" {_digest(first, split)}"
    file = FilePath(checkpoint) if checkpoint is not None else None
    if file is not None and file.exists():
        state.resume(file, about)

    like = next(iter(state.weights.values()))
    network = network.to(like)  # its buffers, if it has any
    x, y = split.x.to(like), split.y.to(device)
    step = _make_step(network, settings, len(split.classes))
    work = batch * sum(w.numel() for w in state.weights.values())
    bar = tqdm(total=epochs, initial=state.epoch, desc="epochs", disable=not progress)
    with _one_thread_if(work < SMALL_STEP), bar:
        while state.epoch < epochs:
            state.close_epoch(_run_epoch(state, step, x, y, seeds, settings, augment), seeds)
            if file is not None:
                state.write(file, about)
            bar.update()
    copies = {epoch: unstack(w) for epoch, w in sorted(state.snapshots.items())}
    return Training(tuple(seeds), unstack(state.weights), state.loss, copies)


@dataclass(frozen=True)
class _Settings:
    """The numbers of a training, in the order in which a checkpoint names them."""

    epochs: int
    batch: int
    rate: float
    schedule: str
    momentum: float
    weight_decay: float
    snapshots: Sequence[int]

    def rate_at(self, epochs: float) -> float:
        """The learning rate after so many epochs, whole or not."""
        return self.rate * SCHEDULES[self.schedule](epochs / self.epochs)

    def __str__(self) -> str:
        return " ".join(f"{name}={value!r}" for name, value in vars(self).items())


def _check(network: nn.Module, seeds: Sequence[int], settings: _Settings) -> None:
    """Refuse a network or numbers that cannot be trained with."""
    if batch_norms(network):
        raise ValueError(
            f"cannot train {batch_norms(network)[0]!r}: running statistics are no weights;"
            " train this network with a loop of your own and pass its weights_of()"
        )
    epochs, batch, rate = settings.epochs, settings.batch, settings.rate
    schedule, snapshots = settings.schedule, settings.snapshots
    if schedule not in SCHEDULES:
        raise ValueError(f"unknown schedule {schedule!r}; choose one of {tuple(SCHEDULES)}")
    if not seeds or epochs < 0 or batch < 1:
        raise ValueError(f"need seeds, epochs ≥ 0, batch ≥ 1; got {seeds=}, {epochs=}, {batch=}")
    if not 0 < rate < math.inf or any(not 0 <= k <= epochs for k in snapshots):
        raise ValueError(
            f"need 0 < rate < ∞, snapshots from 0 to {epochs}; got {rate=}, {snapshots=}"
        )


def _starting_points(
    network: nn.Module, seeds: Sequence[int], start: Sequence[Weights] | None
) -> list[Weights]:
    """The caller's initial weights, checked, or those that the seeds give."""
    first = list(start) if start is not None else [fresh_weights(network, s) for s in seeds]
    if len(first) != len(seeds):
        raise ValueError(f"{len(first)} starting points for {len(seeds)} seeds; give one for each")
    for k, w in enumerate(first):
        check_weights(w, like=network, name=f"start[{k}]")
    return first


@contextmanager
def _one_thread_if(small: bool) -> Iterator[None]:
    """Compute on a single thread, if the work is small; the caller's number is given back."""
    threads = torch.get_num_threads()
    try:
        if small:
            torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(threads)


class _State:
    """Everything that a training in progress needs to go on: weights, velocity, history."""

    def __init__(
        self, weights: Weights, networks: int, snapshots: Sequence[int], device: torch.device
    ) -> None:
        self.weights = {key: w.detach().to(device) for key, w in weights.items()}
        self.velocity = {key: torch.zeros_like(w) for key, w in self.weights.items()}
        self.loss = torch.zeros(0, networks)
        self.wanted = set(snapshots)
        self.snapshots: dict[int, Weights] = {}
        self.take_snapshot()

    @property
    def epoch(self) -> int:
        return len(self.loss)

    def take_snapshot(self) -> None:
        """Copy the networks as they are now, if this epoch was asked for."""
        if self.epoch in self.wanted:
            self.snapshots[self.epoch] = {key: w.clone() for key, w in self.weights.items()}

    def close_epoch(self, loss: Tensor, seeds: Sequence[int]) -> None:
        """Note the mean losses of an epoch, shape (networks,); refuse to go on without them."""
        if not torch.isfinite(loss).all():
            bad = seeds[int((~torch.isfinite(loss)).nonzero()[0, 0])]
            raise ValueError(
                f"seed {bad}: the loss diverged in epoch {self.epoch + 1}; use a smaller rate"
            )
        self.loss = torch.cat([self.loss, loss.cpu()[None]])
        self.take_snapshot()

    def write(self, file: FilePath, about: str) -> None:
        """Write everything to a checkpoint, with a line about which training it belongs to."""
        parts = {"weights": self.weights, "velocity": self.velocity}
        parts |= {f"snapshot {epoch}": w for epoch, w in self.snapshots.items()}
        flat = {f"{part}/{key}": w for part, ws in parts.items() for key, w in ws.items()}
        save(flat | {"loss": self.loss}, file, {"settings": about})

    def resume(self, file: FilePath, about: str) -> None:
        """Take over what `write` wrote, if the line about it is the same."""
        flat = load(file)
        with safe_open(file, "pt") as opened:
            theirs = (opened.metadata() or {}).get("settings")
        if theirs != about:
            raise ValueError(
                f"{file} belongs to another training ({theirs}), not to this one ({about});"
                " delete it or choose another file"
            )
        device = next(iter(self.weights.values())).device
        self.loss = flat.pop("loss")
        parts: dict[str, Weights] = {}
        for name, value in flat.items():
            part, key = name.split("/", 1)
            parts.setdefault(part, {})[key] = value.to(device)
        parts = {part: {key: w[key] for key in self.weights} for part, w in parts.items()}
        self.weights, self.velocity = parts.pop("weights"), parts.pop("velocity")
        self.snapshots = {int(part.split()[1]): w for part, w in parts.items()}


# (state, images, labels, rate, a generator for each network) -> losses of S networks, shape (S,)
Step = Callable[[_State, Tensor, Tensor, float, list[torch.Generator]], Tensor]


def _run_epoch(
    state: _State,
    step: Step,
    x: Tensor,
    y: Tensor,
    seeds: Sequence[int],
    settings: _Settings,
    augment: Augment | None,
) -> Tensor:
    """Show all n images once to each of S networks, in its own order; mean losses, shape (S,)."""
    randoms = [_generator(seed, state.epoch) for seed in seeds]
    orders = [torch.randperm(len(y), generator=g) for g in randoms]
    batches = torch.stack(orders).to(y.device).split(settings.batch, dim=1)  # each (S, batch)
    total = torch.zeros(len(seeds), device=y.device)
    for i, chosen in enumerate(batches):
        images = x[chosen]  # (S, batch, …)
        if augment is not None:
            pairs = zip(images, randoms, strict=True)
            images = torch.stack([augment(part, g) for part, g in pairs])
        rate = settings.rate_at(state.epoch + i / len(batches))
        total += step(state, images, y[chosen], rate, randoms) * chosen.shape[1]
    return total / len(y)


def _make_step(network: nn.Module, settings: _Settings, classes: int) -> Step:
    """One step of SGD for the whole stack; returns each network's loss on its batch."""
    drops = any(isinstance(m, nn.modules.dropout._DropoutNd) for m in network.modules())

    def forward(weights: Weights, x: Tensor) -> Tensor:
        return functional_call(network, weights, (x,))

    def run(weights: Weights, x: Tensor, randoms: list[torch.Generator]) -> Tensor:
        if not drops:
            return vmap(forward)(weights, x)
        out = []
        with torch.random.fork_rng():
            for k, g in enumerate(randoms):
                torch.manual_seed(int(torch.randint(2**62, (), generator=g)))
                out.append(forward({key: w[k] for key, w in weights.items()}, x[k]))
        return torch.stack(out)

    def step(
        state: _State, x: Tensor, y: Tensor, rate: float, randoms: list[torch.Generator]
    ) -> Tensor:
        leaves = {key: w.requires_grad_() for key, w in state.weights.items()}  # each (S, …)
        out = run(leaves, x, randoms)  # (S, batch, outputs)
        if out.shape[-1] < classes:
            raise ValueError(f"the network has {out.shape[-1]} outputs for {classes} classes")
        nats = F.cross_entropy(out.flatten(0, 1), y.flatten(), reduction="none")  # (S · batch,)
        loss = nats.view_as(y).mean(1)  # (S,)
        # The sum's gradient with respect to one network is the gradient of that network's loss.
        gradients = torch.autograd.grad(loss.sum(), list(leaves.values()))
        with torch.no_grad():
            for w, v, g in zip(leaves.values(), state.velocity.values(), gradients, strict=True):
                w.requires_grad_(False)
                v.mul_(settings.momentum).add_(g).add_(w, alpha=settings.weight_decay)
                w.sub_(v, alpha=rate)
        return loss.detach()

    return step


def _digest(start: Sequence[Weights], split: Split) -> str:
    """A short fingerprint of where a training starts and of its data."""
    seen = hashlib.sha256(repr((split, [(k, w.shape) for k, w in start[0].items()])).encode())
    for tensor in (*(to_vector(w) for w in start), split.x[:: max(1, len(split) // 100)], split.y):
        seen.update(tensor.detach().cpu().numpy().tobytes())
    return seen.hexdigest()[:16]


def _generator(seed: int, epoch: int) -> torch.Generator:
    """The source of one network's randomness in one epoch; an epoch can be run again alone."""
    return torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
