"""Data sets: what they hold, how they are split, taken and augmented."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, pad

from modeconn_lite.data import Split, cache_folder, flip_and_crop, jitter, load, names


def split(n: int = 6, **changes) -> Split:
    parts = {
        "x": torch.arange(2.0 * n).reshape(n, 2),
        "y": torch.arange(n) % 3,
        "name": "toy test",
        "classes": ("a", "b", "c"),
    }
    return Split(**(parts | changes))


# --- Split ---------------------------------------------------------------------------------------


def test_a_split_says_what_it_is():
    assert repr(split()) == "Split(toy test: 6 × 2, 3 classes)"
    assert repr(split(1000, x=torch.zeros(1000, 1, 4, 4))) == (
        "Split(toy test: 1,000 × 1 × 4 × 4, 3 classes)"
    )
    assert len(split()) == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": torch.zeros(0, 2), "y": torch.zeros(0).long()}, "is empty"),
        ({"x": torch.zeros(6, 0)}, "is empty"),
        ({"y": torch.zeros(5).long()}, r"x of shape \(6, 2\) and y of shape \(5,\)"),
        ({"y": torch.zeros(6, 1).long()}, "one label per row"),
        ({"y": torch.tensor([0, 1, 2, 3, 0, 1])}, r"labels 0 … 3; its 3 classes allow 0 … 2"),
        ({"y": torch.tensor([0, 1, 2, -1, 0, 1])}, "labels -1 … 2"),
        ({"y": torch.zeros(6)}, r"y\.long\(\)"),
        ({"x": torch.zeros(6, 2).long()}, r"x\.float\(\)"),
        ({"x": torch.tensor([0, 1, 2, torch.nan, 4, 5])}, "NaN or infinity in row 3"),
        ({"x": torch.tensor([[0.0], [1], [-torch.inf], [3], [4], [5]])}, "in row 2"),
        ({"x": None}, r"x of type NoneType; give a tensor, such as torch\.as_tensor\(x\)"),
        ({"x": np.zeros((6, 2))}, "x of type ndarray"),
        ({"y": [0, 1, 2, 0, 1, 2]}, "y of type list"),
        ({"x": torch.zeros(6, 2).to_sparse()}, "x that is sparse"),
        ({"x": torch.zeros(6, 2, device="meta")}, "on the meta device"),
        ({"y": torch.zeros(6, device="meta").long()}, "on the meta device"),
        ({"x": torch.zeros(()), "y": torch.tensor(0)}, "one label per row"),
        ({"x": torch.zeros(6, 2, dtype=torch.complex64)}, r"x\.float\(\)"),
        ({"classes": "abc"}, "classes 'abc'; give a tuple of strings"),
        ({"classes": 3}, "classes 3"),
        ({"classes": (0, 1, 2)}, r"classes \(0, 1, 2\)"),
        ({"classes": ()}, "its 0 classes"),
    ],
)
def test_a_split_refuses_what_is_no_split(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        split(**changes)
    assert "toy test" in str(caught.value)


def test_a_split_s_name_is_a_word():
    with pytest.raises(ValueError, match="split 3 has a name of type int; give a string"):
        split(name=3)


def test_classes_may_come_in_a_list():
    assert split(classes=["a", "b", "c"]).classes == ("a", "b", "c")


@pytest.mark.parametrize("target", ["gpu", None, 3.5, torch.int64, torch.complex64, "meta", []])
def test_a_split_goes_nowhere_else(target):
    with pytest.raises(ValueError, match="'toy test'"):
        split().to(target)


def test_a_type_that_is_too_narrow():
    with pytest.raises(ValueError, match="NaN or infinity in row 3"):
        split(x=torch.tensor([0, 1, 2, 1e9, 4, 5])).to(torch.float16)


def test_a_split_changes_type_and_device_and_nothing_else():
    double = split().to(torch.float64)
    assert double.x.dtype == torch.float64
    assert double.y.dtype == torch.int64
    assert torch.equal(double.x, split().x.double())
    assert torch.equal(split().to("cpu").x, split().x)
    assert double.name == "toy test"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_splits_and_crops_live_on_a_gpu_too():
    there = split().to("cuda")
    assert there.x.device.type == there.y.device.type == "cuda"
    assert torch.equal(there.take([4, 1]).x.cpu(), split().take([4, 1]).x)
    with pytest.raises(ValueError, match="cannot take"):
        there.take([6])
    x = torch.rand(32, 3, 32, 32)
    crops = [flip_and_crop(x.to(at), torch.Generator().manual_seed(0)) for at in ("cpu", "cuda")]
    assert torch.equal(crops[0], crops[1].cpu())


@given(st.data(), st.integers(1, 12))
def test_take_is_indexing(draw, n):
    whole = split(n)
    rows = draw.draw(st.lists(st.integers(-n, n - 1), min_size=1, max_size=20))
    for which in (rows, tuple(rows), np.array(rows), torch.tensor(rows)):
        part = whole.take(which)
        assert part.x.tolist() == [whole.x.tolist()[row] for row in rows]
        assert part.y.tolist() == [whole.y.tolist()[row] for row in rows]
    count = draw.draw(st.integers(1, n))
    mask = torch.arange(n) < count
    for which in (count, np.int64(count), slice(count), range(count), mask, mask.tolist()):
        assert torch.equal(whole.take(which).x, whole.x[:count])
    assert part.name == whole.name
    assert part.classes == whole.classes


@pytest.mark.parametrize(
    "which",
    [
        *(0, -1, 7, [6], [-7], [], slice(0, 0), torch.tensor([0.5]), [True]),
        *(
            torch.zeros(2, 2).long(),
            None,
            "all",
            3.0,
            True,
            {"rows": 1},
            10**30,
            slice(0.5, 2),
            [None],
        ),
    ],
)
def test_take_refuses_rows_that_are_not_there(which):
    with pytest.raises(ValueError, match="'toy test'"):
        split().take(which)


# --- Dataset -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": None}, "name must be a string, not None"),
        ({"train": None}, "'digits' has a train of type NoneType; give a Split"),
        ({"test": torch.zeros(3)}, "'digits' has a test of type Tensor"),
        ({"test": split()}, "rows and classes of both must be alike"),
        ({"image_shape": (8, 9)}, r"image_shape=\(8, 9\) for rows of 64 numbers"),
        ({"image_shape": (64,)}, r"image_shape=\(64,\)"),
        ({"image_shape": 64}, "image_shape=64"),
        ({"image_shape": (8.0, 8.0)}, r"image_shape=\(8\.0, 8\.0\)"),
        ({"std": (0.0,)}, r"std=\(0\.0,\)"),
        ({"mean": None}, "mean=None"),
        ({"mean": (np.nan,)}, r"mean=\(nan,\)"),
    ],
)
def test_a_dataset_refuses_what_is_none(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(load("digits"), **changes)


@pytest.mark.parametrize("x", [None, torch.zeros(2, 63), torch.zeros(2, 64).long(), "x"])
def test_pictures_are_drawn_of_rows(x):
    with pytest.raises(ValueError, match="'digits' draws rows of 64 floating-point numbers, not"):
        load("digits").pictures(x)


# --- The live tier -------------------------------------------------------------------------------


def test_spirals_are_the_same_everywhere():
    spirals = load("spirals")
    assert repr(spirals) == "Dataset(spirals: 1,000 train, 1,000 test, 2 inputs, 2 classes)"
    expected = [[-0.239674, 0.724904], [0.84287, -0.078929], [-0.471231, 0.573987]]
    assert torch.allclose(spirals.train.x[:3], torch.tensor(expected), atol=1e-6)
    for part in (spirals.train, spirals.test):
        assert part.x.dtype == torch.float32
        assert 0.9 < part.x.abs().max() < 1.1
        assert part.y.bincount().tolist() == [500, 500]
    assert not torch.equal(spirals.train.x, spirals.test.x)
    with pytest.raises(ValueError, match="no images"):
        spirals.pictures(spirals.test.x)


@pytest.fixture
def one_thread():
    """Steps this small are many times slower when two threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_spirals_need_a_network_and_a_small_one_is_enough(one_thread):
    spirals = load("spirals")
    train, test = spirals.train, spirals.test
    ones = torch.ones(1000, 1)
    line = torch.linalg.lstsq(torch.hstack([train.x, ones]), 2.0 * train.y[:, None] - 1).solution
    guess = (torch.hstack([test.x, ones]) @ line > 0).squeeze().long()
    assert (guess == test.y).double().mean() < 0.7

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = (2, 32, 32, 2)
        layers = [torch.nn.Linear(*pair) for pair in pairwise(sizes)]
        relu = torch.nn.ReLU()
        network = torch.nn.Sequential(layers[0], relu, layers[1], relu, layers[2])
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        for batch in torch.randint(1000, (1500, 128)):
            optimizer.zero_grad()
            cross_entropy(network(train.x[batch]), train.y[batch]).backward()
            optimizer.step()
    accuracy = (network(test.x).argmax(1) == test.y).double().mean()
    assert accuracy >= 0.99


