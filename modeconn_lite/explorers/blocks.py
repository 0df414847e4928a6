"""A slider over the states of a dropout walk, every weight matrix drawn as blocks.

Rows and columns of each block belong to the kept or to the switched-off half of a layer, as on
the slides of Kuditipudi et al. (2019). Blocks that reach the outputs are lit; the others are dim.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import product
from math import ceil, floor
from typing import Any

import torch
from torch import Tensor, nn

from ..data import Split
from ..evaluation import evaluate, profile
from ..methods.stability import Kept, layers_of, places_of
from ..paths import Path
from ..weights import Weights
from .base import Control, Explorer
from .markup import figure, readout, stretched

SIDE, GAP, TOP = 52, 26, 22
EACH = 8  # points of the loss curve on each piece of a walk
MOVES = {
    "a": "the last layer swings",
    "b": "neurons nobody reads move",
    "c": "readers change over to copies",
    "d": "a direct line",
}
Place = tuple[int, int, int]  # matrix, row, column


@dataclass(frozen=True)
class Block:
    """What one block of a state is.

    Attributes
    ----------
    label : str
        Such as "2L₃", "0", or "·" for what is neither.
    source : int or None
        From which of the named networks it comes.
    lit : bool
        Whether the outputs depend on it.
    """

    label: str
    source: int | None
    lit: bool


State = dict[Place, Block]


class _Matrices:
    """The weight matrices of a chain cut into blocks, and the names of the blocks."""

    def __init__(self, network: nn.Module, kept: Kept, sources: Sequence[Weights]) -> None:
        layers = layers_of(network)
        units = places_of(layers, kept)
        halves = [(u, _rest(u, layer.size)) for u, layer in zip(units, layers, strict=True)]
        readers = [layer.outgoing[0] for layer in layers]
        self.tensors = [f"{layers[0].name}.weight", *(s.tensor for s in readers)]
        # None: all rows of the last matrix, all inputs of the first.
        self.rows: list[tuple[Tensor | None, ...]] = [*halves, (None,)]
        self.columns: list[tuple[Tensor | None, ...]] = [(None,)]
        for half, reader in zip(halves, readers, strict=True):
            each = torch.arange(reader.each)
            self.columns.append(tuple((u[:, None] * reader.each + each).reshape(-1) for u in half))
        # What kept blocks grow by when the other half of their columns is dropped.
        self.factors = [1.0, *(sum(map(len, half)) / len(half[0]) for half in halves)]
        self.names = [self._names_of(w, k) for k, w in enumerate(sources)]

    def places(self, s: int) -> list[tuple[int, int]]:
        """(row, column) of the blocks of matrix s."""
        return list(product(range(len(self.rows[s])), range(len(self.columns[s]))))

    def _cut(self, w: Weights, s: int, r: int, c: int) -> Tensor:
        block, rows, columns = w[self.tensors[s]], self.rows[s][r], self.columns[s][c]
        block = block if rows is None else block[rows]
        return block if columns is None else block[:, columns]

    def _names_of(self, w: Weights, k: int) -> list[list[tuple[str, Tensor]]]:
        """For each matrix, the blocks of network k by their names on the slides."""
        mark, found = "ᴮ" if k else "", []
        for s, factor in enumerate(self.factors):
            number = str(s + 1).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
            found.append([])
            for r, c in self.places(s):
                if len(self.rows[s]) == 1:
                    letter = "LR"[c]
                elif len(self.columns[s]) == 1:
                    letter = "LB"[r]
                else:
                    letter = "LCDR"[2 * r + c]
                block = self._cut(w, s, r, c)
                found[s].append((f"{letter}{number}{mark}", block))
                if letter == "L":
                    times = "" if factor == 1 else f"{factor:.3g}"
                    found[s].append((f"{times}L{number}{mark}", block * factor))
        return found

    def state(self, w: Weights) -> State:
        """What every block of these weights is, from the outputs down."""
        state, read = {}, [True]
        for s in range(len(self.tensors) - 1, -1, -1):
            below = [False] * len(self.columns[s])
            for r, c in self.places(s):
                block = self._cut(w, s, r, c)
                label, source = self._name(block, s) if block.any() else ("0", None)
                lit = read[r] and label != "0"
                below[c] |= lit
                state[s, r, c] = Block(label, source, lit)
            read = below
        return state

    def _name(self, block: Tensor, s: int) -> tuple[str, int | None]:
        for k, names in enumerate(self.names):
            for label, like in names[s]:
                if like.shape == block.shape and torch.allclose(block, like):
                    return label, k
        return "·", None

    def draw(self, state: State, before: State | None = None) -> str:
        """One state as SVG: the last layer on the left, as a product of matrices is written.

        What is not as it was before has a thick frame.
        """
        x, parts = 0.0, []
        for s in range(len(self.tensors) - 1, -1, -1):
            rows, columns = len(self.rows[s]), len(self.columns[s])
            middle = x + columns * SIDE / 2
            parts.append(f'<text class="mc-head" x="{middle:g}" y="12">W{s + 1}</text>')
            top = TOP if rows == 2 else TOP + SIDE / 2
            for r, c in self.places(s):
                block = state[s, r, c]
                moved = before is not None and before[s, r, c].label != block.label
                parts.append(_drawn(block, x + c * SIDE, top + r * SIDE, moved))
            x += columns * SIDE + GAP
        said = escape("; ".join(self.words(state)))
        return (
            f'<svg class="mc-blocks" role="img" aria-label="{said}"'
            f' viewBox="-3 0 {x - GAP + 6:g} {TOP + 2 * SIDE + 4}">{"".join(parts)}</svg>'
        )

    def words(self, state: State) -> list[str]:
        """Each matrix in words, for screen readers and for pages without scripts."""
        lines = []
        for s in range(len(self.tensors) - 1, -1, -1):
            cells = [
                " ".join(state[s, r, c].label for c in range(len(self.columns[s])))
                for r in range(len(self.rows[s]))
            ]
            lines.append(f"W{s + 1} = ({' / '.join(cells)})")
        return lines


def _drawn(block: Block, x: float, y: float, moved: bool) -> str:
    style = ["mc-mixed" if block.source is None else f"mc-from{block.source}"]
    style += ["mc-lit"] * block.lit + ["mc-moved"] * moved
    return (
        f'<g class="{" ".join(style)}"><rect x="{x:g}" y="{y:g}" width="{SIDE - 4}"'
        f' height="{SIDE - 4}" rx="5"/><text x="{x + SIDE / 2 - 2:g}"'
        f' y="{y + SIDE / 2 + 3:g}">{escape(block.label)}</text></g>'
    )


def _rest(units: Tensor, size: int) -> Tensor:
    others = torch.ones(size, dtype=torch.bool)
    others[units] = False
    return others.nonzero()[:, 0]


class BlockExplorer(Explorer):
    """The states of a walk as block matrices, one for each step of a slider.

    Parameters
    ----------
    network : nn.Module
        A plain chain; see `methods.stability.layers_of`.
    walk : Path
        Its states are its corners; its labels say what kind of move leads to each.
    kept : dict of str to integers
        The neurons of each hidden layer that form its first half; the others form the second.
    sources : dict of str to Weights
        One or two named networks from which the blocks come, drawn blue and orange.
    split : Split, optional
        Where given, the loss along the walk is shown.
    title : str
        Heading of the picture.
    ends : two str
        What the ends of the walk are called.
    """

    kinds = ("base", "blocks")

    def __init__(
        self,
        network: nn.Module,
        walk: Path,
        kept: Kept,
        sources: Mapping[str, Weights],
        *,
        split: Split | None = None,
        title: str = "Blocks along the walk",
        ends: tuple[str, str] = ("A", "B"),
    ) -> None:
        if not walk.labels:
            raise ValueError(f"the pieces of {walk.name!r} have no labels that say how they move")
        self.network, self.walk, self.split = network, walk, split
        self.title, self.names, self.sources = title, [title], list(sources)
        self.ends = ends
        self.device = next(iter(walk.anchors[0].values())).device
        self.matrices = _Matrices(network, kept, list(sources.values()))
        corners = walk.corners()
        self.states = [self.matrices.state(w) for w in corners]
        self.profile = None
        if split is not None:
            times = EACH * len(walk.labels) + 1
            self.profile = profile(network, walk, split, times)
        self.says = [self._say(k, self._loss_at(k)) for k in range(len(corners))]
        self.steps = [self._step(k) for k in range(1, len(corners))]

    def __repr__(self) -> str:
        return f"BlockExplorer({len(self.states)} states, moves {''.join(self.walk.labels)})"

    def _loss_at(self, k: int) -> float | None:
        """The loss in state k."""
        if self.profile is None:
            return None
        here = (self.profile.t - self.walk.knots[k]).abs().argmin()
        return float(self.profile.loss[here])

    def _say(self, k: int, loss: float | None) -> dict[str, str]:
        """The read-out in state k, or on the way to it."""
        said = {"state": f"({k + 1})", "move": f"({self.walk.labels[k - 1]})" if k else "the start"}
        if self.split is not None and loss is not None:
            said[f"loss, {self.split.name}"] = f"{loss:.3f} nats"
        return said

    def _step(self, k: int) -> str:
        """What happens on the way to state k, in a sentence."""
        before, after = self.states[k - 1], self.states[k]
        moved = {place[0] for place in after if after[place].label != before[place].label}
        matrices = " and ".join(f"W{s + 1}" for s in sorted(moved, reverse=True))
        move = self.walk.labels[k - 1]
        return f"({move}) {MOVES.get(move, 'a move')}: {matrices or 'nothing that shows'}"

    def _curve(self, t: float, value: float | None) -> str:
        """The loss along the walk, small, with the marker at t."""
        if self.profile is None or value is None:
            return ""
        top = 1.12 * float(self.profile.loss.max())
        xs, ys = (1000 * self.profile.t).tolist(), (1000 * (1 - self.profile.loss / top)).tolist()
        path = "L".join(f"{x:.0f} {y:.0f}" for x, y in zip(xs, ys, strict=True))
        ticks = "".join(
            f'<line x1="{100 * x:.4g}%" x2="{100 * x:.4g}%" y1="0" y2="100%"/>'
            for x in self.walk.knots
        )
        peak = f"{float(self.profile.loss.max()):.2f}"
        curve = stretched(f'<path d="M{path}"/>')
        return (
            f'<p class="mc-key"><b>loss</b> in nats, {escape(self.profile.split)}; highest {peak}'
            '</p><svg class="mc-strip" role="img" aria-label="loss along the walk, highest'
            f' {peak} nats"><g class="mc-grid">{ticks}</g>'
            f'{curve}<circle class="mc-spot" r="6" cx="{100 * t:.4g}%"'
            f' cy="{100 * (1 - value / top):.4g}%"/></svg>'
        )

    def _steps(self, now: int) -> str:
        """All steps as sentences; the one that led to state `now` lit."""
        items = "".join(
            f'<li data-step="{k}"{" aria-current=step" if k == now else ""}>{escape(step)}</li>'
            for k, step in enumerate(self.steps, start=1)
        )
        return f'<ol class="mc-steps" tabindex="0" aria-label="steps of the walk">{items}</ol>'

    def _repr_html_(self) -> str:
        befores = [None, *self.states]
        pictures = "".join(
            f'<div data-state="{k}"{" hidden" if k else ""}>'
            f"{self.matrices.draw(state, befores[k])}</div>"
            for k, state in enumerate(self.states)
        )
        body = (
            f'<div class="mc-stage"><div>{self._curve(0.0, self._loss_at(0))}{pictures}</div></div>'
            '<div class="mc-slider" style="--mc-from:0%;--mc-to:100%"><input type="range" min="0"'
            f' max="{len(self.states) - 1}" value="0" step="1" autocomplete="off"'
            f' aria-label="{escape(self._whole_way())}">{self._ticks()}</div><div class="mc-foot">'
            '<button type="button" class="mc-button mc-play"><span>Walk</span></button>'
            f"{readout(self.says[0])}</div>{self._steps(0)}"
        )
        rows = [
            (*said.values(), step, "; ".join(self.matrices.words(state)))
            for said, step, state in zip(self.says, ["", *self.steps], self.states, strict=True)
        ]
        table = [*self.says[0], "step", "blocks"], rows
        data: dict[str, Any] = {"says": self.says, "steps": self.steps}
        if self.profile is not None:
            top = 1.12 * float(self.profile.loss.max())
            heights = [100 * (1 - (self._loss_at(k) or 0.0) / top) for k in range(len(self.states))]
            spots = zip(self.walk.knots, heights, strict=True)
            data["spots"] = [{"cx": 100 * t, "cy": round(y, 2)} for t, y in spots]
        return figure(self.kinds, self.title, body, self._caption(), table, data)

    def _whole_way(self) -> str:
        return f"state of the walk from {self.ends[0]} to {self.ends[1]}"

    def _ticks(self) -> str:
        colours = "mc-a", "mc-b" if len(self.sources) > 1 else "mc-a"
        marks = zip((0, 100), self.ends, colours, strict=True)
        spans = (f'<span class="{c}" style="left:{x}%">{escape(s)}</span>' for x, s, c in marks)
        return f'<div class="mc-ticks" aria-hidden="true">{"".join(spans)}</div>'

    def _caption(self) -> str:
        colours = ", ".join(
            f"{colour}: blocks of {name}"
            for name, colour in zip(self.sources, ("blue", "orange"), strict=False)
        )
        return (
            f"Lit blocks reach the outputs ({colours}); pale blocks do not. A thick frame marks"
            " what has just moved. Upper rows and left columns belong to the kept half."
        )

    def controls(self) -> list[Control]:
        return [Control(f"t from {self.ends[0]} to {self.ends[1]}", 0.0, 1.0, 0.0)]

    def picture(self, place: Sequence[float], chosen: Mapping[str, int]) -> str:
        (t,) = place
        w, piece = self.walk(t), t * len(self.walk.labels)
        ahead = ceil(piece - 1e-9)  # the state that is reached next
        loss = None if self.split is None else evaluate(self.network, w, self.split).loss
        said = {"t": f"{t:.3f}"} | self._say(ahead, loss)
        if abs(piece - round(piece)) > 1e-9:
            said["state"] = f"({floor(piece) + 1}) to ({ahead + 1})"
        drawn = self.matrices.draw(self.matrices.state(w), self.states[max(ahead - 1, 0)])
        return (
            f'<div class="mc-stage"><div>{self._curve(t, loss)}{drawn}</div></div>{readout(said)}'
            f"{self._steps(ahead)}"
        )
