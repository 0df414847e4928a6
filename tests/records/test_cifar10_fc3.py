"""The column FC3 of the paper's Table 2, as typed in, and the book's own pair beside it."""

from book_records import whole

from modeconn_lite.records.cifar10_fc3 import EXPERIMENT
from modeconn_lite.records.comparison import SPLITS


def test_published():
    assert EXPERIMENT.published["transport-butterfly"] == {
        "train": (81.95, 0.29),
        "test": (59.11, 0.46),
    }
    assert len(EXPERIMENT.published) == 10 and not EXPERIMENT.doubtful


def test_the_network_has_no_biases():
    shapes = [tuple(p.shape) for p in EXPERIMENT.network().parameters()]
    assert shapes == [(6144, 3072), (2000, 6144), (10, 2000)]


def test_the_record_of_the_book_is_whole_and_as_the_chapter_says():
    content = whole(EXPERIMENT, epochs=20)
    assert len(content["ends"]) == 2 and len(content["summary"]) == 9
    order = ["linear", "linear-butterfly", "arc-butterfly", "linear-wa", "arc-wa"]
    order += ["transport-wa", "ends"]
    for split in SPLITS:
        ours, theirs = (
            {key: found[split][0] for key, found in numbers.items()}
            for numbers in (content["summary"], EXPERIMENT.published)
        )
        for worst in (ours, theirs):
            assert [worst[key] for key in order] == sorted(worst[key] for key in order)
        assert theirs["arc"] > theirs["linear"] + 10 and 1.5 < ours["linear"] - ours["arc"] < 3
        assert 0.2 < ours["arc-wa"] - ours["transport-butterfly"] < 0.4
        assert theirs["transport-butterfly"] > theirs["arc-wa"]
        adjusted = [worst for key, worst in ours.items() if key.endswith("-wa")]
        assert min(adjusted) > ours["ends"] - 2