def test_digits_are_scikit_learns_each_used_once():
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    digits = load("digits")
    assert repr(digits) == "Dataset(digits: 1,297 train, 500 test, 64 inputs, 10 classes)"
    assert repr(digits.test) == "Split(digits test: 500 × 64, 10 classes)"
    both = torch.cat([digits.train.x, digits.test.x])
    drawn = (digits.pictures(both) * 16).round().flatten(1)
    seen = sorted(
        [*row, label]
        for row, label in zip(
            drawn.int().tolist(), torch.cat([digits.train.y, digits.test.y]).tolist(), strict=True
        )
    )
    assert seen == sorted([*row, label] for row, label in zip(pixels, labels, strict=True))


def test_digits_are_scaled_and_split_evenly_and_for_good():
    digits = load("digits")
    assert abs(digits.train.x.mean()) < 1e-4
    assert abs(digits.train.x.std() - 1) < 1e-3
    assert digits.pictures(digits.test.x).shape == (500, 8, 8)
    share = torch.cat([digits.train.y, digits.test.y]).bincount() * 500 / 1797
    assert (digits.test.y.bincount() - share).abs().max() < 1
    # The zoo's networks were trained on this split: it must never move.
    assert (
        hashlib.md5(bytes(digits.test.y.tolist())).hexdigest() == "ea7cbb9d4de4a6a52c02ac5607c170fa"
    )
    assert torch.equal(load("digits").test.x, digits.test.x)


