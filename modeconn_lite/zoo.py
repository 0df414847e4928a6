"""Small trained networks that ship with the package, and the recipes that made them.

python -m modeconn_lite retrain digits        # train again and overwrite the file
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path as FilePath

import torch
from torch import nn

from . import data
from .checks import check_list, check_number
from .files import BadFile
from .networks import mlp
from .storage import read, save
from .training import Augment, train
from .weights import Weights, check_device, check_weights, stack, unstack

FOLDER = FilePath(__file__).parent / "zoo_files"


@dataclass(frozen=True)
class Recipe:
    """How a set of networks was trained: all of it, so that it can be done again.

    Attributes
    ----------
    about : str
        The set in a few words; it is stored with the weights.
    dataset : str
        As `data.load` knows it.
    network : function
        Makes the architecture.
    seeds, epochs, rate, batch, augment
        As for `train`.
    """

    about: str
    dataset: str
    network: Callable[[], nn.Module]
    seeds: range
    epochs: int
    rate: float
    batch: int = 64
    augment: Augment | None = None


def dropout_mlp(sizes: Sequence[int], share: float = 0.5) -> nn.Sequential:
    """`mlp(sizes)`, with dropout behind each ReLU in training; weights keep `mlp`'s names."""
    check_number(share, "share", low=0, high=1)
    layers = mlp(sizes)
    return nn.Sequential(
        *(nn.Sequential(m, nn.Dropout(share)) if isinstance(m, nn.ReLU) else m for m in layers)
    )


RECIPES = {
    "digits": Recipe(
        "64-64-64-64-10 on digits; numbers 0 and 1 are the book's A and B",
        "digits",
        lambda: mlp((64, 64, 64, 64, 10)),
        range(12),
        epochs=60,
        rate=0.1,
        augment=data.jitter(0.4),
    ),
    "digits-wide": Recipe(
        "64-128-10 on digits: one hidden layer; 16 to learn from, 4 to connect",
        "digits",
        lambda: mlp((64, 128, 10)),
        range(20),
        epochs=60,
        rate=0.1,
        augment=data.jitter(0.4),
    ),
    "digits-dropout": Recipe(
        "64-64-64-64-10 on digits, half of every hidden layer left out at each training step",
        "digits",
        lambda: dropout_mlp((64, 64, 64, 64, 10)),
        range(12),
        epochs=80,
        rate=0.03,  # at 0.1 the noise of dropout costs up to four points of accuracy
        augment=data.jitter(0.4),
    ),
    "spirals": Recipe(
        "2-32-32-2 on two spirals",
        "spirals",
        lambda: mlp((2, 32, 32, 2)),
        range(6),
        epochs=200,
        rate=0.1,
    ),
}


def names() -> tuple[str, ...]:
    """Names of the sets of networks that ship with the package."""
    return tuple(RECIPES)


def recipe(name: str) -> Recipe:
    """How the set was trained.

    Raises
    ------
    ValueError
        If there is no set of this name; the message lists those there are.
    """
    if not isinstance(name, str) or name not in RECIPES:
        raise ValueError(f"no networks called {name!r}; choose one of {names()}")
    return RECIPES[name]


def network(name: str) -> nn.Module:
    """The architecture of a set, for use with `load(name)`."""
    return recipe(name).network().eval()


def load(name: str, device: torch.device | str = "cpu") -> list[Weights]:
    """The trained weights of a set, in the order of their seeds.

    Raises
    ------
    ValueError
        If there is no such set or device, or the file is damaged or missing; the message names it
        and the command that makes it.
    """
    recipe(name)
    check_device(device)
    return [{k: v.to(device, copy=True) for k, v in w.items()} for w in _read(name)]


@cache
def _read(name: str) -> list[Weights]:
    return unstack(shipped(name)[0])


def shipped(name: str) -> tuple[Weights, dict[str, str]]:
    """Tensors and metadata of a file that ships with the package, be it networks or a flow.

    Raises
    ------
    BadFile
        If it is damaged, missing or another's; the message names the command that makes it.
    """
    file = FOLDER / f"{name}.safetensors"
    remedy = f"install the package again, or run python -m modeconn_lite retrain {name}"
    try:
        weights, about = read(file)
    except (BadFile, OSError) as error:
        why = error.why if isinstance(error, BadFile) else f"cannot be read ({error.strerror})"
        raise BadFile(file, why, remedy) from error
    if about.get("name") != name:
        raise BadFile(file, f"is {about.get('name')!r} instead of {name!r}", remedy)
    return weights, about


def retrain(name: str, *, progress: bool = False) -> list[Weights]:
    """Train a set again by its recipe; equal in quality, equal in value on the same machine."""
    r = recipe(name)
    return train(
        r.network(),
        data.load(r.dataset).train,
        r.seeds,
        epochs=r.epochs,
        rate=r.rate,
        batch=r.batch,
        augment=r.augment,
        progress=progress,
    ).weights


def write(name: str, weights: Sequence[Weights]) -> None:
    """Let these networks ship as the set of this name.

    Raises
    ------
    ValueError
        If there is no such set, or the weights are not of its architecture.
    """
    about = {"name": name, "recipe": recipe(name).about}
    for k, w in enumerate(check_list(weights, "weights", "weights")):
        check_weights(w, like=network(name), name=f"weights {k}")
    save(stack(weights), FOLDER / f"{name}.safetensors", about)
