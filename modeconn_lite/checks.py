"""What callers hand in is looked at once, at the door, and refused by the name they know.

Each function returns what it was given, in the form that the package works with, or raises a
`ValueError` that says what was expected, what came, and what to do.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn

from .data import Dataset, Split

LARGEST = 2**63 - 1  # the largest whole number that a tensor can hold


def check_whole(value: Any, name: str, *, low: int = 0, high: int = LARGEST) -> int:
    """A whole number from `low` to `high`; no truth value and no float."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or not low <= int(value) <= high:
        most = f" and at most {high}" if high < LARGEST or (whole and int(value) > high) else ""
        raise ValueError(
            f"{name} must be a whole number of at least {low}{most}, not {describe(value)}"
        )
    return int(value)


def check_number(
    value: Any, name: str, *, low: float = -math.inf, high: float = math.inf, open_low: bool = False
) -> float:
    """A finite number from `low` (or above it, if it is open) to `high`."""
    try:
        number = isinstance(value, Real) and not isinstance(value, bool)
        found = float(value) if number else math.nan
    except OverflowError:  # a whole number that no float can hold
        found = math.inf
    if not math.isfinite(found) or not low <= found <= high or (open_low and found == low):
        least = f" {'above' if open_low else 'of at least'} {low:g}" if low > -math.inf else ""
        most = f" {'and ' if least else ''}up to {high:g}" if high < math.inf else ""
        raise ValueError(f"{name} must be a finite number{least}{most}, not {describe(value)}")
    return found


def check_numbers(values: Any, name: str, what: str) -> Tensor:
    """Real numbers, float64, on the CPU."""
    try:
        kind = torch.as_tensor(values).dtype  # of the kind alone: a list's floats are rounded here
        fits = kind != torch.bool and not kind.is_complex
        numbers = torch.as_tensor(values if fits else 0, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{name} must be {what}, not {describe(values)}") from error
    if not fits:
        raise ValueError(f"{name} must be {what}, not {kind}")
    return numbers.detach()


def check_choice(value: Any, name: str, options: Collection[str]) -> str:
    """One of some words."""
    if not isinstance(value, str) or value not in options:
        raise ValueError(f"{name} must be one of {tuple(options)}, not {describe(value)}")
    return value


def check_word(value: Any, name: str) -> str:
    """A string."""
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a string, not {describe(value)}")
    return value


def check_truth(value: Any, name: str) -> bool:
    """True or False, and nothing that may pass for one of them."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, not {describe(value)}")
    return value


def check_list(
    values: Any, name: str, what: str, *, least: int = 1, most: float = math.inf
) -> tuple[Any, ...]:
    """So many things in a list or another sequence, as a tuple."""
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        loose = isinstance(values, Iterable) and not isinstance(values, str | bytes | Mapping)
        hint = "; make a list of it" if loose else ""
        raise ValueError(f"{name} must be a list of {what}, not {describe(values)}{hint}")
    if not least <= len(values) <= most:
        needed = f"{'' if most == least else 'at least '}{least}"
        raise ValueError(f"{name}: {len(values)} {what} given, {needed} needed")
    return tuple(values)


def check_pairs(values: Any, name: str, what: str = "(u, v)") -> Mapping[str, tuple[float, float]]:
    """Named points of a plane, or the like: a dict of words to pairs of finite numbers."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{name} must be a dict of names to {what}, not {describe(values)}")
    for word, place in values.items():
        for x in check_list(place, f"{name}[{word!r}]", "numbers", least=2, most=2):
            check_number(x, f"{name}[{check_word(word, f'each key of {name}')!r}]")
    return values


def check_network(value: Any, name: str = "network") -> nn.Module:
    """A module: an instance, not its class."""
    if not isinstance(value, nn.Module):
        raise ValueError(f"{name} must be an nn.Module, not {describe(value)}")
    if isinstance(value, torch.jit.ScriptModule):
        raise ValueError(f"{name} is a script, which hides its layers; give the module it is from")
    return value


