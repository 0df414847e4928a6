"""The loop in which a flow is trained, whatever its loss: seeded, shown, and taken up again."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path as FilePath

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..checkpoints import Checkpoint, Identity, digest
from ..checks import all_finite, check_number, check_whole
from ..files import check_file
from ..training import SCHEDULES, epoch_generator
from ..weights import Weights
from .invertible import Flow

CLIP = 1.0  # longest gradient


@dataclass(frozen=True)
class FlowTraining:
    """What the training of a flow returns.

    Attributes
    ----------
    flow : Flow
        As it was after the best epoch, or after the last if no network was held out.
    epoch : int
        Which that was; 0 is before all training.
    loss : Tensor, shape (epochs,)
        Mean over each epoch's steps, in nats: −log density of a neuron, or the loss at t = ½.
    held_out : Tensor, shape (epochs + 1,)
        Of the networks held out, before training and after each epoch; empty if none.
    """

    flow: Flow
    epoch: int
    loss: Tensor = field(repr=False)
    held_out: Tensor = field(repr=False)


Losses = Callable[[torch.Generator], Iterator[Tensor]]  # one for each step of an epoch


class Fit:
    """The loop that both trainings share: Adam, one generator an epoch, the best epoch kept."""

    def __init__(
        self,
        flow: Flow,
        epochs: int,
        rate: float,
        weight_decay: float,
        held_out: int,
        seed: int,
        rows: Tensor,
        words: dict[str, str],
        seen: Weights | None = None,
    ) -> None:
        self.flow, self.epochs = flow, check_whole(epochs, "epochs")
        self.held_out = check_whole(held_out, "held_out")
        self.seed = check_whole(seed, "seed")
        self.rate = check_number(rate, "rate", low=0, open_low=True)
        decay = check_number(weight_decay, "weight_decay", low=0)
        self.adam = torch.optim.AdamW(flow.parameters(), lr=self.rate, weight_decay=decay)
        numbers = {"epochs": self.epochs, "rate": self.rate, "weight_decay": decay}
        numbers |= {"held_out": self.held_out, "seed": self.seed}
        words = {name: repr(value) for name, value in numbers.items()} | words
        words |= {"flow": repr(flow), "networks": digest([rows])}
        few = {"outputs of the network": flow.latent(rows[0, :4]).detach().cpu()}
        self.identity = Identity(words, (seen or {}) | few)
        self.loss, self.judged = torch.zeros(0), torch.zeros(0)
        self.best = self._state()

    @torch.enable_grad()
    def run(
        self,
        losses: Losses,
        judge: Callable[[], Tensor],
        progress: bool,
        checkpoint: str | FilePath | None,
    ) -> FlowTraining:
        """Train to the end: `losses` are those to learn from, `judge` that of those held out."""
        kept = None
        if checkpoint is not None:
            kept = Checkpoint(check_file(checkpoint, "checkpoint"), self.identity)
            if found := kept.resume(self.flow.mean.device):
                self._take_over(*found)
        if self.held_out and not len(self.judged):
            self._judge(judge)
        bar = tqdm(total=self.epochs, initial=len(self.loss), desc="epochs", disable=not progress)
        with bar:
            while len(self.loss) < self.epochs:
                self._epoch(losses)
                if self.held_out:
                    self._judge(judge)
                if kept:
                    kept.write(self._parts(), self.loss)
                bar.update()
        epoch = int(self.judged.argmin()) if self.held_out else self.epochs
        if self.held_out:
            self.flow.load_state_dict(self.best)
        return FlowTraining(self.flow.requires_grad_(False), epoch, self.loss, self.judged)

    def _epoch(self, losses: Losses) -> None:
        epoch = len(self.loss)
        for group in self.adam.param_groups:
            group["lr"] = self.rate * SCHEDULES["cosine"](epoch / self.epochs)
        seen = []
        for loss in losses(epoch_generator(self.seed, epoch)):
            self.adam.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.flow.parameters(), CLIP)
            self.adam.step()
            seen.append(loss.detach())
        mean = torch.stack(seen).mean().cpu()
        if not torch.isfinite(mean) or not all_finite(self._state()):
            raise ValueError(f"the loss diverged in epoch {epoch + 1}; use a smaller rate")
        self.loss = torch.cat([self.loss, mean[None].float()])

    @torch.no_grad()
    def _judge(self, judge: Callable[[], Tensor]) -> None:
        """Note how the networks held out do, and keep the flow if it never did better."""
        self.judged = torch.cat([self.judged, judge().cpu()[None].float()])
        if int(self.judged.argmin()) == len(self.judged) - 1:
            self.best = self._state()

    def _state(self) -> Weights:
        return {key: value.detach().clone() for key, value in self.flow.state_dict().items()}

    def _parts(self) -> dict[str, Weights]:
        """All but the losses, by name, for a checkpoint."""
        moments = self.adam.state_dict()["state"]
        adam = {f"{i} {key}": m for i, own in moments.items() for key, m in own.items()}
        judged = {"judged": {"all": self.judged}} if len(self.judged) else {}
        return {"flow": self._state(), "best": self.best, "adam": adam} | judged

    def _take_over(self, parts: dict[str, Weights], loss: Tensor) -> None:
        """Go on from what `_parts` gave, and these losses."""
        self.loss, self.best = loss, parts["best"]
        self.judged = parts["judged"]["all"].cpu() if "judged" in parts else self.judged
        self.flow.load_state_dict(parts["flow"])
        moments: dict[int, Weights] = {}
        for name, value in parts["adam"].items():
            i, key = name.split()
            moments.setdefault(int(i), {})[key] = value.cpu() if key == "step" else value
        self.adam.load_state_dict(self.adam.state_dict() | {"state": moments})
