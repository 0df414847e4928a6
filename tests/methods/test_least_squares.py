import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import drawn

from modeconn_lite.methods.least_squares import least_squares


def in_parts(phi, y, size):
    return zip(phi.split(size), y.split(size), strict=True)


@settings(max_examples=50)
@given(st.integers(1, 30), st.integers(1, 12), st.integers(1, 9), st.integers(0, 9999))
def test_it_agrees_with_lstsq(rows, d, size, seed):
    """With a ridge, lstsq solves the system that has √λ I below."""
    phi, y = drawn(rows, d, seed=seed), drawn(rows, 3, seed=seed + 1)
    shift = 1e-3 * phi.square().sum() / d
    system = torch.cat([phi, shift.sqrt() * torch.eye(d).double()])
    wanted = torch.linalg.lstsq(system, F.pad(y, (0, 0, 0, d))).solution.T
    found = least_squares(in_parts(phi, y, size), rows, 1e-3)
    assert torch.allclose(found, wanted, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("rows", [9, 40])
def test_without_a_ridge_it_is_least_squares_itself(rows):
    phi, y = drawn(rows, 12), drawn(rows, 3, seed=1)
    found = least_squares(in_parts(phi, y, 7), rows, 0.0)
    assert torch.allclose(found, (torch.linalg.pinv(phi) @ y).T, atol=1e-8)
    if rows < 12:
        assert torch.allclose(phi @ found.T, y)
    single = least_squares(in_parts(phi.float(), y.float(), 7), rows, 0.0)
    assert single.dtype == torch.float64
    assert torch.allclose(single, found, atol=1e-3)


def test_as_the_ridge_vanishes_it_becomes_the_pseudo_inverse():
    phi = drawn(40, 3) @ drawn(3, 12, seed=1)  # of rank 3
    y = drawn(40, 2, seed=2)
    wanted = (torch.linalg.pinv(phi, rtol=1e-9) @ y).T
    gaps = [(least_squares([(phi, y)], 40, r) - wanted).norm() for r in (1e-2, 1e-5, 1e-8)]
    assert gaps[0] > 100 * gaps[1] > 1000 * gaps[2]
    assert gaps[2] < 1e-6 * wanted.norm()


def test_neither_unit_nor_number_of_images_changes_what_a_ridge_means():
    phi, y = drawn(40, 12), drawn(40, 2, seed=1)
    one = least_squares([(phi, y)], 40, 0.1)
    assert torch.allclose(least_squares([(1e3 * phi, 1e3 * y)], 40, 0.1), one)
    assert torch.allclose(least_squares([(phi, y), (phi, y)], 80, 0.1), one)


def test_nothing_heard_and_nothing_solvable():
    zero = torch.zeros(30, 4)
    assert torch.equal(least_squares([(zero, zero[:, :2])], 30), torch.zeros(2, 4).double())
    twice = drawn(30, 2).repeat(1, 2)
    for phi in (twice, twice[:3]):
        with pytest.raises(ValueError, match=r"too dependent for ridge = 0; .* such as 0.0001"):
            least_squares([(phi, phi)], len(phi), 0.0)
        least_squares([(phi, phi)], len(phi))
    for phi in (torch.full((30, 4), torch.nan), torch.full((3, 4), torch.inf)):
        with pytest.raises(ValueError, match="is not finite; scale"):
            least_squares([(phi, phi)], len(phi))
    for ridge in (-1, torch.nan, None):
        with pytest.raises(ValueError, match="ridge"):
            least_squares([(twice, twice)], 30, ridge)


def test_parts_that_do_not_fit_are_refused():
    phi, y = drawn(20, 4), drawn(20, 2)
    for parts, said in (
        ([], "parts are empty"),
        (None, "parts must be a list"),
        ([phi], "each of parts must be a list of matrices"),
        ([(phi, y, y)], "3 matrices given, 2 needed"),
        ([(phi, y[:10])], r"parts must be matrices .* shape \(20, 4\), and a tensor"),
        ([(phi, y[:, 0])], "parts must be matrices"),
        ([(phi[:, :0], y)], "parts must be matrices"),
        ([(phi, y), (phi, y[:, :1])], "of one d and one m"),
        ([(phi, y), (phi[:, :3], y)], "of one d and one m"),
        ([(phi.long(), y)], r"each of parts\['Φ'\] is torch.int64"),
        ([(phi, y / 0)], "not finite"),
        ([(phi.float() * 1e30, y)], "not finite"),
    ):
        with pytest.raises(ValueError, match=said):
            least_squares(parts, 20)
    for rows in (0, 1.5, None):
        with pytest.raises(ValueError, match="rows must be a whole number of at least 1"):
            least_squares([(phi, y)], rows)


def test_a_wrong_number_of_rows_changes_nothing_but_the_way():
    phi, y = drawn(20, 4), drawn(20, 2, seed=1)
    for rows in (1, 4, 100):
        assert torch.allclose(least_squares([(phi, y)], rows), least_squares([(phi, y)], 20))
