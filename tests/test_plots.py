import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch

from modeconn_lite import data, plots, zoo
from modeconn_lite.evaluation import profile, survey
from modeconn_lite.landscapes import plane
from modeconn_lite.paths import segment

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
