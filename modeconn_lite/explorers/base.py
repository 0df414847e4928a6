"""What all explorers share, and their live face.

An explorer has two faces. On display it is HTML that needs nothing else: what its slider shows was
computed beforehand, at every point of a grid. `live()` makes ipywidgets that run the network
itself, at any point, while the slider moves. Both faces are drawn by the same functions; the
scripts in `assets` only move what they have drawn.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from html import escape
from time import perf_counter
from typing import Any, NamedTuple

import torch

from .markup import styles


class Control(NamedTuple):
    """A slider of the live face."""

    name: str
    low: float
    high: float
    value: float


class Explorer(ABC):
    """A picture for every place, and two faces that show it.

    Attributes
    ----------
    title : str
    names : sequence of str
        What is walked, for the repr of the live face.
    device : torch.device
        Where the weights are, and so the network runs.
    kinds : sequence of str
        Assets that the pictures need.
    css : str
        Style of this explorer's own pictures.
    """

    title: str
    names: Sequence[str]
    device: torch.device
    kinds: Sequence[str]
    css: str = ""

    @abstractmethod
    def controls(self) -> list[Control]:
        """The live face's sliders: a place has one number of each."""

    def choices(self) -> Mapping[str, Sequence[str]]:
        """What else there is to choose, by name."""
        return {}

    @abstractmethod
    def picture(self, place: Sequence[float], chosen: Mapping[str, int]) -> str:
        """HTML of what is seen at a place, the network being run for it.

        chosen : which of each of the `choices`.
        """

    @abstractmethod
    def _repr_html_(self) -> str: ...

    def still(self) -> str:
        """The page's face of the same, for where no kernel runs the live one."""
        return self._repr_html_()

    def live(self) -> "LiveExplorer":
        """The same picture as widgets that run the network at any point; needs a kernel."""
        return LiveExplorer(self)


class LiveExplorer:
    """An explorer as ipywidgets: each move of a slider runs the network, wherever its weights are.

    Attributes
    ----------
    sliders : list of FloatSlider
        One for t, or two for u and v.
    choices : dict of str to Dropdown
    picture : HTML
        The widget whose `value` is what is seen there.
    """

    def __init__(self, explorer: Explorer) -> None:
        import ipywidgets as widgets

        self.explorer = explorer
        wide = {"width": "100%"}
        self.sliders = [
            widgets.FloatSlider(
                value=control.value,
                min=control.low,
                max=control.high,
                step=min(0.005, (control.high - control.low) / 100),
                description=control.name,
                readout_format=".3f",
                style={"description_width": "initial"},
                layout=wide,
            )
            for control in explorer.controls()
        ]
        self.choices = {
            name: widgets.Dropdown(
                options=[(o, k) for k, o in enumerate(options)], description=name
            )
            for name, options in explorer.choices().items()
        }
        heading = f'<p role="heading" aria-level="4" class="mc-title">{escape(explorer.title)}</p>'
        self.picture = widgets.HTML(layout=wide)
        head = widgets.HTML(f'{self._styles()}<div class="mc-still">{heading}</div>', layout=wide)
        self.box = widgets.VBox(
            [head, *self.sliders, *self.choices.values(), self.picture], layout=wide
        )
        for widget in (*self.sliders, *self.choices.values()):
            widget.observe(self._draw, "value")
        seconds = self._draw()
        for slider in self.sliders:  # a network too slow to follow the hand waits for it to rest
            slider.continuous_update = seconds < 0.15

    def _styles(self) -> str:
        return styles(self.explorer.kinds, self.explorer.css)

    def _draw(self, change: object = None) -> float:
        started = perf_counter()
        html = self._html()
        seconds = perf_counter() - started
        device = self.explorer.device
        note = f'<p class="mc-note">One step on {device} in {1000 * seconds:.1f} ms.</p>'
        self.picture.value = f'<div class="mc-still">{html}{note}</div>'
        return seconds

    def _html(self) -> str:
        chosen = {name: int(choice.value or 0) for name, choice in self.choices.items()}
        return self.explorer.picture([slider.value for slider in self.sliders], chosen)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        view = {"version_major": 2, "version_minor": 0, "model_id": self.box.model_id}
        axes = " and ".join(control.name.split()[0] for control in self.explorer.controls())
        note = (
            '<!--mc-explorer--><p class="mc-elsewhere">Opened as a notebook, this cell runs the'
            f" network itself, at any {axes}. Here are the points that were computed before.</p>"
            "<!--/mc-explorer-->"
        )
        return {
            "application/vnd.jupyter.widget-view+json": view,
            "text/html": note + self.explorer.still(),
            "text/plain": repr(self),
        }

    def __repr__(self) -> str:
        return f"LiveExplorer({', '.join(self.explorer.names)})"
