"""Rows through flows that were learned from the networks of an experiment."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path as FilePath
from typing import Any

from torch import nn

from ..data import Split
from ..methods.bijection import fit_bijection
from ..methods.flow_training import fit_likelihood
from ..methods.flows import FLOWS, flow_path, neuron_parts
from ..methods.invertible import Flow
from ..paths import FunctionPath
from ..weights import Weights
from .pieces import Learned


def learned_flow(
    key: str, kind: str, layers: int, hidden: int, *, work: int, **options: Any
) -> Learned:
    """A row through a flow.

    Parameters
    ----------
    key : str
        "iaf-flow", "rnvp-flow" or "rnvp-bijection".
    kind, layers, hidden
        As for `methods.invertible.Flow`.
    work : int
        What it costs, in epochs of a network's training.
    options
        Of `fit_bijection` for a bijection, else of `fit_likelihood`.
    """
    form: dict[str, Any] = {"kind": kind, "layers": layers, "hidden": hidden}
    connect = partial(connect_by_flow, name=FLOWS[key], form=form)
    return Learned(partial(fit_flow, key=key), connect, form | options, work)


def fit_flow(
    network: nn.Module,
    many: Sequence[Weights],
    split: Split,
    *,
    key: str,
    checkpoint: str | FilePath | None,
    **options: Any,
) -> Weights:
    """What `fit_bijection` or `fit_likelihood` learns, as tensors."""
    if key == "rnvp-bijection":
        found = fit_bijection(network, many, split, checkpoint=checkpoint, **options)
    else:
        found = fit_likelihood(network, many, checkpoint=checkpoint, **options)
    return found.flow.state_dict()


def connect_by_flow(
    network: nn.Module,
    a: Weights,
    b: Weights,
    split: Split,
    *,
    learned: Weights,
    form: dict[str, Any],
    name: str,
) -> FunctionPath:
    """The path through a flow of this form with these tensors."""
    flow = Flow(neuron_parts(network), form["kind"], layers=form["layers"], hidden=form["hidden"])
    flow.load_state_dict(learned)
    return flow_path(network, a, b, flow, name=name)
