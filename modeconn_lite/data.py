"""Data sets: two for every cell of the book, which need no network, and three for its records.

========================  ===================  ================  =================================
name                      one row of ``x``     train / test      where it comes from
========================  ===================  ================  =================================
``spirals``               ``(2,)``             1,000 / 1,000     made here, from a fixed seed
``digits``                ``(64,)``            1,297 / 500       real scans, inside scikit-learn
``mnist``                 ``(1, 28, 28)``      60,000 / 10,000   torchvision, 12 MB
``fashion-mnist``         ``(1, 28, 28)``      60,000 / 10,000   torchvision, 31 MB
``cifar10``               ``(3, 32, 32)``      50,000 / 10,000   torchvision, 170 MB
========================  ===================  ================  =================================

Downloads lie in `cache_folder` and are checked by `downloads`. MNIST is read from its compressed
originals, never from the extracted copies beside them, for which no checksum is published.
"""

from __future__ import annotations

import gzip
import os
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite, nan, prod
from numbers import Real
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from .downloads import verified

__all__ = ["Dataset", "Split", "cache_folder", "flip_and_crop", "jitter", "load", "names"]

_CIFAR_MEAN = (0.4914, 0.4822, 0.4465)  # per channel, over the 50,000 training images
_CIFAR_STD = (0.2470, 0.2435, 0.2616)


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Labelled examples: the training or the test half of a data set, or your own.

    Parameters
    ----------
    x : Tensor, floating point, shape (n, *shape)
    y : Tensor, int64, shape (n,)
        Labels: indices into `classes`.
    name : str
        What error messages call it, such as ``"digits test"``.
    classes : tuple of str
        What the labels stand for.

    Raises
    ------
    ValueError
        If `x` or `y` is no such tensor, the split is empty, `x` and `y` differ in length or
        device, `x` is not finite, or a label is outside `classes`.
    """

    x: Tensor
    y: Tensor
    name: str
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        x, y = self.x, self.y
        for letter, value in (("x", x), ("y", y)):
            if not isinstance(value, Tensor):
                self._refuse(
                    f"has {letter} of type {type(value).__name__}; give a tensor,"
                    f" such as torch.as_tensor({letter})"
                )
            if value.layout is not torch.strided or value.is_meta or value.is_quantized:
                self._refuse(f"has {letter} that is sparse, quantised or on the meta device")
        if not isinstance(self.name, str):
            self._refuse(f"has a name of type {type(self.name).__name__}; give a string")
        if isinstance(self.classes, list):
            object.__setattr__(self, "classes", tuple(self.classes))
        words = isinstance(self.classes, tuple) and all(isinstance(c, str) for c in self.classes)
        if not words:
            self._refuse(f"has classes {self.classes!r}; give a tuple of strings")
        k = len(self.classes)
        shapes = f"x of shape {tuple(x.shape)} and y of shape {tuple(y.shape)}"
        if x.numel() == 0:
            self._refuse(f"is empty, with {shapes}; give it at least one example")
        if x.dim() == 0 or y.shape != x.shape[:1]:
            self._refuse(f"has {shapes}; give one label per row of x")
        if not x.is_floating_point() or y.dtype != torch.int64:
            self._refuse(f"has {x.dtype} x and {y.dtype} y; convert with x.float(), y.long()")
        if x.device != y.device:
            self._refuse(f"has x on {x.device} and y on {y.device}; move one with .to()")
        if not torch.stack(x.aminmax()).isfinite().all():  # one pass; NaN and inf both survive it
            bad = int(x.reshape(len(x), -1).isfinite().all(dim=1).logical_not().nonzero()[0])
            self._refuse(f"has NaN or infinity in row {bad} of x; drop or repair such rows")
        low, high = int(y.min()), int(y.max())
        if low < 0 or high >= k:
            self._refuse(f"has labels {low} … {high}; its {k} classes allow 0 … {k - 1}")

    def _refuse(self, why: str) -> NoReturn:
        raise ValueError(f"split {self.name!r} {why}")

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        shape = " × ".join(f"{size:,}" for size in self.x.shape)
        return f"Split({self.name}: {shape}, {len(self.classes)} classes)"

    def to(self, target: torch.device | torch.dtype | str) -> Split:
        """The same examples on another device, or with `x` in another floating-point type.

        Raises
        ------
        ValueError
            If there is no such device, or the type holds no such numbers.
        """
        if not isinstance(target, torch.device | torch.dtype | str):  # torch takes None for "here"
            self._refuse(f"cannot go to {target!r}; give a device or a floating-point type")
        try:
            x = self.x.to(target)
        except (RuntimeError, AssertionError, TypeError) as error:
            self._refuse(f"cannot go to {target!r}: {error}")
        return replace(self, x=x, y=self.y.to(x.device))

    def take(self, which: int | slice | Sequence[int] | Tensor) -> Split:
        """The first `which` examples, or those with the given indices or mask, in that order.

        Parameters
        ----------
        which : int, slice, indices of shape (m,), or mask of shape (n,)

        Raises
        ------
        ValueError
            If it asks for no example, or for one that is not there.
        """
        rows = torch.arange(len(self))
        try:  # on the CPU: there an index out of range is an error, on a GPU the end of CUDA
            if isinstance(which, bool):
                raise TypeError(f"{which} is no number of rows")
            if isinstance(which, (int, np.integer)):
                if not 0 <= which <= len(self):
                    raise IndexError(f"there are no first {which}")
                rows = rows[: int(which)]
            else:
                rows = rows[which if isinstance(which, slice) else torch.as_tensor(which).cpu()]
        except (IndexError, OverflowError, RuntimeError, TypeError, ValueError) as error:
            self._refuse(f"cannot take these rows: {error}; it holds {len(self):,}, from 0")
        return replace(self, x=self.x[rows], y=self.y[rows])


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A training and a test split, and how to draw their rows.

    Attributes
    ----------
    name : str
        As `load` knows it.
    train, test : Split
    image_shape : tuple of int, or None
        ``(8, 8)``, ``(28, 28)`` or ``(3, 32, 32)``; None where a row is no image.
    mean, std : tuple of float
        Subtracted from, then divided out of, pixels in [0, 1]: one number, or one per channel.

    Raises
    ------
    ValueError
        If the splits are none, or differ in classes or in the shape of a row, or the shape of an
        image is not that of a row.
    """

    name: str
    train: Split
    test: Split
    image_shape: tuple[int, ...] | None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise ValueError(f"a data set's name must be a string, not {self.name!r}")
        for part, split in (("train", self.train), ("test", self.test)):
            if not isinstance(split, Split):
                self._refuse(f"has a {part} of type {type(split).__name__}; give a Split")
        one, two = self.train, self.test
        if one.classes != two.classes or one.x.shape[1:] != two.x.shape[1:]:
            self._refuse(f"has {one} and {two}; rows and classes of both must be alike")
        for what, values in (("mean", self.mean), ("std", self.std)):
            numbers = isinstance(values, tuple) and all(isinstance(v, Real) for v in values)
            low = 0 if what == "std" else -inf
            if not numbers or not all(isfinite(v) and v > low for v in values):
                self._refuse(f"has {what}={values!r}; give a tuple of numbers, one per channel")
        shape, row = self.image_shape, one.x.shape[1:].numel()
        if shape is None:
            return
        whole = isinstance(shape, tuple) and all(isinstance(n, int) and n > 0 for n in shape)
        if not whole or len(shape) not in (2, 3) or prod(shape) != row:
            self._refuse(
                f"has image_shape={shape!r} for rows of {row} numbers; give a tuple of factors"
            )

    def _refuse(self, why: str) -> NoReturn:
        raise ValueError(f"data set {self.name!r} {why}")

    def __repr__(self) -> str:
        row = " × ".join(map(str, self.train.x.shape[1:]))
        sizes = f"{len(self.train):,} train, {len(self.test):,} test"
        return f"Dataset({self.name}: {sizes}, {row} inputs, {len(self.train.classes)} classes)"

    def pictures(self, x: Tensor) -> Tensor:
        """Undo the scaling: rows (n, *shape) to images (n, *image_shape) in [0, 1], to draw.

        Raises
        ------
        ValueError
            If rows of this set are no images, or `x` no rows of it.
        """
        if self.image_shape is None:
            raise ValueError(f"rows of {self.name!r} are no images; draw them as points instead")
        size = prod(self.image_shape)
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.numel() % size:
            self._refuse(f"draws rows of {size} floating-point numbers, not {_kind(x)}")
        mean, std = (x.new_tensor(value).view(-1, 1, 1) for value in (self.mean, self.std))
        return (x.reshape(-1, *self.image_shape) * std + mean).clamp(0, 1)


