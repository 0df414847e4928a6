"""What the tests of the book's records of comparisons share."""

import json
from dataclasses import replace
from pathlib import Path

from modeconn_lite.records import read_record
from modeconn_lite.records.comparison import summary

FOLDER = Path(__file__).resolve().parents[1] / "book" / "records"


def whole(experiment, epochs=None):
    """The content of a record, which must be of this protocol and complete."""
    stem = experiment.name + (f"-{epochs}-epochs" if epochs else "")
    record = read_record(FOLDER / f"{stem}.json")
    content, summed = record.content, record.content["summary"]
    assert record.experiment is experiment
    protocol = replace(experiment, epochs=epochs).protocol
    assert content["protocol"] == json.loads(json.dumps(protocol))
    published = json.loads(json.dumps(experiment.published))
    assert content["published"].items() <= published.items()
    assert summed == json.loads(json.dumps(summary(content["ends"], content["rows"])))
    assert len(content["rows"]) == (len(summed) - 1) * len(content["ends"]) // 2
    return content


def of(content, key, what):
    """What the rows of a method say, pair after pair."""
    rows = [row for row in content["rows"] if row["method"] == key]
    return [row[what] for row in sorted(rows, key=lambda row: row["pair"])]
