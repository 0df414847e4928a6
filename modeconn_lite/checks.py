"""What callers hand in is looked at once, at the door, and refused by the name they know.

Each function returns what it was given, in the form that the package works with, or raises a
`ValueError` that says what was expected, what came, and what to do.
"""

import math
from collections.abc import Collection, Sequence
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn

from .data import Dataset, Split


def check_whole(value: Any, name: str, *, low: int = 0, high: float = math.inf) -> int:
    """A whole number from `low` to `high`; no truth value and no float."""
    if not isinstance(value, Integral) or isinstance(value, bool) or not low <= value <= high:
        most = "" if high == math.inf else f" and at most {high}"
        raise ValueError(f"{name} must be a whole number of at least {low}{most}, not {value!r}")
    return int(value)


def check_number(
    value: Any, name: str, *, low: float = -math.inf, high: float = math.inf, open_low: bool = False
) -> float:
    """A finite number from `low` (or above it, if it is open) to `high`."""
    fits = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or value < low or value > high or (open_low and value == low):
        least = f" {'above' if open_low else 'of at least'} {low:g}" if low > -math.inf else ""
        most = f" {'and ' if least else ''}up to {high:g}" if high < math.inf else ""
        raise ValueError(f"{name} must be a finite number{least}{most}, not {value!r}")
    return float(value)


def check_choice(value: Any, name: str, options: Collection[str]) -> str:
    """One of some words."""
    if not isinstance(value, str) or value not in options:
        raise ValueError(f"{name} must be one of {tuple(options)}, not {value!r}")
    return value


def check_network(value: Any, name: str = "network") -> nn.Module:
    """A module: an instance, not its class."""
    if not isinstance(value, nn.Module):
        raise ValueError(f"{name} must be an nn.Module, not {_what(value)}")
    return value


def check_split(value: Any, name: str = "split") -> Split:
    """A split of a data set."""
    if isinstance(value, Dataset):
        raise ValueError(f"{name} must be one Split; of a Dataset, give .train or .test")
    if not isinstance(value, Split):
        hint = "Split(x, y, name, classes)"
        raise ValueError(f"{name} must be a {hint} of modeconn_lite.data, not {_what(value)}")
    return value


def check_dataset(value: Any, name: str = "data") -> Dataset:
    """A data set with a training and a test split."""
    if not isinstance(value, Dataset):
        hint = "Dataset(name, train, test, image_shape)"
        raise ValueError(f"{name} must be a {hint} of modeconn_lite.data, not {_what(value)}")
    return value


def check_inputs(value: Any, name: str = "x") -> Tensor:
    """A tensor of finite floating-point inputs, shape (images, …), at least one."""
    if isinstance(value, Split):
        raise ValueError(f"{name} must be a tensor of inputs; of a Split, give .x")
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise ValueError(f"{name} must be a floating-point tensor, not {_what(value)}")
    if value.dim() == 0 or value.numel() == 0:
        raise ValueError(f"{name} has shape {tuple(value.shape)}; give at least one input")
    if not torch.isfinite(value).all():
        raise ValueError(f"{name} holds NaN or infinity; drop or repair such inputs")
    return value


def check_indices(
    values: Tensor | Sequence[int], size: int, name: str, *, every: bool = False
) -> Tensor:
    """Different whole numbers from 0 to size − 1, int64 on the CPU; with `every`, all of them."""
    try:
        found = torch.as_tensor(values).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be whole numbers, not {_what(values)}") from error
    if found.dtype == torch.bool:
        raise ValueError(f"{name} is a mask; give the numbers themselves: mask.nonzero()[:, 0]")
    if found.numel() and (found.is_floating_point() or found.is_complex()):
        raise ValueError(f"{name} must be whole numbers, not {found.dtype}")
    found = found.to(torch.int64)
    if found.dim() != 1 or not found.numel():
        raise ValueError(f"{name} must be a list of numbers, not of shape {tuple(found.shape)}")
    if found.min() < 0 or found.max() >= size:
        wrong = found[(found < 0) | (found >= size)][0]
        raise ValueError(f"{name}: there is no {int(wrong)}; numbers run from 0 to {size - 1}")
    if len(found.unique()) != len(found):
        raise ValueError(f"{name} names a number twice")
    if every and len(found) != size:
        raise ValueError(f"{name} is no permutation of {size}: it has {len(found)} numbers")
    return found


def _what(value: Any) -> str:
    """What came, in a few words."""
    if isinstance(value, type):
        return f"the class {value.__name__} (make an instance of it)"
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype}, shape {tuple(value.shape)}"
    text = repr(value) if isinstance(value, str | int | float | bool | type(None)) else ""
    return f"{type(value).__name__} {text}".strip()
