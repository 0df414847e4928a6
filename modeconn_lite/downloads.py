"""Files of torchvision's data sets, fetched once, checked always.

One rule keeps a broken file out: *what is parsed is the very bytes whose checksum was verified*.
"""

import hashlib
import os
import shutil
from http.client import HTTPException
from pathlib import Path
from typing import Any

from filelock import FileLock


def verified(name: str, source: Any, root: Path, download: bool) -> dict[str, bytes]:
    """Contents of every file of a torchvision data set, from the cache or freshly fetched.

    Parameters
    ----------
    name : str
        What messages call the set.
    source : class
        The set in `torchvision.datasets`.
    root : Path
        The cache.
    download : bool
        Whether files that are missing or damaged may be fetched.

    Returns
    -------
    dict of str to bytes
        For each file, by its path below `root`, what it holds.

    Raises
    ------
    RuntimeError
        If files are missing or damaged and cannot, or may not, be fetched.
    """
    if hasattr(source, "resources"):  # the MNIST family
        files = {f"{source.__name__}/raw/{file}": md5 for file, md5 in source.resources}
    else:
        meta = source.meta["filename"], source.meta["md5"]
        listed = [*source.train_list, *source.test_list, meta]
        files = {f"{source.base_folder}/{file}": md5 for file, md5 in listed}
    contents, faults = _read(root, files)  # no lock: files are only ever replaced whole
    if not faults:
        return contents
    problem = f"cannot load {name!r}: in {root}, {'; '.join(faults)}"
    remedy = (
        f"To fetch it elsewhere, run torchvision.datasets.{source.__name__}(FOLDER, download=True) "
        f"and copy FOLDER/{next(iter(files)).split('/')[0]} into {root}; to look in another "
        "folder, set the environment variable MODECONN_DATA or give root="
    )
    if not download:
        raise RuntimeError(f"{problem}. Allow download=True. {remedy}")
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{source.__name__}.lock"):
            contents, faults = _read(root, files)  # another process may have filled it meanwhile
            return _fetch(source, root, files) if faults else contents
    except (OSError, RuntimeError, HTTPException) as error:
        raise RuntimeError(f"{problem}. Fetching them failed: {error}. {remedy}") from error


def _read(root: Path, files: dict[str, str]) -> tuple[dict[str, bytes], list[str]]:
    """Contents of the files (path below `root` → MD5) that are sound, and what ails the others."""
    contents, faults = {}, []
    for file, md5 in files.items():
        try:
            content = (root / file).read_bytes()
        except FileNotFoundError:
            faults.append(f"{file} is missing")
        except OSError as error:
            faults.append(f"{file} cannot be read ({error.strerror})")
        else:
            if hashlib.md5(content, usedforsecurity=False).hexdigest() == md5:
                contents[file] = content
            else:
                faults.append(f"{file} is damaged ({len(content):,} bytes, wrong checksum)")
    return contents, faults


def _fetch(source: Any, root: Path, files: dict[str, str]) -> dict[str, bytes]:
    """Download beside the cache, verify, and only then move into place. Call it under the lock."""
    partial = root / f".{source.__name__}.partial"
    shutil.rmtree(partial, ignore_errors=True)  # what a killed process left behind
    try:
        source(partial, download=True)
        contents, faults = _read(partial, files)
        if faults:
            raise RuntimeError("; ".join(faults))
        for file in files:
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            os.replace(partial / file, root / file)
        return contents
    finally:
        shutil.rmtree(partial, ignore_errors=True)
