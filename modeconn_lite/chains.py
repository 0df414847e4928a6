"""Paths of thousands of straight pieces: corners made when they are asked for, outputs all at once.

As anchors of a mix the corners would fill memory. What such a path knows of itself, a `Chain`, is
kept beside its function of t.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor, nn

from .paths import FunctionPath
from .times import from_steps, sorted_times
from .weights import Weights, combined

# Which P points, which n images, their outputs (P, n, classes), or (1, n, classes) for them all.
Swept = tuple[Tensor, slice, Tensor]


class Chain(ABC):
    """Straight pieces of equal time.

    Attributes
    ----------
    lengths : Tensor, shape (pieces,), float64
        How far each leads. A chain of none stays where it is.
    """

    lengths: Tensor

    @abstractmethod
    def corner(self, k: int) -> Weights:
        """The weights after k pieces."""

    @abstractmethod
    def outputs(self, network: nn.Module, t: Tensor, x: Tensor) -> Iterator[Swept]:
        """As `forward.sweep`, for networks without BatchNorm; faster than point after point."""

    def where(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """How many pieces are done at each t, and the share of the one that is going on: (T,)."""
        along = t.clamp(0, 1) * len(self.lengths)
        done = (along + 1e-9).floor().long().clamp(max=max(len(self.lengths) - 1, 0))
        share = (along - done).round(decimals=9).clamp(0, 1)
        return done + (share == 1), share.where(share < 1, 0.0)

    def path(self, name: str, *, half_way: bool = False, labels: Sequence[str] = ()) -> "SweptPath":
        """The path along it, with a knot at each corner; `half_way`: and between two."""
        count = len(self.lengths) * (1 + half_way)
        knots = (*(k / count for k in range(count)), 1.0) if count else (0.0, 1.0)
        corner = lru_cache(maxsize=4)(self.corner)  # neighbouring points share them

        def point(t: float) -> Weights:
            (k,), (share,) = map(Tensor.tolist, self.where(torch.tensor([t], dtype=torch.float64)))
            if share == 0:
                return dict(corner(k))
            return combined((1 - share, share), (corner(k), corner(k + 1)))

        return SweptPath(point, name, knots, labels=labels, chain=self)


@dataclass(frozen=True, repr=False)
class SweptPath(FunctionPath):
    """A function of t that is a `Chain`, so that nobody needs the weights at each point."""

    chain: Chain = field(kw_only=True)

    def length(self, points: int = 101) -> float:
        """Euclidean length from t = 0 to t = 1."""
        return float(self.chain.lengths.sum())

    def travelled(self, t: Sequence[float] | Tensor) -> Tensor:
        """Length from the first of the sorted times to each of them: shape (T,)."""
        done, share = self.chain.where(sorted_times(t, self))
        lengths = self.chain.lengths
        along = from_steps(lengths)[done]
        if len(lengths):
            along += share * lengths[done.clamp(max=len(lengths) - 1)]
        return along - along[0]
