"""What a network says of the data: pictures with its opinion, or regions of the plane."""

from collections.abc import Callable, Sequence
from hashlib import sha256
from html import escape
from typing import Any, Protocol

import torch
from torch import Tensor

from ..data import Dataset
from ..look import Seen
from ..weights import Weights
from .markup import base64, contours_of, png

SIDE = 48  # cells along each side of a map of decision regions
POOL = 300  # test images among which an album chooses
DRAWN = 300  # data points drawn over it
CLASS_COLOURS = ((0, 158, 115), (170, 68, 153), (204, 160, 30), (110, 110, 110), (136, 34, 85))


class View(Protocol):
    """What an explorer shows beside the curves at each point.

    Attributes
    ----------
    kind : str
        Names its style, its script and the script's function.
    x : Tensor, shape (images, …), or None
        Inputs whose outputs it wants.
    note : function of Weights, or None
        What it wants to know of the weights themselves.
    json : dict
        What its script reads.
    css, caption : str
    """

    @property
    def kind(self) -> str: ...
    @property
    def x(self) -> Tensor | None: ...
    @property
    def note(self) -> Callable[[Weights], Any] | None: ...
    @property
    def json(self) -> dict[str, Any]: ...
    @property
    def css(self) -> str: ...
    @property
    def caption(self) -> str: ...

    def choose(self, seen: Sequence[Seen]) -> Tensor:
        """Settle what is shown, once all routes were seen; which of `x` it goes on asking for."""
        ...

    def encode(self, t: Tensor, seen: Seen) -> Tensor:
        """Codes of what was seen at T points: uint8, shape (T, …)."""
        ...

    def html(self, code: Tensor) -> str:
        """One point's picture."""
        ...


class Album:
    """Test images, and under each what the network takes it for.

    At first it asks about a pool of images, the first of each class in turn; `choose` settles which
    of them are shown. A code holds one image's opinion: the probability of every class in 255ths,
    or (without bars, or for more than 12 classes) the most probable class and its probability.
    """

    kind, note = "album", None

    def __init__(self, data: Dataset, images: int, bars: bool) -> None:
        self.classes, test = data.test.classes, data.test
        if images < 1:
            raise ValueError(f"at least one image must be shown, not {images}")
        if len(self.classes) > 256:
            raise ValueError(
                f"{len(self.classes)} classes are more than the 256 that fit a picture"
            )
        rank = torch.zeros(len(test), dtype=torch.int64)
        for c in range(len(self.classes)):
            members = (test.y == c).nonzero()[:, 0].to(rank.device)
            rank[members] = torch.arange(len(members))
        order = (rank * len(self.classes) + test.y.cpu()).argsort(stable=True)
        self._data, self._images = data, min(images, len(order))
        self._pool = test.take(order[: max(POOL, images)])
        self.bars = bars and len(self.classes) <= 12
        self._show(torch.arange(self._images))
        self.x = self._pool.x

    def choose(self, seen: Sequence[Seen]) -> Tensor:
        """Settle which images are shown: a fair sample. Their indices in the pool.

        As many of each class as the first ones have; within a class those with which the share of
        images read right stays closest to the accuracy, at all points of all routes.
        """
        y = self._pool.y.cpu()
        said = torch.cat([s.said for s in seen])  # (points, pool, classes)
        right = (said.argmax(-1) == y).double()
        accuracy = torch.cat([s.correct[-1] for s in seen]).double() / len(self._data.test)
        chosen = torch.arange(self._images)
        for _ in range(3):
            for place in range(len(chosen)):
                others = right[:, chosen].sum(1) - right[:, chosen[place]]
                shares = (others[:, None] + right) / len(chosen)  # (points, pool)
                cost = (shares - accuracy[:, None]).square().sum(0)
                taken = torch.cat([chosen[:place], chosen[place + 1 :]])
                cost[taken] = torch.inf
                cost[y != y[chosen[place]]] = torch.inf
                if cost.min() < cost[chosen[place]] - 1e-12:
                    chosen[place] = cost.argmin()
        self._show(chosen)
        return chosen

    def _show(self, chosen: Tensor) -> None:
        shown = self._pool.take(chosen)
        self.x, self.labels = shown.x, shown.y.tolist()
        each = len(self.classes) if self.bars else 2
        pictures = (self._data.pictures(shown.x).cpu() * 255).round().byte()
        pictures = [base64(png(p)) for p in pictures]
        self.name = "mc-" + sha256("".join(pictures).encode()).hexdigest()[:8]
        self.css = "".join(
            f".{self.name} .mc-i{k}{{background-image:url(data:image/png;base64,{picture})}}"
            for k, picture in enumerate(pictures)
        )
        self.json = {"classes": self.classes, "labels": self.labels, "each": each}
        self.caption = (
            f"The {len(chosen)} pictures are test images, each with what the network takes it for"
            f"{', and a bar for the probability of every class' if self.bars else ''}; they are"
            " chosen so that about as many of them are read right as of all."
        )

    def encode(self, t: Tensor, seen: Seen) -> Tensor:
        p = seen.said.softmax(-1)  # (T, images, classes)
        top = p.argmax(-1, keepdim=True)
        code = (255 * p).round().long()
        if not self.bars:
            return torch.cat([top, code.gather(-1, top)], -1).byte()
        others = code.scatter(-1, top, 0).amax(-1, keepdim=True)  # rounding may not change the top
        return code.scatter(-1, top, torch.maximum(code.gather(-1, top), others + 1)).byte()

    def html(self, code: Tensor) -> str:
        tiles, right = [], 0
        for k, (label, row) in enumerate(zip(self.labels, code.tolist(), strict=True)):
            top, value = (row.index(max(row)), max(row)) if self.bars else row
            right += top == label
            name, verdict = escape(self.classes[label]), ("wrong", "right")[top == label]
            bars = "".join(
                f'<rect x="{10 * c + 1}" width="8" height="{h}" class="{_bar(c, top, label)}"/>'
                for c, h in enumerate(row)
            )
            bars = (
                f'<svg class="mc-bars" viewBox="0 0 {10 * len(row)} 255" aria-hidden="true"'
                ' preserveAspectRatio="none"><g transform="matrix(1 0 0 -1 0 255)">'
                f"{bars}</g></svg>"
            )
            tiles.append(
                f'<li class="mc-tile" data-is="{verdict}"><span class="mc-pic mc-i{k}" role="img"'
                f' aria-label="{name}"></span>{bars if self.bars else ""}<span class="mc-says">'
                f'<span class="mc-sr">taken for </span><b>{escape(self.classes[top])}</b> '
                f'<i role="img" aria-label="{verdict}">{"✗✓"[top == label]}</i> '
                f"<span>{round(100 * value / 255)}%</span></span></li>"
            )
        long = " mc-long" if max(map(len, self.classes)) > 3 else ""
        head = f'<p class="mc-key"><b class="mc-count">{right}</b> of {len(tiles)} images right</p>'
        return f'{head}<ul class="mc-album {self.name}{long}">{"".join(tiles)}</ul>'


