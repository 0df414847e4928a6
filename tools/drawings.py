"""The drawn maps of weight space that open the chapters: book/drawings/map-N.svg.

    python tools/drawings.py             draw them all
    python tools/drawings.py --check     draw nothing; report what is not as drawn here

Map N shows the paths of chapters 1 to N. Those of earlier chapters are thin and grey; the
chapter's own is drawn strong, named, and says "you are here". Map 0, of the landing page, has no
path yet; map 1 leaves the ground between A and B blank, because chapter 1 asks what is there.
**A new chapter adds one function to ``PATHS``**, in reading order, and nothing else.

A map is a drawing, not to scale: two valleys, a hill, and ways that a plane can hold. Dark ink on
nothing, so that the page can turn it over for dark mode. Letters are large, because a phone shows
it 340 px wide.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "book/drawings"

INK, GREY, BLUE, ORANGE = "#1c2530", "#566172", "#0072b2", "#d55e00"
WIDTH, HEIGHT = 720, 306
LETTERS = 25  # px; 12 px on a phone
QUESTION = ' font-weight="700" font-size="52"'
A, B, HILL = (108.0, 164.0), (612.0, 164.0), (360.0, 164.0)

Point = tuple[float, float]


@dataclass(frozen=True)
class Way:
    """One path as the map shows it."""

    points: list[Point]
    here: Point  # where the pin stands, a point of the path
    words: Point  # the middle of "you are here", on its base line
    stops: dict[str, tuple[Point, str, Point]] = field(default_factory=dict)
    """Networks on the way: name, where it stands, its colour, the middle of its name."""


# --- One function a path, in reading order --------------------------------------------------------


def straight() -> Way:
    """Chapter 1: the line, over whatever is there."""
    return Way([A, B], here=HILL, words=(HILL[0], 121))


def matched() -> Way:
    """Chapter 2: in a line to a shuffled copy of B, then home by many small exchanges."""
    copy, corner = (276.0, 252.0), (520.0, 252.0)
    home = [*_zigzag(copy, corner, 16), *_zigzag(corner, B, 8)[1:]]
    return Way(
        [A, *home],
        here=(192.0, 208.0),
        words=(96, 270),
        stops={"B, shuffled": (copy, ORANGE, (300, 294))},
    )


def dropout() -> Way:
    """Chapter 3: by right angles to dropped A, over to dropped B, and down again."""
    y, mirror = 68.0, A[0] + B[0]
    up = [A, (A[0], 124.0), (152.0, 124.0), (152.0, y), (196.0, y)]
    down = [(mirror - x, y) for x, y in reversed(up)]
    return Way(
        [*up, *down],
        here=(360.0, y),
        words=(360, 25),
        stops={
            "dropped A": (up[-1], BLUE, (196, 49)),
            "dropped B": (down[0], ORANGE, (524, 49)),
        },
    )


def arc() -> Way:
    """Chapter 4: the curve that keeps the cloud of neurons in shape."""
    top, half, pieces = 110.0, (B[0] - A[0]) / 2, 24
    radius = (half**2 + (A[1] - top) ** 2) / (2 * (A[1] - top))
    angles = [math.asin(half / radius) * (2 * k / pieces - 1) for k in range(1, pieces)]
    inner = [(HILL[0] + radius * math.sin(v), top + radius * (1 - math.cos(v))) for v in angles]
    return Way([A, *inner, B], here=(HILL[0], top), words=(HILL[0], 150))


def transported() -> Way:
    """Chapter 5: in a line to a copy of B, then home through a spare neuron, level all the way."""
    copy = (300.0, 244.0)
    steps = [copy, (372.0, 244.0), (372.0, 272.0), (472.0, 272.0), (472.0, 240.0), (552.0, 240.0)]
    return Way(
        [A, *steps, (552.0, 204.0), (B[0], 204.0), B],
        here=(214.0, 209.0),
        words=(104, 270),
        stops={"B, transported": (copy, ORANGE, (300, 296))},
    )


def adjusted() -> Way:
    """Chapter 6: one layer after another, around the hill in straight legs."""
    corners = [(70.0, 92.0), (246.0, 36.0), (474.0, 36.0), (650.0, 92.0)]
    return Way([A, *corners, B], here=(360.0, 36.0), words=(360, 61))


PATHS: list[Callable[[], Way]] = [straight, matched, dropout, arc, transported, adjusted]


# --- How things are drawn -------------------------------------------------------------------------


def _zigzag(start: Point, end: Point, teeth: int, height: float = 7.0) -> list[Point]:
    """Points from start to end, in turn on either side of the straight line."""
    (x, y), (u, v) = start, end
    length = math.hypot(u - x, v - y)
    across = (-(v - y) / length * height, (u - x) / length * height)
    inner = [
        (
            x + (u - x) * (k + 0.5) / teeth + (-1) ** k * across[0],
            y + (v - y) * (k + 0.5) / teeth + (-1) ** k * across[1],
        )
        for k in range(teeth)
    ]
    return [start, *inner, end]


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _line(points: Iterable[Point]) -> str:
    return "M" + "L".join(f"{_number(x)} {_number(y)}" for x, y in points)


def _ring(centre: Point, radii: Point, turn: float) -> str:
    """A contour: an ellipse with a slight wobble, as a closed smooth curve through 12 points."""
    count = 12
    points = []
    for k in range(count):
        angle = 2 * math.pi * k / count
        size = 1 + 0.045 * math.cos(3 * angle + turn) + 0.03 * math.sin(2 * angle + 2 * turn)
        points.append(
            (
                centre[0] + radii[0] * size * math.cos(angle),
                centre[1] + radii[1] * size * math.sin(angle),
            )
        )
    curve = f"M{_number(points[0][0])} {_number(points[0][1])}"
    for k in range(count):  # Catmull and Rom's spline, in Bézier's form
        before, start, end, after = (points[(k + j) % count] for j in (-1, 0, 1, 2))
        first = [s + (e - b) / 6 for b, s, e in zip(before, start, end, strict=True)]
        second = [e - (a - s) / 6 for s, e, a in zip(start, end, after, strict=True)]
        curve += "C" + " ".join(_number(value) for value in (*first, *second, *end))
    return curve + "Z"


def _valley(centre: Point, colour: str) -> list[str]:
    rings = [_ring(centre, (r, 0.92 * r), turn) for r, turn in ((76, 0.4), (54, 1.0), (32, 1.8))]
    return [
        f'<g fill="{colour}" fill-opacity=".1" stroke="{colour}" stroke-width="1.3">',
        *(f'<path d="{ring}"/>' for ring in rings),
        "</g>",
    ]


def _hill() -> list[str]:
    """Contours with short strokes downhill, as on an old map."""
    rings = [(112.0, 70.0), (84.0, 50.0), (54.0, 31.0), (25.0, 14.0)]
    strokes = ""
    for number, (rx, ry) in enumerate(rings[:-1]):
        count = (30, 22, 14)[number]
        for k in range(count):
            angle = 2 * math.pi * (k + 0.5 * (number % 2)) / count
            x, y = math.cos(angle), math.sin(angle)
            strokes += _line([(HILL[0] + (rx + d) * x, HILL[1] + (ry + d) * y) for d in (0.0, 9.0)])
    return [
        f'<g fill="{GREY}" fill-opacity=".09" stroke="{GREY}" stroke-width="1.1">',
        *(f'<path d="{_ring(HILL, radii, 0.7 * k)}"/>' for k, radii in enumerate(rings)),
        f'<path d="{strokes}" fill="none" stroke-opacity=".7"/>',
        "</g>",
    ]


def _text(words: str, at: Point, more: str = "") -> str:
    return f'<text x="{_number(at[0])}" y="{_number(at[1])}"{more}>{words}</text>'


def _stop(at: Point, colour: str, faded: bool) -> str:
    """A network on the way, in a small valley of its own."""
    opacity, radius = (' opacity=".6"', 7) if faded else ("", 9)
    return (
        f'<path d="{_ring(at, (30, 25), 0.5)}" fill="{colour}" fill-opacity=".1" '
        f'stroke="{colour}" stroke-opacity=".6"{opacity}/>'
        f'<circle cx="{_number(at[0])}" cy="{_number(at[1])}" r="{radius}" fill="{colour}" '
        f'fill-opacity=".35" stroke="{colour}" stroke-width="3"{opacity}/>'
    )


def _way(way: Way, own: bool) -> list[str]:
    width, colour = (5, INK) if own else (2, GREY)
    drawn = [
        f'<path d="{_line(way.points)}" fill="none" stroke="{colour}" stroke-width="{width}" '
        'stroke-linejoin="round"/>'
    ]
    for name, (at, of, words) in way.stops.items():
        drawn.append(_stop(at, of, faded=not own))
        if own:
            drawn.append(_text(name, words))
    return drawn


def _pin(way: Way) -> list[str]:
    """A pin whose point touches the path, and the words."""
    x, y = way.here
    return [
        f'<path transform="translate({_number(x)} {_number(y)})" fill="{INK}" '
        f'stroke="{INK}" stroke-linejoin="round" fill-rule="evenodd" '
        'd="M0 0C-4-9-11-14-11-22A11 11 0 0 1 11-22C11-14 4-9 0 0Z'
        'M0-27A5 5 0 0 0 0-17A5 5 0 0 0 0-27Z"/>',
        # A rim of white, which dark mode turns to black, keeps contours out of the letters.
        _text(
            "you are here",
            way.words,
            ' font-weight="700" stroke="#fff" stroke-width="5" paint-order="stroke"',
        ),
    ]


def weight_space(chapter: int) -> str:
    """The map of a chapter as SVG; chapter 0 is the landing page.

    Raises
    ------
    ValueError
        For a chapter whose path is not in ``PATHS``.
    """
    if not 0 <= chapter <= len(PATHS):
        raise ValueError(f"no path for chapter {chapter}: add a function to PATHS")
    ways = [path() for path in PATHS[:chapter]]
    title = "A drawn map of weight space, not to scale"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" fill="{INK}" text-anchor="middle" '
        f'font-family="system-ui, sans-serif" font-size="{LETTERS}">',
        f"<title>{title}</title>",
        *_valley(A, BLUE),
        *_valley(B, ORANGE),
        *([_text("?", (HILL[0], HILL[1] + 62), QUESTION)] if chapter == 1 else _hill()),
    ]
    for number, way in enumerate(ways, start=1):
        parts += _way(way, own=number == chapter)
    for name, (x, y), colour, side in (("A", A, BLUE, -1), ("B", B, ORANGE, 1)):
        parts += [
            f'<circle cx="{_number(x)}" cy="{_number(y)}" r="11" fill="{colour}"/>',
            _text(name, (x + 30 * side, y + 10), ' font-weight="700" font-size="30"'),
        ]
    if ways:
        parts += _pin(ways[-1])
    else:
        parts.append(_text("?", (HILL[0], HILL[1] + 18), QUESTION))
    return "\n".join([*parts, "</svg>"]) + "\n"


def drawings() -> dict[str, str]:
    """Every file this tool makes: name and content."""
    return {f"map-{chapter}.svg": weight_space(chapter) for chapter in range(len(PATHS) + 1)}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; report")
    check = parser.parse_args(arguments).check
    stale = False
    for name, content in drawings().items():
        path = FOLDER / name
        if check:
            if not path.exists() or path.read_text("utf8") != content:
                stale = True
                print(f"{name} is not as drawn: run `python tools/drawings.py`")
        else:
            FOLDER.mkdir(exist_ok=True)
            path.write_text(content, "utf8")
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
