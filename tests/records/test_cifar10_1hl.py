"""The column CIFAR-10 of the paper's Table 1, as typed in."""

from book_records import of, whole

from modeconn_lite.records.cifar10_1hl import EXPERIMENT
from modeconn_lite.records.comparison import SPLITS
from modeconn_lite.records.mnist_1hl import EXPERIMENT as ON_MNIST


def test_the_rows_of_table_1():
    assert list(EXPERIMENT.published) == list(ON_MNIST.published)
    assert EXPERIMENT.published["iaf-flow"] == {}  # it failed to converge
    assert EXPERIMENT.published["transport-wa"]["test"] == (58.96, 0.21)
    assert EXPERIMENT.doubtful.keys() == {"linear", "linear-wa"}


def test_the_network():
    shapes = [tuple(p.shape) for p in EXPERIMENT.network().parameters()]
    assert shapes == [(2000, 3072), (2000,), (10, 2000), (10,)]


def test_the_record_of_the_book_is_whole_and_as_the_chapter_says():
    content = whole(EXPERIMENT, epochs=60)
    summed = content["summary"]
    assert len(content["ends"]) == 6
    order = ["linear", "arc", "transport", "transport-wa", "ends"]
    for numbers in (summed, EXPERIMENT.published):
        tests = [numbers[key]["test"][0] for key in order]
        assert tests == sorted(tests)
    mean, deviation = summed["transport-copy"]["test"]
    for key in ("linear-wa", "arc-wa"):
        assert abs(summed[key]["test"][0] - mean) < deviation, "level, as the chapter says"
    assert all(row["train"][0] > row["test"][0] for row in summed.values())


def test_what_chapters_1_5_and_6_say_of_it():
    content = whole(EXPERIMENT, epochs=60)
    summed, theirs = content["summary"], EXPERIMENT.published

    def lost(numbers, key, split):
        return numbers["ends"][split][0] - numbers[key][split][0]

    assert 17.5 < lost(summed, "linear", "test") < 18.5
    copy = [lost(summed, "transport-copy", split) for split in ("test", "train")]
    assert [round(points, 1) for points in copy] == [2.2, 2.7]
    paper = [lost(theirs, "transport-copy", split) for split in ("test", "train")]
    assert [round(points, 1) for points in paper] == [2.6, 4.4]
    assert lost(summed, "transport-wa", "test") < 1
    pairs = zip(
        of(content, "transport-wa-copy", "worst_test"),
        of(content, "transport-copy", "worst_test"),
        strict=True,
    )
    assert all(follows > line + 0.01 for follows, line in pairs)
    barriers = [
        sum(of(content, key, "barrier_test")) for key in ("transport-wa-copy", "transport-copy")
    ]
    assert 3.5 < barriers[1] / barriers[0] < 4.5
    pairs = zip(
        of(content, "arc-wa", "worst_train"),
        of(content, "transport-copy", "worst_train"),
        strict=True,
    )
    assert all(arc > transport for arc, transport in pairs)
    assert round(theirs["transport"]["train"][0] - theirs["arc-wa"]["train"][0], 1) == 7.4
    assert round(theirs["arc-wa"]["test"][0] - theirs["transport"]["test"][0], 1) == 1.4
    leads = [summed["arc"][s][0] - summed["linear"][s][0] for s in ("train", "test")]
    assert [round(lead, 1) for lead in leads] == [10.5, 9.5]
    swapped = [theirs["arc"][s][0] - theirs["linear"][o][0] for s, o in (SPLITS, SPLITS[::-1])]
    assert [round(lead, 1) for lead in swapped] == [10.6, 9.2]
