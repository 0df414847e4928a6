"""The chapters' methods: which modules belong to which chapter, and every way to connect a and b.

A chapter is one headline module, named first, and its helpers. A module that adds rows to the
scoreboard declares them in a tuple `METHODS`.
"""

from . import (
    adjustment,
    arcs,
    base,
    bijection,
    dropout,
    fitting,
    flow_recipes,
    flow_training,
    flows,
    follower,
    fusion,
    handovers,
    invertible,
    least_squares,
    reordering,
    repair,
    saddles,
    stability,
    symmetry,
    transport,
    wa_ensemble,
)
from .base import Method

CHAPTERS = {
    1: (base,),
    2: (symmetry, repair, saddles),
    3: (dropout, stability),
    4: (arcs, flows, invertible, flow_training, bijection, fitting, flow_recipes),
    5: (transport, reordering, handovers, fusion),
    6: (adjustment, follower, least_squares, wa_ensemble),
}
METHODS: dict[str, Method] = {
    method.key: method
    for modules in CHAPTERS.values()
    for module in modules
    for method in getattr(module, "METHODS", ())
}


def method(key: str) -> Method:
    """The method of this key.

    Raises
    ------
    ValueError
        If there is none; the message lists those there are.
    """
    if not isinstance(key, str) or key not in METHODS:
        raise ValueError(f"no method called {key!r}; choose one of {tuple(METHODS)}")
    return METHODS[key]
