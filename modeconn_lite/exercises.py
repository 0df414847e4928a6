"""What a reader's answer to an exercise is worth: right, off and by how much, or not tried yet."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import torch
from torch import Tensor

Numbers = float | Sequence[float]
_BORDERS = {True: "#1a7f4b", False: "#b3541e", None: "#7a828e"}


@dataclass(frozen=True)
class Verdict:
    """What `check` found. `passed` is None while an exercise has not been tried."""

    passed: bool | None
    text: str

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        style = f"border-left: 4px solid {_BORDERS[self.passed]}; padding-left: 0.7em"
        return f'<p style="{style}">{escape(self.text)}</p>'


def check(
    answer: Any,
    measure: Callable[[Any], Any] | None = None,
    *,
    equals: Numbers | None = None,
    within: Numbers = 0.0,
    low: Numbers = -math.inf,
    high: Numbers = math.inf,
) -> Verdict:
    """Compare an answer with what an exercise expects.

    Parameters
    ----------
    answer
        Whatever the reader's function returned; None says that nobody has tried yet.
    measure
        Turns an answer into the number, or the numbers, that are looked at; without it the answer
        is taken as it is. If it fails on an answer, that is no answer of the kind asked for.
    equals, within
        What the numbers should be, and how far off each may be.
    low, high
        Or, between what they should lie, both ends allowed.

    Returns
    -------
    Verdict
        Displayed as a sentence where it is the last line of a cell.
    """
    if answer is None or answer is Ellipsis:
        return Verdict(None, "Not tried yet.")
    if isinstance(answer, Sequence) and len(answer) and all(part is None for part in answer):
        return Verdict(None, "Not tried yet.")
    most_off = _flat(within)
    if equals is None:
        least, most = _flat(low), _flat(high)
    else:
        least, most = _flat(equals) - most_off, _flat(equals) + most_off
    try:
        found = _flat(answer if measure is None else measure(answer))
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return Verdict(False, f"Not yet: this is not the kind of answer asked for ({reason}).")
    wanted = max(len(least), len(most))
    if not len(found) or (wanted > 1 and len(found) != wanted):
        return Verdict(False, f"Not yet: {_count(len(found))} given, {wanted} expected.")
    if found.isnan().any():
        return Verdict(False, f"Not yet: {_show(found)} is not a number.")
    excess = torch.where(found > most, found - most, (found - least).clamp(max=0))
    if not excess.any():
        return Verdict(True, f"Right: {_show(found)}.")
    worst = int(excess.abs().argmax())
    off, side = abs(float(excess[worst])), "high" if excess[worst] > 0 else "low"
    if equals is not None:  # how far from the value itself, not from what is still allowed
        off += float(most_off.expand(len(found))[worst])
    which = "" if len(found) == 1 else f"number {worst + 1} of {len(found)}, "
    return Verdict(False, f"Not yet: {which}{found[worst]:.4g}, is {off:.2g} too {side}.")


def _flat(values: Any) -> Tensor:
    """Numbers, however they are packed, in one row."""
    if isinstance(values, Tensor):
        return values.detach().to("cpu", torch.float64).reshape(-1)
    if isinstance(values, str):
        raise TypeError(f"a number is expected, not {values!r}")
    if isinstance(values, Sequence):
        return torch.cat([_flat(value) for value in values]) if values else torch.empty(0)
    return torch.tensor([float(values)], dtype=torch.float64)


def _count(n: int) -> str:
    return "1 number" if n == 1 else f"{n} numbers"


def _show(found: Tensor) -> str:
    if len(found) > 6:
        return f"{len(found)} numbers from {found.min():.4g} to {found.max():.4g}"
    return ", ".join(f"{value:.4g}" for value in found.tolist())