def names() -> tuple[str, ...]:
    """Every name that `load` understands."""
    return (*_LIVE, *_PAPER)


def load(
    name: str, *, root: str | os.PathLike[str] | None = None, download: bool = True
) -> Dataset:
    """A data set by name, on the CPU, in float32.

    Parameters
    ----------
    name : str
        One of `names`.
    root : path, optional
        Folder of the downloaded sets; see `cache_folder`. Not used by ``spirals`` and ``digits``.
    download : bool
        Whether files that are missing or damaged may be fetched. If not, no network is touched.

    Raises
    ------
    ValueError
        If the name is unknown.
    RuntimeError
        If files are missing or damaged and cannot be replaced: no network, a download cut short,
        a full disk. Nothing half-read is returned or left; calling again starts afresh.

    Notes
    -----
    A second or less once downloaded; CIFAR-10 up to 3 s, and 2 GB of memory for that time.
    """
    if not isinstance(name, str) or name not in names():
        raise ValueError(f"unknown data set {name!r}; choose one of {', '.join(names())}")
    folder = cache_folder(root)
    if name in _LIVE:
        return _LIVE[name]()
    import torchvision  # slow to import, and the live tier does without

    source = getattr(torchvision.datasets, _PAPER[name])
    contents = verified(name, source, folder, download)
    return _cifar(name, source, contents) if name == "cifar10" else _mnist(name, source, contents)


