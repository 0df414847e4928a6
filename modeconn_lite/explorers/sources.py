"""Where an explorer's numbers come from: points evaluated beforehand, or the network itself.

Both answer the same question: what is seen at this place of this route? (The page's script has the
same interface, in `assets/base.js`.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..data import Dataset, Split
from ..look import look
from ..paths import AnyPath
from ..sheets import Sheet
from .markup import base64, short
from .views import View


@dataclass(frozen=True)
class Sight:
    """What is seen at one place.

    Attributes
    ----------
    place : tuple of float
        (t,) on a path, (u, v) on a sheet.
    figures : dict of str to float
        Such as {"test loss": 0.05, "test accuracy": 0.98}.
    code : Tensor, uint8
        What the view shows; empty where it shows nothing.
    """

    place: tuple[float, ...]
    figures: dict[str, float]
    code: Tensor


class Source(Protocol):
    """Whatever knows what is seen at a place of a route."""

    def at(self, route: int, place: Sequence[float]) -> Sight: ...


@dataclass(frozen=True)
class Route:
    """One route's points.

    Attributes
    ----------
    axes : dict of str to Tensor
        The values of each coordinate; places are their product, the last runs fastest.
    figures : dict of str to Tensor, shape (places,)
        NaN where there is no point.
    codes : Tensor, uint8, shape (places, …)
        Of the view; empty, shape (places, 0), where it shows nothing.
    """

    axes: dict[str, Tensor]
    figures: dict[str, Tensor]
    codes: Tensor

    @property
    def places(self) -> Tensor:
        """Shape (places, axes)."""
        return torch.cartesian_prod(*self.axes.values()).reshape(-1, len(self.axes))


class Points:
    """Points that were evaluated beforehand; between them, the nearest."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = routes

    def at(self, route: int, place: Sequence[float]) -> Sight:
        """The point nearest to this place, coordinates in the order of the axes."""
        points = self.routes[route]
        gaps = (points.places - torch.tensor(place, dtype=torch.float64)).norm(dim=1)
        gaps[next(iter(points.figures.values())).isnan()] = torch.inf
        return self.point(route, int(gaps.argmin()))

    def point(self, route: int, i: int) -> Sight:
        """Point number i."""
        points = self.routes[route]
        figures = {name: float(values[i]) for name, values in points.figures.items()}
        return Sight(tuple(points.places[i].tolist()), figures, points.codes[i])

    def json(self) -> dict[str, Any]:
        """What the page's script reads."""
        routes = []
        for points in self.routes:
            routes.append(
                {
                    "axes": {n: [round(x, 6) for x in v.tolist()] for n, v in points.axes.items()},
                    "figures": {name: short(v) for name, v in points.figures.items()},
                    "codes": base64(points.codes.numpy().tobytes()),
                }
            )
        return {"kind": "points", "routes": routes}


class Kernel:
    """The network itself, wherever the weights are: any place, one forward pass."""

    def __init__(
        self,
        network: nn.Module,
        routes: Sequence[AnyPath | Sheet],
        data: Dataset,
        statistics: Split,
        view: View,
    ) -> None:
        self.network, self.routes, self.view = network, routes, view
        self.test, self.statistics = data.test, statistics

    def at(self, route: int, place: Sequence[float]) -> Sight:
        """Test loss and accuracy, and the view's code."""
        path, t = self.routes[route], torch.tensor([place], dtype=torch.float64)
        t = t if isinstance(path, Sheet) else t[:, 0]
        seen = look(
            self.network,
            path,
            t,
            [self.test],
            statistics=self.statistics,
            asked=self.view.x,
            note=self.view.note,
        )
        accuracy = float(seen.correct) / len(self.test)
        figures = {"test loss": float(seen.loss), "test accuracy": accuracy}
        return Sight(tuple(place), figures, self.view.encode(t, seen)[0])
