"""A slider over the regularisation of a transport plan: from exact to sharp, and to blurred."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from math import log10
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..checks import check_number, check_numbers, check_whole, check_word, describe
from ..methods.transport import plan, rounded
from .base import Control, Explorer
from .markup import base64, figure, png, readout, stretched

SHADE = (86, 104, 190)  # of all the mass of a row; it shows on white and on black


class Matched(NamedTuple):
    """What one plan looks like, and what it is worth.

    Attributes
    ----------
    regularisation : float
        In mean costs; zero is the exact plan.
    shares : Tensor, shape (n, n)
        The plan times n: where the mass of each neuron goes. Columns are in the exact plan's order.
    order : Tensor, shape (n,)
        The permutation nearest to it, in columns of `shares`.
    cost, cost_rounded : float
        Of the plan and of that permutation, in costs of the exact plan.
    quality : float or None
    """

    regularisation: float
    shares: Tensor
    order: Tensor
    cost: float
    cost_rounded: float
    quality: float | None

    @property
    def partners(self) -> float:
        """The exponential of the mean entropy of the rows: n for mass that goes anywhere, or 1."""
        entropy = -(self.shares * self.shares.clamp(min=1e-300).log()).sum(1)
        return float(entropy.mean().exp())

    @property
    def agree(self) -> int:
        """How many neurons have the partner that the exact plan gives them."""
        return int((self.order == torch.arange(len(self.order))).sum())


class PlanExplorer(Explorer):
    """Plans between two clouds of one size, the more blurred the larger the regularisation.

    Parameters
    ----------
    cost : Tensor, shape (n, n)
        As from `methods.transport.ground_cost`.
    sharpest, most_blurred : float
        Between which regularisations the slider goes, in equal factors, once it leaves the exact
        plan.
    points : int
        How many plans there are, the exact one included.
    quality : function, optional
        What a matching is worth as a path, from its order: a barrier in nats, a finite number.
    title : str
        Heading of the picture.

    Raises
    ------
    ValueError
        If the cost is no such matrix or its exact plan costs nothing, the range is empty, or
        `quality` is no function or gives no finite number.
    """

    kinds = ("base", "plan")
    device = torch.device("cpu")

    def __init__(
        self,
        cost: Tensor,
        *,
        sharpest: float = 0.003,
        most_blurred: float = 3.0,
        points: int = 25,
        quality: Callable[[Tensor], float] | None = None,
        title: str = "Who goes to whom",
    ) -> None:
        check_number(sharpest, "sharpest", low=0, open_low=True)
        check_number(most_blurred, "most_blurred", low=sharpest, open_low=True)
        check_whole(points, "points", low=3)
        if quality is not None and not callable(quality):
            raise ValueError(f"quality must be a function of an order, not {describe(quality)}")
        self.title = check_word(title, "title")
        self.names, self.quality = [title], quality
        self.cost = check_numbers(cost, "cost", "a square matrix of numbers").clone()
        if self.cost.dim() != 2 or self.cost.shape[0] != self.cost.shape[1]:
            raise ValueError(f"cost must be a square matrix, not {describe(cost)}")
        self.best = plan(self.cost)
        self.order = rounded(self.best)
        self.least = float((self.best * self.cost).sum())
        if self.least <= 0:
            raise ValueError(
                f"the exact plan costs {self.least:g}, and costs are shown in units of it; give"
                " two clouds that differ, and squared distances"
            )
        self.powers = torch.linspace(log10(sharpest), log10(most_blurred), points - 1).tolist()
        self.states = [self.at(0.0)] + [self.at(10**power) for power in self.powers]

    def __repr__(self) -> str:
        n, blurred = len(self.cost), self.states[-1]
        return f"PlanExplorer({n} to {n}, {len(self.states)} plans, cost {blurred.cost:.1f} to 1)"

    def at(self, regularisation: float) -> Matched:
        """The plan of a regularisation, zero for the exact one."""
        n, cost = len(self.cost), self.cost
        check_number(regularisation, "regularisation", low=0)
        found = plan(cost, regularisation=regularisation) if regularisation else self.best
        order = rounded(found)
        columns = torch.argsort(self.order)  # where each column stands in the picture
        rounded_cost = float(cost[torch.arange(n), order].mean()) / self.least
        quality = None
        if self.quality:
            quality = check_number(self.quality(order.clone()), "the quality of an order")
        total = float((found * cost).sum()) / self.least
        return Matched(
            regularisation, n * found[:, self.order], columns[order], total, rounded_cost, quality
        )

    def _say(self, now: Matched) -> dict[str, str]:
        epsilon = f"{now.regularisation:.3g}" if now.regularisation else "0, exact"
        said = {
            "regularisation": epsilon,
            "cost of the plan": f"{now.cost:.3f}",
            "partners of a neuron": f"{now.partners:.1f}",
            "partners as in the exact plan": f"{now.agree} of {len(now.order)}",
            "cost, rounded": f"{now.cost_rounded:.3f}",
        }
        if now.quality is not None:
            said["barrier, rounded"] = f"{now.quality:.3f} nats"
        return said

    def _draw(self, now: Matched) -> str:
        """The plan as a picture, the denser the more mass; rings where its matching is another."""
        n = len(now.order)
        dense = (255 * now.shares.clamp(0, 1).sqrt()).round()
        colours = [torch.full((n, n), float(c)) for c in SHADE]
        image = base64(png(torch.stack([*colours, dense]).to(torch.uint8)))
        words = f"plan of {n} by {n}: " + ", ".join(f"{k} {v}" for k, v in self._say(now).items())
        rings = "".join(
            f'<circle cx="{j + 0.5:g}" cy="{i + 0.5:g}" r=".62"/>'
            for i, j in enumerate(now.order.tolist())
            if i != j
        )
        return (
            f'<div class="mc-plan"><img alt="{escape(words)}" src="data:image/png;base64,'
            f'{image}"><svg viewBox="0 0 {n} {n}" aria-hidden="true">'
            f"{rings}</svg></div>"
        )

    def _height(self, cost: float) -> float:
        """Where a cost stands in the strip, in per cent from its top."""
        top = max(max(s.cost, s.cost_rounded) for s in self.states)
        return 100 * (1 - 0.9 * (cost - 1) / max(top - 1, 1e-9)) - 2

    def _strip(self, now: Matched, where: float) -> str:
        """Costs over all plans, with the marker at a share of the way."""
        last = len(self.states) - 1

        def line(values: Sequence[float], kind: str) -> str:
            points = (
                f"{1000 * k / last:.0f} {10 * self._height(v):.0f}" for k, v in enumerate(values)
            )
            return f'<path class="{kind}" d="M{"L".join(points)}"/>'

        curves = line([s.cost for s in self.states], "mc-whole")
        curves += line([s.cost_rounded for s in self.states], "mc-rounded")
        return (
            '<p class="mc-key"><b>cost</b> <span class="mc-line">'
            '</span> plan <span class="mc-line mc-dashed"></span> rounded</p>'
            '<svg class="mc-strip" role="img" aria-label="cost of the plan, rising from that of the'
            f' exact one">{stretched(curves)}<circle class="mc-spot" r="6" cx="{100 * where:.4g}%"'
            f' cy="{self._height(now.cost):.4g}%"/></svg>'
        )

    def _repr_html_(self) -> str:
        pictures = "".join(
            f'<div data-state="{k}"{" hidden" if k else ""}>{self._draw(state)}</div>'
            for k, state in enumerate(self.states)
        )
        says = [self._say(state) for state in self.states]
        last = len(self.states) - 1
        ticks = '<span class="mc-left">exact</span><span class="mc-right">blurred</span>'
        body = (
            f'<div class="mc-stage"><div>{pictures}</div>'
            f"<div>{self._strip(self.states[0], 0.0)}"
            '<div class="mc-slider" style="--mc-from:0%;--mc-to:100%"><input type="range" min="0"'
            f' max="{last}" value="0" step="1" autocomplete="off" aria-label="regularisation, from'
            f' exact to blurred"><div class="mc-ticks" aria-hidden="true">{ticks}</div></div>'
            '<div class="mc-foot"><button type="button" class="mc-button mc-play">'
            f"<span>Blur</span></button></div>{readout(says[0])}</div></div>"
        )
        table = list(says[0]), [list(said.values()) for said in says]
        spots = [
            {"cx": round(100 * k / last, 2), "cy": round(self._height(s.cost), 2)}
            for k, s in enumerate(self.states)
        ]
        data: dict[str, Any] = {"says": says, "spots": spots}
        return figure(self.kinds, self.title, body, self._caption(), table, data)

    def _caption(self) -> str:
        return (
            "Rows: neurons of A. Columns: neurons of B, in the order of the exact plan, so that it"
            " is the diagonal. Denser: more of the row's mass, on a scale of roots. Rings: where"
            " the plan, rounded to the nearest permutation, gives a neuron another partner."
            " Partners: the exponential of the mean entropy of the rows. Costs are in those of the"
            " exact plan."
        )

    def controls(self) -> list[Control]:
        low, high = self.powers[0], self.powers[-1]
        return [Control("log10 of the regularisation", low, high, low)]

    def picture(self, place: Sequence[float], chosen: Mapping[str, int]) -> str:
        (power,) = place
        now = self.at(10**power)
        low, high = self.powers[0], self.powers[-1]
        steps = len(self.powers)  # the exact plan is one step before
        where = (1 + (power - low) / (high - low) * (steps - 1)) / steps
        return (
            f'<div class="mc-stage"><div>{self._draw(now)}</div><div>{self._strip(now, where)}'
            f"{readout(self._say(now))}</div></div>"
        )
