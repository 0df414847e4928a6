"""A comparison run, written, read back and shown: rows are kept by the key of their method."""

from argparse import ArgumentParser
from inspect import signature

import pytest

from modeconn_lite import data, records
from modeconn_lite.__main__ import main
from modeconn_lite.evaluation import evaluate
from modeconn_lite.methods import METHODS
from modeconn_lite.records.comparison import summary
from modeconn_lite.records.mnist_1hl import EXPERIMENT
from modeconn_lite.scoreboard import Board, Row
from modeconn_lite.storage import load


def test_run_and_read_back(small, tmp_path):
    arguments = ["run", "mnist-1hl", "--pairs", "2"]  # as the README has it: the line alone
    arguments += ["--root", str(tmp_path), "--out", str(tmp_path)]
    main(arguments)
    record = records.read_record(tmp_path / "mnist-1hl.json")
    content = record.content
    assert [row["pair"] for row in content["rows"]] == [[0, 1], [2, 3]]
    assert {row["method"] for row in content["rows"]} == {"linear"}
    assert [end["seed"] for end in content["ends"]] == [0, 1, 2, 3]
    one, two = (100 * row["worst_test"] for row in content["rows"])
    mean, deviation = content["summary"]["linear"]["test"]
    assert mean == pytest.approx((one + two) / 2, abs=0.0051)
    assert deviation == pytest.approx(abs(one - two) / 2**0.5, abs=0.0051)
    assert content["published"]["linear"]["test"] == [95.87, 0.40]
    assert content["protocol"]["training"]["schedule"] == "plateau"
    assert content["command"].startswith("python -m modeconn_lite run mnist-1hl --pairs 2")
    assert {"torch", "python"} <= content["versions"].keys()
    assert "published 95.87 ± 0.40" in repr(record)
    assert "95.87 ± 0.40" in record._repr_html_()


def test_rows_are_kept_by_key_and_shown_by_name(small, tmp_path):
    """Each method's rows under its own key, beside those of the others; names from METHODS."""
    record = small.run(pairs=2, methods=["weights", "linear"], root=tmp_path)
    content = record.content
    assert [row["method"] for row in content["rows"]] == ["weights"] * 2 + ["linear"] * 2
    assert list(content["summary"]) == ["ends", "weights", "linear"]
    rows = tuple(Row(**row) for row in content["rows"])
    board = Board("digits", rows, (0.0, 0.0))
    assert board.methods() == ["weights", "linear"]
    for key in board.methods():
        mean = 100 * sum(board.column(key, "worst_test")) / 2
        assert content["summary"][key]["test"][0] == pytest.approx(mean, abs=0.0051)
    for text in (repr(record), record._repr_html_(), repr(board), board._repr_html_()):
        assert "Linear" in text
        assert "Weight matching + line + swaps back to B" in text
        assert "weights" not in text.replace("networks", "")
    assert "End points" in repr(record)
    kept = {file.name for file in tmp_path.glob("runs/*/row-*.json")}
    assert kept == {f"row-{key}-{pair}.json" for key in board.methods() for pair in ("0-1", "2-3")}
    only = small.run(pairs=2, methods=["linear"], root=tmp_path)
    assert only.content["rows"] == content["rows"][2:]


def test_summary_is_mean_and_deviation_in_per_cent():
    ends = [{"seed": k, "train": 1.0, "test": 0.5 + k / 10} for k in range(2)]
    rows = [
        {"method": key, "worst_train": 0.25, "worst_test": worst}
        for key, worst in (("linear", 0.1), ("weights", 0.9), ("linear", 0.3))
    ]
    assert summary(ends, rows) == {
        "ends": {"train": (100, 0), "test": (55, 7.07)},
        "linear": {"train": (25, 0), "test": (20, 14.14)},
        "weights": {"train": (25, 0), "test": (90, 0)},
    }


def test_bad_input(small, tmp_path):
    for pairs in (0, -1, 1.0, "1", None):
        with pytest.raises(ValueError, match="pairs must be a whole number of at least 1"):
            small.run(pairs=pairs, root=tmp_path)
    for methods in ("linear", [], ["linear", "linear"], [["linear"]], None):
        with pytest.raises(ValueError, match="methods"):
            small.run(pairs=1, methods=methods, root=tmp_path)
    with pytest.raises(ValueError, match="no method called 'teleport'; choose one of"):
        small.run(pairs=1, methods=["linear", "teleport"], root=tmp_path)
    assert not list(tmp_path.iterdir())  # refused before any training


def test_the_table_has_every_number_beside_the_published_one(small, tmp_path):
    record = small.run(pairs=2, methods=["linear", "weights"], root=tmp_path)
    head, body = small.table(record.content)
    assert head[0] == "Method" and len(head) == 5
    assert [h.split(", ") for h in head[1:]] == [
        [split, whose] for split in ("Train", "Test") for whose in ("this book", "published")
    ]
    assert [row[0] for row in body] == [
        "End points",
        METHODS["linear"].name,
        METHODS["weights"].name,
    ]
    for key, row in zip(record.content["summary"], body, strict=True):
        for split, cells in (("train", row[1:3]), ("test", row[3:5])):
            for cell, source in zip(cells, ("summary", "published"), strict=True):
                numbers = record.content[source].get(key, {}).get(split)
                said = [float(x) for x in cell.split(" ± ")] if cell else None
                assert said == (numbers and [round(x, 2) for x in numbers])
    assert not body[2][2] and not body[2][4], "weight matching was not published"
    assert all(len(cell.split(".")[1].split(" ")[0]) == 2 for cell in body[0][1:])
    first, *lines = repr(record).splitlines()
    assert first == "Record(mnist-1hl, 2 pairs)"
    assert lines[0] == f"  End points: {body[0][3]} on test, published {body[0][4]}"
    assert lines[2] == f"  {body[2][0]}: {body[2][3]} on test"
    html = record._repr_html_()
    assert "Mean ± deviation over 2 pairs of networks" in html and small.about in html


def test_what_a_comparison_is_called_and_how_it_is_trained(small, tmp_path):
    protocol = small.protocol
    assert protocol == {
        "dataset": "digits",
        "network": " ".join(repr(small.network()).split()),
        "training": small.training,
    }
    content = small.run(pairs=1, root=tmp_path).content
    for end in content["ends"]:
        (file,) = tmp_path.glob(f"runs/*/seed-{end['seed']}.safetensors")
        digits = data.load("digits")
        for split in ("train", "test"):
            seen = evaluate(small.network(), load(file), getattr(digits, split))
            assert end[split] == pytest.approx(seen.accuracy)


def test_the_number_of_pairs_and_the_methods_have_defaults():
    parser = ArgumentParser()
    EXPERIMENT.add_options(parser)
    assert vars(parser.parse_args([])) == {"pairs": 5, "methods": ["linear"]}
    EXPERIMENT.check()
    EXPERIMENT.check(pairs=1, methods=["weights"])
    asked = signature(EXPERIMENT.measure).parameters
    assert (asked["pairs"].default, list(asked["methods"].default)) == (5, ["linear"])
