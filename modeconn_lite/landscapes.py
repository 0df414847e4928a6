"""Flat windows onto a landscape: through three solutions, along random directions, by PCA.

All of them are sheets, u and v being Euclidean coordinates in weight space, and `survey` draws
them. What a window shows depends on how its two directions were chosen; each maker says how.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from .checks import all_finite, check_choice, check_list, check_number, check_whole
from .sheets import Sheet
from .weights import Weights, check_weights, from_vector, inner, mix, norm, to_vector

Normalise = Literal["filter", "length", "none"]


def plane(
    a: Weights, b: Weights, c: Weights, *, margin: float = 0.25, name: str = "plane"
) -> Sheet:
    """The plane through three weight vectors [1]_.

    u runs from a to b, v at right angles towards c; a lies at (0, 0). The window is the three
    points' bounding box, made square and `margin` of its size wider on every side.

    Raises
    ------
    ValueError
        If the three do not fit each other, or lie on one line, so that they span no plane; if the
        margin is negative.

    References
    ----------
    .. [1] Garipov et al., Loss Surfaces, Mode Connectivity, and Fast Ensembling of DNNs, 2018.
    """
    check_number(margin, "margin", low=0)
    check_weights(a, name="a")
    for label, w in (("b", b), ("c", c)):
        check_weights(w, like=a, name=label)
    along, aside = mix((1, -1), (b, a)), mix((1, -1), (c, a))
    width = norm(along)
    shift = inner(aside, along) / width if width > 0 else 0.0
    height = max(inner(aside, aside) - shift**2, 0.0) ** 0.5
    if width == 0 or height <= 1e-6 * norm(aside):
        raise ValueError("a, b and c lie on one line and span no plane; choose another third point")

    def coefficients(p: Tensor) -> Tensor:
        v = p[:, 1] / height  # how much of c
        u = (p[:, 0] - v * shift) / width  # how much of b
        return torch.stack([1 - u - v, u, v], 1)

    marks = {"A": (0.0, 0.0), "B": (width, 0.0), "C": (shift, height)}
    return Sheet((a, b, c), coefficients, name, _window(marks.values(), margin), marks)


def random_directions(
    weights: Weights, count: int = 2, *, seed: int, normalise: Normalise = "filter"
) -> list[Weights]:
    """Gaussian directions in weight space, made comparable with the weights.

    Parameters
    ----------
    weights : Weights
        What the directions are made comparable with, and shaped as.
    count : int
        How many.
    seed : int
        What they are drawn under. The same seed gives the same directions on every device.
    normalise : str
        "filter" [1]_: every filter or neuron (a slice along the first axis) gets the length of
        the matching slice of the weights, and vectors such as biases get zero. "length": the
        direction as a whole gets the weights' length. "none": each entry is a standard normal.

    Raises
    ------
    ValueError
        If there is no such normalisation, no direction is asked for, or these are no weights.

    References
    ----------
    .. [1] Li et al., Visualizing the Loss Landscape of Neural Nets, 2018.
    """
    check_weights(weights)
    check_whole(count, "count", low=1)
    seed = check_whole(seed, "seed", high=2**62)
    check_choice(normalise, "normalise", ("filter", "length", "none"))
    # Not the plain seed: the stream that drew a network's initial weights under it would point
    # back at them, with a cosine of 0.1 where chance gives 0.01.
    generator = torch.Generator().manual_seed(7_000_000_007 + seed)
    directions = []
    for _ in range(count):
        d = {
            key: torch.randn(w.shape, generator=generator, dtype=w.dtype).to(w.device)
            for key, w in weights.items()
        }
        if normalise == "filter":
            d = {key: _per_filter(d[key], w) for key, w in weights.items()}
        elif normalise == "length":
            d = mix((norm(weights) / norm(d),), (d,))
        if not all_finite(d):
            raise ValueError("weights so large have no finite directions; scale them down")
        directions.append(d)
    return directions


def _per_filter(direction: Tensor, like: Tensor) -> Tensor:
    if like.dim() < 2:
        return torch.zeros_like(like)
    lengths = like.flatten(1).norm(dim=1) / (direction.flatten(1).norm(dim=1) + 1e-10)
    return direction * lengths.view(-1, *[1] * (like.dim() - 1))


def around(
    centre: Weights, directions: Sequence[Weights], *, reach: float = 1.0, name: str = "window"
) -> Sheet:
    """The window centre + u · directions[0] + v · directions[1], for |u|, |v| ≤ reach.

    Raises
    ------
    ValueError
        If there are not two directions, they do not fit the centre, or the reach is not above 0.
    """
    directions = check_list(directions, "directions", "Weights", least=2, most=2)
    check_number(reach, "reach", low=0, open_low=True)
    check_weights(centre, name="centre")
    for k, direction in enumerate(directions):
        check_weights(direction, like=centre, name=f"directions[{k}]")

    def coefficients(p: Tensor) -> Tensor:
        return torch.cat([torch.ones(len(p), 1, dtype=p.dtype), p], 1)

    extent = (-reach, reach, -reach, reach)
    return Sheet((centre, *directions), coefficients, name, extent, {"centre": (0.0, 0.0)})


def trajectory_plane(
    trajectory: Sequence[Weights], *, margin: float = 0.25, name: str = "trajectory"
) -> tuple[Sheet, Tensor, Tensor]:
    """The plane that best holds a training trajectory: PCA around its last point.

    Parameters
    ----------
    trajectory : sequence of three Weights or more
        Snapshots, S of them.
    margin : float
        How much wider than the trajectory the window is on every side, as a share of its size.
    name : str
        How figures call the sheet.

    Returns
    -------
    sheet : Sheet
        The plane, with the trajectory's end at (0, 0).
    places : Tensor, shape (S, 2)
        The trajectory projected on it.
    explained : Tensor, shape (2,)
        Share of the squared distance from the end that each axis holds. High-dimensional random
        walks score high as well: it is no proof of a simple path.

    Raises
    ------
    ValueError
        If there are fewer than three snapshots, they do not fit each other, or they span no
        plane; if the margin is negative.

    Notes
    -----
    S² inner products of weight vectors, and S weight vectors held as one matrix.
    """
    trajectory = check_list(trajectory, "trajectory", "Weights", least=3)
    check_number(margin, "margin", low=0)
    last = check_weights(trajectory[-1], name="trajectory[-1]")
    for k, w in enumerate(trajectory):
        check_weights(w, like=last, name=f"trajectory[{k}]")
    end = to_vector(last)  # (D,)
    rows = [to_vector({key: w[key] for key in last}) - end for w in trajectory]
    steps = torch.stack(rows)  # (S, D)
    # Eigenvectors of the small Gram matrix instead of an SVD of snapshots × parameters.
    squares, left = torch.linalg.eigh((steps @ steps.T).double().cpu())
    squares, left = squares.flip(0).clamp(min=0), left.flip(1)  # (S,), (S, S), largest first
    if squares[1] <= 1e-12 * squares[0] or squares[0] == 0:
        raise ValueError("the trajectory stays on one line or one point; it spans no plane")
    lengths = squares[:2].sqrt()
    axes = (left[:, :2] / lengths).T.to(steps) @ steps  # (2, D), orthonormal
    places = left[:, :2] * lengths  # (S, 2)
    directions = [from_vector(axis, last) for axis in axes]
    sheet = around(last, directions, name=name)
    window = _window([tuple(p) for p in places.tolist()], margin)
    marks = {"start": tuple(places[0].tolist()), "end": (0.0, 0.0)}
    sheet = Sheet(sheet.anchors, sheet.coefficients, name, window, marks)
    return sheet, places, squares[:2] / squares.sum()


def _window(points, margin: float) -> tuple[float, float, float, float]:
    """The points' bounding box, made square and wider by `margin` of its size on every side."""
    us, vs = zip(*points, strict=True)
    half = max(max(us) - min(us), max(vs) - min(vs)) * (0.5 + margin)
    u, v = (max(us) + min(us)) / 2, (max(vs) + min(vs)) / 2
    return u - half, u + half, v - half, v + half
