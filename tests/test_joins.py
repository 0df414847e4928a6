"""Paths one after another and turned round; that ends are kept is tried in test_paths."""

import pytest
import torch
from small_networks import same
from torch import nn

from modeconn_lite.joins import backward, concat
from modeconn_lite.networks import mlp
from modeconn_lite.paths import FunctionPath, polychain, segment
from modeconn_lite.weights import distance, fresh_weights, to

NETWORK = mlp((3, 4, 2))
A, B, C, D = (to(fresh_weights(NETWORK, seed), torch.float64) for seed in range(4))
BUFFERS = nn.BatchNorm1d(2).state_dict()
LABELLED = polychain([A, C, D], labels=("up", "down"))


def test_concat_shares_anchors_and_refuses_gaps():
    path = concat(segment(A, C), segment(C, B), segment(B, A))
    assert len(path.anchors) == 3
    assert path.knots == pytest.approx((0, 1 / 3, 2 / 3, 1))
    assert same(path(path.knots[2]), B)
    with pytest.raises(ValueError, match="starts at distance"):
        concat(segment(A, C), segment(B, A))


def test_a_concat_of_functions_walks_every_piece_in_its_own_time():
    """A segment, a chain of two lines, a segment: four pieces of a quarter each."""
    parts = [segment(A, C), polychain([C, D, B]), segment(B, D)]
    plain = FunctionPath(parts[1], knots=parts[1].knots)
    path = concat(parts[0], plain, lambda t: parts[2](t))
    assert path.knots == (0, 0.25, 0.5, 0.75, 1)
    for t, part, local in (
        (0.125, 0, 0.5),
        (0.25, 1, 0),
        (0.3, 1, 0.1),
        (0.5, 1, 0.5),
        (0.65, 1, 0.8),
        (0.75, 2, 0),
        (0.9, 2, 0.6),
        (1.0, 2, 1),
    ):
        assert distance(path(t), parts[part](local)) < 1e-12
    assert distance(path(0.65), concat(*parts)(0.65)) < 1e-12
    assert path.length() == pytest.approx(concat(*parts).length())


def test_a_small_gap_is_a_gap():
    near = {key: value + 1e-3 for key, value in C.items()}
    with pytest.raises(ValueError, match="starts at distance"):
        concat(segment(A, C), segment(near, B))


@pytest.mark.parametrize("end", [segment(D, B), FunctionPath(segment(D, B))])
def test_labels_stay_with_their_pieces(end):
    """Through `concat`, `backward` and both of them, for mixes and for functions."""
    whole = concat(LABELLED, end)
    assert whole.labels == ("up", "down", "")
    assert backward(whole).labels == ("", "down", "up")
    assert same(backward(whole).corners()[2], whole.corners()[1])
    twice = concat(backward(whole), LABELLED, segment(D, A))
    assert twice.labels == ("", "down", "up", "up", "down", "")
    assert concat(segment(A, B), segment(B, C)).labels == ()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: concat(), "no path to walk"),
        (lambda: concat([segment(A, B)]), r"give the paths one by one: concat\(\*paths\)"),
        (lambda: concat(segment(A, B), None), "a path is a Path or a function of t .*, not None"),
        (lambda: concat(segment(A, B), name=1), "the name of a path must be a string, not 1"),
        (
            lambda: concat(segment(A, B), FunctionPath(lambda t: BUFFERS, "odd")),
            r"path 2 \('odd'\)\['num_batches_tracked'\] is torch.int64",
        ),
        (
            lambda: concat(segment(A, B), segment(*[fresh_weights(mlp((3, 5, 2)), 0)] * 2)),
            r"path 2 \('linear'\)\['1.weight'\] has shape \(5, 3\)",
        ),
        (lambda: backward(None), "a path is a Path or a function of t .*, not None"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
