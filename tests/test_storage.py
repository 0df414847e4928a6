import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from modeconn_lite import storage
from modeconn_lite.networks import mlp
from modeconn_lite.weights import fresh_weights, from_vector, to_vector


@pytest.fixture
def pair():
    network = mlp((3, 4, 2))
    return network, fresh_weights(network, 0), fresh_weights(network, 1)


def test_save_load_and_a_damaged_file(tmp_path, pair):
    _, a, _ = pair
    file = tmp_path / "deep" / "a.safetensors"
    storage.save(a, file)
    assert all(torch.equal(storage.load(file)[k], a[k]) for k in a)
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(ValueError, match="delete and remake"):
        storage.load(file)


def test_an_interrupted_save_leaves_the_old_file(tmp_path, pair, monkeypatch):
    _, a, b = pair
    file = tmp_path / "a.safetensors"
    storage.save(a, file)

    def disk_full(part, content):
        with part.open("wb") as half:
            half.write(content[:9])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", disk_full)
        with pytest.raises(OSError, match=r"No space left on device.*a\.safetensors"):
            storage.save(b, file)
    assert all(torch.equal(storage.load(file)[k], a[k]) for k in a)
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_every_bit_of_a_file_counts(tmp_path):
    weights = {"a.weight": torch.randn(3, 2), "é": torch.ones(2, dtype=torch.float16)}
    file = tmp_path / "a.safetensors"
    storage.save(weights, file, {"name": "seed-0"})
    content = bytearray(file.read_bytes())
    for place in range(len(content)):
        for bit in range(8):
            content[place] ^= 1 << bit
            file.write_bytes(content)
            with pytest.raises(ValueError, match=r"a\.safetensors is damaged.*delete and remake"):
                storage.load(file)
            content[place] ^= 1 << bit
    file.write_bytes(content)
    again, about = storage.read(file)
    assert about == {"name": "seed-0"}
    assert list(again) == list(weights)
    assert all(torch.equal(again[k], v) and again[k].dtype == v.dtype for k, v in weights.items())


def test_files_from_elsewhere(tmp_path, pair):
    _, a, _ = pair
    file = tmp_path / "a.safetensors"
    for metadata in (None, {"format": "pt"}):
        save_file(a, file, metadata)
        assert all(torch.equal(storage.load(file)[k], a[k]) for k in a)
        assert storage.read(file)[1] == (metadata or {})
    for content in (b"PK\x03\x04 and so on, as torch.save writes it", b"text " * 30):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.safetensors is no readable safetensors file"):
            storage.load(file)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        storage.load(tmp_path / "nowhere")


def test_save_takes_views_and_refuses_what_load_would_not_give_back(tmp_path, pair):
    _, a, _ = pair
    views = from_vector(to_vector(a), a)  # tensors that share memory
    storage.save(views, tmp_path / "views")
    assert all(torch.equal(storage.load(tmp_path / "views")[k], a[k]) for k in a)
    for metadata in ({"seed": 3}, {3: "seed"}, "seed", [("a", "b")]):
        with pytest.raises(ValueError, match="metadata must map strings to strings"):
            storage.save(a, tmp_path / "a", metadata)
    with pytest.raises(ValueError, match="`save` puts its own"):
        storage.save(a, tmp_path / "a", {"sha256": "mine"})
    with pytest.raises(ValueError, match="file must be a path"):
        storage.save(a, None)
    with pytest.raises(ValueError, match="not finite"):
        storage.save({"w": torch.tensor([math.nan])}, tmp_path / "a")
    assert [p.name for p in tmp_path.iterdir()] == ["views"]


def test_save_keeps_the_order_of_the_network(tmp_path, pair):
    _, a, _ = pair
    storage.save(a, tmp_path / "a.safetensors")
    assert list(storage.load(tmp_path / "a.safetensors")) == list(a)
