from dataclasses import replace

import pytest
from bs4 import BeautifulSoup
from torch import nn

from modeconn_lite import data, scoreboard, zoo
from modeconn_lite.evaluation import evaluate, profile
from modeconn_lite.methods import METHODS
from modeconn_lite.networks import mlp
from modeconn_lite.paths import segment
from modeconn_lite.weights import fresh_weights


@pytest.fixture(scope="module")
def board():
    weights = zoo.load("digits")
    pairs = [(weights[0], weights[1]), (weights[2], weights[3])]
    return scoreboard.board(zoo.network("digits"), pairs, data.load("digits"))


def test_linear_row_is_the_profile_of_the_segment(board):
    network, dataset, weights = zoo.network("digits"), data.load("digits"), zoo.load("digits")
    seen = profile(network, segment(weights[2], weights[3]), dataset.test)
    assert board.column("linear", "worst_test")[1] == seen.worst_accuracy
    assert board.column("linear", "barrier_test")[1] == seen.barrier()
    train = profile(network, segment(weights[2], weights[3]), dataset.train)
    assert board.column("linear", "worst_train")[1] == train.worst_accuracy
    assert board.column("linear", "barrier_train")[1] == train.barrier()
    assert board.column("linear", "length") == pytest.approx([1, 1])
    accuracy = sum(evaluate(network, w, dataset.test).accuracy for w in weights[:4]) / 4
    assert board.ends[1] == pytest.approx(accuracy)


def test_it_displays_as_a_table_that_notebook_tests_skip(board):
    html = board._repr_html_()
    assert html.startswith("<!--mc-explorer-->")
    assert html.endswith("<!--/mc-explorer-->")
    assert '<th scope="row">Linear</th>' in html
    assert "Linear: worst accuracy" in repr(board)
    assert "pairs: 2" in repr(board)


def test_the_table_says_each_figure_in_its_place():
    """Of made-up rows: mean ± deviation over pairs, in the units of the head."""

    def made(method, pair, shift):
        figures = (0.5 + shift, 0.25 + shift, 3 + shift, 1 + shift, 2 + shift, 7 + shift)
        return scoreboard.Row(method, pair, *figures)

    rows = (made("linear", (0, 1), 0.0), made("linear", (2, 3), 0.2), made("weights", None, 0.4))
    board = scoreboard.Board("moons", rows, (0.99, 0.956))
    table = BeautifulSoup(board._repr_html_(), "html.parser")
    head = [cell.text for cell in table.select("thead th")]
    assert head[1:4] == ["Worst accuracy, test", "Worst accuracy, train", "Barrier, test (nats)"]
    assert head[0] == "Method" and head[4].startswith("Length") and head[5] == "Cost (s)"
    body = [[c.text for c in row.select("th, td")] for row in table.select("tbody tr")]
    assert body == [
        ["End points", "95.6 %", "99.0 %", "", "", ""],
        ["Linear", "35.0 ± 14.1 %", "60.0 ± 14.1 %", "1.10 ± 0.14", "2.10", "7.10"],
        [METHODS["weights"].name, "65.0 %", "90.0 %", "1.40", "2.40", "7.40"],
    ]
    assert "Scoreboard on moons" in table.caption.text
    assert repr(board).splitlines() == [
        "Scoreboard(moons, pairs: 2, ends: 0.96)",
        "  Linear: worst accuracy 0.35, barrier 1.10 nats",
        f"  {METHODS['weights'].name}: worst accuracy 0.65, barrier 1.40 nats",
    ]


def test_a_method_is_timed_and_given_the_training_split(monkeypatch):
    network, dataset, (a, b) = zoo.network("digits"), data.load("digits"), zoo.load("digits")[:2]
    clock, asked = iter([10.0, 12.5]), []

    def connect(*arguments):
        asked.append(arguments)
        return segment(a, b)

    monkeypatch.setattr(scoreboard.time, "perf_counter", lambda: next(clock))
    monkeypatch.setitem(METHODS, "linear", replace(METHODS["linear"], connect=connect))
    found = scoreboard.row("linear", network, a, b, dataset, points=5)
    assert found.seconds == 2.5 and found.pair is None and found.method == "linear"
    assert asked == [(network, a, b, dataset.train)]
    assert found.worst_test == profile(network, segment(a, b), dataset.test, 5).worst_accuracy


def test_batch_norm_is_measured_with_training_statistics():
    normed = nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10))
    a, b = (fresh_weights(normed, seed) for seed in (0, 1))
    dataset = data.load("digits")
    found = scoreboard.board(normed, [(a, b)], dataset)
    for end, split in zip(found.ends, (dataset.train, dataset.test), strict=True):
        own = [evaluate(normed, w, split, statistics=dataset.train).accuracy for w in (a, b)]
        assert end == pytest.approx(sum(own) / 2)
    seen = profile(normed, segment(a, b), dataset.test, statistics=dataset.train)
    assert found.rows[0].barrier_test == pytest.approx(seen.barrier())