def check_split(value: Any, name: str = "split") -> Split:
    """A split of a data set."""
    if isinstance(value, Dataset):
        raise ValueError(f"{name} must be one Split; of a Dataset, give .train or .test")
    if not isinstance(value, Split):
        hint = "Split(x, y, name, classes)"
        raise ValueError(f"{name} must be a {hint} of modeconn_lite.data, not {describe(value)}")
    return value


def check_splits(values: Any, name: str = "splits") -> tuple[Split, ...]:
    """Some splits, one at least, whose classes and inputs are alike."""
    splits = check_list(values, name, "Splits")
    for k, split in enumerate(splits):
        check_split(split, f"{name}[{k}]")
        check_inputs_like(split, splits[0])
        if len(split.classes) != len(splits[0].classes):
            raise ValueError(
                f"{split.name!r} has {len(split.classes)} classes, {splits[0].name!r} has"
                f" {len(splits[0].classes)}; look at one after the other"
            )
    return splits


def check_inputs_like(split: Split, other: Split) -> Split:
    """A split whose inputs have the shape of those of another one."""
    if split.x.shape[1:] != other.x.shape[1:]:
        raise ValueError(
            f"inputs of {split.name!r} have shape {tuple(split.x.shape[1:])}, those of"
            f" {other.name!r} {tuple(other.x.shape[1:])}; one network cannot take both"
        )
    return split


def check_dataset(value: Any, name: str = "data") -> Dataset:
    """A data set with a training and a test split."""
    if not isinstance(value, Dataset):
        hint = "Dataset(name, train, test, image_shape)"
        raise ValueError(f"{name} must be a {hint} of modeconn_lite.data, not {describe(value)}")
    return value


def check_inputs(value: Any, name: str = "x") -> Tensor:
    """A tensor of finite floating-point inputs, shape (images, …), at least one."""
    if isinstance(value, Split):
        raise ValueError(f"{name} must be a tensor of inputs; of a Split, give .x")
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise ValueError(f"{name} must be a floating-point tensor, not {describe(value)}")
    if value.is_meta or value.layout is not torch.strided:
        raise ValueError(f"{name} must be a dense tensor with values, not {describe(value)}")
    if value.dim() == 0 or value.numel() == 0:
        raise ValueError(f"{name} has shape {tuple(value.shape)}; give at least one input")
    if not torch.isfinite(value).all():
        raise ValueError(f"{name} holds NaN or infinity; drop or repair such inputs")
    return value


def check_device(value: Any, name: str = "device") -> torch.device:
    """A device that this machine has and that torch can use."""
    try:
        device = torch.device(value)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"{name} cannot be {value!r}: {reason}; 'cpu' always can") from error
    if device.type == "meta":
        raise ValueError(f"{name} cannot be 'meta': tensors there have no values; 'cpu' can")
    return device


def check_weights(
    weights: dict[str, Tensor],
    *,
    like: dict[str, Tensor] | nn.Module | None = None,
    name: str = "weights",
) -> dict[str, Tensor]:
    """Return `weights` if they are sound and fit `like`, else say what is wrong.

    Parameters
    ----------
    weights : Weights
    like : Weights or nn.Module, optional
        What they must fit in names and shapes; other weights in precision and device too.
    name : str
        What messages call the weights.

    Raises
    ------
    ValueError
        For what is no dictionary or an empty one; an integer tensor (a buffer such as BatchNorm's
        `num_batches_tracked`), a complex, sparse, quantised or meta tensor; a value that is not
        finite; a layer that is missing or too many; or a shape that differs. The message names
        the layer and both shapes.
    """
    check_kinds(weights, name)
    check_finite(weights, name)
    if isinstance(like, nn.Module):
        check_form(weights, dict(like.named_parameters()), name, type(like).__name__)
    elif like is not None:
        check_kinds(like, "the other weights")
        check_form(weights, like, name, "the other weights")
        for key, value in like.items():
            ours, theirs = weights[key], value
            if ours.dtype != theirs.dtype or ours.device != theirs.device:
                raise ValueError(
                    f"{name}[{key!r}] is {ours.dtype} on {ours.device}, the other weights are"
                    f" {theirs.dtype} on {theirs.device}; use weights.to() on one of them"
                )
    return weights


