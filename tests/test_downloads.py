"""No fault of disk, network or neighbour is ever half-read.

No test here leaves this machine: torchvision's own code downloads tiny archives, made by the test,
from a server that it runs on this machine.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import multiprocessing
import os
import pickle
import tarfile
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets

from modeconn_lite import downloads
from modeconn_lite.data import Dataset, load


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
        patch.setattr(downloads.os, "replace", replace)
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


@pytest.mark.parametrize("both_die", [False, True])
# From Python 3.12 on, a process with threads (here the server's) warns that it is copied.
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_two_processes_fill_the_cache_at_once(web, monkeypatch, root, both_die):
    """The one holds the lock and downloads while the other has seen that nothing is there."""
    tiny = Tiny("mnist", web, monkeypatch)
    fork = multiprocessing.get_context("fork")  # a copy of this process: nothing to import again
    waiting, begun, sums = fork.Value("i", 0), fork.Value("i", 0), fork.SimpleQueue()
    lock, whole = downloads.FileLock, tiny.source.download

    def announced_lock(file):
        with waiting.get_lock():
            waiting.value += 1
        return lock(file)

    def slow(self):
        with begun.get_lock():
            begun.value += 1
        patience = time.monotonic() + 10
        while waiting.value < 2 and time.monotonic() < patience:
            time.sleep(0.01)
        time.sleep(0.2)  # and now the other one waits for the lock, or else it comes in
        if both_die:
            file = Path(self.raw_folder) / tiny.source.resources[0][0]
            file.parent.mkdir(parents=True)
            file.write_bytes(b"half")
            os._exit(9)
        whole(self)

    def fill():
        torch.set_num_threads(1)  # a copied process has lost the threads of its original
        sums.put(load("mnist", root=root).train.x.sum().item())

    with monkeypatch.context() as patch:
        patch.setattr(downloads, "FileLock", announced_lock)
        patch.setattr(tiny.source, "download", slow)
        children = [fork.Process(target=fill, daemon=True) for _ in range(2)]
        for child in children:
            child.start()
        for child in children:
            child.join(60)
    assert waiting.value == 2
    codes = [child.exitcode for child in children]
    if both_die:  # both die in mid-download, one after the other; the next finds half a file
        assert codes == [9, 9]
        assert begun.value == 2
        assert (root / ".MNIST.partial").exists()
        assert not any((root / file).exists() for file in tiny.files)
    else:
        total = tiny.load(root, download=False).train.x.sum().item()
        assert codes == [0, 0]
        assert [sums.get(), sums.get()] == [total, total]
        assert begun.value == 1
    tiny.load(root)
    assert not (root / ".MNIST.partial").exists()
