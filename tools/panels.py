"""Figures of two or three panels stand side by side on a wide screen and stack on a phone.

A figure is one picture. Where empty columns part its panels, the page shows the picture once more
for each further panel, and book.css lets a phone see one panel of each. Nothing is loaded twice.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise
from pathlib import Path

NARROW = 560  # px: a picture no wider than this is legible on a phone as it is
GUTTER = 5  # px that must be empty between panels
IMAGE = re.compile(r'<img [^>]*?src="(?:\.\./)*_images/([^"/]+\.png)"[^>]*/?>')


@cache
def cuts(path: Path) -> tuple[float, ...]:
    """Where a picture falls into panels, as shares of its width from 0 to 1; (0, 1) for one panel.

    Between two panels, about half-way, there must be a gutter; of three, at each third.
    """
    import numpy as np
    from PIL import Image

    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGBA")).astype(int)
    height, width = pixels.shape[:2]
    if width <= NARROW or width < 1.8 * height:
        return (0.0, 1.0)
    empty = (pixels == pixels[0, 0]).all(axis=(0, 2)) | (pixels[..., 3] == 0).all(axis=0)
    for panels in (2, 3):
        found = [_gutter(empty, k / panels) for k in range(1, panels)]
        if all(found):
            return (0.0, *(round(x / width, 4) for x in found), 1.0)
    return (0.0, 1.0)


def _gutter(empty, share: float) -> float | None:
    """Middle of the first run of empty columns near a share of the width.

    The first: after it stands the next panel's axis label, and then often a wider run.
    """
    first, last = (round((share + d) * len(empty)) for d in (-0.09, 0.09))
    start = None
    for x in range(first, last + 1):
        if x < last and empty[x]:
            start = x if start is None else start
        elif start is not None:
            if x - start >= GUTTER:
                return (x + start) / 2
            start = None
    return None


def stacked(body: str, files: dict[str, Path]) -> str:
    """A page's HTML in which pictures of several panels can stack; `files` says where they lie."""

    def replace(match: re.Match) -> str:
        file = files.get(match[1])
        places = cuts(file) if file else (0.0, 1.0)
        if len(places) == 2:
            return match[0]
        again = re.sub(r'alt="[^"]*"', 'alt="The same figure, next panel"', match[0])
        panels = []
        for number, (left, right) in enumerate(pairwise(places)):
            style = f"--mc-left: {left}; --mc-share: {right - left:.4f}"
            panels.append(f'<span style="{style}">{again if number else match[0]}</span>')
        return f'<span class="mc-panels">{"".join(panels)}</span>'

    return IMAGE.sub(replace, body)


def _stack(app, pagename, templatename, context, doctree) -> None:
    if "body" in context:
        root = Path(app.srcdir)
        files = {name: root / source for source, name in app.builder.images.items()}
        context["body"] = stacked(context["body"], files)


def setup(app):
    app.connect("html-page-context", _stack)
    return {"version": "0.1", "parallel_read_safe": True, "parallel_write_safe": True}
