"""The column Conv2FC1 of the paper's Table 2, as typed in, and the book's own pair beside it."""

from book_records import whole

from modeconn_lite.records.cifar10_conv2fc1 import EXPERIMENT
from modeconn_lite.records.cifar10_fc3 import EXPERIMENT as FC3
from modeconn_lite.records.comparison import SPLITS


def test_published():
    assert EXPERIMENT.published["arc-wa"] == {"train": (77.36, 0.99), "test": (73.77, 0.88)}
    assert list(EXPERIMENT.published) == list(FC3.published)


def test_the_network():
    shapes = [tuple(p.shape) for p in EXPERIMENT.network().parameters() if p.dim() > 1]
    assert shapes == [(32, 3, 5, 5), (64, 32, 5, 5), (10, 3136)]


def test_the_record_of_the_book_is_whole_and_as_the_chapter_says():
    content = whole(EXPERIMENT, epochs=20)
    summed = content["summary"]
    assert len(content["ends"]) == 2 and len(summed) == 9
    order = ["linear", "arc", "linear-butterfly", "arc-butterfly", "linear-wa"]
    for split in SPLITS:
        for numbers in (summed, EXPERIMENT.published):
            worst = {key: found[split][0] for key, found in numbers.items()}
            below = [worst[key] for key in order]
            level = [worst["arc-wa"], worst["transport-butterfly"]]
            above = [worst["transport-wa"], worst["ends"]]
            assert [*below, min(level)] == sorted([*below, min(level)])
            assert max(level) - min(level) < 0.5 and max(level) < above[0] < above[1]
