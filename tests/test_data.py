"""Data sets: what they hold, and that no fault of disk, network or neighbour is ever half-read.

No test here leaves this machine: torchvision's own code downloads tiny archives, made by the test,
from a server that it runs on this machine.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import pickle
import subprocess
import sys
import tarfile
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, pad
from torchvision import datasets

from modeconn_lite import data
from modeconn_lite.data import Dataset, Split, cache_folder, flip_and_crop, load, names

REPOSITORY = Path(__file__).resolve().parent.parent


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
    ],
)
def test_a_split_refuses_what_is_no_split(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        split(**changes)
    assert "toy test" in str(caught.value)


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
    [0, -1, 7, [6], [-7], [], slice(0, 0), torch.tensor([0.5]), [True], torch.zeros(2, 2).long()],
)
def test_take_refuses_rows_that_are_not_there(which):
    with pytest.raises(ValueError, match="'toy test'"):
        split().take(which)


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


# --- The paper tier: tiny archives, and a server that plays the internet -------------------------


class Web:
    """Files by name, at `url`; while `cutting`, the server hangs up halfway through each."""

    def __init__(self, url: str) -> None:
        self.url, self.files, self.cutting = url, {}, False


@pytest.fixture
def web(monkeypatch):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            content = web.files[self.path[1:]]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if web.cutting else content)

        def log_message(self, format, *args):
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        web = Web(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield web
        server.shutdown()
        thread.join()


class Tiny:
    """A data set of a few random images, its archives, and torchvision told to expect them."""

    def __init__(self, name: str, web: Web, patch: pytest.MonkeyPatch) -> None:
        self.name, self.web, self.patch = name, web, patch
        self.files: list[Path] = []  # below the cache folder, what the cache must hold
        random = np.random.RandomState(0)
        shape = (3, 32, 32) if name == "cifar10" else (28, 28)
        self.pixels = random.randint(256, size=(13, *shape)).astype(np.uint8)
        self.labels = random.randint(10, size=13)
        if name == "cifar10":
            self._cifar()
        else:
            self._mnist(datasets.MNIST if name == "mnist" else datasets.FashionMNIST)

    def _publish(self, name: str, content: bytes) -> str:
        self.web.files[name] = content
        return hashlib.md5(content).hexdigest()

    def _mnist(self, source) -> None:
        self.source, resources = source, []
        for prefix, part in (("train", slice(10)), ("t10k", slice(10, None))):
            for kind, array in (("images-idx3", self.pixels), ("labels-idx1", self.labels)):
                array = array[part].astype(np.uint8)
                head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
                file = f"{prefix}-{kind}-ubyte.gz"
                md5 = self._publish(file, gzip.compress(head + array.tobytes()))
                resources.append((file, md5))
                self.files.append(Path(source.__name__, "raw", file))
        self.patch.setattr(source, "resources", resources)
        self.patch.setattr(source, "mirrors", [self.web.url + "/"])

    def _cifar(self) -> None:
        self.source, lists, content = datasets.CIFAR10, {}, {}
        for i in range(6):
            rows = slice(2 * i, 2 * i + 2) if i < 5 else slice(10, None)
            batch = {"data": self.pixels[rows].reshape(-1, 3072), "labels": list(self.labels[rows])}
            content["test_batch" if i == 5 else f"data_batch_{i + 1}"] = pickle.dumps(batch)
        content["batches.meta"] = pickle.dumps({"label_names": [f"class {i}" for i in range(10)]})
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w:gz") as tar:
            for file, blob in content.items():
                self.files.append(Path("cifar-10-batches-py", file))
                entry = tarfile.TarInfo(self.files[-1].as_posix())
                entry.size = len(blob)
                tar.addfile(entry, io.BytesIO(blob))
                lists[file] = [file, hashlib.md5(blob).hexdigest()]
        md5 = self._publish("cifar-10-python.tar.gz", archive.getvalue())
        meta = self.source.meta | {"md5": lists.pop("batches.meta")[1]}
        test = lists.pop("test_batch")
        for key, value in {
            "url": f"{self.web.url}/cifar-10-python.tar.gz",
            "tgz_md5": md5,
            "meta": meta,
            "train_list": list(lists.values()),
            "test_list": [test],
        }.items():
            self.patch.setattr(self.source, key, value)

    def load(self, root: Path, **options) -> Dataset:
        """Load, and check every pixel and label against what was published."""
        found = load(self.name, root=root, **options)
        assert (len(found.train), len(found.test)) == (10, 3)
        drawn = found.pictures(torch.cat([found.train.x, found.test.x]))
        assert np.array_equal((drawn * 255).round().numpy(), self.pixels)
        assert torch.cat([found.train.y, found.test.y]).tolist() == self.labels.tolist()
        return found

    def is_absent(self, root: Path) -> bool:
        """Nothing of the data set is in the cache, and no half of it beside it."""
        left = [path.name for path in root.rglob("*") if path.is_file()]
        return all(name.endswith(".lock") for name in left)


@pytest.fixture(params=["mnist", "cifar10"])
def tiny(request, web, monkeypatch) -> Tiny:
    return Tiny(request.param, web, monkeypatch)


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "not" / "there" / "yet"


@pytest.fixture
def cut_network(monkeypatch):
    """Call it, and every request fails; the list it returns says what was asked for."""

    def cut() -> list[str]:
        asked: list[str] = []

        def refuse(request, *_, **__):
            asked.append(getattr(request, "full_url", request))
            raise urllib.error.URLError("no network")

        monkeypatch.setattr(urllib.request, "urlopen", refuse)
        return asked

    return cut


def test_a_first_load_downloads_and_a_second_does_not(tiny, root, cut_network):
    tiny.load(root)
    assert all((root / file).is_file() for file in tiny.files)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    asked = cut_network()
    tiny.load(root)
    tiny.load(root, download=False)
    assert not asked
    # A warm load writes nothing at all, so it works from a read-only folder.
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_pixels_are_scaled_as_published(web, monkeypatch, root):
    mnist = Tiny("mnist", web, monkeypatch).load(root)
    assert mnist.train.x.shape == (10, 1, 28, 28)
    assert mnist.train.x.min() == 0 and mnist.train.x.max() == 1
    assert mnist.test.classes == tuple("0123456789")
    fashion = Tiny("fashion-mnist", web, monkeypatch).load(root)
    assert fashion.test.classes[9] == "Ankle boot"
    assert repr(fashion.test) == "Split(fashion-mnist test: 3 × 1 × 28 × 28, 10 classes)"
    cifar = Tiny("cifar10", web, monkeypatch)
    x = cifar.load(root).test.x
    by_hand = (cifar.pixels[12, 1, 5, 7] / 255 - 0.4822) / 0.2435
    assert abs(float(x[2, 1, 5, 7]) - by_hand) < 1e-6


def test_without_a_network_the_message_says_what_to_do(tiny, root, cut_network):
    asked = cut_network()
    with pytest.raises(RuntimeError, match="no network") as caught:
        tiny.load(root)
    assert asked
    for hint in (tiny.name, str(root), tiny.files[0].as_posix(), "missing", "MODECONN_DATA"):
        assert hint in str(caught.value)
    assert tiny.is_absent(root)


def test_download_false_touches_no_network_and_no_disk(tiny, root, cut_network):
    asked = cut_network()
    with pytest.raises(RuntimeError, match="download=True"):
        tiny.load(root, download=False)
    assert not asked
    assert not root.exists()


@pytest.mark.parametrize("harm", ["cut", "one bit", "empty", "deleted", "a folder"])
def test_a_damaged_file_is_never_read_and_replaced(tiny, root, harm):
    tiny.load(root)
    for file in (root / tiny.files[0], root / tiny.files[-1]):
        content = file.read_bytes()
        file.unlink()
        if harm == "a folder":
            file.mkdir()
        elif harm != "deleted":
            flipped = content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
            harmed = {"cut": content[: len(content) // 2], "one bit": flipped, "empty": b""}
            file.write_bytes(harmed[harm])
        with pytest.raises(RuntimeError, match=file.name):
            tiny.load(root, download=False)
        if harm == "a folder":  # not ours to remove: it may hold something
            with pytest.raises(RuntimeError, match="cannot be read"):
                tiny.load(root)
            file.rmdir()
        tiny.load(root)
        tiny.load(root, download=False)


def test_damage_without_a_network_costs_no_sound_file(tiny, root, cut_network):
    tiny.load(root)
    (root / tiny.files[1]).write_bytes(b"half")
    asked = cut_network()
    with pytest.raises(RuntimeError, match=r"damaged \(4 bytes"):
        tiny.load(root)
    assert asked
    kept = [file for file in tiny.files if file != tiny.files[1]]
    assert all((root / file).stat().st_size > 4 for file in kept)


def test_a_broken_extracted_copy_is_not_what_is_read(web, monkeypatch, root, cut_network):
    tiny = Tiny("mnist", web, monkeypatch)
    tiny.load(root)
    (root / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(b"half")
    cut_network()
    tiny.load(root)


def test_a_download_cut_in_the_middle(tiny, root, web):
    web.cutting = True
    with pytest.raises(RuntimeError, match="Fetching them failed"):
        tiny.load(root)
    assert tiny.is_absent(root)
    web.cutting = False
    tiny.load(root)


def fail_halfway(tiny: Tiny, error: BaseException) -> None:
    """Let the next download write a part of the first file, then fail; later ones are whole."""
    download = tiny.source.download

    def half(self):
        tiny.patch.setattr(tiny.source, "download", download)
        file = Path(self.root) / tiny.files[0]
        file.parent.mkdir(parents=True)
        file.write_bytes(b"half")
        raise error

    tiny.patch.setattr(tiny.source, "download", half)


def test_a_full_disk(tiny, root):
    fail_halfway(tiny, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(RuntimeError, match="No space left on device"):
        tiny.load(root)
    assert tiny.is_absent(root)
    tiny.load(root)


def test_a_disk_that_fills_while_files_move_into_place(tiny, root, monkeypatch):
    moved = []

    def replace(source, target):
        if moved:
            raise OSError(errno.ENOSPC, "No space left on device")
        moved.append(target)
        os.rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(data.os, "replace", replace)
        with pytest.raises(RuntimeError, match="No space left on device"):
            tiny.load(root)
    assert [file for file in tiny.files if (root / file).exists()] == [tiny.files[0]]
    tiny.load(root)


def test_an_interrupted_download(tiny, root):
    fail_halfway(tiny, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        tiny.load(root)
    assert tiny.is_absent(root)
    tiny.load(root)


def test_a_cache_that_cannot_be_made(tiny, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RuntimeError, match="MODECONN_DATA"):
        tiny.load(tmp_path / "file")


# Runs in a process of its own, with torchvision told to expect the tiny archives.
CHILD = """
import os, sys, time
from pathlib import Path
from torchvision import datasets
from modeconn_lite.data import load

