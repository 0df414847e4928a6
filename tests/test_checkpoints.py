from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from test_training import NETWORK, OPTIONS, SPLIT, Own, at_once, blobs, double, frozen
from torch import nn

from modeconn_lite import train
from modeconn_lite.checkpoints import Checkpoint
from modeconn_lite.data import Split, flip_and_crop, jitter
from modeconn_lite.networks import mlp
from modeconn_lite.storage import save
from modeconn_lite.weights import distance, fresh_weights, to


@pytest.mark.parametrize("stop_after", [1, 2])
def test_an_interrupted_training_goes_on_where_it_stopped(tmp_path, monkeypatch, stop_after):
    file = tmp_path / "run.part"
    whole = at_once([3, 5], snapshots=(1,))
    original = Checkpoint.write
    written = []

    def write_then_stop(self, parts, loss):
        original(self, parts, loss)
        written.append(len(loss))
        if len(written) == stop_after:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "write", write_then_stop)
    with pytest.raises(KeyboardInterrupt):
        at_once([3, 5], snapshots=(1,), checkpoint=file)
    resumed = at_once([3, 5], snapshots=(1,), checkpoint=file)
    assert written == [1, 2, 3]  # no epoch was run twice
    for k in range(2):
        assert all(torch.equal(resumed.weights[k][n], v) for n, v in whole.weights[k].items())
        assert all(
            torch.equal(resumed.snapshots[1][k][n], v) for n, v in whole.snapshots[1][k].items()
        )
    assert list(resumed.weights[0]) == list(whole.weights[0])
    assert torch.equal(resumed.loss, whole.loss)
    again = at_once([3, 5], snapshots=(1,), checkpoint=file)  # finished: nothing is run
    assert written == [1, 2, 3]
    assert distance(again.weights[0], whole.weights[0]) == 0


def test_a_checkpoint_of_another_training_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "run.part"
    original = Checkpoint.write

    def write_then_stop(self, *arguments):
        original(self, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "write", write_then_stop)
    with pytest.raises(KeyboardInterrupt):
        at_once([3], checkpoint=file)
    with pytest.raises(ValueError, match="belongs to another training"):
        at_once([4], checkpoint=file)


@pytest.mark.parametrize(
    "change", [{"network": mlp((5, 9, 3))}, {"split": blobs(73)}, {"batch": 8}]
)
def test_a_checkpoint_knows_its_network_and_its_data(tmp_path, change):
    file = tmp_path / "run.part"
    arguments = {"network": NETWORK, "split": SPLIT, "seeds": [3]} | OPTIONS
    single = arguments | {"split": replace(SPLIT, x=SPLIT.x.float()), "checkpoint": file}
    train(**single)
    if "split" in change:
        change = {"split": replace(change["split"], x=change["split"].x.float())}
    with pytest.raises(ValueError, match="belongs to another training"):
        train(**(single | change))


def tanh_mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))


def dropout_mlp(share):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(5, 8), nn.ReLU(), nn.Dropout(share), nn.Linear(8, 3)
    )


class Other(Own):
    def forward(self, x):
        return self.two(F.relu6(self.one(x)))  # at the start, the same as with relu


Other.__name__ = Other.__qualname__ = "Own"


def half_replaced():
    x = SPLIT.x.clone()
    x[1:] = x[1:].roll(1, 0)  # the first row stays, the labels as well
    return replace(SPLIT, x=x)


def relabelled():
    y = SPLIT.y.clone()
    y[[0, 1]] = y[[1, 0]]
    return replace(SPLIT, y=y)


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        ({}, {"network": tanh_mlp()}, "layers differ"),
        ({}, {"network": frozen()}, "layers differ"),
        ({"network": dropout_mlp(0.5)}, {"network": dropout_mlp(0.4)}, "layers differ"),
        ({"network": Own()}, {"network": Own(F.tanh)}, "outputs of the network differ"),
        ({"network": Own()}, {"network": Own(factor=1.0001)}, "layers differ"),
        ({"network": Own()}, {"network": Other()}, "layers differ"),
        ({"augment": jitter(0.4)}, {"augment": jitter(0.2)}, "augmented images differ"),
        ({"augment": jitter(0.4)}, {"augment": jitter(0.401)}, "augmented images differ"),
        ({}, {"augment": jitter(0.4)}, "augment is None instead of given"),
        ({}, {"split": half_replaced()}, "images differ"),
        ({}, {"split": relabelled()}, "labels differ"),
        ({}, {"start": [double(4)]}, "starting points differ"),
        ({}, {"seeds": [4]}, r"seeds is \(3,\) instead of \(4,\)"),
        ({}, {"momentum": 0.5}, "momentum is 0.9 instead of 0.5"),
    ],
)
def test_a_checkpoint_says_what_is_different(tmp_path, before, after, what):
    common = {"network": NETWORK, "split": SPLIT, "seeds": [3]} | OPTIONS
    common["checkpoint"] = tmp_path / "run.part"
    first = {"start": [to(fresh_weights(before.get("network", NETWORK), 3), torch.float64)]}
    train(**(common | first | before))
    content = common["checkpoint"].read_bytes()
    with pytest.raises(ValueError, match=f"belongs to another training: there.*{what}"):
        train(**(common | first | before | after))
    assert common["checkpoint"].read_bytes() == content
    train(**(common | first | before))  # and the right one is taken


