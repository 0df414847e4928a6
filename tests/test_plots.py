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
from modeconn_lite.weights import fresh_weights

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
