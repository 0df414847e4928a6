import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modeconn_lite.networks import mlp
from modeconn_lite.sheets import Sheet, triangle
from modeconn_lite.weights import fresh_weights, to, to_vector

A, B, C = (to(fresh_weights(mlp((3, 4, 2)), seed), torch.float64) for seed in range(3))
shares = st.floats(0, 1)


def same(one, two):
    return all(torch.equal(one[k], two[k]) for k in two)


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
    with pytest.raises(ValueError, match="'sheet' has no anchors"):
        Sheet((), lambda p: p)
