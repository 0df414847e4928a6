"""Paths of low loss between trained networks: the package behind the mode connectivity book.

Data sets, trained networks, windows onto landscapes and figures are in the modules `data`,
`networks`, `zoo`, `landscapes` and `plots`; everything else starts here.
"""

from .evaluation import evaluate, profile, survey
from .explorers import PathExplorer, SheetExplorer
from .forward import outputs
from .joins import backward, concat
from .paths import FunctionPath, Path, bezier, polychain, segment
from .scoreboard import board
from .sheets import Sheet, triangle
from .training import train
from .weights import (
    Weights,
    apply,
    default_device,
    distance,
    fresh_weights,
    mix,
    weights_of,
)

__version__ = "0.1.0"
__all__ = [
    "FunctionPath",
    "Path",
    "PathExplorer",
    "Sheet",
    "SheetExplorer",
    "Weights",
    "apply",
    "backward",
    "bezier",
    "board",
    "concat",
    "default_device",
    "distance",
    "evaluate",
    "fresh_weights",
    "mix",
    "outputs",
    "polychain",
    "profile",
    "segment",
    "survey",
    "train",
    "triangle",
    "weights_of",
]