def cache_folder(root: str | os.PathLike[str] | None = None) -> Path:
    """Where downloads live: `root`, else ``$MODECONN_DATA``, else the user's cache folder."""
    if root is not None and not isinstance(root, str | os.PathLike):
        raise ValueError(f"root must be a folder's path, not {root!r}")
    chosen = root or os.environ.get("MODECONN_DATA")
    if not chosen:
        chosen = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "modeconn_lite"
    return Path(chosen).expanduser()


def flip_and_crop(x: Tensor, generator: torch.Generator) -> Tensor:
    """The usual CIFAR augmentation: each image mirrored or not, then moved by up to 4 pixels.

    Parameters
    ----------
    x : Tensor, shape (n, channels, height, width)
        Images on any device; what moves in from outside is zero.
    generator : torch.Generator
        On the CPU, so the same seed gives the same crops on every device.

    Raises
    ------
    ValueError
        If `x` is not a batch of images, or the generator none or not on the CPU.
    """
    _check_draw(x, generator)
    if x.ndim != 4:
        raise ValueError(f"x has shape {tuple(x.shape)}; images need (n, channels, height, width)")
    n, _, height, width = x.shape
    down, right = torch.randint(9, (2, n), generator=generator).to(x.device)
    mirror = torch.randint(2, (n, 1, 1, 1), generator=generator).to(x.device, torch.bool)
    padded = torch.nn.functional.pad(x, (4, 4, 4, 4))
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view of all 9 × 9 crops
    crops = windows[torch.arange(n, device=x.device), :, down, right]
    # Mirroring a crop is cropping the mirror image: the offsets are symmetric about the middle.
    return torch.where(mirror, crops.flip(3), crops)


def jitter(scale: float) -> Callable[[Tensor, torch.Generator], Tensor]:
    """An augmentation that adds Gaussian noise of this standard deviation to every input.

    Scans of 8 × 8 pixels are easily learnt by heart; a little noise keeps networks from it.

    Raises
    ------
    ValueError
        If the scale is negative, not finite, or no number.
    """
    try:
        real = isinstance(scale, Real) and not isinstance(scale, bool)
        number = float(scale) if real else nan
    except OverflowError:  # a whole number beyond all floats
        number = inf
    if not 0 <= number < inf:
        raise ValueError(f"scale must be a finite number of at least 0, not {scale!r:.40}")

    def add_noise(x: Tensor, generator: torch.Generator) -> Tensor:
        _check_draw(x, generator)
        return x + number * torch.randn(x.shape, generator=generator).to(x)

    return add_noise


def _check_draw(x: Any, generator: Any) -> None:
    """What an augmentation is called with; without a generator, torch would draw from its own."""
    if not isinstance(x, Tensor):
        raise ValueError(f"x must be a tensor of images, not {_kind(x)}")
    if not isinstance(generator, torch.Generator):
        raise ValueError(f"generator must be a torch.Generator(), not {_kind(generator)}")
    if generator.device.type != "cpu":
        raise ValueError(f"generator is on {generator.device}; use torch.Generator() on the CPU")


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype}, shape {tuple(value.shape)}"
    return type(value).__name__


