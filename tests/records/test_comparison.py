"""A comparison run, written, read back and shown: rows are kept by the key of their method."""

from argparse import ArgumentParser
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from modeconn_lite import data, records
from modeconn_lite.__main__ import main
from modeconn_lite.evaluation import evaluate
from modeconn_lite.methods import METHODS
from modeconn_lite.records import EXPERIMENTS
from modeconn_lite.records.comparison import LEARNING, NAMES, summary
from modeconn_lite.records.mnist_1hl import EXPERIMENT
from modeconn_lite.scoreboard import Board, Row
from modeconn_lite.storage import load

BOOK = Path(__file__).parents[2] / "book/records"


def test_run_and_read_back(small, tmp_path):
    arguments = ["run", "mnist-1hl", "--pairs", "2", "--methods", "linear", "--engine", "here"]
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
    for pairs in (0, -1, 1.0, "1"):
        with pytest.raises(ValueError, match="pairs must be a whole number of at least 1"):
            small.run(pairs=pairs, root=tmp_path)
    for methods in ("linear", [], ["linear", "linear"], [["linear"]]):
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
    keys = list(dict.fromkeys(["ends", *small.published, "weights"]))
    names = [METHODS[key].name if key in METHODS else NAMES[key] for key in keys]
    assert [row[0] for row in body] == names
    for key, row in zip(keys, body, strict=True):
        for split, cells in (("train", row[1:3]), ("test", row[3:5])):
            for cell, source in zip(cells, ("summary", "published"), strict=True):
                numbers = record.content[source].get(key, {}).get(split)
                said = [float(x) for x in cell.split(" ± ")] if cell else None
                assert said == (numbers and [round(x, 2) for x in numbers])
    assert not body[-1][2] and not body[-1][4], "weight matching was not published"
    assert not body[2][1] and body[2][4] == "97.03 ± 0.14", "the arc was not measured"
    assert all(len(cell.split(".")[1].split(" ")[0]) == 2 for cell in body[0][1:])
    first, *lines = repr(record).splitlines()
    assert first == "Record(mnist-1hl, 2 pairs)"
    assert lines[0] == f"  End points: {body[0][3]} on test, published {body[0][4]}"
    assert lines[2] == "  Arc: not measured, published 97.03 ± 0.14"
    assert lines[-1] == f"  {body[-1][0]}: {body[-1][3]} on test"
    html = record._repr_html_()
    assert "Mean ± deviation over 2 pairs of networks" in html and small.about in html


def test_a_single_pair_shows_no_deviation_but_of_its_two_ends(small, tmp_path):
    record = small.run(pairs=1, methods=["linear"], root=tmp_path)
    ends, line, *_ = small.table(record.content)[1]
    assert ends[3].count(" ± ") == 1
    assert line[3] == f"{record.content['summary']['linear']['test'][0]:.2f}"
    assert line[4] == "95.87 ± 0.40"
    assert repr(record).startswith("Record(mnist-1hl, 1 pair)\n")
    assert "One pair" in record._repr_html_() and "Mean" not in record._repr_html_()


def test_what_a_comparison_is_called_and_how_it_is_trained(small, tmp_path):
    protocol = small.protocol
    assert protocol == {
        "dataset": "digits",
        "network": " ".join(repr(small.network()).split()),
        "training": small.training,
    }
    content = small.run(pairs=1, methods=["linear"], root=tmp_path).content
    for end in content["ends"]:
        (file,) = tmp_path.glob(f"runs/*/seed-{end['seed']}.safetensors")
        digits = data.load("digits")
        for split in ("train", "test"):
            seen = evaluate(small.network(), load(file), getattr(digits, split))
            assert end[split] == pytest.approx(seen.accuracy)


def test_what_the_command_line_does_by_default():
    parser = ArgumentParser()
    EXPERIMENT.add_options(parser)
    options = vars(parser.parse_args([]))
    assert options == {
        **dict.fromkeys(("pairs", "methods", "epochs", "workers")),
        "quick": False,
        "engine": "local",
    }
    EXPERIMENT.check(**options)
    EXPERIMENT.check(pairs=1, methods=["weights"])
    there = [key for key in EXPERIMENT.published if key in METHODS]
    assert EXPERIMENT.methods() == there and set(LEARNING) & set(there)
    unlearned = replace(EXPERIMENT, learned={})
    assert unlearned.methods() == [key for key in there if key not in LEARNING]


def test_all_rows_of_the_published_table_by_default(small, tmp_path):
    content = small.run(pairs=1, root=tmp_path).content
    assert [row["method"] for row in content["rows"]] == small.methods()
    assert {"linear", "arc", "transport"} <= set(small.methods())