def test_rows_are_kept_by_the_key_of_their_method(board):
    assert board.methods() == ["linear"]
    assert [row.method for row in board.rows] == ["linear"] * 2
    assert board.column("linear", "pair") == [(0, 1), (2, 3)]


@pytest.mark.parametrize(
    ("method", "figure"),
    [("linear", "speed"), ("Linear", "length"), ("weights", "length"), ("linear", "")],
)
def test_a_column_that_is_not_there_is_refused(board, method, figure):
    """Names of figures are known, methods go by key, and only those on the board have any."""
    message = (
        rf"no figure '{figure}' of '{method}' here; methods: \['linear'\], figures: \['method'"
    )
    with pytest.raises(ValueError, match=message):
        board.column(method, figure)


def test_one_method_may_be_given_by_itself(board):
    network, dataset, weights = zoo.network("digits"), data.load("digits"), zoo.load("digits")
    alone = scoreboard.board(network, [(weights[0], weights[1])], dataset, "linear")
    assert alone.methods() == ["linear"]
    assert alone.column("linear", "worst_test") == board.column("linear", "worst_test")[:1]


def test_bad_input():
    network, dataset = zoo.network("digits"), data.load("digits")
    a, b = zoo.load("digits")[:2]
    with pytest.raises(ValueError, match="no method called 'Linear'"):
        scoreboard.board(network, [(a, b)], dataset, ["Linear"])
    with pytest.raises(ValueError, match="no method called 'teleport'"):
        scoreboard.row("teleport", network, a, a, dataset)
    with pytest.raises(ValueError, match="the same weights"):
        scoreboard.row("linear", network, a, a, dataset)


A, B = zoo.load("digits")[:2]
OTHER = fresh_weights(mlp((64, 8, 10)), 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pairs": []}, "pairs: 0 pairs of Weights given, at least 1 needed"),
        ({"pairs": None}, "pairs must be a list of pairs of Weights, not None"),
        ({"pairs": (A, B)}, r"pairs\[0\] must be a list of Weights, not a dict"),
        ({"pairs": [(A,)]}, r"pairs\[0\]: 1 Weights given, 2 needed"),
        ({"pairs": [(A, B), (A, B, A)]}, r"pairs\[1\]: 3 Weights given, 2 needed"),
        ({"pairs": [(A, B), (B, B)]}, r"pairs\[1\] are the same weights"),
        ({"pairs": [(A, None)]}, r"the second of pairs\[0\] must be a non-empty dict"),
        ({"pairs": [("a", "b")]}, r"the first of pairs\[0\] must be a non-empty dict"),
        ({"pairs": [(OTHER, A)]}, r"the first of pairs\[0\] do not fit Sequential"),
        ({"pairs": [(A, OTHER)]}, r"the second of pairs\[0\] do not fit"),
        ({"dataset": None}, r"dataset must be a Dataset\(.*, not None"),
        ({"dataset": "digits"}, r"dataset must be a Dataset\(.*, not 'digits'"),
        ({"dataset": data.load("digits").test}, r"dataset must be a Dataset\(.*, not a Split"),
        ({"network": None}, "network must be an nn.Module, not None"),
        ({"network": A}, "network must be an nn.Module, not a dict"),
        ({"methods": "teleport"}, "no method called 'teleport'"),
        ({"methods": ["linear", "teleport"]}, "no method called 'teleport'"),
        ({"methods": []}, "methods: 0 keys given, at least 1 needed"),
        ({"methods": None}, "methods must be a list of keys, not None"),
        ({"methods": [["linear"]]}, "a method's key must be a string, not a list of 1"),
        ({"methods": ["linear", "linear"]}, r"methods \('linear', 'linear'\) name one twice"),
    ],
)
def test_everything_is_looked_at_before_any_path_is_looked_for(change, message, monkeypatch):
    monkeypatch.setattr(scoreboard, "row", pytest.fail)
    sound = {"network": zoo.network("digits"), "pairs": [(A, B)], "dataset": data.load("digits")}
    with pytest.raises(ValueError, match=message):
        scoreboard.board(**sound | change)


def test_a_row_looks_as_well():
    sound = zoo.network("digits"), A, B, data.load("digits")
    for k, wrong, message in (
        (0, None, "network must be an nn.Module, not None"),
        (1, None, "the first of a and b must be a non-empty dict"),
        (2, OTHER, "the second of a and b do not fit"),
        (3, sound[3].train, r"dataset must be a Dataset\("),
    ):
        with pytest.raises(ValueError, match=message):
            scoreboard.row("linear", *sound[:k], wrong, *sound[k + 1 :])
    with pytest.raises(ValueError, match="a method's key must be a string, not None"):
        scoreboard.row(None, *sound)


@pytest.mark.parametrize("pair", [3, "ab", (0.0, 1.0), (0, 1, 2)])
def test_a_pair_is_two_numbers(pair):
    with pytest.raises(ValueError, match="pair"):
        network, (a, b) = zoo.network("digits"), zoo.load("digits")[:2]
        scoreboard.row("linear", network, a, b, data.load("digits"), pair=pair)
