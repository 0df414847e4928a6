from math import inf, nan

import numpy as np
import pytest
import torch

from modeconn_lite.landscapes import around, plane, random_directions, trajectory_plane
from modeconn_lite.networks import cnn3, mlp
from modeconn_lite.paths import segment
from modeconn_lite.weights import distance, fresh_weights, inner, mix, norm, to, to_vector

NETWORK = mlp((4, 6, 3))
A, B, C = (to(fresh_weights(NETWORK, seed), torch.float64) for seed in range(3))


def test_plane_goes_through_the_three_points():
    sheet = plane(A, B, C)
    for name, w in zip("ABC", (A, B, C), strict=True):
        assert distance(sheet(*sheet.marks[name]), w) < 1e-9
    u0, u1, v0, v1 = sheet.extent
    assert u1 - u0 == pytest.approx(v1 - v0)
    assert all(u0 < u < u1 and v0 < v < v1 for u, v in sheet.marks.values())


def test_plane_coordinates_are_distances():
    sheet = plane(A, B, C)
    p, q = (0.3, 1.1), (-0.7, 0.4)
    gap = ((p[0] - q[0]) ** 2 + (p[1] - q[1]) ** 2) ** 0.5
    assert distance(sheet(*p), sheet(*q)) == pytest.approx(gap)


def test_three_points_on_a_line_span_no_plane():
    with pytest.raises(ValueError, match="one line"):
        plane(A, B, mix((0.5, 0.5), (A, B)))
    with pytest.raises(ValueError, match="one line"):
        plane(A, A, B)
    with pytest.raises(ValueError, match="one line"):
        plane(A, B, A)


@pytest.mark.parametrize("network", [NETWORK, cnn3(3, side=4)])
def test_filter_normalised_directions(network):
    w = fresh_weights(network, 0)
    (d,) = random_directions(w, 1, seed=1)
    for key, value in w.items():
        if value.dim() < 2:
            assert float(d[key].abs().max()) == 0
        else:
            ours, theirs = (x.flatten(1).norm(dim=1) for x in (d[key], value))
            assert torch.allclose(ours, theirs, rtol=1e-5)


def test_other_normalisations_and_seeds():
    (d,) = random_directions(A, 1, seed=1, normalise="length")
    assert norm(d) == pytest.approx(norm(A))
    one, two = random_directions(A, 2, seed=1, normalise="none")
    (again,) = random_directions(A, 1, seed=1, normalise="none")
    assert distance(one, again) == 0
    count = sum(w.numel() for w in A.values())
    assert norm(one) == pytest.approx(count**0.5, rel=0.3)
    assert abs(inner(one, two)) < 4 * count**0.5  # random directions are nearly orthogonal
    (same,) = random_directions(A, np.int64(1), seed=np.int64(1), normalise="none")
    assert distance(one, same) == 0


@pytest.mark.parametrize("seed", range(4))
def test_directions_know_nothing_of_a_network_of_the_same_seed(seed):
    w = fresh_weights(mlp((64, 64, 64, 64, 10)), seed)
    (d,) = random_directions(w, 1, seed=seed, normalise="none")
    assert abs(inner(d, w)) < 5 / to_vector(w).numel() ** 0.5 * norm(d) * norm(w)


def test_around():
    d, e = random_directions(A, 2, seed=1)
    sheet = around(A, (d, e), reach=0.5)
    expected = to_vector(A) + 0.25 * to_vector(d) - 0.5 * to_vector(e)
    assert torch.allclose(to_vector(sheet(0.25, -0.5)), expected)


