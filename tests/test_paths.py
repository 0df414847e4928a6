from functools import partial
from itertools import pairwise
from math import comb, inf, nan, pi

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_networks import same
from torch import nn

from modeconn_lite.joins import backward, concat
from modeconn_lite.networks import mlp
from modeconn_lite.paths import (
    FunctionPath,
    Path,
    as_path,
    bezier,
    polychain,
    quarter_turn,
    segment,
)
from modeconn_lite.times import grid
from modeconn_lite.weights import distance, fresh_weights, norm, to, to_vector

NETWORK = mlp((3, 4, 2))
A, B, C, D = (to(fresh_weights(NETWORK, seed), torch.float64) for seed in range(4))
times = st.floats(0, 1)


PATHS = {
    "segment": segment(A, B),
    "polychain": polychain([A, C, D, B]),
    "bezier": bezier([A, C, B]),
    "quarter turn": quarter_turn(A, B, C),
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


def test_a_quarter_turn_keeps_the_distance_from_its_centre():
    a, b, centre = ({"w": torch.tensor(p).double()} for p in ([5.0, 1], [2.0, 4], [2.0, 1]))
    turn = quarter_turn(a, b, centre)
    assert all(distance(turn(t), centre) == pytest.approx(3) for t in (0.0, 0.2, 0.5, 1.0))
    assert turn.length() == pytest.approx(1.5 * pi)
    assert distance(turn(1 / 3), a) == pytest.approx(distance(turn(2 / 3), b))


def test_bezier_coefficients_are_bernstein():
    row = bezier([A, C, D, B]).mixture([0.25])[0]
    expected = [comb(3, j) * 0.25**j * 0.75 ** (3 - j) for j in range(4)]
    assert row.tolist() == pytest.approx(expected)


def test_anchors_must_fit():
    other = fresh_weights(mlp((3, 5, 2)), 0)
    with pytest.raises(ValueError, match=r"b\['1\.weight'\] has shape"):
        segment(A, other)
    with pytest.raises(ValueError, match="anchor 1 of 'polychain'"):
        polychain([A, other])


def test_shapes_without_sense_are_refused():
    for knots in ((0.2, 0.8), (0.0, 0.5, 0.5, 1.0)):
        with pytest.raises(ValueError, match="must rise from 0 to 1"):
            FunctionPath(segment(A, B), knots=knots)
    with pytest.raises(ValueError, match="the anchors of 'path': 0 Weights given"):
        Path((), lambda t: t[:, None])
    with pytest.raises(ValueError, match="no path to walk"):
        concat()
    with pytest.raises(ValueError, match="no point at t = inf"):
        segment(A, B)(float("inf"))


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
def test_corners_are_the_weights_at_the_knots(path):
    corners = path.corners()
    assert len(corners) == len(path.knots)
    assert all(same(corner, path(t)) for corner, t in zip(corners, path.knots, strict=True))


def test_a_label_for_each_piece_or_none():
    with pytest.raises(ValueError, match="'polychain' has 2 pieces and 3 labels"):
        polychain([A, C, D], labels=("a", "b", "c"))
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


def test_nothing_is_mutated():
    before = to_vector(A).clone()
    for path in PATHS.values():
        point = path(0.0)
        assert norm(point) > 0
        path(0.4)
    assert torch.equal(to_vector(A), before)


# --- Misuse ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [segment(A, B), FunctionPath(segment(A, B))])
def test_a_path_gives_weights_at_one_t(path):
    for t in (0.25, np.float64(0.25), torch.tensor(0.25), [0.25]):
        assert same(path(t), segment(A, B)(0.25))
    for t, message in (
        (None, "t must be a number or a list of them, not None"),
        (True, "t must be a number or a list of them, not torch.bool"),
        ("a", "t must be a number or a list of them, not 'a'"),
        (A, "t must be a number or a list of them, not a dict"),
        ([0.1, 0.2], "path 'linear' gives the weights at one t, not at 2"),
        ([], "path 'linear' gives the weights at one t, not at 0"),
        ([[0.1]], r"t must be a list of times, not of shape \(1, 1\)"),
    ):
        with pytest.raises(ValueError, match=message.replace("'linear'", f"'{path.name}'")):
            path(t)
    for t in ([], [1.0, 0.5]):
        with pytest.raises(ValueError, match="lengths need sorted times, at least one, not a list"):
            path.travelled(t)
    for points in (1, 61.0, True, [0.0, 2.0], None):
        with pytest.raises(ValueError, match="points must be a whole number of at least 2, not"):
            path.length(points)
    assert path.travelled([0.5]).tolist() == [0]
    assert path.travelled(torch.tensor([0.5, 0.5])).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("coefficients", "message"),
    [
        (lambda t: torch.stack([1 - t, t, t], 1), r"shape \(3, 3\) where \(3, 2\) is needed"),
        (lambda t: torch.stack([1 - t, t]), r"shape \(2, 3\) where \(3, 2\) is needed"),
        (lambda t: torch.tensor([[0.5, 0.5]]), r"shape \(1, 2\) where \(3, 2\) is needed"),
        (lambda t: t, r"shape \(3,\) where \(3, 2\) is needed"),
        (lambda t: None, r"have None where \(3, 2\) is needed"),
        (lambda t: torch.stack([1 - t, t / 0], 1), "'bent' are not finite at 0.0"),
    ],
)
def test_coefficients_of_another_shape_are_refused_when_a_point_is_asked_for(coefficients, message):
    path = Path((A, B), coefficients, "bent")
    with pytest.raises(ValueError, match=message):
        path.mixture([0, 0.5, 1])
    if "shape \\(1, 2" not in message:
        for ask in (lambda: path(0.0), path.corners, path.length):
            with pytest.raises(ValueError, match="the coefficients of 'bent' "):
                ask()


