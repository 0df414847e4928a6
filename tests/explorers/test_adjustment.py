"""Layers that follow: residuals and ways against their definitions; two sliders."""

import json
import re

import pytest
import torch
from bs4 import BeautifulSoup

from modeconn_lite import data, networks
from modeconn_lite.explorers import AdjustmentExplorer
from modeconn_lite.methods.adjustment import connect_adjusted
from modeconn_lite.weights import apply, distance, fresh_weights

NETWORK = networks.mlp((64, 16, 12, 10))
COUNTS = (30, 200)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture(scope="module")
def ends():
    return [fresh_weights(NETWORK, seed) for seed in range(2)]


@pytest.fixture(scope="module")
def explorer(ends, digits):
    return AdjustmentExplorer(NETWORK, *ends, digits, images=COUNTS, points=9)


def residual(weights, a, x):
    wanted = apply(NETWORK, a, x)
    return float((apply(NETWORK, weights, x) - wanted).norm() / wanted.norm())


def test_residuals_are_those_of_the_outputs(explorer, ends, digits):
    for k, count in enumerate(COUNTS):
        path = connect_adjusted(NETWORK, *ends, digits.train, images=count)
        fitted, test = explorer.missed[k]
        for i in range(0, len(test.t), 7):
            w = path(float(test.t[i]))
            found = float(fitted.residual[i]), float(test.residual[i])
            right = (
                residual(w, ends[0], digits.train.x[:count]),
                residual(w, ends[0], digits.test.x),
            )
            assert found == pytest.approx(right, rel=1e-3, abs=1e-6)
        assert float(test.residual[0]) == 0
        assert torch.equal(test.residual, explorer.source.routes[k].figures["test residual"])
    before = explorer.missed[0][1].t <= 0.8  # the outputs' own leg leads to B's, whoever is fitted
    few, many = (float(test.residual[before].max()) for _, test in explorer.missed)
    assert few > many, "fitted on few images, more is missed on others"


def test_ways_are_distances(explorer, ends):
    """The first layer goes straight, and all of them end where B is."""
    a, b = ends
    layers = ["1.weight", "3.weight", "5.weight"]
    assert explorer.view.layers == layers
    for path in explorer.routes:
        for t in (0.0, 0.3, 0.7):
            ways = explorer.view.note(path(t)).tolist()
            gaps = [distance({k: a[k]}, {k: path(t)[k]}) for k in layers]
            whole = [distance({k: a[k]}, {k: b[k]}) for k in layers]
            assert ways == pytest.approx([g / w for g, w in zip(gaps, whole, strict=True)], 1e-4)
        assert explorer.view.note(path(1.0)).tolist() == pytest.approx([1, 1, 1])
    page = BeautifulSoup(explorer.picture((1.0,), {}), "html.parser")
    assert [b.text for b in page.select(".mc-ways b")] == ["1.00"] * 3
    same = AdjustmentExplorer(NETWORK, a, a, data.load("digits"), images=COUNTS, points=3)
    assert same.view.note(a).tolist() == [0, 0, 0], "no way at all, and no division by it"


def test_the_page_has_two_sliders_and_a_chart_that_stays(explorer):
    assert explorer.names == ["30", "200"] and explorer.series == "images fitted"
    html = explorer._repr_html_()
    page = BeautifulSoup(html, "html.parser")
    dial = page.select_one(".mc-dial input")
    assert (dial["max"], dial["data-values"]) == ("1", "30|200")
    assert page.select("button[name=path]") == []
    assert [c["data-of"] for c in page.select(".mc-chart")] == ["loss", "accuracy", "residual"]
    assert "fitted" in page.select_one("[data-of=residual] .mc-key").text
    assert page.select(".mc-name") == [] and not page.select("[data-of=residual] .mc-band")
    times = explorer.source.routes[0].axes["t"]
    assert float(times[int(page.select_one(".mc-slider input")["value"])]) == pytest.approx(0.5)
    content = json.loads(re.search(r'application/json">(.*?)</script>', html)[1])
    assert set(content["charts"]) == {"loss", "accuracy", "residual"}
    assert "lowest accuracy" not in page.figcaption.text, "the second slider is there to find out"


def test_the_live_one_looks_anywhere(explorer, ends, digits):
    live = explorer.live()
    assert list(live.choices) == ["curve", "images fitted"]
    live.choices["images fitted"].value = 1
    live.sliders[0].value = 0.37
    page = BeautifulSoup(live.picture.value, "html.parser")
    w = connect_adjusted(NETWORK, *ends, digits.train, images=200)(0.37)
    said = page.select_one("[data-of=residual] .mc-now text").text
    assert float(said) == pytest.approx(residual(w, ends[0], digits.test.x), abs=0.006)


def test_a_series_of_ridges(ends, digits):
    found = AdjustmentExplorer(
        NETWORK, *ends, digits, images=100, ridge=(1e-3, 0.1, 10.0), kind="arc", points=5
    )
    assert found.names == ["0.001", "0.1", "10"] and found.series == "ridge"
    assert found.fitted == [100] * 3
    fitted = [float(one.residual.max()) for one, _ in found.missed]
    assert fitted == sorted(fitted), "the larger the ridge, the worse the fit"


@pytest.mark.parametrize(
    "options, words",
    [
        ({}, "give two or more numbers of images, or ridges"),
        ({"images": (10, 20), "ridge": (0.1, 0.2)}, "give two or more"),
        ({"images": (10,)}, "give two or more"),
        ({"images": "few"}, "images must be"),
        ({"images": (10, 2.5)}, "images must be a whole number"),
        ({"ridge": (0.1, -1.0)}, "ridge must be"),
    ],
)
def test_no_series(ends, digits, options, words):
    with pytest.raises(ValueError, match=words):
        AdjustmentExplorer(NETWORK, *ends, digits, **options)
