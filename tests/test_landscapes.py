import pytest
import torch

from modeconn_lite.landscapes import around, plane, random_directions, trajectory_plane
from modeconn_lite.networks import cnn3, mlp
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
    with pytest.raises(ValueError, match="normalise must be"):
        random_directions(A, 1, seed=1, normalise="layer")


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
    with pytest.raises(ValueError, match="two directions"):
        around(A, (d,))


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
    with pytest.raises(ValueError, match="three snapshots"):
        trajectory_plane(walk[:2])
    with pytest.raises(ValueError, match="spans no plane"):
        trajectory_plane([A, A, A])


def test_pca_does_not_mind_the_order_of_the_tensors():
    turned = {key: A[key] for key in reversed(A)}
    assert torch.allclose(trajectory_plane([turned, B, C])[1], trajectory_plane([A, B, C])[1])
