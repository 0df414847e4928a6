"""Weights in files, as safetensors that show it when a single bit has changed."""

import json
from collections.abc import Mapping
from pathlib import Path as FilePath

import safetensors.torch
import torch
from safetensors import SafetensorError

from .checks import check_weights
from .files import BLANK, BadFile, Damaged, check_file, check_seal, seal, write_whole
from .weights import Weights


def save(weights: Weights, file: str | FilePath, metadata: dict[str, str] | None = None) -> None:
    """Write weights as safetensors, all or nothing: a reader never sees half a file.

    Parameters
    ----------
    weights : Weights
    file : path
        Its folder is made if it is not there.
    metadata : dict of str to str, optional
        Stored beside the tensors, their order, and a checksum of it all.

    Raises
    ------
    ValueError
        If these are no weights, or the metadata no strings.
    OSError
        If the file cannot be written, as on a full disk; the message names it.
    """
    file = check_file(file)
    check_weights(weights)
    about = dict(metadata) if isinstance(metadata, Mapping) else {} if metadata is None else None
    if about is None or not all(isinstance(word, str) for item in about.items() for word in item):
        raise ValueError(f"metadata must map strings to strings, not {metadata!r}")
    if about.keys() & {"order", "sha256"}:
        raise ValueError("metadata cannot hold 'order' or 'sha256': `save` puts its own there")
    # Cloned: tensors that share memory, as those of `from_vector` do, cannot be written.
    tensors = {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in weights.items()
    }
    # The format sorts its tensors; a network's order is worth keeping.
    about |= {"order": json.dumps(list(weights)), "sha256": BLANK}
    write_whole(seal(safetensors.torch.save(tensors, about)), file)


def load(file: str | FilePath) -> Weights:
    """Read what `save` wrote, on the CPU; or a safetensors file from elsewhere.

    Raises
    ------
    ValueError
        If the file is damaged, be it by one bit; the message names it. Only files from elsewhere,
        which have no checksum, are taken as they are.
    FileNotFoundError
        If there is none.
    """
    return read(file)[0]


def read(file: str | FilePath) -> tuple[Weights, dict[str, str]]:
    """What `save` wrote: weights, on the CPU, and metadata.

    Raises
    ------
    Damaged
        If it was ours and is no longer sound.
    BadFile
        If it is nothing that can be read at all.
    """
    file = check_file(file)
    content = file.read_bytes()  # what is parsed is the very bytes whose checksum was verified
    try:
        end = 8 + int.from_bytes(content[:8], "little")
        about = json.loads(content[8:end]).get("__metadata__", {})
        # Both are in every file of ours, so that one damaged name cannot hide the other.
        if about.keys() & {"order", "sha256"}:
            check_seal(content)
        tensors = safetensors.torch.load(content)
        order = json.loads(about.get("order", "null"))
        weights = {key: tensors[key] for key in order or tensors}
    except (SafetensorError, ValueError, LookupError, TypeError, AttributeError) as error:
        if len(content) < 32 or b"__metadata__" in content[:64] or b'"sha256"' in content[:65536]:
            raise Damaged(file, f"is damaged ({_reason(error)})") from error
        raise BadFile(file, "is no readable safetensors file") from error
    return weights, {key: about[key] for key in about if key not in ("order", "sha256")}


def _reason(error: Exception) -> str:
    """In a few words."""
    return "wrong checksum" if str(error) == "wrong checksum" else "unreadable or cut short"
