import json
import math
import re
from base64 import b64decode
from io import BytesIO
from itertools import pairwise

import pytest
import torch
from bs4 import BeautifulSoup
from PIL import Image

from modeconn_lite.explorers import PlanExplorer
from modeconn_lite.methods.transport import plan, rounded


@pytest.fixture(scope="module")
def cost():
    g = torch.Generator().manual_seed(0)
    return torch.rand(9, 9, generator=g, dtype=torch.float64)


@pytest.fixture(scope="module")
def shown(cost):
    return PlanExplorer(cost, points=6, quality=lambda order: float(order[0]))


@pytest.fixture(scope="module")
def page(shown):
    return BeautifulSoup(shown._repr_html_(), "html.parser")


def test_from_exact_to_blurred(cost, shown):
    exact, *_, blurred = shown.states
    epsilons = [s.regularisation for s in shown.states]
    assert epsilons[-1] == pytest.approx(3) and epsilons[:2] == pytest.approx([0, 0.003])
    ratios = [b / a for a, b in pairwise(epsilons[1:])]
    assert ratios == pytest.approx(4 * [1000**0.25]), "equal factors"
    assert torch.equal(exact.shares, torch.eye(9).double()), "the diagonal is the exact plan"
    assert exact.agree == 9 and exact.partners == pytest.approx(1)
    assert exact.cost == pytest.approx(1) and exact.cost_rounded == pytest.approx(1)
    assert blurred.partners > 8.8
    costs = [s.cost for s in shown.states]
    assert costs == sorted(costs)
    partners = [s.partners for s in shown.states]
    assert partners == sorted(partners)
    assert repr(shown) == f"PlanExplorer(9 to 9, 6 plans, cost {costs[-1]:.1f} to 1)"


def test_each_state_is_the_plan_in_the_exact_order(cost, shown):
    exact = rounded(plan(cost))
    for state in shown.states[1:]:
        found = plan(cost, regularisation=state.regularisation)
        assert torch.allclose(state.shares, 9 * found[:, exact])
        order = rounded(found)
        assert torch.equal(exact[state.order], order)
        assert state.agree == int((order == exact).sum())
        least = float(cost[range(9), exact].sum())
        assert state.cost == pytest.approx(9 * float((found * cost).sum()) / least)
        assert state.cost_rounded == pytest.approx(float(cost[range(9), order].sum()) / least)
        assert state.quality == float(order[0])
        rows = state.shares / state.shares.sum(1, keepdim=True)
        entropy = -(rows * rows.log()).sum(1).mean()
        assert state.partners == pytest.approx(float(entropy.exp()), rel=0.05)


def test_the_page_says_and_draws_every_plan(shown, page):
    html = str(page)
    assert html.startswith("<!--mc-explorer-->") and html.endswith("<!--/mc-explorer-->")
    content = json.loads(page.select_one('script[type="application/json"]').string)
    assert len(content["says"]) == len(content["spots"]) == 6
    assert content["says"][0]["regularisation"] == "0, exact"
    assert content["says"][-1]["partners as in the exact plan"].endswith("of 9")
    pictures = page.select("[data-state]")
    assert [p.has_attr("hidden") for p in pictures] == [False] + 5 * [True]
    for picture, state in zip(pictures, shown.states, strict=True):
        image = Image.open(BytesIO(b64decode(picture.img["src"].split(",")[1])))
        assert image.size == (9, 9) and image.mode == "RGBA"
        dense = torch.tensor(list(image.getchannel("A").tobytes())).reshape(9, 9)
        assert (dense - 255 * state.shares.clamp(0, 1).sqrt()).abs().max() <= 0.5 + 1e-6
        rings = {(float(c["cy"]) - 0.5, float(c["cx"]) - 0.5) for c in picture.select("circle")}
        assert rings == {(i, j) for i, j in enumerate(state.order.tolist()) if i != j}
        for name, value in shown._say(state).items():
            assert f"{name} {value}" in picture.img["alt"]


