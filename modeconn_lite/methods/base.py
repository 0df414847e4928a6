"""What every chapter's method is to the rest of the book: a way from a to b, with a name."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from ..data import Split
from ..paths import AnyPath, segment
from ..weights import Weights

Connect = Callable[[nn.Module, Weights, Weights, Split], AnyPath]


@dataclass(frozen=True)
class Method:
    """A way to connect two networks.

    Attributes
    ----------
    key : str
        What code and records call it; it never changes.
    name : str
        What tables call it.
    connect : function
        (network, a, b, training split) -> path from a to b.
    to_copy : bool
        The path ends at b with its neurons in another order: the same function as b, but another
        point. The name says so, and the row is no connection of a and b.
    """

    key: str
    name: str
    connect: Connect
    to_copy: bool = False


def and_to_copy(key: str, name: str, connect: Callable[..., AnyPath], **options: Any):
    """Two methods of one: to the copy of b that it finds, and on from there to b itself.

    Parameters
    ----------
    key, name : str
        Of the second method; those of the first are made from them.
    connect : function
        As a method's, and takes `undo=False` to stop at the copy.
    **options
        More that it takes.

    Returns
    -------
    tuple of two Methods
    """
    there = partial(connect, undo=False, **options)
    return (
        Method(f"{key}-copy", f"{name}, to a copy of B", there, to_copy=True),
        Method(key, f"{name} + swaps back to B", partial(connect, **options)),
    )


METHODS = (Method("linear", "Linear", lambda network, a, b, split: segment(a, b)),)
