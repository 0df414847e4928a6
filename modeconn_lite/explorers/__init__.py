"""Sliders through weight space: the same network, seen from anywhere on a path or a sheet.

One module for each kind of explorer; `base`, `sources`, `views`, `charts`, `markup` and the files
of `assets` are what they share.
"""

from .adjustment import AdjustmentExplorer
from .blocks import BlockExplorer
from .neurons import NeuronExplorer
from .path import PathExplorer
from .plan import PlanExplorer
from .race import RaceExplorer
from .sheet import SheetExplorer

__all__ = [
    "AdjustmentExplorer",
    "BlockExplorer",
    "NeuronExplorer",
    "PathExplorer",
    "PlanExplorer",
    "RaceExplorer",
    "SheetExplorer",
]
