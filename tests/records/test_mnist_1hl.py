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


def test_flows_stand_where_chapter_4_says():
    rows = records.read_record(FILE).content["rows"]
    arc, iaf, bijection = (
        [row for row in rows if row["method"] == key]
        for key in ("arc", "iaf-flow", "rnvp-bijection")
    )
    assert len(arc) == len(iaf) == len(bijection) == 5
    for one, flow, found in zip(arc, iaf, bijection, strict=True):
        assert one["pair"] == flow["pair"] == found["pair"]
        assert abs(flow["worst_test"] - one["worst_test"]) < 0.001
        assert found["worst_test"] > one["worst_test"]
        assert 0.010 <= found["barrier_test"] < 0.0165
        assert 0.0315 < one["barrier_test"] < 0.0375
    mean = sum(row["worst_test"] for row in bijection) / 5
    assert abs(100 * mean - EXPERIMENT.published["rnvp-bijection"]["test"][0]) < 0.15