def test_names_and_unknown_names():
    assert names() == ("spirals", "digits", "mnist", "fashion-mnist", "cifar10")
    with pytest.raises(ValueError, match=r"'imagenet'.*spirals, digits, mnist, fashion-mnist"):
        load("imagenet")
    for wrong in (None, 3, ["digits"], {}):
        with pytest.raises(ValueError, match="unknown data set"):
            load(wrong)
    for name in ("digits", "mnist"):
        with pytest.raises(ValueError, match=r"root must be a folder's path, not 3"):
            load(name, root=3)


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("MODECONN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_folder() == tmp_path / ".cache" / "modeconn_lite"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "modeconn_lite"
    monkeypatch.setenv("MODECONN_DATA", "~/here")
    assert cache_folder() == tmp_path / "here"
    assert cache_folder("there") == Path("there")


# --- Augmentation --------------------------------------------------------------------------------


def every_crop(image: torch.Tensor) -> set[bytes]:
    """Naive: all 81 crops of the padded image and all 81 of its padded mirror image."""
    height, width = image.shape[1:]
    return {
        side[:, down : down + height, right : right + width].numpy().tobytes()
        for side in (pad(image, (4, 4, 4, 4)), pad(image.flip(2), (4, 4, 4, 4)))
        for down in range(9)
        for right in range(9)
    }


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**31),
    shape=st.tuples(st.integers(0, 5), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
)
def test_every_output_is_a_crop_of_its_own_input(seed, shape):
    x = 1 + torch.arange(float(np.prod(shape))).reshape(shape)
    before = x.clone()
    out = flip_and_crop(x, torch.Generator().manual_seed(seed))
    assert out.shape == x.shape
    assert torch.equal(x, before)
    for image, crop in zip(x, out, strict=True):
        assert crop.numpy().tobytes() in every_crop(image)
    assert torch.equal(out, flip_and_crop(x, torch.Generator().manual_seed(seed)))


