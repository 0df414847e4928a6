import json
from dataclasses import replace
from pathlib import Path

import pytest

from modeconn_lite import data, records
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
    arguments = ["mnist-1hl", "--pairs", "2", "--methods", "linear"]
    arguments += ["--root", str(tmp_path), "--out", str(tmp_path)]
    records.main(arguments)
    record = records.read_record(tmp_path / "mnist-1hl.json")
    content = record.content
    assert [row["pair"] for row in content["rows"]] == [[0, 1], [2, 3]]
    assert [end["seed"] for end in content["ends"]] == [0, 1, 2, 3]
    worst = [100 * row["worst_test"] for row in content["rows"]]
    assert content["summary"]["Linear"]["test"][0] == pytest.approx(sum(worst) / 2, abs=0.005)
    assert content["published"]["Linear"]["test"] == [95.87, 0.40]
    assert content["protocol"]["schedule"] == "plateau"
    assert "--pairs 2" in content["command"]
    assert {"torch", "python"} <= content["versions"].keys()
    assert "published 95.87 ± 0.40" in repr(record)
    assert "95.87 ± 0.40" in record._repr_html_()


def test_an_interrupted_run_loses_at_most_the_work_under_way(small, tmp_path, monkeypatch):
    trained, original = [], records.train

    def train(network, split, seeds, **options):
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(seeds)
        return original(network, split, seeds, **options)

    monkeypatch.setattr(records, "train", train)
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
    records.write_json({"whole": True}, file)

    def full(self, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        records.write_json({"whole": False}, file)
    monkeypatch.undo()
    assert json.loads(file.read_text()) == {"whole": True}


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
    assert len(content["ends"]) >= 6
    assert data.names().count(experiment.dataset) == 1
