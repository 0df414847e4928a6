"""Chapter 6. Least squares with a ridge, over rows that come some at a time.

The normal equations are summed up part by part: however many rows there are, memory is the same.
What is solved for here are the weights of a layer, in `follower`.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from ..checks import check_kinds, check_list, check_number, check_whole, describe

RIDGE = 1e-4
BLOCKS = 8  # of a side of the matrix of products: of 64, the 28 below its diagonal are left out

Part = tuple[Tensor, Tensor]  # (r, d) of what is heard, (r, m) of what is to be said


@torch.no_grad()
def least_squares(parts: Iterable[Part], rows: int, ridge: float = RIDGE) -> Tensor:
    """The W that minimises ‖Φ Wᵀ − Y‖² + λ ‖W‖²: shape (m, d), float64.

    Parameters
    ----------
    parts : iterable of (Φ, Y), shapes (r, d) and (r, m)
        Some rows at a time.
    rows : int
        How many there are in all.
    ridge : float
        λ in units of the mean of the diagonal of ΦᵀΦ, so that neither the number of rows nor the
        unit of Φ matters. As it goes to zero, W goes to the pseudo-inverse's solution.

    Raises
    ------
    ValueError
        If features depend on each other too much for so small a ridge, if there are none, or if
        parts do not fit each other or are not finite.

    Notes
    -----
    For more rows than features, W = YᵀΦ (ΦᵀΦ + λI)⁻¹ by Cholesky: some 9/16 r d² + d³/6
    multiplications, and memory for 3 d² numbers. Products are computed in Φ's precision, a part at
    a time, and summed in float64. For fewer rows it is the same matrix in another form,
    W = Yᵀ (ΦΦᵀ + λI)⁻¹ Φ, all in float64; if the rows are independent, λ may be zero, and then
    Φ Wᵀ = Y.

    The pseudo-inverse by singular values, as in released code [1]_, takes those below a threshold
    for zero, so that W jumps when the rank does. A ridge damps the direction of a singular value σ
    by σ² / (σ² + λ), which is smooth. It matters most where there are about as many rows as
    features: the smallest σ is then nearly zero, and without a ridge W explodes in its direction.

    References
    ----------
    .. [1] github.com/avecplezir/distribution-based-connectivity
    """
    check_number(ridge, "ridge", low=0)
    check_whole(rows, "rows", low=1)
    given = _sound(parts)
    first = next(given, None)
    if first is None:
        raise ValueError("parts are empty; give (Φ, Y) of one row at least")
    parts, d = chain([first], given), first[0].shape[1]
    if rows <= d:
        doubles = [(phi.double(), y.double()) for phi, y in parts]
        phi, y = (torch.cat(list(found)) for found in zip(*doubles, strict=True))
        return (phi.T @ _solved(phi @ phi.T, y, ridge * len(phi) / d, ridge)).T
    gram, cross = (first[0].new_zeros(d, n, dtype=torch.float64) for n in (d, first[1].shape[1]))
    side = -(-d // BLOCKS)
    for phi, y in parts:
        for low in range(0, d, side):
            gram[low : low + side, low:] += phi[:, low : low + side].T @ phi[:, low:]
        cross += phi.T @ y
    gram.triu_()
    gram += gram.triu(1).T
    return _solved(gram, cross, ridge, ridge).T


def _sound(parts: Any) -> Iterator[Part]:
    """The parts, each of matrices as wide as the first one's, in single precision at least."""
    if not isinstance(parts, Iterable):
        raise ValueError(f"parts must be a list of (Φ, Y), not {describe(parts)}")
    widths: list[int] = []
    for part in parts:
        phi, y = check_list(part, "each of parts", "matrices", least=2, most=2)
        check_kinds({"Φ": phi, "Y": y}, "each of parts")
        found = [m.shape[-1] for m in (phi, y) if m.dim() == 2]
        widths = widths or found
        if len(found) < 2 or found != widths or not found[0] or len(phi) != len(y):
            raise ValueError(
                "parts must be matrices (r, d) and (r, m), of one d and one m in all of them, not"
                f" {describe(phi)}, and {describe(y)}"
            )
        phi = phi.float() if phi.dtype.itemsize < 4 else phi
        yield phi, y.to(phi)


def _solved(gram: Tensor, cross: Tensor, shift: float, ridge: float) -> Tensor:
    """(G + shift · mean of its diagonal)⁻¹ C, for G positive semi-definite; G is written into."""
    mean = gram.diagonal().mean()
    if not (torch.isfinite(mean) and torch.isfinite(cross).all()):
        raise ValueError("what is heard, or is to be said, is not finite; scale the weights down")
    if mean == 0:  # nothing is heard
        return torch.zeros_like(cross)
    gram.diagonal().add_(shift * mean)
    factor, fault = torch.linalg.cholesky_ex(gram)
    rounding = len(gram) * torch.finfo(gram.dtype).eps * gram.diagonal().max()
    if int(fault) or not factor.diagonal().square().min() > rounding:
        raise ValueError(
            f"what {len(gram)} neurons or images give is too dependent for ridge = {ridge:g};"
            f" give a larger ridge, such as {max(10 * ridge, RIDGE):g}"
        )
    return torch.cholesky_solve(cross, factor)