def check_kinds(weights: Any, name: str) -> None:
    """A dictionary of plain tensors of real numbers. This looks at no number: it costs nothing."""
    if not isinstance(weights, dict) or not weights:
        kind = "an empty one" if isinstance(weights, dict) else f"a {type(weights).__name__}"
        raise ValueError(
            f"{name} must be a non-empty dict of tensors, not {kind}; see weights_of(network)"
        )
    for key, value in weights.items():
        if not isinstance(key, str):
            raise ValueError(f"{name} has the key {key!r}; keys are names of parameters")
        if not isinstance(value, Tensor):
            raise ValueError(f"{name}[{key!r}] is {type(value).__name__}, not a tensor")
        plain = value.layout is torch.strided and not value.is_meta
        if plain and value.is_floating_point() and value.element_size() > 1:
            continue
        where = f"{name}[{key!r}] is"
        if value.is_meta:
            raise ValueError(f"{where} on the meta device: it has a shape and no values; load some")
        if value.layout is not torch.strided:
            raise ValueError(f"{where} sparse ({value.layout}); use .to_dense()")
        if value.is_quantized:
            raise ValueError(f"{where} quantised ({value.dtype}); use .dequantize()")
        if value.is_complex():
            raise ValueError(f"{where} complex ({value.dtype}); this package works with real ones")
        if value.is_floating_point():
            raise ValueError(f"{where} {value.dtype}, which torch cannot compute with; use .half()")
        raise ValueError(
            f"{where} {value.dtype}, not a floating-point tensor. Buffers are no weights:"
            " use weights_of(network) instead of network.state_dict()"
        )


def check_finite(weights: dict[str, Tensor], name: str) -> None:
    """No value but finite ones."""
    if all_finite(weights):
        return
    for key, value in weights.items():
        bad = int((~torch.isfinite(value)).sum())
        if bad:
            raise ValueError(
                f"{name}[{key!r}] holds {bad} values that are not finite;"
                " retrain with a smaller learning rate or drop these weights"
            )


@torch.no_grad()
def all_finite(weights: dict[str, Tensor]) -> bool:
    """Whether no value is NaN or infinite. Sums are looked at first: that is fastest."""
    try:
        if math.isfinite(sum(value.sum().item() for value in weights.values())):
            return True
        return all(bool(torch.isfinite(value).all()) for value in weights.values())
    except RuntimeError as error:
        if "vmap" not in str(error):
            raise
        return True  # under `torch.func.vmap` values are not to be had


def check_form(
    weights: dict[str, Tensor], wanted: Mapping[str, Tensor], name: str, whose: str
) -> None:
    """Same names, same shapes."""
    if weights.keys() != wanted.keys():
        missing = [key for key in wanted if key not in weights]
        extra = [key for key in weights if key not in wanted]
        raise ValueError(
            f"{name} do not fit {whose}: missing {missing or 'nothing'}, unknown {extra or 'none'}."
            " Both must come from the same architecture"
        )
    for key, value in wanted.items():
        if value.shape != weights[key].shape:
            raise ValueError(
                f"{name}[{key!r}] has shape {tuple(weights[key].shape)} where {whose} has"
                f" {tuple(value.shape)}. Both must come from the same architecture"
            )


def check_indices(
    values: Tensor | Sequence[int], size: int, name: str, *, every: bool = False
) -> Tensor:
    """Different whole numbers from 0 to size − 1, int64 on the CPU; with `every`, all of them."""
    try:
        found = torch.as_tensor(values).to_dense().cpu()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{name} must be whole numbers, not {describe(values)}") from error
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


def describe(value: Any) -> str:
    """What came, in a few words."""
    if isinstance(value, type):
        return f"the class {value.__name__} (make an instance of it)"
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype}, shape {tuple(value.shape)}"
    if isinstance(value, Integral) and not -(10**80) < int(value) < 10**80:
        return "a whole number of more than 80 digits"  # Python refuses to print the longest
    if isinstance(value, str | Real | type(None)):
        text = repr(value)
        return text if len(text) <= 80 else f"{text[:77]}…"
    kind, size = (
        type(value).__name__,
        f" of {len(value)}" if isinstance(value, list | tuple) else "",
    )
    return f"{'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}{size}"
