"""The column CIFAR-10 of the paper's Table 1, as typed in."""

import json
from dataclasses import replace
from pathlib import Path

from modeconn_lite.records import read_record
from modeconn_lite.records.cifar10_1hl import EXPERIMENT
from modeconn_lite.records.comparison import summary
from modeconn_lite.records.mnist_1hl import EXPERIMENT as ON_MNIST

FILE = Path(__file__).resolve().parents[2] / "book" / "records" / "cifar10-1hl-60-epochs.json"


def test_the_rows_of_table_1():
    assert list(EXPERIMENT.published) == list(ON_MNIST.published)
    assert EXPERIMENT.published["iaf-flow"] == {}  # it failed to converge
    assert EXPERIMENT.published["transport-wa"]["test"] == (58.96, 0.21)
    assert EXPERIMENT.doubtful.keys() == {"linear", "linear-wa"}


def test_the_network():
    shapes = [tuple(p.shape) for p in EXPERIMENT.network().parameters()]
    assert shapes == [(2000, 3072), (2000,), (10, 2000), (10,)]


def test_the_record_of_the_book_is_whole_and_as_the_chapter_says():
    record = read_record(FILE)
    content, summed = record.content, record.content["summary"]
    assert record.experiment is EXPERIMENT
    protocol = replace(EXPERIMENT, epochs=60).protocol
    assert content["protocol"] == json.loads(json.dumps(protocol))
    assert summed == json.loads(json.dumps(summary(content["ends"], content["rows"])))
    assert len(content["ends"]) == 6 and len(content["rows"]) == 3 * (len(summed) - 1)
    order = ["linear", "arc", "transport", "transport-wa", "ends"]
    for numbers in (summed, EXPERIMENT.published):
        tests = [numbers[key]["test"][0] for key in order]
        assert tests == sorted(tests)
    mean, deviation = summed["transport"]["test"]
    for key in ("linear-wa", "arc-wa"):
        assert abs(summed[key]["test"][0] - mean) < deviation, "level, as the chapter says"
    assert all(row["train"][0] > row["test"][0] for row in summed.values())
