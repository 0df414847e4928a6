from dataclasses import replace

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch

from modeconn_lite import data, plots, zoo
from modeconn_lite.evaluation import profile, survey
from modeconn_lite.landscapes import plane
from modeconn_lite.networks import mlp
from modeconn_lite.paths import segment
from modeconn_lite.weights import apply, fresh_weights

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


SPLIT = data.load("spirals").test
NETWORK = zoo.network("spirals")
A, B, C = zoo.load("spirals")[:3]


def test_profiles_draw_the_values():
    seen = profile(NETWORK, segment(A, B), SPLIT, 9)
    ax = plots.profiles({"linear": seen}, what="accuracy")
    curve, *ends = ax.lines
    assert curve.get_ydata().tolist() == pytest.approx(seen.accuracy.tolist())
    assert [end.get_color() for end in ends] == [plots.BLUE, plots.ORANGE]
    assert ends[1].get_ydata()[0] == pytest.approx(float(seen.accuracy[-1]))
    assert ax.get_ylabel() == "accuracy"


def test_survey_marks_the_corners():
    sheet = plane(A, B, C)
    ax = plots.survey(
        survey(NETWORK, sheet, SPLIT, 7), marks=sheet.marks, lines=[torch.zeros(2, 2)]
    )
    texts = {t.get_text(): t.xy for t in ax.texts}
    assert texts == sheet.marks


def test_regions_follow_the_network():
    ax = plots.regions(NETWORK, A, SPLIT)
    assert len(ax.collections) >= 4  # two contour sets, two classes of points
    colours = [tuple(c.get_facecolor()[0]) for c in ax.collections[-2:]]
    assert colours[0] != colours[1]


def test_each_method_stands_in_its_row_with_its_deviation():
    ours, theirs = {"OT": (60.0, 1.0), "new": (50.0, 0.0)}, {"Line": (39.0, 2.0), "OT": (56.0, 0.5)}
    ax = plots.beside_published(ours, theirs)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["Line", "OT", "new"]
    assert ax.yaxis_inverted(), "the first row is on top"
    for bar, rows, places in zip(ax.containers, (theirs, ours), ([0, 1], [1, 2]), strict=True):
        dots, _, (whiskers,) = bar
        assert list(dots.get_xdata()) == [mean for mean, _ in rows.values()]
        assert list(dots.get_ydata()) == places
        for segment_, (mean, deviation) in zip(whiskers.get_segments(), rows.values(), strict=True):
            assert segment_[:, 0].tolist() == [mean - deviation, mean + deviation]
    only = plots.beside_published({}, theirs)
    assert [len(bar[0].get_xdata()) for bar in only.containers] == [2, 0]


# --- Misuse ---------------------------------------------------------------------------------------

