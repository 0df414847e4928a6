"""The neurons of one layer as a cloud of points that moves along a path."""

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import torch
from torch import Tensor, nn

from ..data import Dataset
from ..layout import Hidden, hidden_layers
from ..look import Seen
from ..neurons import butterflies
from ..paths import AnyPath
from ..tables import percent
from ..weights import Weights
from .path import PathExplorer
from .views import View


class Cloud:
    """Neurons on the two axes along which those of A and B together vary most.

    A code holds 16-bit integers: two coordinates of every neuron in hundredths of a per cent of
    the picture, the cloud's spread, and t; then three more pairs for the outline of each route.
    """

    kind, x, css = "neurons", None, ""

    def __init__(
        self,
        layer: Hidden,
        one: Weights,
        two: Weights,
        ends: tuple[str, str] = ("A", "B"),
        outlined: Sequence[AnyPath] = (),
    ) -> None:
        self.layer, name, self.outlined = layer, layer.name, outlined
        a, b = butterflies(one, layer), butterflies(two, layer)  # (n, D) each
        both = torch.cat([a, b]).double().cpu()
        if both.shape[1] < 2:
            raise ValueError(
                f"neurons of layer {name!r} have a single number each; a cloud needs two (count"
                " outgoing weights too)"
            )
        self.mean = both.mean(0)
        _, sizes, axes = torch.linalg.svd(both - self.mean, full_matrices=False)
        turned = axes[torch.arange(2), axes[:2].abs().argmax(1)] < 0  # a sign that every run finds
        self.axes = torch.where(turned[:, None], -axes[:2], axes[:2])
        self.shown = float(sizes[:2].square().sum() / sizes.square().sum().clamp(min=1e-300))
        self.first = [self._seen(rows) for rows in (a, b)]
        self.spreads = [float(rows.double().var(0).sum()) for rows in (a, b)]
        self.json: dict[str, Any] = {"outlines": len(outlined)}
        self.caption = (
            f"Dots: the {len(a)} neurons of layer {name}, seen along the two axes that show"
            f" {percent(self.shown, 0)} of how those of {ends[0]} and {ends[1]} differ. Rings:"
            f" where they are in {ends[0]} (blue) and in {ends[1]} (orange). Spread: their variance"
            " over neurons, in all dimensions, against the mean of the two ends."
        )
        if outlined:
            self.caption += (
                " Outlines: for every path at once, where the cloud is, two standard deviations"
                " from its mean; the dashes are those of the curves."
            )

    def _seen(self, rows: Tensor) -> Tensor:
        """Neurons along the two axes: (n, 2)."""
        return (rows.double().cpu() - self.mean) @ self.axes.T

    def _places(self, seen: Tensor) -> Tensor:
        """Per cent of the picture, from its upper left corner: (n, 2)."""
        return 50 + 50 * seen / self.reach * torch.tensor([1.0, -1.0]).double()

    def note(self, weights: Weights) -> tuple[Tensor, float]:
        """Where the neurons are, (n, 2), and their variance in all dimensions."""
        rows = butterflies(weights, self.layer)
        return self._seen(rows), float(rows.double().var(0).sum())

    def _outline(self, path: AnyPath, t: float) -> Tensor:
        """Centre, half axes and angle, with a zero: the ellipse of a path's cloud, (3, 2)."""
        places = self._places(self._seen(butterflies(path(t), self.layer)))
        sizes, axes = torch.linalg.eigh(torch.cov(places.T))
        angle = torch.rad2deg(torch.atan2(axes[1, 1], axes[0, 1])) % 180  # of the longer one
        half = 2 * sizes.clamp(min=0).sqrt().flip(0)
        return torch.stack([places.mean(0), half, torch.stack([angle, 0 * angle])])

    def choose(self, seen: Sequence[Seen]) -> Tensor:
        """Settle the scale: no neuron leaves the picture, on any route. No image is asked for."""
        clouds = [*self.first, *(places for s in seen for places, _ in s.noted)]
        far = max(float(places.abs().max()) for places in clouds)
        self.reach = 1.08 * far or 1.0  # neurons that are all alike stand in the middle
        self.ends = [self._places(rows).tolist() for rows in self.first]
        return torch.arange(0)

    def encode(self, t: Tensor, seen: Seen) -> Tensor:
        codes = []
        for time, (places, variance) in zip(t.tolist(), seen.noted, strict=True):
            share = min(max(time, 0.0), 1.0)
            usual = (1 - share) * self.spreads[0] + share * self.spreads[1]
            last = torch.tensor([[100 * variance / (usual or 1.0), 100 * share]]).double()
            outlines = [self._outline(path, time) for path in self.outlined]
            numbers = (
                (100 * torch.cat([self._places(places), last, *outlines]))
                .round()
                .clamp(-32768, 32767)
            )
            codes.append(numbers.to(torch.int16).reshape(-1).view(torch.uint8))
        return torch.stack(codes)

    def html(self, code: Tensor) -> str:
        numbers = (code.view(torch.int16).view(-1, 2).double() / 100).tolist()
        count = len(self.ends[0])
        places, (spread, t), outlines = numbers[:count], numbers[count], numbers[count + 1 :]
        rings = "".join(
            f'<circle class="mc-ring mc-{end}" r="4.5" cx="{x:.2f}%" cy="{y:.2f}%"/>'
            for end, ring in zip("ab", self.ends, strict=True)
            for x, y in ring
        )
        trails = "".join(
            f'<line class="mc-trail" x1="{x:.2f}%" y1="{y:.2f}%" x2="{u:.2f}%" y2="{v:.2f}%"/>'
            for (x, y), (u, v) in zip(self.ends[0], places, strict=True)
        )
        dots = "".join(
            f'<circle class="mc-neuron" data-neuron="{k}" r="4.5" cx="{x:.2f}%" cy="{y:.2f}%"/>'
            for k, (x, y) in enumerate(places)
        )
        ellipses = "".join(
            f'<g class="mc-curve mc-c{k % 6}"><svg x="{x:.2f}%" y="{y:.2f}%" viewBox="0 0 100 100">'
            f'<ellipse class="mc-outline mc-test" rx="{rx:.2f}" ry="{ry:.2f}"'
            f' transform="rotate({angle:.2f})"/></svg></g>'
            for k, ((x, y), (rx, ry), (angle, _)) in enumerate(
                zip(outlines[::3], outlines[1::3], outlines[2::3], strict=True)
            )
        )
        layer = escape(self.layer.name)
        options = "".join(f'<option value="{k}">{k}</option>' for k in range(len(places)))
        return (
            f'<p class="mc-key"><b>neurons of layer {layer}</b> spread'
            f' <b class="mc-count">{percent(spread / 100, 0)}</b> of the ends’</p>'
            f'<div class="mc-cloud" style="--mc-t:{t:.4g}%"><svg role="img" aria-label="neurons of'
            f' layer {layer} as points">{rings}{trails}<polyline class="mc-way"/>{dots}{ellipses}'
            "</svg></div>"
            '<p class="mc-key mc-follow"><label>follow neuron <select autocomplete="off"><option'
            f' value="">none</option>{options}</select></label> <span class="mc-flight"></span></p>'
        )