def _spirals() -> Dataset:
    """Two arms of 1¾ turns, half a turn apart; Gaussian noise of 0.02 in each coordinate."""
    # NumPy promises never to change the stream of RandomState, so all machines see these points.
    random = np.random.RandomState(0)

    def split(part: str, n: int = 1000) -> Split:
        arm = np.arange(n) % 2
        radius = np.sqrt(random.uniform(0.01, 1, n))  # even along the arm, none in the very middle
        angle = np.pi * (3.5 * radius + arm)
        x = radius * np.stack([np.cos(angle), np.sin(angle)]) + random.normal(0, 0.02, (2, n))
        y = torch.from_numpy(arm.astype(np.int64))
        x = torch.from_numpy(x.T.astype(np.float32, order="C"))
        return Split(x, y, f"spirals {part}", ("first arm", "second arm"))

    return Dataset("spirals", split("train"), split("test"), image_shape=None)


def _digits() -> Dataset:
    """The test set of UCI's "Optical Recognition of Handwritten Digits", split again.

    The split matters: over its seeds 0 to 11, a dozen 64-64-64-64-10 MLPs trained without jitter
    reach 97.5 % on average, 96.8 to 98.5 % on single splits. Seed 0, used here, gives 97.2 %.
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    pixels, n, n_test = pixels / 16, len(labels), 500  # grey levels are 0 … 16
    # Shuffle, sort by class, and send every 3.6th row to the test set: each class keeps its share.
    order = np.random.RandomState(0).permutation(n)
    order = order[np.argsort(labels[order], kind="stable")]
    is_test = np.zeros(n, dtype=bool)
    is_test[order[np.arange(n_test) * n // n_test]] = True
    # One mean and deviation for all pixels: some pixels are blank in every scan.
    mean, std = float(pixels[~is_test].mean()), float(pixels[~is_test].std())

    def split(part: str, rows: np.ndarray) -> Split:
        x = torch.from_numpy(((pixels[rows] - mean) / std).astype(np.float32))
        y = torch.from_numpy(labels[rows].astype(np.int64))
        return Split(x, y, f"digits {part}", tuple("0123456789"))

    return Dataset(
        "digits", split("train", ~is_test), split("test", is_test), (8, 8), (mean,), (std,)
    )


def _mnist(name: str, source: Any, contents: dict[str, bytes]) -> Dataset:
    """Pixels in [0, 1] and no more: the published runs use a plain ``ToTensor``."""

    def array(file: str) -> np.ndarray:
        # The idx format: two zero bytes, a type, the rank; each size as 4 bytes; then the values.
        raw = gzip.decompress(contents[f"{source.__name__}/raw/{file}-ubyte.gz"])
        shape = np.frombuffer(raw, ">i4", count=raw[3], offset=4)
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)

    def split(part: str, prefix: str) -> Split:
        x = torch.from_numpy(array(f"{prefix}-images-idx3").astype(np.float32)).div_(255)
        y = torch.from_numpy(array(f"{prefix}-labels-idx1").astype(np.int64))
        classes = tuple("0123456789") if name == "mnist" else tuple(source.classes)
        return Split(x.unsqueeze(1), y, f"{name} {part}", classes)

    return Dataset(name, split("train", "train"), split("test", "t10k"), (28, 28))


def _cifar(name: str, source: Any, contents: dict[str, bytes]) -> Dataset:
    """Pixels in [0, 1], then standardised channel by channel with the training set's figures."""

    def unpickled(file: str) -> dict[str, Any]:
        return pickle.loads(contents[f"{source.base_folder}/{file}"], encoding="latin1")

    classes = tuple(unpickled(source.meta["filename"])[source.meta["key"]])
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (_CIFAR_MEAN, _CIFAR_STD))

    def split(part: str, files: list[list[str]]) -> Split:
        batches = [unpickled(file) for file, _ in files]
        pixels = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
        x = torch.from_numpy(pixels.astype(np.float32)).div_(255).sub_(mean).div_(std)
        y = torch.tensor([label for batch in batches for label in batch["labels"]])
        return Split(x, y, f"{name} {part}", classes)

    train, test = split("train", source.train_list), split("test", source.test_list)
    return Dataset(name, train, test, (3, 32, 32), _CIFAR_MEAN, _CIFAR_STD)


_LIVE = {"spirals": _spirals, "digits": _digits}
_PAPER = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "cifar10": "CIFAR10"}  # in torchvision