def test_columns_are_no_rows_where_both_are_as_many():
    """Two anchors at two times: the shape alone does not tell."""
    bent = Path((A, B), lambda t: torch.stack([1 - t**2, t**2]), "bent")
    with pytest.raises(ValueError, match=r"'bent' have shape \(2, 1\) where \(1, 2\) is needed"):
        bent.mixture([0.1, 0.2])
    right = Path((A, B), lambda t: torch.stack([1 - t**2, t**2], 1))
    assert right.mixture([0.1, 0.2]).tolist() == [[0.99, 0.01], [0.96, 0.04]]


def test_coefficients_in_single_precision_are_mixed_in_double():
    single = Path((A, B), lambda t: torch.stack([1 - t, t], 1).float())
    assert single.mixture([0.5]).dtype == torch.float64
    assert single(0.5)["1.weight"].dtype == torch.float64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": None}, "the name of a path must be a string, not None"),
        ({"name": 3}, "the name of a path must be a string, not 3"),
        ({"knots": ()}, r"the knots of 'path' must rise from 0 to 1, not \(\)"),
        ({"knots": (0.0,)}, "must rise from 0 to 1"),
        ({"knots": (0, nan, 1)}, "each knot of 'path' must be a finite number, not nan"),
        ({"knots": (0, "a", 1)}, "each knot of 'path' must be a finite number, not 'a'"),
        ({"knots": 3}, "the knots of 'path' must be a list of times, not 3"),
        ({"knots": None}, "the knots of 'path' must be a list of times, not None"),
        ({"labels": "ab"}, "the labels of 'path' must be a list of words, not 'ab'"),
        ({"labels": (1,)}, "each label of 'path' must be a string, not 1"),
        ({"labels": None}, "the labels of 'path' must be a list of words, not None"),
        ({"domain": (0.0,)}, "the domain of 'path': 1 times given, 2 needed"),
        ({"domain": (0, 1, 2)}, "the domain of 'path': 3 times given, 2 needed"),
        ({"domain": None}, "the domain of 'path' must be a list of times, not None"),
        ({"domain": (nan, 1)}, "each end of the domain of 'path' must be a finite number, not nan"),
        ({"domain": ("a", 1)}, "each end of the domain of 'path' must be a finite number, not 'a'"),
        ({"domain": (0.2, 1)}, "the domain of 'path' must hold all t from 0 to 1, not 0.2 to 1"),
        ({"domain": (0, 0.5)}, "the domain of 'path' must hold all t from 0 to 1, not 0 to 0.5"),
        ({"domain": (inf, -inf)}, "must hold all t from 0 to 1, not inf to -inf"),
    ],
)
def test_names_knots_labels_and_domains_of_another_kind(options, message):
    with pytest.raises(ValueError, match=message):
        FunctionPath(segment(A, B), **options)
    with pytest.raises(ValueError, match=message):
        Path((A, B), segment(A, B).coefficients, **options)


def test_shapes_are_kept_as_tuples_that_nobody_can_change():
    knots, labels = [0, 0.5, 1], ["up", "down"]
    path = Path((A, B), segment(A, B).coefficients, knots=knots, labels=labels, domain=[-inf, inf])
    knots[1] = 7
    labels.clear()
    assert path.knots == (0.0, 0.5, 1.0)
    assert path.labels == ("up", "down")
    assert path.domain == (-inf, inf)
    for times in (np.linspace(0, 1, 3).tolist(), torch.linspace(0, 1, 3)):
        assert FunctionPath(path, knots=times).knots == (0.0, 0.5, 1.0)


