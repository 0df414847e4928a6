from itertools import pairwise
from math import comb

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modeconn_lite.networks import mlp
from modeconn_lite.paths import (
    FunctionPath,
    as_path,
    backward,
    bezier,
    concat,
    from_steps,
    grid,
    polychain,
    segment,
)
from modeconn_lite.weights import distance, fresh_weights, norm, to, to_vector

NETWORK = mlp((3, 4, 2))
A, B, C, D = (to(fresh_weights(NETWORK, seed), torch.float64) for seed in range(4))
times = st.floats(0, 1)


def same(one, two):
    return all(torch.equal(one[k], two[k]) for k in two)


PATHS = {
    "segment": segment(A, B),
    "polychain": polychain([A, C, D, B]),
    "bezier": bezier([A, C, B]),
    "concat": concat(segment(A, C), polychain([C, D, B])),
    "function": FunctionPath(segment(A, B)),
    "mixed concat": concat(segment(A, C), FunctionPath(segment(C, B))),
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
def test_ends_are_reproduced_to_the_bit_and_backward_turns_round(path):
    assert same(path(0.0), A)
    assert same(path(1.0), B)
    assert same(backward(path)(0.0), B)
    assert same(backward(path)(1.0), A)
    assert distance(backward(path)(0.3), path(0.7)) < 1e-12
    assert backward(path).length() == pytest.approx(path.length(), rel=1e-6)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
@pytest.mark.parametrize("t", [-0.1, 1.1, float("nan")])
def test_no_point_outside_the_domain(path, t):
    if path.name == "linear" and t == t and not isinstance(path, FunctionPath):
        assert distance(path(t), A) == pytest.approx(abs(t) * distance(A, B))
        return
    with pytest.raises(ValueError, match=r"has no point at t = .*defined for"):
        path(t)


@given(times)
def test_a_segment_divides_the_distance(t):
    point = segment(A, B)(t)
    assert distance(A, point) == pytest.approx(t * distance(A, B), abs=1e-9)
    assert distance(point, B) == pytest.approx((1 - t) * distance(A, B), abs=1e-9)


@given(st.integers(2, 60))
def test_a_polychain_passes_through_its_points_to_the_bit(count):
    anchors = [A, B, C, D] * 15
    path = polychain(anchors[:count])
    for t, anchor in zip(path.knots, anchors[:count], strict=True):
        assert same(path(t), anchor)
    assert ((path.mixture(grid(301)) != 0).sum(1) <= 2).all()


def test_lengths():
    assert segment(A, B).length() == pytest.approx(distance(A, B))
    chain = polychain([A, C, B])
    assert chain.length() == pytest.approx(distance(A, C) + distance(C, B))
    assert concat(segment(A, C), segment(C, B)).length() == pytest.approx(chain.length())
    assert distance(A, B) < bezier([A, C, B]).length() < chain.length()
    assert FunctionPath(bezier([A, C, B])).length() == pytest.approx(
        bezier([A, C, B]).length(), rel=1e-3
    )


def test_travelled_is_the_running_length():
    along = polychain([A, C, B]).travelled([0, 0.25, 0.5, 1])
    assert along[0] == 0
    assert along[1] == pytest.approx(distance(A, C) / 2)
    assert along[3] == pytest.approx(distance(A, C) + distance(C, B))


@given(times)
def test_bezier_is_de_casteljau(t):
    def casteljau(points):
        while len(points) > 1:
            points = [(1 - t) * p + t * q for p, q in pairwise(points)]
        return points[0]

    anchors = [A, C, D, B]
    expected = casteljau([to_vector(w) for w in anchors])
    assert torch.allclose(to_vector(bezier(anchors)(t)), expected, atol=1e-12)


def test_bezier_coefficients_are_bernstein():
    row = bezier([A, C, D, B]).mixture([0.25])[0]
    expected = [comb(3, j) * 0.25**j * 0.75 ** (3 - j) for j in range(4)]
    assert row.tolist() == pytest.approx(expected)


def test_concat_shares_anchors_and_refuses_gaps():
    path = concat(segment(A, C), segment(C, B), segment(B, A))
    assert len(path.anchors) == 3
    assert path.knots == pytest.approx((0, 1 / 3, 2 / 3, 1))
    assert same(path(path.knots[2]), B)
    with pytest.raises(ValueError, match="starts at distance"):
        concat(segment(A, C), segment(B, A))


def test_anchors_must_fit():
    other = fresh_weights(mlp((3, 5, 2)), 0)
    with pytest.raises(ValueError, match=r"b\['1\.weight'\] has shape"):
        segment(A, other)
    with pytest.raises(ValueError, match="anchor 1 of 'polychain'"):
        polychain([A, other])
    with pytest.raises(ValueError, match="at least two points"):
        polychain([A])
    with pytest.raises(ValueError, match="at least two points"):
        bezier([A])


def test_shapes_without_sense_are_refused():
    for knots in ((0.2, 0.8), (0.0, 0.5, 0.5, 1.0)):
        with pytest.raises(ValueError, match="must rise from 0 to 1"):
            FunctionPath(segment(A, B), knots=knots)
    with pytest.raises(ValueError, match="no anchors"):
        type(segment(A, B))((), lambda t: t[:, None])
    with pytest.raises(ValueError, match="no path to walk"):
        concat()
    with pytest.raises(ValueError, match="no point at t = inf"):
        segment(A, B)(float("inf"))


def test_a_small_gap_is_a_gap():
    near = {key: value + 1e-3 for key, value in C.items()}
    with pytest.raises(ValueError, match="starts at distance"):
        concat(segment(A, C), segment(near, B))


LABELLED = polychain([A, C, D], labels=("up", "down"))


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
def test_corners_are_the_weights_at_the_knots(path):
    corners = path.corners()
    assert len(corners) == len(path.knots)
    assert all(same(corner, path(t)) for corner, t in zip(corners, path.knots, strict=True))


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


def test_a_label_for_each_piece_or_none():
    with pytest.raises(ValueError, match="'polychain' has 2 pieces and 3 labels"):
        polychain([A, C, D], labels="abc")
    with pytest.raises(ValueError, match="'path' has 1 pieces and 2 labels"):
        FunctionPath(segment(A, B), labels=("a", "b"))


def test_a_plain_function_becomes_a_path_and_a_path_stays():
    def curve(t):
        return segment(A, B)(t)

    found = as_path(curve)
    assert (found.name, found.knots) == ("curve", (0.0, 1.0))
    assert same(found(0.25), segment(A, B)(0.25))
    for path in PATHS.values():
        assert as_path(path) is path


def test_steps_add_up():
    assert from_steps([1, 0, 2.5]).tolist() == [0, 1, 1, 3.5]
    assert from_steps([]).tolist() == [0]


def test_grid_holds_the_knots_once():
    assert grid(3, (0, 0.3, 0.5, 1)).tolist() == [0, 0.3, 0.5, 1]
    assert len(grid(61, (0, 0.5, 1))) == 61
    assert grid([-0.5, 1e-17, 0.7], (0, 1)).tolist() == [-0.5, 0, 0.7, 1]
    with pytest.raises(ValueError, match="at least 2 points"):
        grid(1)


def test_nothing_is_mutated():
    before = to_vector(A).clone()
    for path in PATHS.values():
        point = path(0.0)
        assert norm(point) > 0
        path(0.4)
    assert torch.equal(to_vector(A), before)
