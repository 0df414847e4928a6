"""The flows that ship: how each was trained, again and anew.

python -m modeconn_lite retrain rnvp-flow     # train again and overwrite the file
"""

import json
from typing import Any

from .. import data, zoo
from ..checks import check_choice
from ..storage import save
from .bijection import fit_bijection
from .flow_training import fit_likelihood
from .flows import check_flow
from .invertible import Flow

LEARNED_FROM = 16  # so many of the zoo's networks; the rest is there to be connected
# Chosen on the 16 alone, by four of them that were held out.
RECIPES: dict[str, dict[str, Any]] = {
    "rnvp-flow": {"kind": "rnvp", "layers": 6, "hidden": 64, "epochs": 8, "rate": 5e-4},
    "iaf-flow": {"kind": "iaf", "layers": 2, "hidden": 128, "epochs": 8, "rate": 1e-3},
    "rnvp-bijection": {"kind": "rnvp", "layers": 6, "hidden": 64, "epochs": 60, "rate": 2e-3},
}


def retrain(name: str, *, progress: bool = False) -> Flow:
    """Train a flow that ships again, by its recipe; equal on the same machine.

    Raises
    ------
    ValueError
        If there is no flow of this name.
    """
    check_choice(name, "name", RECIPES)
    network, many = zoo.network("digits-wide"), zoo.load("digits-wide")[:LEARNED_FROM]
    options: dict[str, Any] = RECIPES[name] | {"progress": progress}
    if name == "rnvp-bijection":
        augment = zoo.recipe("digits-wide").augment
        return fit_bijection(
            network, many, data.load("digits").train, augment=augment, **options
        ).flow
    return fit_likelihood(network, many, **options).flow


def write(name: str, flow: Flow) -> None:
    """Let this flow ship under this name.

    Raises
    ------
    ValueError
        If there is no such name, or this is no flow of the neurons of "digits-wide".
    """
    check_choice(name, "name", RECIPES)
    check_flow(flow, zoo.network("digits-wide"))
    options = {"layers": len(flow.layers), "hidden": flow.hidden}
    form = json.dumps({"parts": flow.parts, "kind": flow.kind} | options)
    weights = {key: value.detach() for key, value in flow.state_dict().items()}
    save(weights, zoo.FOLDER / f"{name}.safetensors", {"name": name, "flow": form})