SEEN = profile(NETWORK, segment(A, B), SPLIT, 3)
MAP = survey(NETWORK, plane(A, B, C), SPLIT, 3)
THREE = data.Split(SPLIT.x, SPLIT.y, "three kinds", ("0", "1", "2"))
DIGITS = data.load("digits").test


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.profiles(SEEN), 'curves must be like {"linear": profile}, not a Profile'),
        (lambda: plots.profiles({}), 'curves must be like {"linear": profile}, not a dict'),
        (lambda: plots.profiles(None), 'curves must be like {"linear": profile}, not None'),
        (lambda: plots.profiles({"a": MAP}), r"curves\['a'\] must be a Profile, not a Survey"),
        (lambda: plots.profiles({"a": SEEN}, what="error"), "what must be one of"),
        (lambda: plots.profiles({"a": SEEN}, what=None), "what must be one of"),
        (lambda: plots.profiles({"a": SEEN}, ax=plt), "ax must be one Axes of matplotlib, not a m"),
        (lambda: plots.profiles({"a": SEEN}, ax=[1, 2]), "ax must be one Axes of .* not a list of"),
        (lambda: plots.profiles({"a": SEEN}, ends="AB"), "ends must be a list of names, not 'AB'"),
        (lambda: plots.profiles({"a": SEEN}, ends=("A",)), "ends: 1 names given, 2 needed"),
        (lambda: plots.profiles({"a": SEEN}, ends=(1, 2)), "each end must be a string, not 1"),
        (lambda: plots.survey(SEEN), "seen must be a Survey, not a Profile"),
        (lambda: plots.survey(None), "seen must be a Survey, not None"),
        (lambda: plots.survey(MAP, marks=[(0, 0)]), r"marks must be a dict of names to \(u, v\)"),
        (lambda: plots.survey(MAP, marks={"A": 1}), r"marks\['A'\] must be a list of numbers"),
        (lambda: plots.survey(MAP, lines=torch.zeros(2, 2)), "lines must be a list of tensors"),
        (
            lambda: plots.survey(MAP, lines=[torch.zeros(2)]),
            r"lines\[0\] must be a tensor of shape",
        ),
        (lambda: plots.survey(MAP, lines=[None]), r"lines\[0\] must be a tensor of shape"),
        (lambda: plots.survey(MAP, top=0), "top must be a finite number above 0, not 0"),
        (lambda: plots.survey(MAP, top=float("nan")), "top must be a finite number above 0, not n"),
        (lambda: plots.survey(MAP, ax="here"), "ax must be one Axes of matplotlib, not 'here'"),
        (lambda: plots.regions(None, A, SPLIT), "network must be an nn.Module, not None"),
        (lambda: plots.regions(NETWORK, None, SPLIT), "weights must be a non-empty dict"),
        (lambda: plots.regions(NETWORK, A, None), r"split must be a Split\("),
        (lambda: plots.regions(NETWORK, A, DIGITS), "is not of points of the plane in two classes"),
        (lambda: plots.regions(NETWORK, A, THREE), "is not of points of the plane in two classes"),
        (lambda: plots.regions(NETWORK, A, SPLIT, reach=0), "reach must be a finite number above"),
        (lambda: plots.beside_published({}, {}), "there is no row; ours or theirs needs one"),
        (lambda: plots.beside_published([], {}), r"ours must be a dict of names to \(mean, dev"),
        (lambda: plots.beside_published({"OT": 1}, {}), r"ours\['OT'\] must be a list of numbers"),
        (lambda: plots.beside_published({}, {"OT": (1, None)}), r"theirs\['OT'\] must be a finite"),
        (lambda: plots.beside_published({"OT": (1, -1)}, {}), r"deviation of ours\['OT'\] must be"),
        (lambda: plots.beside_published({"OT": (1, 1)}, {}, ax=1), "ax must be one Axes of"),
        (
            lambda: plots.regions(mlp((2, 4, 3)), fresh_weights(mlp((2, 4, 3)), 0), SPLIT),
            r"the network has outputs \(3,\); two are needed",
        ),
    ],
)
def test_bad_input_leaves_no_empty_figure(call, message):
    with pytest.raises(ValueError, match=message):
        call()
    if "outputs" not in message:
        assert not plt.get_fignums()


@pytest.mark.parametrize(("loss", "top"), [(0.0, None), (0.7, None), (0.7, 0.1), (0.7, 2.0)])
def test_a_map_of_one_height_is_drawn(loss, top):
    flat = replace(MAP, loss=torch.full_like(MAP.loss, loss))
    ax = plots.survey(flat, top=top)
    ax.figure.canvas.draw()
    assert ax.get_xlabel() == "u"


def test_the_same_axes_are_drawn_into():
    _, axes = plt.subplots(1, 2)
    assert plots.profiles({"a": SEEN, "b": SEEN}, ax=axes[0]) is axes[0]
    assert plots.survey(MAP, ax=axes[1], top=1.0) is axes[1]
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == ["a", "b"]


def _contrast(colour: str, ground: str) -> float:
    """WCAG's ratio of two colours."""
    channels = torch.tensor([matplotlib.colors.to_rgb(c) for c in (colour, ground)])
    linear = torch.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    low, high = (linear @ torch.tensor([0.2126, 0.7152, 0.0722])).sort().values.tolist()
    return (high + 0.05) / (low + 0.05)


def test_figures_are_dark_ink_on_nothing():
    """So that the page can turn them over in dark mode."""
    plots.style()
    figure, ax = plt.subplots()
    assert figure.get_facecolor()[3] == ax.get_facecolor()[3] == 0
    for name in ("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color"):
        assert _contrast(plt.rcParams[name], "white") > 4.5
    seen = profile(NETWORK, segment(A, B), SPLIT, 9)
    labels = plots.profiles({"linear": seen}, ax=ax).texts
    assert len(labels) == 2
    assert all(_contrast(label.get_color(), "white") > 4.5 for label in labels)


