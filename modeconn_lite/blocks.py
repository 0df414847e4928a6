"""A slider over the states of a dropout walk, every weight matrix drawn as blocks.

Rows and columns of each block belong to the kept or to the switched-off half of a layer, as on
the slides of Kuditipudi et al. (2019). Blocks that reach the outputs are lit; the others are dim.
"""

from collections.abc import Mapping
from html import escape

import torch
from torch import Tensor, nn

from .data import Split
from .dropout import Walk
from .evaluation import evaluate
from .halves import Kept, layers_of, places_of
from .markup import readout, style_of
from .weights import Weights

SIDE, GAP, TOP = 52, 26, 22
MOVES = {
    "a": "the last layer swings",
    "b": "neurons nobody reads move",
    "c": "readers change over to copies",
    "d": "a direct line",
}
CSS = """
.mc-blocks svg { display: block; width: 100%; max-width: 40rem; height: auto; overflow: visible; }
.mc-blocks rect { fill: var(--mc-lift); stroke: var(--mc-line); stroke-width: 1.5px; }
.mc-blocks text { fill: var(--mc-soft); font-size: 15px; text-anchor: middle; }
.mc-blocks .mc-head { font-size: 13px; }
.mc-blocks .mc-lit text { fill: #fff; font-weight: 650; }
.mc-blocks .mc-lit.mc-from0 rect { fill: #0068a3; }
.mc-blocks .mc-lit.mc-from1 rect { fill: #b34c00; }
.mc-blocks .mc-lit.mc-mixed rect { fill: #566172; }
.mc-blocks .mc-moved rect { stroke: var(--mc-ink); stroke-width: 3.5px; }
.mc-blocks .mc-slider { margin-inline: 13px; max-width: 38rem; }
.mc-blocks .mc-readout { grid-template-columns: 1fr; max-width: none; }
"""
SCRIPT = """
for (const root of document.querySelectorAll(".mc-blocks:not([data-ready])")) {
  const slider = root.querySelector("input");
  const states = [...root.querySelectorAll("[data-state]")];
  const says = [...root.querySelectorAll(".mc-readout b")];
  root.dataset.ready = "";
  slider.dataset.lmSuppressShortcuts = "true"; // or JupyterLab takes its keys
  const draw = () => {
    states.forEach((state, k) => state.toggleAttribute("hidden", k !== Number(slider.value)));
    const texts = states[slider.value].dataset.say.split("|");
    texts.forEach((text, k) => { says[k].textContent = text; });
    slider.setAttribute("aria-valuetext", texts.join(", "));
  };
  slider.addEventListener("input", draw);
  draw();
}
"""


