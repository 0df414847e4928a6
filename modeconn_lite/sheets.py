"""Sheets in weight space: two-dimensional surfaces, every point a mix of anchors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .paths import Coefficients, check_anchors
from .weights import Weights, mix


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
        check_anchors(self.anchors, self.name)

    def mixture(self, points: Sequence[Sequence[float]] | Tensor) -> Tensor:
        """Coefficients of the anchors at each point: shape (P, K), float64.

        Raises
        ------
        ValueError
            If a point is not finite or lies outside a sheet that has a border.
        """
        p = torch.as_tensor(points, dtype=torch.float64).reshape(-1, 2)
        outside = ~torch.isfinite(p).all(1)
        if self.inside is not None:
            outside |= ~self.inside(p)
        if outside.any():
            raise ValueError(f"{self.name!r} has no point at (u, v) = {p[outside][0].tolist()}")
        return self.coefficients(p)

    def __call__(self, u: float, v: float) -> Weights:
        return mix(self.mixture([[u, v]])[0], self.anchors)


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
