"""Pieces of self-contained HTML: a figure with its data and script, pictures, numbers."""

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from pathlib import Path as FilePath
from struct import pack
from typing import Any
from zlib import compress, crc32

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from ..tables import percent

ASSETS = FilePath(__file__).parent / "assets"

# Red, green and blue of a polynomial close to viridis (Matt Zucker, public domain).
VIRIDIS = (
    (-5.4355, 4.7764, 6.2283, -4.6342, -0.3309, 0.1051, 0.2777),
    (4.6459, -13.7451, 14.1799, -5.7991, 0.2148, 1.4046, 0.0054),
    (26.3124, -65.3530, 56.6906, -19.3324, 0.0951, 1.3846, 0.3341),
)


@cache
def asset(name: str) -> str:
    """One of the files of the folder `assets`."""
    return (ASSETS / name).read_text("utf8")


def styles(kinds: Sequence[str], css: str = "") -> str:
    """The style sheets of these kinds of explorer and view, and some of one explorer's own.

    Each is marked with its name: every output carries what it needs, since notebooks show outputs
    apart from each other; a website's page drops all but the first of each name.
    """
    sheets = "".join(
        f'<style data-mc-asset="{kind}.css">{asset(f"{kind}.css")}</style>'
        for kind in kinds
        if (ASSETS / f"{kind}.css").exists()
    )
    return sheets + (f"<style>{css}</style>" if css else "")


def scripts(kinds: Sequence[str]) -> str:
    """The scripts of these kinds, marked like `styles`, and the call that starts them."""
    return (
        "".join(
            f'<script data-mc-asset="{kind}.js">{asset(f"{kind}.js")}</script>'
            for kind in kinds
            if (ASSETS / f"{kind}.js").exists()
        )
        + "<script>mcExplorers.start();</script>"
    )


def figure(
    kinds: Sequence[str],
    title: str,
    body: str,
    caption: str,
    table: tuple[Sequence[str], Sequence[Sequence[object]]],
    data: dict[str, Any],
    css: str = "",
) -> str:
    """One self-contained piece of HTML; no ids in it, so that it may stand on a page twice.

    Parameters
    ----------
    kinds : sequence of str
        Names of the assets it needs; the second is the kind of the explorer.
    title, caption : str
        Text.
    body : str
        HTML.
    table : head and rows
        What is shown where scripts are off.
    data : dict
        What the script reads.
    css : str
        Style of this one figure, such as its pictures.
    """
    head, rows = table
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = "".join(
        "<tr>" + "".join(f"<td>{escape(str(x))}</td>" for x in row) + "</tr>" for row in rows
    )
    content = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return (
        f'<!--mc-explorer--><figure class="mc-explorer mc-{kinds[1]}" data-kind="{kinds[1]}">'
        f'{styles(kinds, css)}<p class="mc-title">{escape(title)}</p>{body}'
        f"<figcaption>{escape(caption)}</figcaption>"
        f"<noscript><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></noscript>"
        f'<script type="application/json">{content}</script>'
        f"{scripts(kinds)}</figure><!--/mc-explorer-->"
    )


Form = int | str  # how a figure is shown: a number of digits, or "%"


def shown(value: float, form: Form) -> str:
    """A figure as read-outs and markers show it."""
    return percent(value) if form == "%" else f"{value:.{form}f}"


def readout(values: Mapping[str, str]) -> str:
    """Names and values, each in a place that the script finds by its name."""
    stats = "".join(
        f'<span class="mc-stat{" mc-minor" if name.startswith("train") else ""}">'
        f'<span>{escape(name)}</span> <b data-say="{escape(name)}">{escape(value)}</b></span> '
        for name, value in values.items()
    )
    return f'<output class="mc-readout" aria-live="polite">{stats}</output>'


def buttons(name: str, options: Mapping[str, str], about: str) -> str:
    """A group of buttons, {value: label}, of which the first is pressed."""
    group = "".join(
        f'<button type="button" class="mc-button" name="{escape(name)}" value="{escape(value)}"'
        f' aria-pressed="{"false" if k else "true"}">{escape(label)}</button>'
        for k, (value, label) in enumerate(options.items())
    )
    return f'<div class="mc-choice" role="group" aria-label="{escape(about)}">{group}</div>'


def stretched(content: str) -> str:
    """SVG in thousandths that fills the plot around it."""
    return (
        '<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" width="100%" height="100%">'
        f"{content}</svg>"
    )


def short(values: Tensor) -> list[float | None]:
    """Four significant digits; nothing where there is no value."""
    return [None if v != v else float(f"{v:.4g}") for v in values.tolist()]


def base64(content: bytes) -> str:
    return b64encode(content).decode()


def png(image: Tensor, *, palette: bool = False) -> bytes:
    """A picture of shape (h, w) or (1, 3 or 4, h, w), uint8; with a palette the shades are ours."""
    image = image[None] if image.dim() == 2 else image
    channels, height, width = image.shape
    rows = F.pad(image.permute(1, 2, 0).reshape(height, width * channels), (1, 0))

    def chunk(name: bytes, content: bytes) -> bytes:
        return pack(">I", len(content)) + name + content + pack(">I", crc32(name + content))

    kind = 3 if palette else {1: 0, 3: 2, 4: 6}[channels]
    parts = [chunk(b"IHDR", pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0))]
    if palette:  # light is low; 255 is transparent
        shares = np.linspace(1, 0, 255)
        shades = np.stack([np.polyval(c, shares) for c in VIRIDIS], 1).clip(0, 1) * 255
        parts.append(chunk(b"PLTE", shades.round().astype(np.uint8).tobytes() + b"\0\0\0"))
        parts.append(chunk(b"tRNS", b"\xff" * 255 + b"\0"))
    parts += [chunk(b"IDAT", compress(rows.contiguous().numpy().tobytes(), 6)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def contours_of(values: Tensor, levels: Sequence[float], inset: float = 0.0) -> list[str]:
    """SVG path data, in thousandths of the picture, of the lines where a grid has these values.

    Row 0 lies at the bottom, or at the top if the grid is inset (its points are cell centres).
    """
    from contourpy import contour_generator

    steps = (len(values) - 1) / (1000 - 2 * inset)
    generator = contour_generator(z=np.ma.masked_invalid(values.numpy()))
    result = []
    for level in levels:
        d = ""
        for line in generator.lines(level):
            points = (inset + np.asarray(line) / steps).round().astype(int).tolist()
            d += "M" + "L".join(f"{x} {y if inset else 1000 - y}" for x, y in points)
        result.append(d)
    return result
