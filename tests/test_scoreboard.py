import pytest
import torch

from modeconn_lite import data, scoreboard, zoo
from modeconn_lite.evaluation import evaluate, profile
from modeconn_lite.paths import segment
from modeconn_lite.weights import apply


@pytest.fixture(scope="module")
def board():
    weights = zoo.load("digits")
    pairs = [(weights[0], weights[1]), (weights[2], weights[3])]
    return scoreboard.board(zoo.network("digits"), pairs, data.load("digits"))


def test_linear_row_is_the_profile_of_the_segment(board):
    network, dataset, weights = zoo.network("digits"), data.load("digits"), zoo.load("digits")
    seen = profile(network, segment(weights[2], weights[3]), dataset.test)
    assert board.column("Linear", "worst_test")[1] == seen.worst_accuracy
    assert board.column("Linear", "barrier_test")[1] == seen.barrier()
    assert board.column("Linear", "length") == pytest.approx([1, 1])
    accuracy = sum(evaluate(network, w, dataset.test)[1] for w in weights[:4]) / 4
    assert board.ends[1] == pytest.approx(accuracy)


def test_it_displays_as_a_table_that_notebook_tests_skip(board):
    html = board._repr_html_()
    assert html.startswith("<!--mc-explorer-->")
    assert html.endswith("<!--/mc-explorer-->")
    assert '<th scope="row">Linear</th>' in html
    assert "Linear: worst accuracy" in repr(board)
    assert "pairs: 2" in repr(board)


@pytest.mark.parametrize("name", scoreboard.METHODS)
def test_every_method_joins_a_to_b(name):
    network, dataset, weights = zoo.network("digits"), data.load("digits"), zoo.load("digits")
    path = scoreboard.METHODS[name].connect(network, weights[0], weights[1], dataset.train)
    assert all((path(0.0)[k] == v).all() for k, v in weights[0].items())
    there, b = path(1.0), weights[1]
    method = scoreboard.METHODS[name]
    assert all((there[k] == v).all() for k, v in b.items()) != method.to_copy
    assert ("to a copy of B" in method.name) == method.to_copy
    x = dataset.test.x[:100]  # a copy is the same function all the same
    assert torch.allclose(apply(network, there, x), apply(network, b, x), atol=1e-4)


def test_cells_are_escaped():
    table = scoreboard.html_table(["<a>"], [["<b>", "<c>"]], "<d>")
    assert not any(f"<{x}>" in table for x in "acd")
    assert "&lt;b&gt;" in table


def test_bad_input():
    network, dataset = zoo.network("digits"), data.load("digits")
    with pytest.raises(ValueError, match="at least one pair"):
        scoreboard.board(network, [], dataset)
    a = zoo.load("digits")[0]
    with pytest.raises(ValueError, match="no method called 'teleport'"):
        scoreboard.row("teleport", network, a, a, dataset)