NOT_FINITE = {key: value * nan for key, value in A.items()}
BUFFERS = nn.BatchNorm1d(2).state_dict()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: segment(NOT_FINITE, B), r"a\['1.weight'\] holds 12 values that are not finite"),
        (lambda: segment(A, NOT_FINITE), r"b\['1.weight'\] holds 12 values that are not finite"),
        (lambda: segment(A, None), "b must be a non-empty dict of tensors"),
        (lambda: segment(NETWORK, B), "a must be a non-empty dict of tensors"),
        (lambda: segment(A, B, name=None), "the name of a path must be a string"),
        (lambda: segment(BUFFERS, BUFFERS), "Buffers are no weights"),
        (lambda: polychain([A, NOT_FINITE]), "anchor 1 of 'polychain'.*are not finite"),
        (lambda: polychain([A]), "points: 1 Weights given, at least 2 needed"),
        (lambda: polychain([]), "points: 0 Weights given, at least 2 needed"),
        (lambda: polychain(A), "points must be a list of Weights, not a dict"),
        (lambda: polychain(None), "points must be a list of Weights, not None"),
        (lambda: polychain(torch.zeros(3)), "points must be a list of Weights, not a tensor"),
        (lambda: polychain(w for w in (A, B)), "not a generator; make a list of it"),
        (lambda: polychain(["a", "b"]), "anchor 0 of 'polychain' must be a non-empty dict"),
        (lambda: polychain([A, B], labels="a"), "the labels of 'polychain' must be a list"),
        (lambda: quarter_turn(A, B, NOT_FINITE), "anchor 2 of 'arc'.*are not finite"),
        (lambda: bezier([A, NOT_FINITE]), "anchor 1 of 'Bézier'.*are not finite"),
        (lambda: bezier([A]), "points: 1 Weights given, at least 2 needed"),
        (lambda: bezier(A), "points must be a list of Weights, not a dict"),
        (lambda: Path(A, lambda t: t), "the anchors of 'path' must be a list of Weights, not a d"),
        (lambda: Path([A, None], lambda t: t), "anchor 1 of 'path' must be a non-empty dict"),
        (lambda: Path([A], None), "the coefficients of 'path' must be a function, not None"),
        (lambda: Path([A], torch.ones(1, 1)), "must be a function, not a tensor"),
        (lambda: Path([A], int), "must be a function, not the class int"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (None, "a path is a Path or a function of t that gives Weights, not None"),
        ("linear", "not 'linear'"),
        (A, "not a dict; of weights alone, see evaluate"),
        (NETWORK, "not a Sequential"),
        (Path, r"not the class Path \(make an instance of it\)"),
        ([segment(A, B)], "not a list of 1"),
        (lambda u, v: A, "a path is a function of t alone; a function cannot be called with one"),
        (lambda: A, "a path is a function of t alone"),
    ],
)
def test_what_is_no_function_of_t_is_no_path(function, message):
    for make in (as_path, FunctionPath, backward):
        with pytest.raises(ValueError, match=message):
            make(function)


def test_any_function_of_t_is_a_path():
    for function in (
        partial(lambda scale, t: segment(A, B)(scale * t), 1.0),
        lambda t, curl=2: segment(A, B)(t),
        segment(A, B).__call__,
    ):
        assert same(as_path(function)(0.5), segment(A, B)(0.5))
    assert as_path(min).name == "min"  # of C, and without a signature: seen when it is called


@pytest.mark.parametrize(
    ("gives", "message"),
    [
        (None, "path 'odd' gives None at t = 0.25; its function must return Weights"),
        (torch.zeros(3), "path 'odd' gives a tensor of torch.float32"),
        ({}, "path 'odd' gives a dict at t = 0.25"),
        (NETWORK, "path 'odd' gives a Sequential at t = 0.25"),
    ],
)
def test_a_function_that_gives_no_weights_is_named_with_its_t(gives, message):
    path = FunctionPath(lambda t: gives if t == 0.25 else A, "odd")
    assert same(path(0.0), A)
    with pytest.raises(ValueError, match=message):
        path(0.25)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.bool])
def test_coefficients_are_real_numbers(dtype):
    path = Path((A, B), lambda t: torch.ones(len(t), 2, dtype=dtype))
    with pytest.raises(ValueError, match=f"must be real numbers, not {dtype}"):
        path(0.5)