def test_all_162_crops_of_an_image_occur_and_about_equally_often():
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1))
    out = flip_and_crop(image.expand(8100, -1, -1, -1), torch.Generator().manual_seed(0))
    seen: dict[bytes, int] = {}
    for crop in out:
        key = crop.numpy().tobytes()
        seen[key] = seen.get(key, 0) + 1
    assert seen.keys() == every_crop(image)
    assert all(20 < count < 90 for count in seen.values())  # 50 expected, deviation 7


def test_augmentation_draws_from_its_generator_alone():
    x, generator = torch.rand(4, 3, 32, 32), torch.Generator().manual_seed(0)
    before = torch.random.get_rng_state()
    first, second = flip_and_crop(x, generator), flip_and_crop(x, generator)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.equal(first, second)


def test_augmentation_refuses_rows_that_are_no_images():
    with pytest.raises(ValueError, match=r"\(4, 64\)"):
        flip_and_crop(torch.zeros(4, 64), torch.Generator())


@pytest.mark.parametrize("scale", [None, -0.1, np.nan, np.inf, "0.4", True, [0.4], 10**400])
def test_jitter_refuses_what_is_no_scale(scale):
    with pytest.raises(ValueError, match="scale must be a finite number of at least 0"):
        jitter(scale)


@pytest.mark.parametrize("augment", [flip_and_crop, jitter(0.1)])
def test_augmentation_refuses_what_is_no_image_or_no_generator(augment):
    x = torch.zeros(2, 3, 8, 8)
    for wrong in (None, 0, "cpu", torch.default_generator.initial_seed()):
        with pytest.raises(ValueError, match=r"generator must be a torch\.Generator\(\), not"):
            augment(x, wrong)
    for wrong in (None, "x", [[1.0]], np.zeros((2, 3, 8, 8))):
        with pytest.raises(ValueError, match="x must be a tensor of images, not"):
            augment(wrong, torch.Generator())


def test_jitter_is_noise_of_its_scale():
    x = torch.ones(100, 50)
    for scale in (0, 0.3, np.float32(0.3)):
        noise = jitter(scale)(x, torch.Generator().manual_seed(0)) - x
        assert float(noise.std()) == pytest.approx(float(scale), rel=0.05)


# --- The real thing, where it is -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10"])
def test_the_originals_if_this_machine_has_them(name):
    try:
        real = load(name, download=False)
    except RuntimeError:
        pytest.skip(f"{name} is not in the cache folder of this machine, and tests never download")
    known = {"mnist": (0.1307, 0.3081), "fashion-mnist": (0.2860, 0.3530), "cifar10": (0, 1)}
    mean, deviation = known[name]
    train, test = real.train, real.test
    assert len(train) == (50_000 if name == "cifar10" else 60_000)
    assert test.x.shape == (10_000, *((3, 32, 32) if name == "cifar10" else (1, 28, 28)))
    by_channel = train.x.movedim(1, 0).flatten(1)
    assert (by_channel.mean(1) - mean).abs().max() < 2e-3
    assert (by_channel.std(1) - deviation).abs().max() < 2e-3
    if name != "mnist":
        assert test.y.bincount().tolist() == [1000] * 10
    if name == "cifar10":
        assert test.classes[6] == "frog"


def test_numbers_out_of_range():
    some = load("digits")
    for count in (-1, len(some.train) + 1, 10**30):
        with pytest.raises(ValueError, match=f"there are no first {count}"):
            some.train.take(count)
    for std in ((-1.0,), (0.0,)):
        with pytest.raises(ValueError, match="has std="):
            replace(some, std=std)
