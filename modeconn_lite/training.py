"""Training many copies of a network at once, each with its own seed and its own order of data.

The copies are stacked along a leading axis and run by `torch.func.vmap`, so that a dozen small
networks cost little more than one. They never touch each other: the result equals training them
one by one.
"""

import copy
import hashlib
import math
from collections.abc import Callable, Sequence
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
    seeds : one for each network.
    weights : the trained networks, in the order of the seeds.
    loss : mean training loss in nats, shape (epochs, networks).
    snapshots : for each epoch asked for, the networks as they were after it (0: untrained).
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
    network : the architecture; its own weights are neither used nor changed.
    split : the training images, shape (n, …), and labels, shape (n,).
    seeds : each fixes a network's initial weights, its order of the data, its augmentation and
        its dropout masks. The same seed gives the same network in whatever company it trains.
    epochs, batch, rate, momentum, weight_decay : of SGD, as in `torch.optim.SGD`.
    schedule : "constant", "cosine" or "plateau"; see `SCHEDULES`.
    start : initial weights, if not drawn from the seeds.
    augment : changes a batch of images, shape (batch, …), with a generator of the network's own.
    snapshots : epochs after which the networks are kept as they are; 0 keeps the initial ones.
    progress : show a bar.
    checkpoint : a file that is written after every epoch and from which an interrupted call of
        the same training continues, or returns at once if it was finished. Delete it when the
        result is safe.
    device : where to train; by default where the images are.

    Raises
    ------
    ValueError
        If the network has BatchNorm (its buffers are no weights), the schedule is unknown, the
        loss diverges, or a checkpoint belongs to another training.

    Notes
    -----
    Networks with dropout train one after another, each under its own seed: masks drawn for a
    whole stack would depend on the company.
    """
    if batch_norms(network):
        raise ValueError(
            f"cannot train {batch_norms(network)[0]!r}: running statistics are no weights;"
            " train this network with a loop of your own and pass its weights_of()"
        )
    if schedule not in SCHEDULES:
        raise ValueError(f"unknown schedule {schedule!r}; choose one of {tuple(SCHEDULES)}")
    if not seeds or epochs < 0 or batch < 1:
        raise ValueError(f"need seeds, epochs ≥ 0, batch ≥ 1; got {seeds=}, {epochs=}, {batch=}")
    if not 0 < rate < math.inf or any(not 0 <= k <= epochs for k in snapshots):
        raise ValueError(
            f"need 0 < rate < ∞, snapshots from 0 to {epochs}; got {rate=}, {snapshots=}"
        )
    network = copy.deepcopy(
        network
    ).train()  # dropout belongs to training, whatever the caller's mode
    device = torch.device(device or split.x.device)
    first = list(start) if start is not None else [fresh_weights(network, s) for s in seeds]
    if len(first) != len(seeds):
        raise ValueError(f"{len(first)} starting points for {len(seeds)} seeds; give one for each")
    for k, w in enumerate(first):
        check_weights(w, like=network, name=f"start[{k}]")

    settings = f"{epochs=} {batch=} {rate=} {schedule=} {momentum=} {weight_decay=} {snapshots=}"
    settings += f" seeds={tuple(seeds)} augmented={augment is not None} {_digest(first, split)}"
    state = _State(stack(first), len(seeds), snapshots, device)
    network = network.to(next(iter(state.weights.values())))  # its buffers, if it has any
    file = FilePath(checkpoint) if checkpoint is not None else None
    if file is not None and file.exists():
        state.resume(file, settings)

    step = _make_step(network, momentum, weight_decay, len(split.classes))
    work = batch * sum(w.numel() for w in state.weights.values())
    threads = torch.get_num_threads()
    x, y = split.x.to(next(iter(state.weights.values()))), split.y.to(device)
    factor = SCHEDULES[schedule]
    batches = math.ceil(len(split) / batch)
    bar = tqdm(total=epochs, initial=state.epoch, desc="epochs", disable=not progress)
    try:
        if work < SMALL_STEP:
            torch.set_num_threads(1)
        while state.epoch < epochs:
            randoms = [_generator(seed, state.epoch) for seed in seeds]
            orders = [torch.randperm(len(split), generator=g) for g in randoms]
            order = torch.stack(orders).to(device)
            total = torch.zeros(len(seeds), device=device)
            for i, chosen in enumerate(order.split(batch, dim=1)):
                images = x[chosen]
                if augment is not None:
                    pairs = zip(images, randoms, strict=True)
                    images = torch.stack([augment(part, g) for part, g in pairs])
                now = rate * factor((state.epoch + i / batches) / epochs)
                total += step(state, images, y[chosen], now, randoms) * chosen.shape[1]
            state.close_epoch(total / len(split), seeds)
            if file is not None:
                state.write(file, settings)
            bar.update()
    finally:
        torch.set_num_threads(threads)
        bar.close()
    kept = {epoch: unstack(w) for epoch, w in sorted(state.snapshots.items())}
    return Training(tuple(seeds), unstack(state.weights), state.loss, kept)


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
        self.keep()

    @property
    def epoch(self) -> int:
        return len(self.loss)

    def keep(self) -> None:
        if self.epoch in self.wanted:
            self.snapshots[self.epoch] = {key: w.clone() for key, w in self.weights.items()}

    def close_epoch(self, loss: Tensor, seeds: Sequence[int]) -> None:
        if not torch.isfinite(loss).all():
            bad = seeds[int((~torch.isfinite(loss)).nonzero()[0, 0])]
            raise ValueError(
                f"seed {bad}: the loss diverged in epoch {self.epoch + 1}; use a smaller rate"
            )
        self.loss = torch.cat([self.loss, loss.cpu()[None]])
        self.keep()

    def write(self, file: FilePath, settings: str) -> None:
        parts = {"weights": self.weights, "velocity": self.velocity}
        parts |= {f"snapshot {epoch}": w for epoch, w in self.snapshots.items()}
        flat = {f"{part}/{key}": w for part, ws in parts.items() for key, w in ws.items()}
        save(flat | {"loss": self.loss}, file, {"settings": settings})

    def resume(self, file: FilePath, settings: str) -> None:
        flat = load(file)
        with safe_open(file, "pt") as opened:
            theirs = (opened.metadata() or {}).get("settings")
        if theirs != settings:
            raise ValueError(
                f"{file} belongs to another training ({theirs}), not to this one ({settings});"
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


def _make_step(
    network: nn.Module, momentum: float, weight_decay: float, classes: int
) -> Callable[[_State, Tensor, Tensor, float, list[torch.Generator]], Tensor]:
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
        leaves = {key: w.requires_grad_() for key, w in state.weights.items()}
        out = run(leaves, x, randoms)
        if out.shape[-1] < classes:
            raise ValueError(f"the network has {out.shape[-1]} outputs for {classes} classes")
        each = F.cross_entropy(out.flatten(0, 1), y.flatten(), reduction="none").view_as(y).mean(1)
        # The sum's gradient with respect to one network is the gradient of that network's loss.
        gradients = torch.autograd.grad(each.sum(), list(leaves.values()))
        with torch.no_grad():
            for w, v, g in zip(leaves.values(), state.velocity.values(), gradients, strict=True):
                w.requires_grad_(False)
                v.mul_(momentum).add_(g).add_(w, alpha=weight_decay)
                w.sub_(v, alpha=rate)
        return each.detach()

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