def test_pca_of_a_planar_trajectory_is_exact():
    places = torch.tensor([[3.0, 0.0], [2.0, 1.5], [1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    walk = [mix((1 - u - v, u, v), (A, B, C)) for u, v in places.tolist()]
    sheet, projected, explained = trajectory_plane(walk)
    assert float(explained.sum()) == pytest.approx(1)
    end = torch.stack([to_vector(w) - to_vector(walk[-1]) for w in walk])
    squares = torch.linalg.svdvals(end) ** 2
    assert torch.allclose(explained, squares[:2] / squares.sum())
    for place, w in zip(projected.tolist(), walk, strict=True):
        assert distance(sheet(*place), w) < 1e-6
    assert sheet.marks["end"] == (0.0, 0.0)
    with pytest.raises(ValueError, match="trajectory: 2 Weights given, at least 3 needed"):
        trajectory_plane(walk[:2])
    with pytest.raises(ValueError, match="spans no plane"):
        trajectory_plane([A, A, A])


def test_pca_does_not_mind_the_order_of_the_tensors():
    turned = {key: A[key] for key in reversed(A)}
    assert torch.allclose(trajectory_plane([turned, B, C])[1], trajectory_plane([A, B, C])[1])


# --- Misuse ---------------------------------------------------------------------------------------

D, E = random_directions(A, 2, seed=1)
NARROW = {key: value[:1] for key, value in D.items()}
NOT_FINITE = {key: value * nan for key, value in A.items()}


@pytest.mark.parametrize("margin", [nan, inf, -0.1, "wide", None, True, torch.tensor(0.25)])
def test_no_such_margin(margin):
    for make in (
        lambda: plane(A, B, C, margin=margin),
        lambda: trajectory_plane([A, B, C], margin=margin),
    ):
        with pytest.raises(ValueError, match="margin must be a finite number of at least 0, not"):
            make()
    u0, u1, _, _ = plane(A, B, C, margin=0).extent
    assert u1 - u0 == pytest.approx(max(distance(A, B), plane(A, B, C).marks["C"][1]))


@pytest.mark.parametrize("reach", [nan, inf, 0, -1, "far", None, False])
def test_no_such_reach(reach):
    with pytest.raises(ValueError, match="reach must be a finite number above 0, not"):
        around(A, (D, E), reach=reach)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": None}, "weights must be a non-empty dict of tensors"),
        ({"weights": NETWORK}, "weights must be a non-empty dict of tensors"),
        ({"weights": NOT_FINITE}, "values that are not finite"),
        ({"count": 0}, "count must be a whole number of at least 1, not 0"),
        ({"count": 2.0}, "count must be a whole number of at least 1, not 2.0"),
        ({"count": True}, "count must be a whole number of at least 1, not True"),
        ({"count": nan}, "count must be a whole number of at least 1, not nan"),
        ({"seed": 1.5}, "seed must be a whole number of at least 0 and at most .*, not 1.5"),
        ({"seed": -1}, "seed must be a whole number .*, not -1"),
        ({"seed": "1"}, "seed must be a whole number .*, not '1'"),
        ({"seed": None}, "seed must be a whole number .*, not None"),
        ({"seed": True}, "seed must be a whole number .*, not True"),
        ({"seed": 2**64}, "seed must be a whole number"),
        (
            {"normalise": "layer"},
            r"normalise must be one of \('filter', 'length', 'none'\), not 'la",
        ),
        ({"normalise": None}, "normalise must be one of"),
    ],
)
def test_no_such_directions(change, message):
    with pytest.raises(ValueError, match=message):
        random_directions(**{"weights": A, "count": 1, "seed": 0} | change)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: around(A, (D,)), "directions: 1 Weights given, 2 needed"),
        (lambda: around(A, (D, E, D)), "directions: 3 Weights given, 2 needed"),
        (lambda: around(A, D), "directions must be a list of Weights, not a dict"),
        (lambda: around(A, None), "directions must be a list of Weights, not None"),
        (lambda: around(None, (D, E)), "centre must be a non-empty dict of tensors"),
        (lambda: around(A, (D, NARROW)), r"directions\[1\]\['1.weight'\] has shape \(1, 4\)"),
        (lambda: around(A, (NOT_FINITE, E)), r"directions\[0\]\['1.weight'\] holds 24 values"),
        (lambda: around(A, (D, E), name=None), "the name of a sheet must be a string"),
        (lambda: plane(None, B, C), "a must be a non-empty dict of tensors"),
        (lambda: plane(A, segment(A, B), C), "b must be a non-empty dict of tensors"),
        (lambda: plane(A, B, NARROW), r"c\['1.weight'\] has shape \(1, 4\)"),
        (lambda: plane(NOT_FINITE, B, C), r"a\['1.weight'\] holds 24 values"),
        (lambda: trajectory_plane(A), "trajectory must be a list of Weights, not a dict"),
        (lambda: trajectory_plane([]), "trajectory: 0 Weights given, at least 3 needed"),
        (lambda: trajectory_plane(None), "trajectory must be a list of Weights, not None"),
        (lambda: trajectory_plane([A, NARROW, C]), r"trajectory\[1\]\['1.weight'\] has shape"),
        (lambda: trajectory_plane([A, B, "C"]), r"trajectory\[-1\] must be a non-empty dict"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_weights_too_large_for_directions():
    huge = {"w": torch.full((2, 3), 3e38)}
    with pytest.raises(ValueError, match="no finite directions"):
        random_directions(huge, seed=0)


@pytest.mark.parametrize("normalise", ["filter", "length", "none"])
def test_directions_are_of_the_type_of_the_weights(normalise):
    for kind in (torch.float32, torch.float64):
        (found,) = random_directions(to(A, kind), 1, seed=0, normalise=normalise)
        assert {w.dtype for w in found.values()} == {kind}