def test_the_curves_are_the_costs(shown, page):
    strip = page.select_one("svg.mc-strip")
    spots = json.loads(page.select_one('script[type="application/json"]').string)["spots"]
    heights = []
    for kind in ("mc-whole", "mc-rounded"):
        d = strip.select_one(f"path.{kind}")["d"]
        points = [tuple(map(float, p)) for p in re.findall(r"([-\d.]+) ([-\d.]+)", d)]
        assert [x for x, _ in points] == [0, 200, 400, 600, 800, 1000]
        heights += [y / 10 for _, y in points]
    costs = [s.cost for s in shown.states] + [s.cost_rounded for s in shown.states]
    low, high = heights[0], heights[5]  # of the exact plan and of the most blurred one
    assert 0 < high < low < 100
    slope = (high - low) / (costs[5] - 1)
    assert heights == pytest.approx([low + slope * (c - 1) for c in costs], abs=0.2)
    assert [s["cx"] for s in spots] == [0, 20, 40, 60, 80, 100]
    assert [s["cy"] for s in spots] == pytest.approx(heights[:6], abs=0.2)
    slider = page.select_one("input")
    assert (slider["min"], slider["max"], slider["value"], slider["step"]) == ("0", "5", "0", "1")
    rows = [[c.text for c in r.select("td")] for r in page.select("noscript tbody tr")]
    assert rows == [list(shown._say(s).values()) for s in shown.states]


def test_live_plans_at_any_regularisation(cost, shown):
    live = shown.live()
    (slider,) = live.sliders
    assert (slider.min, slider.max) == pytest.approx((math.log10(0.003), math.log10(3)))
    slider.value = -1.0
    found = plan(cost, regularisation=0.1)
    said = float((found * cost).sum()) / shown.least
    assert f">{said:.3f}</b>" in live.picture.value and ">0.1</b>" in live.picture.value
    spot = BeautifulSoup(live.picture.value, "html.parser").select_one(".mc-spot")
    steps = 1 + (math.log10(0.1) - math.log10(0.003)) / 3 * 4  # of five
    assert float(spot["cx"][:-1]) == pytest.approx(20 * steps, abs=0.1)


def test_without_a_quality_none_is_said(cost):
    found = PlanExplorer(cost, points=3, title="Two <clouds>")
    assert "barrier, rounded" not in found._repr_html_()
    assert "Two &lt;clouds&gt;" in found._repr_html_()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": 2}, "points"),
        ({"sharpest": 0}, "sharpest"),
        ({"sharpest": 2, "most_blurred": 1}, "most_blurred"),
        ({"title": 3}, "title must be a string"),
        ({"quality": 3}, "quality must be a function of an order"),
        ({"quality": lambda order: math.nan}, "the quality of an order must be a finite number"),
        ({"quality": lambda order: "good"}, "the quality of an order must be"),
        ({"quality": lambda order: torch.ones(2)}, "the quality of an order must be"),
    ],
)
def test_bad_calls(cost, options, message):
    with pytest.raises(ValueError, match=message):
        PlanExplorer(cost, **options)


BAD = [torch.ones(3, 4), torch.zeros(0, 0), torch.ones(3), None, "x", torch.eye(3) + 0j]


@pytest.mark.parametrize("bad", [*BAD, torch.ones(3, 3, device="meta"), torch.eye(3).bool()])
def test_a_cost_that_is_no_square_matrix(bad):
    with pytest.raises(ValueError, match="cost"):
        PlanExplorer(bad)


@pytest.mark.parametrize("free", [torch.zeros(3, 3), 1 - torch.eye(3), -torch.ones(3, 3)])
def test_costs_that_are_no_unit(free):
    with pytest.raises(ValueError, match=r"the exact plan costs .* two clouds that differ"):
        PlanExplorer(free)


def test_nothing_is_shared_with_the_caller(cost, shown):
    own = cost.clone()
    found = PlanExplorer(own, points=6, quality=lambda order: float(order.zero_()[0]))
    own.zero_()
    assert torch.equal(found.cost, cost)
    for one, two in zip(found.states, shown.states, strict=True):
        assert torch.equal(one.order, two.order)


def test_a_regularisation_that_is_none(shown):
    for wrong in (None, -1, math.nan, True):
        with pytest.raises(ValueError, match="regularisation must be"):
            shown.at(wrong)
