"""Whatever happens on the way, what is finished stays, and no half of anything is ever read."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from modeconn_lite import records, training
from modeconn_lite.records import base, comparison


def test_an_interrupted_run_loses_at_most_the_work_under_way(small, tmp_path, monkeypatch):
    trained, original = [], base.train

    def train(network, split, seeds, **options):
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(seeds)
        return original(network, split, seeds, **options)

    monkeypatch.setattr(base, "train", train)
    with pytest.raises(KeyboardInterrupt):
        small.run(pairs=2, methods=["linear"], root=tmp_path)
    trained.append("interrupted")
    rows, measure = [], comparison.row

    def row(*arguments, **options):
        if len(rows) == 1:
            raise KeyboardInterrupt
        rows.append(options["pair"])
        return measure(*arguments, **options)

    monkeypatch.setattr(comparison, "row", row)
    with pytest.raises(KeyboardInterrupt):
        small.run(pairs=2, methods=["linear"], root=tmp_path)
    assert trained == [[0], [1], "interrupted", [2], [3]]  # no network was trained twice
    rows.append("interrupted")
    small.run(pairs=2, methods=["linear"], root=tmp_path)
    assert rows == [(0, 1), "interrupted", (2, 3)]


def test_a_full_disk_leaves_no_half_record(small, tmp_path, monkeypatch):
    file = tmp_path / "mnist-1hl.json"
    base.Record(small, {"whole": True}).write(tmp_path)

    def full(self, text):
        with self.open("w") as half:
            half.write(text[:5])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        base.Record(small, {"whole": False}).write(tmp_path)
    monkeypatch.undo()
    assert json.loads(file.read_text()) == {"whole": True}
    assert [p.name for p in tmp_path.iterdir()] == ["mnist-1hl.json"]


def test_a_full_disk_loses_no_training(small, tmp_path, monkeypatch):
    original, epochs = base.save, []

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(base, "save", full)
    with pytest.raises(OSError, match="No space"):
        small.run(pairs=1, root=tmp_path)
    monkeypatch.setattr(base, "save", original)
    write = training._State.write
    monkeypatch.setattr(
        training._State, "write", lambda self, *a: (epochs.append(self.epoch), write(self, *a))
    )
    small.run(pairs=1, root=tmp_path)
    assert epochs == [1, 2]  # the second network only: the first was finished


def test_a_damaged_network_is_trained_again(small, tmp_path):
    first = small.run(pairs=1, root=tmp_path)
    (file,) = tmp_path.glob("runs/*/seed-0.safetensors")
    file.write_bytes(file.read_bytes()[:40])
    assert small.run(pairs=1, root=tmp_path).content["ends"] == first.content["ends"]


def test_another_protocol_trains_other_networks(small, tmp_path):
    small.run(pairs=1, root=tmp_path)
    changed = replace(small, training=small.training | {"epochs": 1})
    changed.run(pairs=1, root=tmp_path)
    assert len(list(tmp_path.glob("runs/*"))) == 2


def test_fresh_measures_again(small, tmp_path, monkeypatch):
    small.run(pairs=1, methods=["linear"], root=tmp_path)
    measured, original = [], comparison.row
    monkeypatch.setattr(
        comparison, "row", lambda *a, **o: (measured.append(o["pair"]), original(*a, **o))[1]
    )
    monkeypatch.setattr(base, "train", None)  # networks stay
    small.run(pairs=1, methods=["linear"], root=tmp_path)
    assert not measured
    small.run(pairs=1, methods=["linear"], root=tmp_path, fresh=True)
    assert measured == [(0, 1)]


def test_what_is_cached_is_made_once_and_reads_back_as_json(tmp_path):
    lab, asked = base.Lab(tmp_path / "new", None, torch.device("cpu")), []

    def make(*arguments):
        asked.append(arguments)
        return {"pair": (0, 1), "values": [0.5]}

    for _ in range(2):  # the same at first as later, tuples and all
        assert lab.cached("part", make, 3, "x") == {"pair": [0, 1], "values": [0.5]}
    assert asked == [(3, "x")]
    lab.cached("other", make)
    assert asked == [(3, "x"), ()]
    assert sorted(p.name for p in lab.folder.iterdir()) == ["other.json", "part.json"]


def test_a_record_says_where_it_comes_from(small, tmp_path):
    content = small.run(pairs=1, root=tmp_path, command="as typed").content
    assert content["command"] == "as typed"
    assert content["versions"]["torch"] == torch.__version__
    assert "CPU, threads" in content["hardware"]
    for name in ("about", "source", "published", "protocol"):
        assert content[name] == json.loads(json.dumps(getattr(small, name)))


@pytest.mark.parametrize("text", ["", "{", "{}", "[1]", '{"experiment": "imagenet"}', None])
def test_a_damaged_record_names_the_command(tmp_path, text):
    file = tmp_path / "mnist-1hl.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ValueError, match=r"is no record.*python -m modeconn_lite run mnist-1hl"):
        records.read_record(file)


def test_a_record_with_a_hole_is_none(small, tmp_path):
    record = small.run(pairs=1, root=tmp_path)
    for hole in ("ends", "summary", "published"):
        file = tmp_path / f"without-{hole}.json"
        base.write_json({k: v for k, v in record.content.items() if k != hole}, file)
        with pytest.raises(ValueError, match=r"is no record \(KeyError"):
            records.read_record(file)


def test_every_record_of_the_book_has_an_experiment_and_every_experiment_a_module():
    book = Path(__file__).resolve().parents[2] / "book" / "records"
    files = {file.stem for file in book.glob("*.json")}
    assert files == set(records.EXPERIMENTS)
    modules = {file.stem for file in Path(records.__file__).parent.glob("*.py")}
    assert {name.replace("-", "_") for name in files} == modules - {
        "__init__",
        "base",
        "comparison",
    }
