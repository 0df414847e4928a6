"""Sheets in weight space: two-dimensional surfaces, every point a mix of anchors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .checks import check_list, check_number, check_pairs, check_word, describe
from .paths import Coefficients, check_mix, rows_at
from .weights import Weights, combined


@dataclass(frozen=True)
class Sheet:
    """A two-dimensional surface in weight space that is a mix of anchors.

    Parameters
    ----------
    anchors : sequence of Weights
        The K weight vectors that are mixed.
    coefficients : function
        Maps points, shape (P, 2), float64, to the coefficients, shape (P, K).
    name : str
        How figures call the sheet.
    extent : four floats
        (u from, u to, v from, v to), the part of the surface that is shown.
    marks : dict
        Named points of the surface, such as {"A": (0.0, 0.0)}.
    inside : function, optional
        Whether each point, shape (P, 2), belongs to the sheet, shape (P,); None if all do.

    Raises
    ------
    ValueError
        If anchors do not fit each other, the extent does not rise, or one of the others is of
        another kind. Coefficients of another shape or that are not finite are refused when a point
        is asked for.

    Examples
    --------
    >>> import torch
    >>> from modeconn_lite import Sheet
    >>> zero, x, y = ({"w": torch.tensor(p)} for p in ([0.0, 0.0], [1.0, 0.0], [0.0, 1.0]))
    >>> flat = Sheet((zero, x, y), lambda p: torch.cat([1 - p.sum(1, keepdim=True), p], 1))
    >>> flat(0.25, 0.5)
    {'w': tensor([0.2500, 0.5000])}
    """

    anchors: Sequence[Weights]
    coefficients: Coefficients = field(repr=False)
    name: str = "sheet"
    extent: tuple[float, float, float, float] = (0.0, 1.0, 0.0, 1.0)
    marks: dict[str, tuple[float, float]] = field(default_factory=dict)
    inside: Callable[[Tensor], Tensor] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        name = check_word(self.name, "the name of a sheet")
        check_mix(self.anchors, self.coefficients, name)
        numbers = check_list(self.extent, f"the extent of {name!r}", "numbers", least=4, most=4)
        u0, u1, v0, v1 = (
            check_number(x, f"each number in the extent of {name!r}") for x in numbers
        )
        if not (u0 < u1 and v0 < v1):
            raise ValueError(f"the extent of {name!r} must rise in u and in v, not {numbers}")
        check_pairs(self.marks, "marks")
        if self.inside is not None and not callable(self.inside):
            raise ValueError(f"inside must be a function of points, not {describe(self.inside)}")

    def holds(self, points: Tensor) -> Tensor:
        """Which of the points, shape (P, 2), belong to the sheet: shape (P,), bool."""
        if self.inside is None:
            return torch.ones(len(points), dtype=torch.bool)
        held = self.inside(points)
        if not isinstance(held, Tensor) or (held.dtype, *held.shape) != (torch.bool, len(points)):
            raise ValueError(
                f"`inside` of {self.name!r} gives {describe(held)} where a tensor of torch.bool,"
                f" shape ({len(points)},), is needed"
            )
        return held.cpu()

    def mixture(self, points: Sequence[Sequence[float]] | Tensor) -> Tensor:
        """Coefficients of the anchors at each point: shape (P, K), float64.

        Raises
        ------
        ValueError
            If a point is not finite or lies outside a sheet that has a border.
        """
        p = _as_places(points)
        outside = ~(torch.isfinite(p).all(1) & self.holds(p))
        if outside.any():
            raise ValueError(f"{self.name!r} has no point at (u, v) = {p[outside][0].tolist()}")
        return rows_at(self.coefficients, p, len(self.anchors), self.name)

    def __call__(self, u: float, v: float) -> Weights:
        """Weights at (u, v)."""
        return combined(self.mixture([[u, v]])[0], self.anchors)


def check_sheet(value: Any) -> Sheet:
    """A sheet."""
    if not isinstance(value, Sheet):
        raise ValueError(f"a Sheet is needed, not {describe(value)}; of a path, see profile")
    return value


def _as_places(points: Any) -> Tensor:
    """Points of a sheet, shape (P, 2), float64, on the CPU."""
    try:
        kind = torch.as_tensor(points).dtype  # of the kind alone: here a list's floats are rounded
        if kind == torch.bool or kind.is_complex:
            raise TypeError(f"{kind} is no place")
        places = torch.as_tensor(points, dtype=torch.float64, device="cpu").detach()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"points must be pairs of numbers, not {describe(points)}") from error
    if places.shape == (2,):
        places = places[None]
    if places.dim() != 2 or places.shape[1] != 2:
        raise ValueError(f"points must have shape (P, 2), not {tuple(places.shape)}")
    return places


def triangle(a: Weights, b: Weights, c: Weights, *, name: str = "triangle") -> Sheet:
    """The flat triangle (1 − u − v) a + u b + v c, for u, v ≥ 0 and u + v ≤ 1.

    Examples
    --------
    >>> import torch
    >>> from modeconn_lite import triangle
    >>> sheet = triangle(*({"w": torch.tensor([float(k)])} for k in range(3)))
    >>> sheet(0.5, 0.5)
    {'w': tensor([1.5000])}
    """

    def coefficients(p: Tensor) -> Tensor:
        return torch.cat([1 - p.sum(1, keepdim=True), p], 1)

    def inside(p: Tensor) -> Tensor:
        return (p >= -1e-9).all(1) & (p.sum(1) <= 1 + 1e-9)

    marks = {"A": (0.0, 0.0), "B": (1.0, 0.0), "C": (0.0, 1.0)}
    return Sheet((a, b, c), coefficients, name, marks=marks, inside=inside)
