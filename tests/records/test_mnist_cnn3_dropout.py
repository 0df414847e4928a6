import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from modeconn_lite import data, records
from modeconn_lite.records import base, mnist_cnn3_dropout
from modeconn_lite.records.mnist_cnn3_dropout import EXPERIMENT

FILE = Path(__file__).resolve().parents[2] / "book" / "records" / "mnist-cnn3-dropout.json"
SMALL = EXPERIMENT.protocol | {
    "channels": 4,
    "training": EXPERIMENT.protocol["training"] | {"epochs": 2},
    "seeds": [0, 1, 2],
    "pairs": [[0, 1], [1, 2]],
    "narrow": [1, 4],
    "images": 100,
    "search images": 50,
    "masks": 2,
}


@pytest.fixture
def dataset():
    """Digits for MNIST."""
    digits = data.load("digits")
    splits = [
        data.Split(s.x[:400].view(-1, 1, 8, 8), s.y[:400], s.name, s.classes)
        for s in (digits.train, digits.test)
    ]
    return data.Dataset("digits", *splits, (8, 8))


def test_run_and_read_back(dataset, tmp_path, monkeypatch):
    """The experiment in all but size: four channels, two epochs."""
    small = replace(EXPERIMENT, protocol=SMALL)
    first = small.run(root=tmp_path, command="test", dataset=dataset)
    first.write(tmp_path)
    record = records.read_record(tmp_path / "mnist-cnn3-dropout.json")
    assert record.experiment is EXPERIMENT
    assert record.content == first.content
    check(record.content)
    assert "worst test accuracy" in repr(record)
    assert record._repr_html_().startswith("<!--mc-explorer-->")

    def fail(*arguments, **options):
        raise AssertionError("what is done is not done again")

    for module, name in (
        (base, "train"),
        (mnist_cnn3_dropout, "walk"),
        (mnist_cnn3_dropout, "mute"),
    ):
        monkeypatch.setattr(module, name, fail)
    again = small.run(root=tmp_path, command="test", dataset=dataset)
    assert json.dumps(again.content) == json.dumps(first.content)


def check(content):
    for pair in content["pairs"]:
        path = pair["path"]
        assert path["pieces"] == len(path["moves"]) == 8 * (4 - 2) + 9 - 2  # two (b) moves merged
        assert path["train"]["highest"] <= path["bound"] + 1e-6
    assert len(content["line"]["loss"]) == 101
    assert [k["keep"] for k in content["keep"]] == EXPERIMENT.protocol["keep"]
    protocol = content["protocol"]
    assert all(len(k["loss"]) == len(content["ends"]) * protocol["masks"] for k in content["keep"])
    assert [end["seed"] for end in content["ends"]] == protocol["seeds"]
    assert [n["width"] for n in content["narrow"]] == protocol["narrow"]
    assert {"torch", "python"} <= content["versions"].keys()
    assert content["hardware"]
    assert content["command"]


def test_the_record_of_the_book_is_whole():
    content = records.read_record(FILE).content
    check(content)
    assert content["protocol"] == json.loads(json.dumps(EXPERIMENT.protocol))
    assert content["published"] == EXPERIMENT.published
    assert all(torch.isfinite(torch.tensor(k["loss"])).all() for k in content["keep"])