class NeuronExplorer(PathExplorer):
    """A slider from A to B: loss and accuracy, and the neurons of one hidden layer as a cloud.

    Parameters
    ----------
    network, paths, data, options
        As for `PathExplorer`.
    layer : str, optional
        Name of a hidden layer, as `neurons.hidden_layers` gives it; the first if not given.
    outgoing : bool
        Whether outgoing weights count too, or only incoming weights and the bias.
    outlines : bool
        Whether the clouds of all paths are outlined at once.

    Raises
    ------
    ValueError
        As `PathExplorer`, and for a layer that is not there or has fewer than two neurons.
    """

    def __init__(
        self,
        network: nn.Module,
        paths: AnyPath | Callable[[float], Weights] | Sequence[AnyPath],
        data: Dataset,
        layer: str | None = None,
        *,
        outgoing: bool = True,
        outlines: bool = False,
        **options: Any,
    ) -> None:
        layers = {hidden.name: hidden for hidden in hidden_layers(network)}
        if layer is None:
            layer = next(iter(layers), "")
        if layer not in layers or layers[layer].size < 2:
            raise ValueError(
                f"no hidden layer {layer!r} of two neurons or more; there are {tuple(layers)}"
            )
        hidden = layers[layer]
        slices = [s for s in hidden.slices if outgoing or s.axis == 0]
        self.layer = Hidden(hidden.name, hidden.size, slices)
        self.outlines = outlines
        super().__init__(network, paths, data, **options)

    def _view(self, data: Dataset, images: int) -> View:
        outlined = self.routes if self.outlines else ()
        first = self.routes[0]
        return Cloud(self.layer, first(0.0), first(1.0), self.ends, outlined)

    def _caption(self) -> str:
        return super()._caption().replace("test images", "test data")
