import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_networks import same

from modeconn_lite.networks import mlp
from modeconn_lite.paths import segment
from modeconn_lite.sheets import Sheet, check_sheet, triangle
from modeconn_lite.weights import fresh_weights, to, to_vector

A, B, C = (to(fresh_weights(mlp((3, 4, 2)), seed), torch.float64) for seed in range(3))
shares = st.floats(0, 1)


@given(shares, shares)
def test_triangle_holds_its_corners_and_nothing_outside(u, v):
    sheet = triangle(A, B, C)
    for mark, corner in zip("ABC", (A, B, C), strict=True):
        assert same(sheet(*sheet.marks[mark]), corner)
    if u + v <= 1:
        expected = (1 - u - v) * to_vector(A) + u * to_vector(B) + v * to_vector(C)
        assert torch.allclose(to_vector(sheet(u, v)), expected, atol=1e-12)
    elif u + v > 1 + 1e-6:
        with pytest.raises(ValueError, match="has no point"):
            sheet(u, v)


@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=1, max_size=5))
def test_a_sheet_without_a_border_has_every_point(places):
    """u A + v B, all over the plane; many places at once are each one by itself."""
    sheet = Sheet((A, B), lambda p: p)
    rows = sheet.mixture(places)
    assert rows.shape == (len(places), 2)
    for (u, v), row in zip(places, rows, strict=True):
        assert row.tolist() == [u, v]
        assert torch.allclose(to_vector(sheet(u, v)), u * to_vector(A) + v * to_vector(B))
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="'sheet' has no point at"):
            sheet(0.0, bad)


def test_anchors_must_fit():
    other = fresh_weights(mlp((3, 5, 2)), 0)
    with pytest.raises(ValueError, match="anchor 2 of 'triangle'"):
        triangle(A, B, other)
    with pytest.raises(ValueError, match="the anchors of 'sheet': 0 Weights given"):
        Sheet((), lambda p: p)


def test_a_border_is_asked_once_for_all_points():
    sheet = triangle(A, B, C)
    places = torch.tensor([[0.0, 0.0], [0.6, 0.6], [1.0, 0.0], [-0.1, 0.5]], dtype=torch.float64)
    assert sheet.holds(places).tolist() == [True, False, True, False]
    assert Sheet((A, B), lambda p: p).holds(places).tolist() == [True] * 4
    assert check_sheet(sheet) is sheet


# --- Misuse ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": None}, "the name of a sheet must be a string, not None"),
        ({"extent": (0, 1)}, "the extent of 'sheet': 2 numbers given, 4 needed"),
        ({"extent": (0, 1, 0, float("nan"))}, "each number in the extent of 'sheet' must be"),
        ({"extent": (1, 0, 0, 1)}, "the extent of 'sheet' must rise in u and in v"),
        ({"extent": (0, 1, 0, 0)}, "the extent of 'sheet' must rise in u and in v"),
        ({"extent": None}, "the extent of 'sheet' must be a list of numbers, not None"),
        ({"marks": [(0, 0)]}, r"marks must be a dict of names to \(u, v\), not a list of 1"),
        ({"marks": {"A": (0, "x")}}, r"marks\['A'\] must be a finite number, not 'x'"),
        ({"inside": True}, "inside must be a function of points, not True"),
        ({"coefficients": None}, "the coefficients of 'sheet' must be a function, not None"),
        ({"anchors": A}, "the anchors of 'sheet' must be a list of Weights, not a dict"),
        ({"anchors": [A, "b"]}, "anchor 1 of 'sheet' must be a non-empty dict"),
    ],
)
def test_parts_of_another_kind(options, message):
    with pytest.raises(ValueError, match=message):
        Sheet(**{"anchors": (A, B), "coefficients": lambda p: p} | options)


def test_coefficients_and_borders_of_another_shape():
    points = [[0.0, 0.1], [0.2, 0.3], [0.4, 0.5]]
    for coefficients, words in (
        (lambda p: p.T, r"have shape \(2, 3\) where \(3, 2\) is needed"),
        (lambda p: p[:, 0], r"have shape \(3,\) where \(3, 2\) is needed"),
        (lambda p: p / 0, r"are not finite at \[0.0, 0.1\]"),
        (lambda p: p.tolist(), r"have a list of 3 where \(3, 2\) is needed"),
    ):
        with pytest.raises(ValueError, match=f"the coefficients of 'sheet' {words}"):
            Sheet((A, B), coefficients).mixture(points)
    with pytest.raises(ValueError, match=r"shape \(2, 1\) where \(1, 2\) is needed"):
        Sheet((A, B), lambda p: p.T).mixture(points[:2])  # as many points as anchors
    for inside in (lambda p: p > 0, lambda p: True, lambda p: p[:, 0]):
        with pytest.raises(
            ValueError, match=r"`inside` of 'sheet' gives .* where a tensor of torc"
        ):
            Sheet((A, B), lambda p: p, inside=inside).mixture(points)


@pytest.mark.parametrize("points", [None, "ab", [[True, False]], [["a", "b"]], {"u": 1}, A])
def test_no_points_of_a_sheet(points):
    with pytest.raises(ValueError, match="points must be pairs of numbers, not"):
        triangle(A, B, C).mixture(points)
    for wrong in ([0.1, 0.2, 0.3], [[0.1, 0.2, 0.3]], 0.1, [[[0.1, 0.2]]]):
        with pytest.raises(ValueError, match=r"points must have shape \(P, 2\), not"):
            triangle(A, B, C).mixture(wrong)
    with pytest.raises(ValueError, match="points must be pairs of numbers, not a list of 1"):
        triangle(A, B, C)(None, 0.5)
    assert triangle(A, B, C).mixture([0.25, 0.5]).tolist() == [[0.25, 0.25, 0.5]]


def test_what_is_no_sheet():
    with pytest.raises(ValueError, match="a Sheet is needed, not a Path; of a path, see profile"):
        check_sheet(segment(A, B))
    with pytest.raises(ValueError, match="anchor 0 of 'triangle' must be a non-empty dict"):
        triangle(None, B, C)