class Regions:
    """The plane, each cell coloured by the class the network gives it, under the data points.

    A code holds one cell: the class in its high part, how sure the network is in its low part.
    """

    kind, note, css = "regions", None, ""
    caption = (
        "The map: the class that the network gives to each point of the plane, the fuller the"
        " colour the surer; the line is where it changes its mind; circles are test points."
    )

    def __init__(self, data: Dataset) -> None:
        self.classes = data.test.classes
        if len(self.classes) > len(CLASS_COLOURS):
            raise ValueError(
                f"{len(self.classes)} classes of points of the plane are more than the"
                f" {len(CLASS_COLOURS)} colours; keep fewer"
            )
        points = data.test.take(slice(0, DRAWN))
        low, high = data.test.x.amin(0).cpu(), data.test.x.amax(0).cpu()
        middle, half = (low + high) / 2, float((high - low).max()) * 0.54
        across = (2 * torch.arange(SIDE) + 1) / SIDE - 1
        grid = torch.cartesian_prod(-across, across).flip(1)  # from the top row, left to right
        self.x = middle + half * grid
        self.levels = 256 // len(self.classes)
        self.json = {"side": SIDE, "levels": self.levels, "colours": CLASS_COLOURS}
        places = (500 + 500 * (points.x.cpu() - middle) / half).round().int()
        self.points = ""
        for c in range(len(self.classes)):
            dots = "".join(f"M{x} {1000 - y}h0" for x, y in places[points.y.cpu() == c].tolist())
            self.points += f'<path class="mc-halo" d="{dots}"/><path class="mc-k{c}" d="{dots}"/>'

    def choose(self, seen: Sequence[Seen]) -> Tensor:
        return torch.arange(len(self.x))

    def encode(self, t: Tensor, seen: Seen) -> Tensor:
        value, top = seen.said.softmax(-1).max(-1)  # (T, SIDE²)
        sure = (value - 1 / len(self.classes)) / (1 - 1 / len(self.classes))
        return (top * self.levels + (sure.clamp(0, 1) * (self.levels - 1)).round()).byte()

    def html(self, code: Tensor) -> str:
        top, sure = code.int() // self.levels, (code.int() % self.levels) / (self.levels - 1)
        alpha = (25 + 130 * sure).round().byte()[:, None]
        colours = torch.tensor(CLASS_COLOURS, dtype=torch.uint8)[top]
        image = torch.cat([colours, alpha], 1).view(SIDE, SIDE, 4).permute(2, 0, 1)
        signed = sure * (1 - 2 * (top > 0))
        edge = contours_of(signed.view(SIDE, SIDE).double(), [0.0], inset=500 / SIDE)[0]
        key = " ".join(
            f'<i class="mc-dot mc-k{c}"></i> {escape(name)}' for c, name in enumerate(self.classes)
        )
        return (
            f'<p class="mc-key">{key}</p><div class="mc-regions"><canvas width="{SIDE}"'
            f' height="{SIDE}" style="background-image:url(data:image/png;base64,'
            f'{base64(png(image))})" role="img" aria-label="decision regions"></canvas>'
            f'<svg viewBox="0 0 1000 1000" aria-hidden="true">{self.points}'
            f'<path class="mc-edge" d="{edge}"/></svg></div>'
        )


def view_of(data: Dataset, images: int, *, bars: bool = True) -> View:
    rows = tuple(data.test.x.shape[1:])
    if data.image_shape is not None:
        if len(data.image_shape) == 2 or data.image_shape[0] in (1, 3):
            return Album(data, images, bars)
    elif rows == (2,):
        return Regions(data)
    raise ValueError(
        f"rows of {data.name!r} have shape {rows} and image_shape {data.image_shape}: neither"
        " points of the plane, (2,), nor images, (h, w), (1, h, w) or (3, h, w); set image_shape"
    )


def _bar(c: int, top: int, label: int) -> str:
    return "mc-true" if c == label else "mc-top" if c == top else "mc-other"