resources, url, root, log, die = eval(sys.argv[1])
datasets.MNIST.resources, datasets.MNIST.mirrors = resources, [url + "/"]
whole = datasets.MNIST.download

def slow(self):
    with open(log, "a") as lines:
        lines.write("download\\n")
    if die:
        raw = Path(self.raw_folder)
        raw.mkdir(parents=True)
        (raw / resources[0][0]).write_bytes(b"half")
        time.sleep(1)
        os._exit(9)
    time.sleep(1)
    whole(self)

datasets.MNIST.download = slow
print(load("mnist", root=root).train.x.sum().item())
"""


@pytest.mark.parametrize("both_die", [False, True])
def test_two_processes_fill_the_cache_at_once(tmp_path, web, monkeypatch, root, both_die):
    tiny, log = Tiny("mnist", web, monkeypatch), tmp_path / "log"

    def start() -> subprocess.Popen[str]:
        message = (tiny.source.resources, web.url, str(root), str(log), both_die)
        command = [sys.executable, "-c", CHILD, repr(message)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=REPOSITORY, stdout=pipe, stderr=pipe, text=True)

    children = [start(), start()]
    outcome = [(*child.communicate(timeout=120), child.returncode) for child in children]
    downloads = len(log.read_text().splitlines())
    if both_die:  # both die in mid-download, one after the other; the next finds half a file
        assert [code for *_, code in outcome] == [9, 9]
        assert downloads == 2
        assert (root / ".MNIST.partial").exists()
        assert not any((root / file).exists() for file in tiny.files)
    else:
        total = tiny.load(root, download=False).train.x.sum().item()
        assert [(float(out), code) for out, _, code in outcome] == [(total, 0), (total, 0)]
        assert downloads == 1
    tiny.load(root)
    assert not (root / ".MNIST.partial").exists()


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
