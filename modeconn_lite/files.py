"""Files that are written whole or not at all, and that show it when a single bit has changed.

A *sealed* file holds the SHA-256 of all its bytes, taken while zeros stood in the sum's place.
"""

import glob
import hashlib
import json
import os
import re
from pathlib import Path as FilePath
from typing import Any

BLANK = "0" * 64  # what stands in a file for its checksum until `seal` has computed it
_SUM = re.compile(rb'"sha256": ?"([0-9a-f]{64})"')
_LEFT = re.compile(r"\..+\.(\d+)\.part")


class BadFile(ValueError):
    """A file that is not what it should be: which, why, and what to do."""

    def __init__(self, file: FilePath, why: str, remedy: str = "delete and remake it") -> None:
        super().__init__(f"{file} {why}; {remedy}")
        self.file, self.why = file, why


class Damaged(BadFile):
    """A file of ours of which something is lost or changed: it can be made again."""


def check_file(value: Any, name: str = "file") -> FilePath:
    """A path, from a path or a string that is not empty, of what is no device and no pipe.

    A pipe would be waited for without end; a device would be replaced by a file, as root may.
    """
    path = isinstance(value, str | os.PathLike) and str(value)
    if not path or "\0" in path:
        raise ValueError(f"{name} must be a path, such as 'weights.safetensors', not {value!r}")
    file = FilePath(value)
    if file.exists() and not file.is_file() and not file.is_dir():
        raise ValueError(f"{name} must be a file's path; {file} is a device or a pipe")
    return file


def write_whole(content: bytes, file: FilePath) -> None:
    """Write a file, all or nothing: a reader never sees half of it. Its folder is made.

    What killed processes left of earlier attempts at this file is cleared.

    Raises
    ------
    OSError
        If the disk is full, the folder locked, or the like; it names the file.
    """
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(file.parent, file.name)
        part.write_bytes(content)
        os.replace(part, file)
    except OSError as error:
        raise OSError(error.errno, f"cannot write: {error.strerror}", str(file)) from error
    finally:
        if part.exists():
            part.unlink()


def clear_leftovers(folder: FilePath, name: str | None = None) -> None:
    """Remove what processes that are gone left half-written: of one file, or of a folder's all."""
    stem = "*" if name is None else glob.escape(name)
    for left in folder.glob(f".{stem}.*.part"):
        found = _LEFT.fullmatch(left.name)
        if found and not _runs(int(found[1])):
            left.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    """Whether there is a process of this number; where that cannot be asked, yes."""
    if os.name != "posix":  # elsewhere, signal 0 is a signal like any other
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def seal(content: bytes) -> bytes:
    """Put the checksum in the place of the first `"sha256": BLANK`."""
    start, end = _place(content)
    assert content[start:end] == BLANK.encode()
    return content[:start] + hashlib.sha256(content).hexdigest().encode() + content[end:]


def check_seal(content: bytes) -> None:
    """Refuse content that is not as it was sealed; the ValueError says why in a few words."""
    start, end = _place(content)
    blank = content[:start] + BLANK.encode() + content[end:]
    if hashlib.sha256(blank).hexdigest().encode() != content[start:end]:
        raise ValueError("wrong checksum")


def _place(content: bytes) -> tuple[int, int]:
    found = _SUM.search(content)
    if found is None:
        raise ValueError("no checksum")
    return found.span(1)


def write_json(content: dict[str, Any], file: FilePath) -> None:
    """Write a dictionary as sealed JSON, all or nothing."""
    text = json.dumps({"sha256": BLANK, **content}, indent=1) + "\n"
    write_whole(seal(text.encode()), file)


def read_json(file: FilePath) -> dict[str, Any]:
    """Read what `write_json` wrote.

    Raises
    ------
    Damaged
        If it is not what was written, to the bit; ends of lines may be those of any system.
    """
    try:
        text = file.read_bytes().replace(b"\r\n", b"\n")
        check_seal(text)
        content = json.loads(text)
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise Damaged(file, f"is damaged ({error})") from error
    content.pop("sha256")
    return content