def test_crops_are_told_from_no_crops(tmp_path):
    x = torch.rand(12, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    images = Split(x, torch.arange(12) % 3, "images", ("a", "b", "c"))
    arguments = {"epochs": 1, "checkpoint": tmp_path / "run.part"}
    train(mlp((36, 3)), images, [0], augment=flip_and_crop, **arguments)
    for other in (None, jitter(0.1), lambda x, g: flip_and_crop(x, g).flip(2)):
        with pytest.raises(ValueError, match="belongs to another training"):
            train(mlp((36, 3)), images, [0], augment=other, **arguments)
    train(mlp((36, 3)), images, [0], augment=lambda x, g: flip_and_crop(x, g), **arguments)


def test_the_same_training_is_known_by_what_it_is(tmp_path):
    """Not by how its numbers are written, nor by the addresses of its functions."""
    file = tmp_path / "run.part"
    first = at_once([3], Own(), snapshots=[2, 1], checkpoint=file, weight_decay=0)
    written = file.stat().st_mtime_ns
    again = at_once((3,), Own(), snapshots=(1, 2), checkpoint=str(file), weight_decay=0.0)
    assert file.stat().st_mtime_ns == written
    assert distance(first.weights[0], again.weights[0]) == 0


@pytest.mark.parametrize("harm", ["empty", "cut", "head cut", "one bit", "zeros"])
def test_a_damaged_checkpoint_costs_time_and_nothing_else(tmp_path, harm):
    file = tmp_path / "run.part"
    whole = at_once([3], checkpoint=file)
    content = file.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    harmed = {"empty": b"", "cut": content[:middle], "head cut": content[:20], "one bit": flipped}
    file.write_bytes(harmed.get(harm, bytes(20)))
    with pytest.warns(UserWarning, match=r"run\.part is damaged.*training starts again"):
        again = at_once([3], checkpoint=file)
    assert torch.equal(again.loss, whole.loss)
    assert distance(again.weights[0], whole.weights[0]) == 0
    at_once([3], checkpoint=file)  # sound again


def test_what_is_no_checkpoint_is_not_written_over(tmp_path):
    weights, pickled = tmp_path / "weights.safetensors", tmp_path / "model.pt"
    save(double(0), weights)
    torch.save(double(0), pickled)
    for file, message in ((weights, "is no checkpoint"), (pickled, "no readable safetensors")):
        content = file.read_bytes()
        with pytest.raises(ValueError, match=message):
            at_once([3], checkpoint=file)
        assert file.read_bytes() == content


@pytest.mark.parametrize("words", ["no JSON", "[1]", "3", "{}"])
@pytest.mark.parametrize("name", ["a", "behaviour/a", "weights/a"])
def test_what_looks_like_a_checkpoint_and_is_none(tmp_path, words, name):
    """Sound files with a checkpoint's names in them; only other words are another training's."""
    file = tmp_path / "run.part"
    save({"loss": torch.ones(2), name: torch.ones(3)}, file, {"training": words})
    with pytest.raises(ValueError, match=r"run\.part (is no checkpoint|belongs to another)"):
        at_once([3], checkpoint=file)


def test_an_interrupted_training_with_frozen_parameters(tmp_path):
    whole = at_once([3], frozen(), snapshots=(0, 1))
    original = Checkpoint.write

    def write_then_stop(self, *arguments):
        original(self, *arguments)
        raise KeyboardInterrupt

    file = tmp_path / "run.part"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "write", write_then_stop)
        with pytest.raises(KeyboardInterrupt):
            at_once([3], frozen(), snapshots=(0, 1), checkpoint=file)
    again = at_once([3], frozen(), snapshots=(0, 1), checkpoint=file)
    assert list(again.weights[0]) == list(whole.weights[0])
    assert distance(again.weights[0], whole.weights[0]) == 0
    assert distance(again.snapshots[1][0], whole.snapshots[1][0]) == 0
