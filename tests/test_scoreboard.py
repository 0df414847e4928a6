import pytest

from modeconn_lite import data, scoreboard, zoo
from modeconn_lite.evaluation import evaluate, profile
from modeconn_lite.paths import segment


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


def test_rows_are_kept_by_the_key_of_their_method(board):
    assert board.methods() == ["linear"]
    assert [row.method for row in board.rows] == ["linear"] * 2
    assert board.column("linear", "pair") == [(0, 1), (2, 3)]


@pytest.mark.parametrize(
    ("method", "figure"), [("linear", "speed"), ("Linear", "length"), ("weights", "length")]
)
def test_a_column_that_is_not_there_is_refused(board, method, figure):
    """Names of figures are known, methods go by key, and only those on the board have any."""
    message = (
        rf"no figure '{figure}' of '{method}' here; methods: \['linear'\], figures: \['method'"
    )
    with pytest.raises(ValueError, match=message):
        board.column(method, figure)


def test_bad_input():
    network, dataset = zoo.network("digits"), data.load("digits")
    with pytest.raises(ValueError, match="at least one pair"):
        scoreboard.board(network, [], dataset)
    a, b = zoo.load("digits")[:2]
    with pytest.raises(ValueError, match="no method called 'Linear'"):
        scoreboard.board(network, [(a, b)], dataset, ["Linear"])
    with pytest.raises(ValueError, match="no method called 'teleport'"):
        scoreboard.row("teleport", network, a, a, dataset)
    with pytest.raises(ValueError, match="the same weights"):
        scoreboard.row("linear", network, a, a, dataset)
