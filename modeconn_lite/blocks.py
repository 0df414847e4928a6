"""A slider over the states of a dropout walk, every weight matrix drawn as blocks.

Rows and columns of each block belong to the kept or to the switched-off half of a layer, as on
the slides of Kuditipudi et al. (2019). Blocks that reach the outputs are lit; the others are dim.
"""

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor

import torch
from torch import Tensor, nn

from .data import Split
from .dropout import Walk
from .evaluation import evaluate
from .explorers import Explorer
from .halves import Kept, layers_of, places_of
from .markup import figure, readout
from .weights import Weights

SIDE, GAP, TOP = 52, 26, 22
MOVES = {
    "a": "the last layer swings",
    "b": "neurons nobody reads move",
    "c": "readers change over to copies",
    "d": "a direct line",
}


class BlockExplorer(Explorer):
    """The states of a walk as block matrices, one for each step of a slider.

    Parameters
    ----------
    network : a plain chain; see `halves.layers_of`.
    chain : the walk.
    kept : the neurons of each hidden layer that form its first half; the others form the second.
    sources : one or two named networks from which the blocks come, drawn blue and orange.
    split : where given, the loss in each state is shown.
    title : heading of the picture.
    """

    def __init__(
        self,
        network: nn.Module,
        chain: Walk,
        kept: Kept,
        sources: Mapping[str, Weights],
        *,
        split: Split | None = None,
        title: str = "Blocks along the walk",
    ) -> None:
        self.network, self.chain, self.split = network, chain, split
        self.title, self.names, self.css = title, [title], ""
        self.sources = list(sources)
        self.device = next(iter(chain.points[0].values())).device
        self.path = chain.path()
        layers = layers_of(network)
        halves = [
            (units, _rest(units, layer.size))
            for units, layer in zip(places_of(layers, kept), layers, strict=True)
        ]
        self.tensors = [f"{layers[0].name}.weight", *(layer.outgoing[0].tensor for layer in layers)]
        widths = [1, *(layer.outgoing[0].block for layer in layers)]
        whole = (torch.tensor([], dtype=torch.int64),)  # all rows of the last, inputs of the first
        self.rows = [*halves, whole]
        self.columns = [
            whole,
            *(
                tuple((u[:, None] * width + torch.arange(width)).reshape(-1) for u in half)
                for half, width in zip(halves, widths[1:], strict=True)
            ),
        ]
        factors = [1.0, *(sum(map(len, half)) / len(half[0]) for half in halves)]
        self.known = [self._known(w, factors, k) for k, w in enumerate(sources.values())]
        self.states = [self._state(w) for w in chain.points]
        self.says = [self._say(k, w) for k, w in enumerate(chain.points)]
        self.heads = ["state", "move", *([f"loss, {split.name}"] if split else [])]

    def _cut(self, w: Weights, s: int, r: int, c: int) -> Tensor:
        block, rows, columns = w[self.tensors[s]], self.rows[s][r], self.columns[s][c]
        block = block[rows] if len(rows) else block
        return block[:, columns] if len(columns) else block

    def _known(self, w: Weights, factors: list[float], k: int) -> dict[tuple, tuple[str, Tensor]]:
        """What each block of a network is called, and what its kept block is when rescaled."""
        found = {}
        mark = "ᴮ" if k else ""
        for s in range(len(self.tensors)):
            number = str(s + 1).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
            times = "" if factors[s] == 1 else f"{factors[s]:.3g}"
            for r in range(len(self.rows[s])):
                for c in range(len(self.columns[s])):
                    letter = "LR"[c] if len(self.rows[s]) == 1 else "LCDR"[2 * r + c]
                    letter = "LB"[r] if len(self.columns[s]) == 1 else letter
                    block = self._cut(w, s, r, c)
                    found[s, letter, k] = (f"{letter}{number}{mark}", block)
                    if letter == "L":
                        found[s, "kept", k] = (f"{times}L{number}{mark}", block * factors[s])
        return found

    def _state(self, w: Weights) -> dict[tuple[int, int, int], tuple]:
        """(layer, row, column) -> (label, source or None, whether the outputs depend on it)."""
        state, read = {}, [True]
        for s in range(len(self.tensors) - 1, -1, -1):
            below = [False] * len(self.columns[s])
            for r in range(len(self.rows[s])):
                for c in range(len(self.columns[s])):
                    block = self._cut(w, s, r, c)
                    label, source = ("0", None) if not block.any() else self._name(block, s)
                    lit = read[r] and label != "0"
                    below[c] |= lit
                    state[s, r, c] = (label, source, lit)
            read = below
        return state

    def _name(self, block: Tensor, s: int) -> tuple[str, int | None]:
        for k, names in enumerate(self.known):
            for (layer, *_), (label, like) in names.items():
                if layer == s and like.shape == block.shape and torch.allclose(block, like):
                    return label, k
        return "·", None

    def __repr__(self) -> str:
        return f"BlockExplorer({len(self.states)} states, moves {self.chain.moves})"

    def _say(self, k: int, w: Weights) -> list[str]:
        """The read-out in state k, or on the way to it, where the weights are w."""
        move = self.chain.moves[k - 1] if k else ""
        said = [f"({k + 1})", f"({move}) {MOVES[move]}" if k else "the start"]
        if self.split is None:
            return said
        return [*said, f"{evaluate(self.network, w, self.split)[0]:.3f} nats"]

    def _draw(self, state: dict, before: dict | None = None) -> str:
        """One state as SVG: the last layer on the left, as a product of matrices is written.

        What is not as it was before has a dark frame.
        """
        x, parts = 0.0, []
        for s in range(len(self.tensors) - 1, -1, -1):
            rows, columns = len(self.rows[s]), len(self.columns[s])
            middle = x + columns * SIDE / 2
            parts.append(f'<text class="mc-head" x="{middle:g}" y="12">W{s + 1}</text>')
            top = TOP if rows == 2 else TOP + SIDE / 2
            for r in range(rows):
                for c in range(columns):
                    label, source, lit = state[s, r, c]
                    style = [f"mc-from{source}" if source is not None else "mc-mixed"]
                    style += ["mc-lit"] * lit
                    style += ["mc-moved"] * bool(before and before[s, r, c][0] != label)
                    at = x + c * SIDE, top + r * SIDE
                    parts.append(
                        f'<g class="{" ".join(style)}"><rect x="{at[0]:g}" y="{at[1]:g}"'
                        f' width="{SIDE - 4}" height="{SIDE - 4}" rx="5"/><text'
                        f' x="{at[0] + SIDE / 2 - 2:g}" y="{at[1] + SIDE / 2 + 3:g}">'
                        f"{label}</text></g>"
                    )
            x += columns * SIDE + GAP
        said = escape("; ".join(self._spoken(state)))
        return (
            f'<svg class="mc-blocks" role="img" aria-label="{said}"'
            f' viewBox="-3 0 {x - GAP + 6:g} {TOP + 2 * SIDE + 4}">{"".join(parts)}</svg>'
        )

    def _spoken(self, state: dict) -> list[str]:
        """Each matrix in words, for screen readers and for pages without scripts."""
        lines = []
        for s in range(len(self.tensors) - 1, -1, -1):
            cells = [
                " ".join(state[s, r, c][0] for c in range(len(self.columns[s])))
                for r in range(len(self.rows[s]))
            ]
            lines.append(f"W{s + 1} = ({' / '.join(cells)})")
        return lines

    def _repr_html_(self) -> str:
        pictures = "".join(
            f'<div data-state="{k}"{" hidden" if k else ""}>{self._draw(state, before)}</div>'
            for k, (state, before) in enumerate(
                zip(self.states, [None, *self.states], strict=False)
            )
        )
        values = dict(zip(self.heads, self.says[0], strict=True))
        body = (
            f'<div class="mc-stage"><div>{pictures}</div></div>'
            '<div class="mc-slider" style="--mc-from:0%;--mc-to:100%"><input type="range" min="0"'
            f' max="{len(self.states) - 1}" value="0" step="1" autocomplete="off"'
            ' aria-label="state of the walk"></div><div class="mc-foot">'
            '<button type="button" class="mc-button mc-play"><span>Walk</span></button>'
            f"{readout(values)}</div>"
        )
        rows = [
            (*said, "; ".join(self._spoken(state)))
            for said, state in zip(self.says, self.states, strict=True)
        ]
        head = [*self.heads, "blocks"]
        data = {"says": self.says}
        return figure("states", self.title, body, self._caption(), head, rows, data, self.css)

    def _caption(self) -> str:
        colours = ", ".join(
            f"{colour}: blocks of {name}"
            for name, colour in zip(self.sources, ("blue", "orange"), strict=False)
        )
        return (
            f"Lit blocks reach the outputs ({colours}); pale blocks do not. A dark frame marks what"
            " has just moved. Upper rows and left columns belong to the kept half."
        )

    def _controls(self) -> list[tuple[str, float, float, float]]:
        return [("t along the walk", 0.0, 1.0, 0.0)]

    def _picture(self, place: Sequence[float], k: int, of: int) -> str:
        w, piece = self.path(place[0]), place[0] * len(self.chain.moves)
        state, before = self._state(w), self.states[max(ceil(piece - 1e-9) - 1, 0)]
        said = self._say(ceil(piece - 1e-9), w)
        if abs(piece - round(piece)) > 1e-9:
            said[0] = f"({floor(piece) + 1}) to ({ceil(piece) + 1})"
        values = {"t": f"{place[0]:.3f}"} | dict(zip(self.heads, said, strict=True))
        return (
            f'<div class="mc-stage"><div>{self._draw(state, before)}</div></div>{readout(values)}'
        )


def _rest(units: Tensor, size: int) -> Tensor:
    keep = torch.ones(size, dtype=torch.bool)
    keep[units] = False
    return keep.nonzero()[:, 0]
