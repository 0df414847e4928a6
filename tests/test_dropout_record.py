import json
from pathlib import Path

import pytest
import torch

from modeconn_lite import data, dropout_record, records, runs
from modeconn_lite.networks import cnn3

BOOK = Path(__file__).resolve().parent.parent / "book" / "records"
SMALL = dropout_record.PROTOCOL | {
    "training": dropout_record.PROTOCOL["training"] | {"epochs": 2},
    "seeds": [0, 1, 2],
    "pairs": [[0, 1], [1, 2]],
    "narrow": [1, 4],
    "images": 100,
    "search images": 50,
    "masks": 2,
}


@pytest.fixture
def stand_in():
    """The experiment in all but size: digits for MNIST, four channels, two epochs."""
    digits = data.load("digits")
    splits = [
        data.Split(s.x[:400].view(-1, 1, 8, 8), s.y[:400], s.name, s.classes)
        for s in (digits.train, digits.test)
    ]
    dataset = data.Dataset("digits", *splits, (8, 8))
    return {"network": cnn3(4, side=8), "dataset": dataset, "protocol": SMALL}


def test_run_and_read_back(stand_in, tmp_path, monkeypatch):
    content = records.run_dropout(root=tmp_path, command="test", **stand_in)
    file = tmp_path / "mnist-cnn3-dropout.json"
    runs.write_json(content, file)
    record = records.read_record(file)
    assert isinstance(record, dropout_record.DropoutRecord)
    check(record.content)
    assert "worst test accuracy" in repr(record)
    assert record._repr_html_().startswith("<!--mc-explorer-->")

    def fail(*arguments, **options):
        raise AssertionError("what is done is not done again")

    for module, name in ((runs, "train"), (dropout_record, "walk"), (dropout_record, "mute")):
        monkeypatch.setattr(module, name, fail)
    again = records.run_dropout(root=tmp_path, command="test", **stand_in)
    assert json.dumps(again) == json.dumps(content)


def check(content):
    for pair in content["pairs"]:
        path = pair["path"]
        assert path["pieces"] == len(path["moves"]) == 8 * (4 - 2) + 9 - 2  # two (b) moves merged
        assert path["train"]["highest"] <= path["bound"] + 1e-6
    assert len(content["line"]["loss"]) == 101
    assert [k["keep"] for k in content["keep"]] == dropout_record.PROTOCOL["keep"]
    protocol = content["protocol"]
    assert all(len(k["loss"]) == len(content["ends"]) * protocol["masks"] for k in content["keep"])
    assert [end["seed"] for end in content["ends"]] == protocol["seeds"]
    assert [n["width"] for n in content["narrow"]] == protocol["narrow"]
    assert {"torch", "python"} <= content["versions"].keys()
    assert content["hardware"]
    assert content["command"]


@pytest.mark.skipif(
    not (BOOK / "mnist-cnn3-dropout.json").exists(), reason="the run has not been made"
)
def test_the_record_of_the_book_is_whole():
    content = json.loads((BOOK / "mnist-cnn3-dropout.json").read_text())
    check(content)
    assert content["protocol"] == json.loads(json.dumps(dropout_record.PROTOCOL))
    assert content["published"] == dropout_record.PUBLISHED
    assert all(torch.isfinite(torch.tensor(k["loss"])).all() for k in content["keep"])
