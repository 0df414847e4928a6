import json
from dataclasses import replace
from pathlib import Path

import pytest

from modeconn_lite import records, runs, training
from modeconn_lite.networks import mlp

BOOK = Path(__file__).resolve().parent.parent / "book" / "records"


@pytest.fixture
def small(monkeypatch):
    """The MNIST experiment in all but size: digits, eight hidden neurons, two epochs."""
    small = replace(
        records.EXPERIMENTS["mnist-1hl"],
        dataset="digits",
        network=lambda: mlp((64, 8, 10)),
        training=records.EXPERIMENTS["mnist-1hl"].training | {"epochs": 2},
    )
    monkeypatch.setitem(records.EXPERIMENTS, "mnist-1hl", small)


def test_run_and_read_back(small, tmp_path):
    arguments = ["mnist-1hl", "--pairs", "2"]  # as the README has it: the line alone
    arguments += ["--root", str(tmp_path), "--out", str(tmp_path)]
    records.main(arguments)
    record = records.read_record(tmp_path / "mnist-1hl.json")
    content = record.content
    assert [row["pair"] for row in content["rows"]] == [[0, 1], [2, 3]]
    assert {row["method"] for row in content["rows"]} == {"Linear"}
    assert [end["seed"] for end in content["ends"]] == [0, 1, 2, 3]
    one, two = (100 * row["worst_test"] for row in content["rows"])
    mean, deviation = content["summary"]["Linear"]["test"]
    assert mean == pytest.approx((one + two) / 2, abs=0.0051)
    assert deviation == pytest.approx(abs(one - two) / 2**0.5, abs=0.0051)
    assert content["published"]["Linear"]["test"] == [95.87, 0.40]
    assert content["protocol"]["schedule"] == "plateau"
    assert "--pairs 2" in content["command"]
    assert {"torch", "python"} <= content["versions"].keys()
    assert "published 95.87 ± 0.40" in repr(record)
    assert "95.87 ± 0.40" in record._repr_html_()


def test_an_interrupted_run_loses_at_most_the_work_under_way(small, tmp_path, monkeypatch):
    trained, original = [], runs.train

    def train(network, split, seeds, **options):
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(seeds)
        return original(network, split, seeds, **options)

    monkeypatch.setattr(runs, "train", train)
    with pytest.raises(KeyboardInterrupt):
        records.run("mnist-1hl", pairs=2, methods=["linear"], root=tmp_path)
    trained.append("interrupted")
    rows, measure = [], records.row

    def row(*arguments, **options):
        if len(rows) == 1:
            raise KeyboardInterrupt
        rows.append(options["pair"])
        return measure(*arguments, **options)

    monkeypatch.setattr(records, "row", row)
    with pytest.raises(KeyboardInterrupt):
        records.run("mnist-1hl", pairs=2, methods=["linear"], root=tmp_path)
    assert trained == [[0], [1], "interrupted", [2], [3]]  # no network was trained twice
    rows.append("interrupted")
    records.run("mnist-1hl", pairs=2, methods=["linear"], root=tmp_path)
    assert rows == [(0, 1), "interrupted", (2, 3)]


def test_a_full_disk_leaves_no_half_record(tmp_path, monkeypatch):
    file = tmp_path / "record.json"
    runs.write_json({"whole": True}, file)

    def full(self, text):
        with self.open("w") as half:
            half.write(text[:5])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        runs.write_json({"whole": False}, file)
    monkeypatch.undo()
    assert json.loads(file.read_text()) == {"whole": True}
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


def test_a_full_disk_loses_no_training(small, tmp_path, monkeypatch):
    original, epochs = runs.save, []

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs, "save", full)
    with pytest.raises(OSError, match="No space"):
        records.run("mnist-1hl", pairs=1, root=tmp_path)
    monkeypatch.setattr(runs, "save", original)
    write = training._State.write
    monkeypatch.setattr(
        training._State, "write", lambda self, *a: (epochs.append(self.epoch), write(self, *a))
    )
    records.run("mnist-1hl", pairs=1, root=tmp_path)
    assert epochs == [1, 2]  # the second network only: the first was finished


def test_a_damaged_network_is_trained_again(small, tmp_path):
    first = records.run("mnist-1hl", pairs=1, root=tmp_path)
    (file,) = tmp_path.glob("runs/*/seed-0.safetensors")
    file.write_bytes(file.read_bytes()[:40])
    assert records.run("mnist-1hl", pairs=1, root=tmp_path)["ends"] == first["ends"]


def test_another_protocol_trains_other_networks(small, tmp_path, monkeypatch):
    records.run("mnist-1hl", pairs=1, root=tmp_path)
    changed = records.EXPERIMENTS["mnist-1hl"]
    changed = replace(changed, training=changed.training | {"epochs": 1})
    monkeypatch.setitem(records.EXPERIMENTS, "mnist-1hl", changed)
    records.run("mnist-1hl", pairs=1, root=tmp_path)
    assert len(list(tmp_path.glob("runs/*"))) == 2


def test_fresh_measures_again(small, tmp_path, monkeypatch):
    records.run("mnist-1hl", pairs=1, methods=["linear"], root=tmp_path)
    measured, original = [], records.row
    monkeypatch.setattr(
        records, "row", lambda *a, **o: (measured.append(o["pair"]), original(*a, **o))[1]
    )
    records.run("mnist-1hl", pairs=1, methods=["linear"], root=tmp_path)
    assert not measured
    records.run("mnist-1hl", pairs=1, methods=["linear"], root=tmp_path, fresh=True)
    assert measured == [(0, 1)]


@pytest.mark.parametrize("text", ["", "{", "{}", "[1]"])
def test_a_damaged_record_names_the_command(tmp_path, text):
    file = tmp_path / "mnist-1hl.json"
    file.write_text(text)
    with pytest.raises(
        ValueError, match=r"is no record.*python -m modeconn_lite\.scoreboard mnist"
    ):
        records.read_record(file)


def test_bad_input():
    with pytest.raises(ValueError, match="no experiment called"):
        records.run("imagenet")
    with pytest.raises(ValueError, match="at least one pair"):
        records.run("mnist-1hl", pairs=0)


TABLES = sorted(file for file in BOOK.glob("*.json") if file.stem in records.EXPERIMENTS)


@pytest.mark.parametrize("file", TABLES, ids=lambda file: file.stem)
def test_the_records_of_the_book_are_whole(file):
    content = records.read_record(file).content
    experiment = records.EXPERIMENTS[content["experiment"]]
    assert content["protocol"] == experiment.training
    assert content["published"] == json.loads(json.dumps(experiment.published))
    assert content["summary"] == json.loads(
        json.dumps(records._summary(content["ends"], content["rows"]))
    )
    methods = content["summary"].keys() - {"End points"}
    assert len(content["rows"]) == len(methods) * len(content["ends"]) // 2


def test_the_book_has_its_records():
    assert (BOOK / "mnist-1hl.json").exists()
    assert len(records.read_record(BOOK / "mnist-1hl.json").content["ends"]) >= 6