class BlockExplorer:
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
        self.chain, self.title, self.names = chain, title, list(sources)
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
        known = [self._known(w, factors, k) for k, w in enumerate(sources.values())]
        self.states = [self._state(w, known) for w in chain.points]
        self.losses = (
            [evaluate(network, w, split)[0] for w in chain.points] if split is not None else []
        )
        self.on = split.name if split is not None else ""

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

    def _state(self, w: Weights, known: list[dict]) -> dict[tuple[int, int, int], tuple]:
        """(layer, row, column) -> (label, source or None, whether the outputs depend on it)."""
        state, read = {}, [True]
        for s in range(len(self.tensors) - 1, -1, -1):
            below = [False] * len(self.columns[s])
            for r in range(len(self.rows[s])):
                for c in range(len(self.columns[s])):
                    block = self._cut(w, s, r, c)
                    label, source = ("0", None) if not block.any() else self._name(block, s, known)
                    lit = read[r] and label != "0"
                    below[c] |= lit
                    state[s, r, c] = (label, source, lit)
            read = below
        return state

    def _name(self, block: Tensor, s: int, known: list[dict]) -> tuple[str, int | None]:
        for k, names in enumerate(known):
            for (layer, *_), (label, like) in names.items():
                if layer == s and like.shape == block.shape and torch.allclose(block, like):
                    return label, k
        return "·", None

    def __repr__(self) -> str:
        return f"BlockExplorer({len(self.states)} states, moves {self.chain.moves})"

    def _say(self, k: int) -> list[str]:
        move = self.chain.moves[k - 1] if k else ""
        said = [f"({k + 1})", f"({move}): {MOVES[move]}" if k else "the start"]
        return [*said, f"{self.losses[k]:.3f} nats"] if self.losses else said

    def _draw(self, k: int) -> str:
        """One state as SVG: the last layer on the left, as a product of matrices is written."""
        x, parts = 0.0, []
        for s in range(len(self.tensors) - 1, -1, -1):
            rows, columns = len(self.rows[s]), len(self.columns[s])
            middle = x + columns * SIDE / 2
            parts.append(f'<text class="mc-head" x="{middle:g}" y="12">W{s + 1}</text>')
            top = TOP if rows == 2 else TOP + SIDE / 2
            for r in range(rows):
                for c in range(columns):
                    label, source, lit = self.states[k][s, r, c]
                    style = [f"mc-from{source}" if source is not None else "mc-mixed"]
                    style += ["mc-lit"] * lit
                    style += ["mc-moved"] * bool(k and self.states[k - 1][s, r, c][0] != label)
                    at = x + c * SIDE, top + r * SIDE
                    parts.append(
                        f'<g class="{" ".join(style)}"><rect x="{at[0]:g}" y="{at[1]:g}"'
                        f' width="{SIDE - 4}" height="{SIDE - 4}" rx="5"/><text'
                        f' x="{at[0] + SIDE / 2 - 2:g}" y="{at[1] + SIDE / 2 + 3:g}">'
                        f"{label}</text></g>"
                    )
            x += columns * SIDE + GAP
        said = "|".join(self._say(k))
        hidden = " hidden" if k else ""
        return (
            f'<div data-state="{k}" data-say="{escape(said)}"{hidden}><svg role="img" aria-label='
            f'"{escape("; ".join(self._spoken(k)))}" viewBox="-3 0 {x - GAP + 6:g}'
            f' {TOP + 2 * SIDE + 4}">{"".join(parts)}</svg></div>'
        )

    def _spoken(self, k: int) -> list[str]:
        """Each matrix in words, for screen readers and for pages without scripts."""
        lines = []
        for s in range(len(self.tensors) - 1, -1, -1):
            cells = [
                " ".join(self.states[k][s, r, c][0] for c in range(len(self.columns[s])))
                for r in range(len(self.rows[s]))
            ]
            lines.append(f"W{s + 1} = ({' / '.join(cells)})")
        return lines

    def _repr_html_(self) -> str:
        last = len(self.states) - 1
        names = ["state", "move", *([f"loss, {self.on}"] if self.losses else [])]
        rows = "".join(
            "<tr>"
            + "".join(f"<td>{escape(x)}</td>" for x in (*self._say(k), "; ".join(self._spoken(k))))
            + "</tr>"
            for k in range(last + 1)
        )
        head = "".join(f'<th scope="col">{escape(x)}</th>' for x in (*names, "blocks"))
        say = readout({name: escape(x) for name, x in zip(names, self._say(0), strict=True)})
        colours = ", ".join(
            f"{colour}: blocks of {name}"
            for name, colour in zip(self.names, ("blue", "orange"), strict=False)
        )
        return (
            f'<!--mc-explorer--><figure class="mc-explorer mc-blocks">{style_of(CSS)}'
            f'<p class="mc-title">{escape(self.title)}</p>'
            f"{''.join(self._draw(k) for k in range(last + 1))}"
            '<div class="mc-slider" style="--mc-from:0%;--mc-to:100%"><input type="range" min="0"'
            f' max="{last}" value="0" step="1" autocomplete="off" aria-label="state of the walk">'
            f'</div><div class="mc-foot">{say}</div>'
            f"<figcaption>Lit blocks reach the outputs ({escape(colours)}); pale blocks do not. A"
            " dark frame marks what has just moved. Upper rows and left columns belong to the kept"
            f" half.</figcaption><noscript><table><thead><tr>{head}</tr></thead><tbody>{rows}"
            f"</tbody></table></noscript><script>(() => {{{SCRIPT}}})();</script></figure>"
            "<!--/mc-explorer-->"
        )


def _rest(units: Tensor, size: int) -> Tensor:
    keep = torch.ones(size, dtype=torch.bool)
    keep[units] = False
    return keep.nonzero()[:, 0]
