"""Checkpoints: a training goes on where it stopped, and none goes on where another one did."""

import hashlib
import json
import re
import types
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import Tensor, nn

from .files import BadFile, Damaged
from .storage import read, save
from .weights import Weights


@dataclass(frozen=True)
class Identity:
    """What tells a training from others.

    Attributes
    ----------
    words : dict of str to str
        Settings as they are, and checksums of what is too long for that.
    behaviour : Weights
        What became of a few images. It shows what no name and no code would, but it is compared
        with tolerance: another machine rounds in other places.
    """

    words: dict[str, str]
    behaviour: Weights

    def differences(self, other: "Identity") -> list[str]:
        """What is otherwise in the other one, in words."""
        found = []
        for key, ours in self.words.items():
            theirs = other.words.get(key)
            if theirs != ours:
                digest = key in _DIGESTS
                found.append(f"{key} differ" if digest else f"{key} is {theirs} instead of {ours}")
        for key, ours in self.behaviour.items():
            theirs, most = other.behaviour.get(key, ours[:0]), _ROUNDING[key] * ours.abs().max()
            if theirs.shape != ours.shape or (theirs - ours).abs().max() > most:
                return [*found, f"the {key} differ"]  # and what comes of them, naturally
        return found


_DIGESTS = ("images", "labels", "layers", "starting points", "networks")
# A GPU's convolutions may round to ten bits; noise and crops are rounded much the same everywhere.
_ROUNDING = {"augmented images": 1e-5, "outputs of the network": 2e-3}


@dataclass(frozen=True)
class Checkpoint:
    """A file in which one training, known by its identity, can stop and go on."""

    file: FilePath
    identity: Identity

    def write(self, parts: Mapping[str, Weights], loss: Tensor) -> None:
        """Write the named weights and the losses so far."""
        parts = {**parts, "behaviour": self.identity.behaviour}
        flat = {f"{part}/{key}": w for part, weights in parts.items() for key, w in weights.items()}
        save(flat | {"loss": loss}, self.file, {"training": json.dumps(self.identity.words)})

    def resume(self, device: torch.device) -> tuple[dict[str, Weights], Tensor] | None:
        """What was written, weights on this device; nothing, if the file is damaged or not there.

        Raises
        ------
        BadFile
            If it is no checkpoint, or that of another training.
        """
        try:
            flat, metadata = read(self.file)
        except FileNotFoundError:
            return None
        except Damaged as error:
            warnings.warn(f"{error.file} {error.why}; training starts again", stacklevel=3)
            return None
        remedy = "delete it or choose another file"
        parts: dict[str, Weights] = {}
        try:
            loss = flat.pop("loss")
            for name, value in flat.items():
                part, key = name.split("/", 1)
                parts.setdefault(part, {})[key] = value.to(device)
            words = dict(json.loads(metadata["training"]))
            theirs = Identity(words, parts.pop("behaviour"))
        except (LookupError, TypeError, ValueError) as error:  # of a file that something else wrote
            raise BadFile(self.file, "is no checkpoint of a training", remedy) from error
        if differences := self.identity.differences(theirs):
            others = f"belongs to another training: there, {', '.join(differences)}"
            raise BadFile(self.file, others, remedy)
        return parts, loss


def digest(tensors: Any, words: str = "") -> str:
    """A checksum of words and of tensors: types, shapes and every byte."""
    seen = hashlib.sha256(words.encode())
    for tensor in tensors:
        plain = tensor.detach().cpu().contiguous()
        seen.update(f"{plain.dtype} {tuple(plain.shape)}".encode())
        seen.update(plain.reshape(-1).view(torch.uint8).numpy())
    return seen.hexdigest()[:16]


def architecture(network: nn.Module) -> str:
    """What a network is made of: its layers, and for those that are not torch's, what they do."""
    lines = [str(network), str([name for name, p in network.named_parameters() if p.requires_grad])]
    for name, module in network.named_modules():
        forward = getattr(module.forward, "__func__", module.forward)
        if str(getattr(forward, "__module__", "")).startswith("torch."):
            continue
        own = {k: v for k, v in sorted(vars(module).items()) if isinstance(v, int | float | str)}
        hidden = {k: v for k, v in own.items() if not k.startswith("_") and k != "training"}
        lines.append(f"{name} {hidden} {_steps(getattr(forward, '__code__', None))}")
    return re.sub(r" at 0x[0-9a-f]+", "", "\n".join(lines))  # addresses differ from run to run


def _steps(code: Any) -> str:
    """A function's bytecode and the names and numbers in it, but not where it stands in a file."""
    if not isinstance(code, types.CodeType):
        return repr(code)
    inner = [
        str(sorted(map(repr, c))) if isinstance(c, frozenset) else _steps(c) for c in code.co_consts
    ]
    return f"{code.co_code.hex()} {code.co_names} {inner}"
