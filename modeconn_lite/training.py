"""Training many copies of a network at once, each with its own seed and its own order of data.

The copies are stacked along a leading axis and run by `torch.func.vmap`, so that a dozen small
networks cost little more than one. They never touch each other: the result equals training them
one by one.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap
from tqdm.auto import tqdm

from .anatomy import batch_norms
from .checkpoints import Checkpoint, Identity, architecture, digest
from .checks import check_choice, check_list, check_number, check_split, check_whole
from .data import Split
from .files import check_file
from .running import Runner
from .weights import (
    Weights,
    check_device,
    check_weights,
    copy_of,
    fresh_weights,
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
FEW = 4  # images with which a training is tried out, and told from another
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
        The architecture; its own weights are neither used nor changed. Parameters that are
        frozen (`requires_grad` is False) stay where they start.
    split : Split
        The training images, shape (n, …), and labels, shape (n,).
    seeds : sequence of int
        Each fixes a network's initial weights, its order of the data, its augmentation and its
        dropout masks. The same seed gives the same network in whatever company it trains. Whole
        numbers from 0; one may come twice.
    epochs, batch : int
        Passes over the split, and images in one step of each network.
    rate, momentum, weight_decay : float
        Of SGD, as in `torch.optim.SGD`.
    schedule : str
        "constant", "cosine" or "plateau"; see `SCHEDULES`.
    start : sequence of Weights, optional
        Initial weights, if not drawn from the seeds.
    augment : function, optional
        Changes a batch of images, shape (batch, …), with a generator of the network's own, and
        with no other randomness.
    snapshots : sequence of int
        Epochs after which the networks are copied as they are; 0 copies the initial ones.
    progress : bool
        Whether to show a bar.
    checkpoint : path, optional
        A file that is written after every epoch and from which an interrupted call of the same
        training continues, or returns at once if it was finished. Delete it when the result is
        safe. A damaged one is no loss but of time: the training starts again, with a warning.
    device : device, optional
        Where to train; by default where the images are.

    Raises
    ------
    ValueError
        If the network has BatchNorm (its buffers are no weights), cannot be copied, does not run
        on the images, or has too few outputs; the schedule is unknown, a number is out of range,
        starting points do not fit, `augment` draws from elsewhere or changes the number of
        images, the loss diverges, or a checkpoint belongs to another training.

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
    check_split(split)
    settings = _Settings(epochs, batch, rate, schedule, momentum, weight_decay, snapshots)
    seeds = _check_seeds(seeds)
    network = copy_of(network).train()  # dropout is for training, whatever the caller's mode
    _check_trainable(network)
    first = _starting_points(network, seeds, start)
    device = check_device(split.x.device if device is None else device)
    state = _State(stack(first), settings, device, [k for k, p in _trained(network)])

    like = next(iter(state.weights.values()))
    network = network.to(like)  # its buffers, if it has any
    x, y = split.x.to(like), split.y.to(device)
    seen = _try_out(network, state.weights, x[:FEW], augment, len(split.classes))
    kept = None
    if checkpoint is not None:
        words = _words(network, settings, seeds, first, split, augment)
        kept = Checkpoint(check_file(checkpoint, "checkpoint"), Identity(words, seen))
        if found := kept.resume(device):
            state.take_over(*found)

    step = _make_step(_make_run(network), settings)
    work = batch * sum(w.numel() for w in state.weights.values())
    bar = tqdm(total=epochs, initial=state.epoch, desc="epochs", disable=not progress)
    with _one_thread_if(work < SMALL_STEP), bar:
        while state.epoch < epochs:
            state.close_epoch(_run_epoch(state, step, x, y, seeds, settings, augment), seeds)
            if kept:
                kept.write(state.parts(), state.loss)
            bar.update()
    copies = {epoch: unstack(w) for epoch, w in sorted(state.snapshots.items())}
    return Training(seeds, unstack(state.weights), state.loss, copies)


@dataclass(frozen=True)
class _Settings:
    """The numbers of a training, checked."""

    epochs: int
    batch: int
    rate: float
    schedule: str
    momentum: float
    weight_decay: float
    snapshots: Sequence[int]

    def __post_init__(self) -> None:
        epochs = check_whole(self.epochs, "epochs")
        which = check_list(self.snapshots, "snapshots", "epochs", least=0)
        wanted = {check_whole(epoch, "each of snapshots", high=epochs) for epoch in which}
        checked = {
            "epochs": epochs,
            "batch": check_whole(self.batch, "batch", low=1),
            "rate": check_number(self.rate, "rate", low=0, open_low=True),
            "schedule": check_choice(self.schedule, "schedule", SCHEDULES),
            "momentum": check_number(self.momentum, "momentum", low=0),
            "weight_decay": check_number(self.weight_decay, "weight_decay", low=0),
            "snapshots": tuple(sorted(wanted)),
        }
        for name, value in checked.items():  # 0 and 0.0 are the same setting
            object.__setattr__(self, name, value)

    def rate_at(self, epochs: float) -> float:
        """The learning rate after so many epochs, whole or not."""
        return self.rate * SCHEDULES[self.schedule](epochs / self.epochs)


def _check_seeds(seeds: Any) -> tuple[int, ...]:
    """One seed or more."""
    found = check_list(seeds, "seeds", "whole numbers")
    return tuple(check_whole(seed, "each of seeds") for seed in found)


def _trained(network: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The parameters that are not frozen."""
    return [(name, p) for name, p in network.named_parameters() if p.requires_grad]


