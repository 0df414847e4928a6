"""Published experiments run again at their own size, and the records they leave.

    python -m modeconn_lite run mnist-1hl --pairs 5

One module for each experiment. `base` and `comparison` are what they share; `tasks` are what a
run is made of, `lab` keeps what is finished, and `engines` compute: `workers` of this machine, or
a Ray `cluster`.
"""

from pathlib import Path as FilePath

from ..files import BadFile, check_file, read_json
from . import (
    cifar10_1hl,
    cifar10_conv2fc1,
    cifar10_fc3,
    cifar10_vgg16,
    mnist_1hl,
    mnist_cnn3_dropout,
)
from .base import Experiment, Record
from .lab import Lab

__all__ = ["EXPERIMENTS", "Experiment", "Lab", "Record", "read_record"]

EXPERIMENTS: dict[str, Experiment] = {
    module.EXPERIMENT.name: module.EXPERIMENT
    for module in (
        mnist_1hl,
        cifar10_1hl,
        cifar10_fc3,
        cifar10_conv2fc1,
        cifar10_vgg16,
        mnist_cnn3_dropout,
    )
}


def read_record(file: str | FilePath) -> Record:
    """Read a record of a paper-scale run.

    Raises
    ------
    ValueError
        If the file is missing, damaged or no record; the message names the command that makes it.
    """
    file = check_file(file)
    try:
        content = read_json(file)
        record = Record(EXPERIMENTS[content["experiment"]], content)
        repr(record)  # a record that cannot be shown is none
    except (OSError, LookupError, TypeError, ValueError) as error:
        why = error.why if isinstance(error, BadFile) else f"{type(error).__name__}: {error}"
        raise ValueError(
            f"{file} is no record ({why}); make it with"
            f" python -m modeconn_lite run {file.stem} --out {file.parent}"
        ) from error
    return record
