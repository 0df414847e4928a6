"""The column MNIST of the paper's Table 1, run again, and what chapters say of it."""

from book_records import of, whole

from modeconn_lite.records.mnist_1hl import EXPERIMENT

CONTENT = whole(EXPERIMENT)
SUMMED = CONTENT["summary"]


def test_the_record_of_the_book_has_five_pairs():
    assert len(CONTENT["ends"]) == 10


def test_flows_stand_where_chapter_4_says():
    rows = CONTENT["rows"]
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


def test_every_row_but_the_line_and_the_flow_is_where_the_paper_has_it():
    for key, theirs in EXPERIMENT.published.items():
        if key in SUMMED:
            far = abs(SUMMED[key]["test"][0] - theirs["test"][0])
            assert far < {"linear": 0.25, "iaf-flow": 1.2, "rnvp-bijection": 0.15}.get(key, 0.031)


def test_the_way_home_costs_nothing_as_chapter_5_says():
    for split in ("worst_train", "worst_test"):
        for home in ("transport", "transport-free"):
            pairs = zip(of(CONTENT, home, split), of(CONTENT, "transport-copy", split), strict=True)
            assert all(whole >= line for whole, line in pairs)
    assert all(58 < length < 64 for length in of(CONTENT, "transport", "length"))
    assert all(58 < length < 64 for length in of(CONTENT, "transport-free", "length"))


def test_what_following_gains_as_chapter_6_says():
    ends = SUMMED["ends"]
    for split, line, transport in (("test", 1 / 7, 0.1), ("train", 0.405, 0.225)):
        assert ends[split][0] - SUMMED["linear-wa"][split][0] < line
        assert ends[split][0] - SUMMED["transport-wa"][split][0] < transport
    level = [SUMMED[key]["test"][0] for key in ("linear-wa", "arc-wa", "transport")]
    assert max(level) - min(level) < 0.03 < SUMMED["transport-wa"]["test"][0] - max(level)
    assert SUMMED["linear"]["test"][0] < SUMMED["arc"]["test"][0] < min(level) - 0.5
    for split, above in (("worst_test", 4), ("worst_train", 5)):
        pairs = zip(
            of(CONTENT, "transport-wa-copy", split),
            of(CONTENT, "transport-copy", split),
            strict=True,
        )
        assert sum(follows > line for follows, line in pairs) == above
    with_it, without = (
        of(CONTENT, "transport-wa-copy", "barrier_test"),
        of(CONTENT, "transport-copy", "barrier_test"),
    )
    assert all(3 * follows < line for follows, line in zip(with_it, without, strict=True))
    assert sum(with_it) / 5 < 0.00145 and 0.0061 < sum(without) / 5 < 0.0063
    assert all(2.4 < length < 2.45 for length in of(CONTENT, "linear-wa", "length"))