def test_letters_beside_a_map_read_on_white_and_on_black():
    sheet = plane(A, B, C)
    ax = plots.survey(survey(NETWORK, sheet, SPLIT, 7))
    bar = ax.figure.axes[1]
    beside = [ax.xaxis.label, ax.yaxis.label, bar.yaxis.label]
    beside += [*ax.get_xticklabels(), *ax.get_yticklabels(), *bar.get_yticklabels()]
    for text in beside:
        assert min(_contrast(text.get_color(), ground) for ground in ("white", "black")) > 4.5


# --- Read back ------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["loss", "accuracy"])
def test_profiles_say_what_stands_where(what):
    straight = profile(NETWORK, segment(A, B), SPLIT, 9)
    curves = {name: replace(straight, loss=straight.loss + k) for k, name in enumerate("pqrs")}
    ax = plots.profiles(curves, what=what, ends=("here", "there"))
    *drawn, here, there = ax.lines
    for (name, curve), line in zip(curves.items(), drawn, strict=True):
        assert line.get_label() == name and list(line.get_xdata()) == curve.t.tolist()
        assert list(line.get_ydata()) == getattr(curve, what).tolist()
    assert len({line.get_linestyle() for line in drawn}) == 4, "told apart without colours"
    for t, dot, text in zip((0, 1), (here, there), ax.texts, strict=True):
        assert list(dot.get_xdata()) == [t] and dot.get_marker() == "o"
        assert float(dot.get_ydata()[0]) == float(getattr(straight, what)[-t])
        assert text.xy == (t, dot.get_ydata()[0]), "it points at its dot"
        assert text.xyann[1] > 0 and text.xyann[0] == 0, "right above it"
        assert not dot.get_clip_on() and dot.get_zorder() > drawn[0].get_zorder()
        hues = [
            matplotlib.colors.rgb_to_hsv(matplotlib.colors.to_rgb(o.get_color()))[0] * 360
            for o in (dot, text)
        ]
        assert hues[0] == pytest.approx(hues[1], abs=8), "the letter has its dot's hue"
    assert [text.get_text() for text in ax.texts] == ["here", "there"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("t", {"loss": "loss (nats)"}.get(what, what))
    assert plots.profiles({"alone": straight}).get_legend() is None


def test_a_map_reads_back_as_the_survey():
    sheet = plane(A, B, C)
    seen = survey(NETWORK, sheet, SPLIT, 9)
    way = torch.tensor([[0.1, 0.2], [0.5, 0.1], [0.9, 0.3]])
    ax = plots.survey(seen, marks=sheet.marks | {"here": (0.2, 0.3)}, lines=[way], top=2.0)
    filled, lines = (c for c in ax.collections if c.get_array() is not None)
    low = float(seen.loss.min())
    levels = filled.levels
    assert len(levels) > 8 and levels[0] == pytest.approx(low) and levels[-1] == pytest.approx(2.0)
    ratios = torch.tensor(levels).log().diff()
    assert torch.allclose(ratios, ratios[:1].expand_as(ratios)), "even on a logarithmic scale"
    assert filled.norm(levels[0]) == pytest.approx(0) and filled.norm(2.0) == pytest.approx(1)
    light = [sum(filled.cmap(filled.norm(x))[:3]) for x in (low, 2.0)]
    assert light[0] > light[1], "light is low"
    assert set(lines.levels) < set(levels) and 4 < len(lines.levels) < len(levels)
    assert seen.loss.max() > 2 and filled.extend == "both", "what is clipped has a colour too"
    halo, ink, *dots = ax.lines
    for line in (halo, ink):
        assert torch.equal(torch.tensor(line.get_xydata()), way.double())
    assert halo.get_linewidth() > ink.get_linewidth()
    assert [tuple(d.get_xydata()[0]) for d in dots] == [*sheet.marks.values(), (0.2, 0.3)]
    colours = [dot.get_color() for dot in dots]
    assert colours[:2] == [plots.BLUE, plots.ORANGE] and len(set(colours)) == 4
    assert all(dot.get_marker() == "o" for dot in dots)
    assert all(min(text.xyann) > 0 for text in ax.texts), "beside its dot, above and to the right"
    assert ax.get_aspect() == 1, "lengths in u and in v compare"
    assert (*ax.get_xlim(), *ax.get_ylim()) == pytest.approx(sheet.extent)
    bar = ax.figure.axes[1]
    ax.figure.canvas.draw()
    assert (ax.get_xlabel(), ax.get_ylabel(), bar.get_ylabel()) == ("u", "v", "loss (nats)")
    ticks = [
        (float(t.get_text()), y)
        for t, y in zip(bar.get_yticklabels(), bar.get_yticks(), strict=True)
    ]
    assert 3 <= len(ticks) <= 7
    for said, height in ticks:
        assert said == pytest.approx(height, rel=0.06)
    assert not any(line.get_visible() for line in ax.get_xgridlines()), "no grid over a map"


def test_a_map_of_all_losses_reaches_from_the_lowest_to_the_highest():
    seen = replace(MAP, loss=torch.tensor([[0.1, 0.2, 0.4], [torch.nan, 0.5, 1.0], [2, 4, 8.0]]))
    levels = plots.survey(seen).collections[0].levels
    assert (levels[0], levels[-1]) == pytest.approx((0.1, 8))
    zero = replace(seen, loss=seen.loss - 0.1)  # a logarithm shows no zero
    levels = plots.survey(zero).collections[0].levels
    assert 0 < levels[0] < 0.01 and levels[-1] == pytest.approx(7.9)


def test_regions_are_where_the_network_says_so():
    ax = plots.regions(NETWORK, A, SPLIT, reach=1.1)
    shares, edge, *dots = ax.collections

    def share(places):
        return apply(NETWORK, A, torch.as_tensor(places).float()).softmax(-1)[:, 0]

    (level,) = edge.levels
    assert level == 0.5
    border = torch.tensor(edge.get_paths()[0].vertices)
    assert float((share(border) - 0.5).abs().median()) < 0.05
    for path, low, high in zip(
        shares.get_paths(), shares.levels[:-1], shares.levels[1:], strict=True
    ):
        if len(path.vertices):
            seen = share(path.vertices)
            assert float(((seen < low - 0.25) | (seen > high + 0.25)).float().mean()) < 0.1
    assert len(shares.levels) > 12
    for label, (dot, class_colour) in enumerate(zip(dots, (plots.BLUE, plots.ORANGE), strict=True)):
        wanted = SPLIT.x[SPLIT.y == label][:150].double()
        assert torch.equal(torch.tensor(dot.get_offsets()).double(), wanted)
        own = torch.tensor(matplotlib.colors.to_rgb(class_colour))
        grounds = [torch.tensor(shares.cmap(shares.norm(s))[:3]) for s in (1 - label, label)]
        gaps = [float((own - ground).norm()) for ground in grounds]
        assert gaps[0] < gaps[1], "points lie on their own colour where the network is right"
    assert shares.norm(0.5) == pytest.approx(0.5)
    assert dots[0].get_paths()[0].vertices.shape != dots[1].get_paths()[0].vertices.shape
    assert ax.get_aspect() == 1 and not len(ax.get_xticks()) and not len(ax.get_yticks())
    assert (*ax.get_xlim(), *ax.get_ylim()) == (-1.1, 1.1, -1.1, 1.1)
    assert not any(line.get_visible() for line in ax.get_xgridlines())


def test_the_style_holds_for_what_is_drawn():
    plots.style()
    figure, ax = plt.subplots()
    assert not ax.spines["top"].get_visible() and not ax.spines["right"].get_visible()
    assert ax.spines["left"].get_visible() and figure.get_constrained_layout()
    assert matplotlib.rcParams["axes.grid"] and matplotlib.rcParams["axes.axisbelow"] is True
    assert matplotlib.rcParams["savefig.facecolor"] == "none"
    assert matplotlib.rcParams["axes.titlelocation"] == "left"
    assert not matplotlib.rcParams["legend.frameon"]
    colours = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]
    assert len({*colours, plots.BLUE, plots.ORANGE}) == len(colours) + 2, (
        "those of A and B are theirs"
    )
