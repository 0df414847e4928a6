import json
from pathlib import Path

from modeconn_lite import records
from modeconn_lite.records.comparison import summary
from modeconn_lite.records.mnist_1hl import EXPERIMENT

FILE = Path(__file__).resolve().parents[2] / "book" / "records" / "mnist-1hl.json"


def test_the_record_of_the_book_is_whole():
    record = records.read_record(FILE)
    content = record.content
    assert record.experiment is EXPERIMENT
    assert content["protocol"] == json.loads(json.dumps(EXPERIMENT.protocol))
    published = json.loads(json.dumps(EXPERIMENT.published))
    assert content["published"].items() <= published.items()
    assert content["summary"] == json.loads(json.dumps(summary(content["ends"], content["rows"])))
    methods = content["summary"].keys() - {"ends"}
    assert len(content["rows"]) == len(methods) * len(content["ends"]) // 2
    assert len(content["ends"]) >= 6