def test_five_pairs_unless_told_otherwise(small, tmp_path):
    content = small.run(methods=["linear"], root=tmp_path).content
    assert [row["pair"] for row in content["rows"]] == [[2 * k, 2 * k + 1] for k in range(5)]
    more = small.run(pairs=6, methods=["linear"], root=tmp_path).content
    assert more["rows"][5]["pair"] == [26, 27]  # 10 to 25 are there to be learned from


def test_other_epochs_are_another_protocol_and_another_record(small, tmp_path):
    whole = small.run(pairs=1, methods=["linear"], root=tmp_path)
    other = small.run(pairs=1, methods=["linear"], root=tmp_path, epochs=3)
    assert len(list(tmp_path.glob("runs/*"))) == 2
    assert other.content["protocol"]["training"]["epochs"] == 3
    assert small.protocol["training"]["epochs"] == 2
    assert repr(other).startswith("Record(mnist-1hl, 1 pair, 3 epochs instead of 2)")
    assert "3 epochs instead of 2" in other._repr_html_()
    for record in (whole, other):
        record.write(tmp_path)
    assert {file.name for file in tmp_path.glob("*.json")} == {
        "mnist-1hl.json",
        "mnist-1hl-3-epochs.json",
    }
    read = records.read_record(tmp_path / "mnist-1hl-3-epochs.json")
    assert repr(read) == repr(other)
    same = small.run(pairs=1, methods=["linear"], root=tmp_path, epochs=2)
    assert same.content == whole.content  # the published number is no other


def test_a_quick_trial_says_so_and_is_kept_elsewhere(small, tmp_path):
    line = f"run mnist-1hl --quick --methods linear --engine here --root {tmp_path}"
    main(line.split())
    record = records.read_record(tmp_path / "quick" / "mnist-1hl-quick.json")
    assert len(record.content["rows"]) == 1
    assert record.content["protocol"]["quick"]["train"] == 512
    assert "a trial on 512 images whose numbers mean nothing" in repr(record)
    small.run(pairs=1, methods=["linear"], root=tmp_path)
    assert len(list(tmp_path.glob("runs/*"))) == 2


def test_doubtful_cells_are_marked(small, tmp_path):
    doubtful = replace(small, doubtful={"arc": "no arc is so good"})
    record = doubtful.run(pairs=1, methods=["linear"], root=tmp_path)
    assert "Arc: not measured, published 97.03 ± 0.14 (?)" in repr(record)
    assert "published 95.87 ± 0.40\n" in repr(record)
    assert "(?): no arc is so good" in record._repr_html_()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number of at least 1"),
        ({"quick": 1.5}, "quick must be True or False"),
        ({"engine": "dask"}, "engine"),
        ({"engine": "local", "workers": 0}, "workers must be a whole number of at least 1"),
        ({"engine": "ray", "workers": 2}, "workers are of engine 'local'"),
        ({"workers": 2}, "workers are of engine 'local'"),
    ],
)
def test_options_that_make_no_sense_are_refused(small, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        small.run(pairs=1, root=tmp_path, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name.startswith("cifar10")])
def test_the_columns_on_cifar10(name):
    """Published numbers and architectures are typed in: what must hold of each column."""
    experiment = EXPERIMENTS[name]
    assert experiment.protocol["training"]["epochs"] == 400
    assert experiment.protocol["augment"] == "flip_and_crop"
    ends = experiment.published["ends"]
    for key, cells in experiment.published.items():
        for split in cells:
            assert cells[split][0] <= ends[split][0]
        if cells:
            believed = cells["train"][0] >= cells["test"][0]
            assert believed or key in experiment.doubtful
    with torch.device("meta"):
        network = experiment.network()
        assert network(torch.empty(2, 3, 32, 32)).shape == (2, 10)


def test_some_rows_of_a_record_alone(small, tmp_path):
    record = small.run(pairs=1, methods=["linear", "weights"], root=tmp_path)
    few = record.only("ends", "linear", "arc")
    assert [label for label, *_ in few.experiment.rows(few.content)] == [
        "End points",
        "Linear",
        "Arc",
    ]
    assert "Arc: not measured, published 97.03 ± 0.14" in repr(few)
    assert "Weight matching" in repr(record) and "Weight matching" not in few._repr_html_()
    with pytest.raises(ValueError, match=r"mnist-1hl has no row 'teleport'; its rows are \['ends'"):
        record.only("teleport")
    other = records.read_record(BOOK / "mnist-cnn3-dropout.json")
    with pytest.raises(ValueError, match=r"mnist-cnn3-dropout has no row 'linear'"):
        other.only("linear")
