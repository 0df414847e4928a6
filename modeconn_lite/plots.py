"""Pictures in one style: A is blue, B is orange, and colours can be told apart by everyone.

Each function draws into an axes (a new one if none is given) and returns it. This is the only
module that imports matplotlib.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import matplotlib.pyplot as plt
import numpy as np
import torch
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.patheffects import withStroke
from torch import Tensor, nn

from .checks import (
    check_choice,
    check_list,
    check_network,
    check_number,
    check_pairs,
    check_split,
    check_word,
    describe,
)
from .data import Split
from .evaluation import Profile, Survey
from .weights import Weights, apply, check_weights

BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#5b6470"
INK = "#2b3138"
ORANGE_INK = "#A84600"  # the orange of B, dark enough for letters
ON_BOTH = "#767676"  # letters beside a map, which lies on white or on black: 4.5 to 1 on either
CYCLE = (INK, GREEN, PINK, "#B8860B", "#56B4E9")  # blue and orange mean A and B
REGIONS = LinearSegmentedColormap.from_list("regions", ["#f3b184", "#fbf7f2", "#86bfe3"])


def style() -> None:
    """Make matplotlib draw as this book does: quiet, dark ink on nothing, small files.

    Figure and axes are transparent: the page turns figures over in dark mode, hues kept.
    """
    plt.rcParams.update(
        {
            "figure.dpi": 100,
            "savefig.dpi": 100,
            "figure.figsize": (6.4, 3.4),
            "figure.facecolor": "none",
            "savefig.facecolor": "none",
            "figure.constrained_layout.use": True,
            "axes.facecolor": "none",
            "axes.prop_cycle": cycler(color=CYCLE),
            "axes.labelcolor": INK,
            "axes.titlecolor": INK,
            "text.color": INK,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": GREY,
            "axes.titlesize": 11,
            "axes.titlelocation": "left",
            "axes.grid": True,
            "grid.color": INK,
            "grid.alpha": 0.12,
            "grid.linewidth": 0.8,
            "axes.axisbelow": True,
            "font.size": 10.5,
            "legend.frameon": False,
            "lines.linewidth": 2,
            "xtick.color": INK,
            "ytick.color": INK,
        }
    )


def _axes(ax: Axes | None) -> Axes:
    if ax is None:
        style()
        return plt.subplots()[1]
    if not isinstance(ax, Axes):
        raise ValueError(f"ax must be one Axes of matplotlib, not {describe(ax)}")
    return ax


def profiles(
    curves: Mapping[str, Profile],
    *,
    what: Literal["loss", "accuracy"] = "loss",
    ax: Axes | None = None,
    ends: tuple[str, str] = ("A", "B"),
) -> Axes:
    """Loss (nats) or accuracy along paths, each with its name; ends marked in their colours.

    Parameters
    ----------
    curves : dict of str to Profile
        What the legend calls each path. The ends are marked on the first.
    what : str
        "loss" or "accuracy".
    ax : Axes, optional
    ends : pair of str
        What the two ends are called.

    Raises
    ------
    ValueError
        If there is no profile, or one of these is of another kind.
    """
    if not isinstance(curves, Mapping) or not curves:
        raise ValueError(f'curves must be like {{"linear": profile}}, not {describe(curves)}')
    for name, curve in curves.items():
        if not isinstance(curve, Profile):
            raise ValueError(f"curves[{name!r}] must be a Profile, not {describe(curve)}")
    check_choice(what, "what", ("loss", "accuracy"))
    one, two = (
        check_word(end, "each end") for end in check_list(ends, "ends", "names", least=2, most=2)
    )
    ax = _axes(ax)
    for (name, curve), dash in zip(curves.items(), _dashes(), strict=False):
        ax.plot(curve.t, getattr(curve, what), dash, label=name)
    first = next(iter(curves.values()))
    for t, colour, ink, label in ((0, BLUE, BLUE, one), (1, ORANGE, ORANGE_INK, two)):
        at = int((first.t - t).abs().argmin())
        y = float(getattr(first, what)[at])
        ax.plot(t, y, "o", color=colour, ms=8, zorder=5, clip_on=False)
        ax.annotate(label, (t, y), (0, 9), textcoords="offset points", ha="center", color=ink)
    ax.set(xlabel="t", ylabel="loss (nats)" if what == "loss" else "accuracy")
    if len(curves) > 1:
        ax.legend()
    return ax


def beside_published(
    ours: Mapping[str, tuple[float, float]],
    theirs: Mapping[str, tuple[float, float]],
    *,
    ax: Axes | None = None,
) -> Axes:
    """Worst accuracies of methods, one below the other: dots of ours, rings of the published ones.

    Parameters
    ----------
    ours, theirs : dict of str to (mean, deviation)
        In per cent, by the name of the method. Rows are those of either; where it has no number,
        the place is left empty.
    ax : Axes, optional

    Raises
    ------
    ValueError
        If both are empty, or hold anything but pairs of numbers, the second not negative.
    """
    for rows, name in ((ours, "ours"), (theirs, "theirs")):
        for key, (_, deviation) in check_pairs(rows, name, "(mean, deviation)").items():
            check_number(deviation, f"the deviation of {name}[{key!r}]", low=0)
    names = list(dict.fromkeys([*theirs, *ours]))
    if not names:
        raise ValueError("there is no row; ours or theirs needs one at least")
    ax = _axes(ax)
    at = {name: k for k, name in enumerate(names)}
    for label, rows, look in (
        ("published", theirs, {"ms": 9, "mfc": "none", "color": GREY, "mew": 1.5}),
        ("this book", ours, {"ms": 5, "color": INK}),
    ):
        means, deviations = zip(*rows.values(), strict=True) if rows else ((), ())
        places = [at[name] for name in rows]
        ax.errorbar(means, places, xerr=deviations, fmt="o", elinewidth=1.2, label=label, **look)
    ax.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -0.5))
    ax.set(xlabel="worst accuracy (%)")
    ax.tick_params(axis="y", length=0)
    return ax


def _dashes():
    while True:
        yield from ("-", "--", "-.", ":")


def survey(
    seen: Survey,
    *,
    marks: Mapping[str, tuple[float, float]] | None = None,
    lines: Sequence[Tensor] = (),
    ax: Axes | None = None,
    top: float | None = None,
) -> Axes:
    """Loss over a sheet on a logarithmic colour scale, with contours, marks and trajectories.

    Light is low, as on every map of the book. Dark mode leaves a map's colours alone (give its
    cell the image class ``mc-map``), so what is written beside it reads on white and on black.

    Parameters
    ----------
    seen : Survey
    marks : dict of str to (u, v), optional
        Named points.
    lines : sequence of Tensor, shape (points, 2)
        Trajectories.
    ax : Axes, optional
    top : float, optional
        Where the loss is clipped, in nats.

    Raises
    ------
    ValueError
        If one of these is of another kind, or `top` not above 0.
    """
    if not isinstance(seen, Survey):
        raise ValueError(f"seen must be a Survey, not {describe(seen)}")
    check_pairs({} if marks is None else marks, "marks")
    lines = [
        _line(line, k) for k, line in enumerate(check_list(lines, "lines", "tensors", least=0))
    ]
    if top is not None:
        check_number(top, "top", low=0, open_low=True)
    ax = _axes(ax)
    loss = seen.loss.numpy()
    lowest, highest = float(np.nanmin(loss)), float(np.nanmax(loss))
    high = max(highest if top is None else top, 1e-12)  # a logarithm shows no zero
    low = max(lowest, 1e-3 * high) if lowest < high else 1e-3 * high
    levels = np.geomspace(low, high, 13)
    shown = np.clip(loss, low, high)
    norm = LogNorm(low, high)
    picture = ax.contourf(seen.u, seen.v, shown, levels, cmap="viridis_r", norm=norm, extend="both")
    ax.contour(seen.u, seen.v, shown, levels[::2], colors="white", linewidths=0.5, alpha=0.6)
    for line in lines:
        ax.plot(*line.T, color="white", lw=3.5)
        ax.plot(*line.T, color=INK, lw=1.8, marker=".", ms=4)
    for name, (u, v) in (marks or {}).items():
        colour = {"A": BLUE, "B": ORANGE, "C": GREEN}.get(name, "white")
        ax.plot(u, v, "o", ms=9, color=colour, mec="white", mew=1.6)
        label = ax.annotate(name, (u, v), (7, 6), textcoords="offset points", weight="bold")
        label.set(color="white", path_effects=[withStroke(linewidth=2.5, foreground=INK)])
    bar = ax.figure.colorbar(picture, ax=ax, ticks=levels[::3], format="%.2g")
    bar.set_label("loss (nats)", color=ON_BOTH)
    ax.set(aspect="equal")
    ax.set_xlabel("u", color=ON_BOTH)
    ax.set_ylabel("v", color=ON_BOTH)
    for each in (ax, bar.ax):
        each.tick_params(colors=ON_BOTH)
        each.spines[:].set_color(ON_BOTH)
    ax.grid(False)
    return ax


def _line(line: Tensor, k: int) -> Tensor:
    if not isinstance(line, Tensor) or line.dim() != 2 or line.shape[1] != 2:
        raise ValueError(f"lines[{k}] must be a tensor of shape (points, 2), not {describe(line)}")
    return line.detach().cpu()


def regions(
    network: nn.Module, weights: Weights, split: Split, *, ax: Axes | None = None, reach=1.2
) -> Axes:
    """Which class a two-class network gives to each point of the plane, and the data.

    Parameters
    ----------
    network : nn.Module
        The architecture.
    weights : Weights
    split : Split
        Points of the plane, of which 150 a class are drawn.
    ax : Axes, optional
    reach : float
        The window is |x|, |y| ≤ reach.

    Raises
    ------
    ValueError
        If these are no points of the plane in two classes, the network tells other classes, or
        weights and network do not fit.
    """
    x = check_split(split).x
    if len(split.classes) != 2 or x.dim() != 2 or x.shape[1] != 2:
        raise ValueError(f"{split} is not of points of the plane in two classes")
    check_weights(weights, like=check_network(network))
    check_number(reach, "reach", low=0, open_low=True)
    ax = _axes(ax)
    side = torch.linspace(-reach, reach, 120)
    points = torch.cartesian_prod(side, side).flip(1)
    with torch.inference_mode():
        out = apply(network, weights, points.to(next(iter(weights.values()))))
    if out.shape != (len(points), 2):
        raise ValueError(f"the network has outputs {tuple(out.shape[1:])}; two are needed")
    share = out.softmax(-1)[:, 0].view(120, 120).cpu()
    ax.contourf(side, side, share, 20, cmap=REGIONS, vmin=0, vmax=1)
    ax.contour(side, side, share, [0.5], colors=[GREY], linewidths=1)
    for label, colour, mark in ((0, BLUE, "o"), (1, ORANGE, "^")):
        chosen = split.x[split.y == label][:150].cpu()
        ax.scatter(*chosen.T, s=7, color=colour, marker=mark, lw=0)
    ax.set(aspect="equal", xticks=[], yticks=[], xlim=(-reach, reach), ylim=(-reach, reach))
    ax.grid(False)
    return ax