def _check_trainable(network: nn.Module) -> None:
    if batch_norms(network):
        raise ValueError(
            f"cannot train {batch_norms(network)[0]!r}: running statistics are no weights;"
            " train this network with a loop of your own and pass its weights_of()"
        )
    for name, p in network.named_parameters():
        if p.is_meta:
            raise ValueError(f"{name!r} is on the meta device; use network.to_empty(device='cpu')")
    if not _trained(network):
        raise ValueError("the network has no parameters to train: it has none, or all are frozen")


def _starting_points(
    network: nn.Module, seeds: Sequence[int], start: Sequence[Weights] | None
) -> Sequence[Weights]:
    """The caller's initial weights, checked, or those that the seeds give."""
    if start is None:
        return [fresh_weights(network, s) for s in seeds]
    first = check_list(start, "start", "weights, one for each seed", least=0)
    if len(first) != len(seeds):
        raise ValueError(f"{len(first)} starting points for {len(seeds)} seeds; give one for each")
    for k, w in enumerate(first):
        check_weights(w, like=network, name=f"start[{k}]")
        check_weights(w, like=first[0], name=f"start[{k}]")
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
        self, weights: Weights, settings: _Settings, device: torch.device, trained: Sequence[str]
    ) -> None:
        self.weights = {key: w.detach().to(device) for key, w in weights.items()}
        self.velocity = {key: torch.zeros_like(self.weights[key]) for key in trained}
        self.loss = torch.zeros(0, len(next(iter(weights.values()))))
        self.wanted = settings.snapshots
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
        sound = torch.isfinite(loss)
        for w in self.weights.values():  # the last step may have been the one too far
            sound &= torch.isfinite(w).reshape(len(w), math.prod(w.shape[1:])).all(1)
        if not sound.all():
            bad = seeds[int((~sound).nonzero()[0, 0])]
            raise ValueError(
                f"seed {bad}: the loss diverged in epoch {self.epoch + 1}; use a smaller rate"
            )
        self.loss = torch.cat([self.loss, loss.cpu()[None]])
        self.take_snapshot()

    def parts(self) -> dict[str, Weights]:
        """All but the losses, by name, for a checkpoint."""
        snapshots = {f"snapshot {epoch}": w for epoch, w in self.snapshots.items()}
        return {"weights": self.weights, "velocity": self.velocity} | snapshots

    def take_over(self, parts: dict[str, Weights], loss: Tensor) -> None:
        """Go on from what `parts` gave, and these losses."""
        self.loss, self.weights, self.velocity = loss, parts.pop("weights"), parts.pop("velocity")
        self.snapshots = {int(part.split()[1]): w for part, w in parts.items()}


def _words(
    network: nn.Module,
    settings: _Settings,
    seeds: Sequence[int],
    first: Sequence[Weights],
    split: Split,
    augment: Augment | None,
) -> dict[str, str]:
    """What can be said of a training before it has begun."""
    return {name: repr(value) for name, value in vars(settings).items()} | {
        "seeds": repr(seeds),
        "augment": "None" if augment is None else "given",
        "images": digest([split.x]),
        "labels": digest([split.y, torch.tensor(len(split.classes))]),
        "layers": digest([*network.buffers()], architecture(network)),
        "starting points": digest(map(to_vector, first), repr(list(first[0]))),
    }


