"""The drawn maps: committed as the tool makes them, within the contract for drawings."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import drawings
import pytest
from conftest import ROOT

MAPS = range(len(drawings.PATHS) + 1)
COLOURS = {drawings.INK, drawings.GREY, drawings.BLUE, drawings.ORANGE, "none", "#fff"}
# HOW-A-CHAPTER-IS-MADE.md: what every drawing keeps to, made by a tool or by hand.
ALL = sorted((ROOT / "book/drawings").glob("*.svg"))


def test_committed_files_are_what_the_tool_makes():
    made = drawings.drawings()
    assert made.keys() == {path.name for path in ALL if path.name.startswith("map-")}
    for name, content in made.items():
        assert (drawings.FOLDER / name).read_text("utf8") == content, (
            f"{name} is not as drawn: run `python tools/drawings.py`"
        )
    assert drawings.main(["--check"]) == 0


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.name)
def test_every_drawing_is_small_and_fetches_nothing(path):
    assert path.stat().st_size <= 12_000
    text = path.read_text("utf8")
    ElementTree.fromstring(text)
    assert not re.search(r"href=|url\((?!#)|<script|<image|@import", text)


@pytest.mark.parametrize("chapter", MAPS)
def test_map_shows_the_paths_so_far(chapter):
    svg = drawings.weight_space(chapter)
    assert svg.count("you are here") == (chapter > 0)
    assert set(re.findall(r'(?:fill|stroke)="(#?\w+)"', svg)) <= COLOURS
    sizes = re.findall(r'font-size="(\d+)"', svg)
    assert min(map(int, sizes)) * 340 / drawings.WIDTH > 11  # on a phone
    for number, path in enumerate(drawings.PATHS, start=1):
        line = drawings._line(path().points)
        assert (line in svg) == (number <= chapter)
        own = re.search(rf'd="{re.escape(line)}" fill="none" stroke="({drawings.INK})"', svg)
        assert bool(own) == (number == chapter)
        for name in path().stops:
            assert (name in svg) == (number == chapter)


def test_map_of_chapter_1_leaves_the_hill_to_be_guessed():
    hill = drawings._hill()[1]
    shown = [hill in drawings.weight_space(chapter) for chapter in MAPS]
    assert shown == [chapter != 1 for chapter in MAPS]


@pytest.mark.parametrize("path", drawings.PATHS, ids=lambda path: path.__name__)
def test_path_leads_from_a_to_b_past_its_pin(path):
    way = path()
    assert way.points[0] == drawings.A and way.points[-1] == drawings.B
    for x, y in [*way.points, way.words, *(words for *_, words in way.stops.values())]:
        assert 0 < x < drawings.WIDTH and 0 < y < drawings.HEIGHT
    places = [way.here, *(at for at, *_ in way.stops.values())]
    for place in places:
        assert min(_off(place, *piece) for piece in pairwise(way.points)) < 1


def _off(place, start, end) -> float:
    """How far a place is from a piece of a path."""
    (px, py), (x, y), (u, v) = place, start, end
    t = ((px - x) * (u - x) + (py - y) * (v - y)) / ((u - x) ** 2 + (v - y) ** 2)
    t = min(1, max(0, t))
    return math.hypot(px - x - t * (u - x), py - y - t * (v - y))


def test_no_map_without_a_path():
    with pytest.raises(ValueError, match="add a function to PATHS"):
        drawings.weight_space(len(drawings.PATHS) + 1)