def _try_out(
    network: nn.Module,
    weights: Weights,
    x: Tensor,
    augment: Augment | None,
    classes: int,
) -> Weights:
    """Refuse what would fail in the first step; what becomes of the given images otherwise."""
    seen = {}
    if augment is not None:
        x = seen["augmented images"] = augmented_twice(augment, x)
    # Without dropout: its masks depend on the device. The rate is among the layers' words.
    first = {key: w[0] for key, w in weights.items()}
    with torch.no_grad():
        still = Runner(network, x)(first, x)
    if still.dim() != 2:
        raise ValueError(f"outputs have shape {tuple(still.shape)}; (images, classes) is needed")
    if still.shape[-1] < classes:
        raise ValueError(f"the network has {still.shape[-1]} outputs for {classes} classes")
    if not torch.isfinite(still).all():
        raise ValueError("the network's first outputs are not finite; start with smaller weights")
    one = {key: w[:1].clone().requires_grad_() for key, w in weights.items()}
    trial = _make_run(copy_of(network))  # a copy: a forward may write into buffers
    try:
        out = trial(one, x[None].clone(), [torch.Generator()])  # it may work in place
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"this {type(network).__name__} runs, but cannot be trained in a stack: {reason};"
            " randomness must be that of nn.Dropout"
        ) from error
    if not out.requires_grad:
        raise ValueError("the network's outputs do not depend on its parameters, or are detached")
    return seen | {"outputs of the network": still}


def augmented_twice(augment: Augment, x: Tensor) -> Tensor:
    """Some images augmented, for sure by the generator alone.

    Raises
    ------
    ValueError
        If `augment` is no function, fails, drops images, makes what is not finite, or draws from
        elsewhere.
    """
    if not callable(augment):
        raise ValueError(f"augment must be a function of images and a generator, not {augment!r}")
    with torch.random.fork_rng(devices=[]):
        try:
            tries = [augment(x.clone(), torch.Generator().manual_seed(0)) for _ in range(2)]
        except Exception as error:
            shape = tuple(x.shape)
            raise ValueError(f"augment fails on images of shape {shape}: {error}") from error
    for one in tries:
        if not isinstance(one, Tensor) or one.shape[:1] != x.shape[:1]:
            kind = tuple(one.shape) if isinstance(one, Tensor) else type(one).__name__
            raise ValueError(f"augment made {kind} of images of shape {tuple(x.shape)}")
        if not torch.isfinite(one).all():
            raise ValueError("augment made values that are not finite of finite images")
    if not torch.equal(*tries):
        raise ValueError("augment must draw from the generator it is given, and from no other")
    return tries[0]


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
    randoms = [epoch_generator(seed, state.epoch) for seed in seeds]
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


# (weights of S networks, images, shape (S, batch, …), generators) -> outputs (S, batch, …)
Run = Callable[[Weights, Tensor, list[torch.Generator]], Tensor]


def _make_run(network: nn.Module) -> Run:
    """Run the whole stack, each network with its own weights on its own images."""
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

    return run


def _make_step(run: Run, settings: _Settings) -> Step:
    """One step of SGD for the whole stack; returns each network's loss on its batch."""

    def step(
        state: _State, x: Tensor, y: Tensor, rate: float, randoms: list[torch.Generator]
    ) -> Tensor:
        leaves = [state.weights[key].requires_grad_() for key in state.velocity]  # each (S, …)
        out = run(state.weights, x, randoms)  # (S, batch, outputs)
        nats = F.cross_entropy(out.flatten(0, 1), y.flatten(), reduction="none")  # (S · batch,)
        loss = nats.view_as(y).mean(1)  # (S,)
        # The sum's gradient with respect to one network is the gradient of that network's loss.
        gradients = torch.autograd.grad(loss.sum(), leaves, allow_unused=True)
        with torch.no_grad():
            for w, v, g in zip(leaves, state.velocity.values(), gradients, strict=True):
                w.requires_grad_(False)
                if g is None:  # the forward does not use it; as torch.optim, leave it alone
                    continue
                v.mul_(settings.momentum).add_(g).add_(w, alpha=settings.weight_decay)
                w.sub_(v, alpha=rate)
        return loss.detach()

    return step


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """The source of one network's randomness in one epoch; an epoch can be run again alone."""
    return torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
