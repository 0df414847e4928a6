"""Neurons as points: what the codes hold, against what they stand for."""

import base64
import json
import re

import pytest
import torch
from bs4 import BeautifulSoup

from modeconn_lite import data, networks, paths
from modeconn_lite.explorers import NeuronExplorer
from modeconn_lite.neurons import butterflies, hidden_layers, permute
from modeconn_lite.weights import fresh_weights

NETWORK = networks.mlp((64, 16, 12, 10))


@pytest.fixture(scope="module")
def ends():
    return [fresh_weights(NETWORK, seed) for seed in range(3)]


@pytest.fixture(scope="module")
def explorer(ends):
    routes = [paths.segment(*ends[:2]), paths.polychain([ends[0], ends[2], ends[1]])]
    return NeuronExplorer(NETWORK, routes, data.load("digits"), "3", points=11)


def decoded(explorer):
    html = explorer._repr_html_()
    content = json.loads(re.search(r'application/json">(.*?)</script>', html)[1])
    for route in content["source"]["routes"]:
        raw, t = bytearray(base64.b64decode(route["codes"])), route["axes"]["t"]
        yield t, torch.frombuffer(raw, dtype=torch.int16).view(len(t), -1, 2)


def test_codes_are_places_spread_and_time(explorer, ends):
    layer = hidden_layers(NETWORK)[1]
    both = torch.cat([butterflies(w, layer) for w in ends[:2]]).double()
    axes = torch.linalg.svd(both - both.mean(0), full_matrices=False).Vh[:2]
    usual = sum(butterflies(w, layer).double().var(0).sum() for w in ends[:2])
    for route, (times, codes) in zip(explorer.routes, decoded(explorer), strict=True):
        assert codes.shape[1] == 12 + 1
        for t, code in zip(times, codes, strict=True):
            rows = butterflies(route(t), layer).double()
            places = (rows - both.mean(0)) @ axes.T / explorer.view.reach
            seen = code[:12].double() / 5000 - 1  # from hundredths of a per cent to −1 … 1
            assert torch.allclose(seen.abs(), places.abs(), atol=1e-3)  # whichever way axes turn
            first, last = (butterflies(w, layer).double().var(0).sum() for w in ends[:2])
            spread = rows.var(0).sum() / ((1 - t) * first + t * last)
            assert float(code[12, 0]) / 10000 == pytest.approx(float(spread), abs=1e-3)
            assert float(code[12, 1]) / 10000 == pytest.approx(t, abs=1e-4)
    assert torch.allclose(torch.tensor(explorer.view.spreads).sum(), usual.float())


def test_strangers_lose_half_of_their_spread_and_copies_of_one_nothing():
    network = networks.mlp((64, 256, 10))
    a, b = (fresh_weights(network, seed) for seed in range(2))
    line = paths.segment(a, b)
    _, codes = next(decoded(NeuronExplorer(network, line, data.load("digits"), points=3)))
    assert codes[:, -1, 0].tolist() == pytest.approx([10000, 5000, 10000], abs=150)
    nearly = {key: w + 1e-3 for key, w in a.items()}
    path = paths.segment(a, nearly)
    _, codes = next(decoded(NeuronExplorer(network, path, data.load("digits"), points=3)))
    assert codes[1, -1, 0] == pytest.approx(10000, abs=2)


def test_incoming_rows_alone_are_those_of_any_copy(ends):
    """The first layer's incoming weights stay what they are when the next layer is reordered."""
    copy = permute(NETWORK, ends[1], {"3": torch.arange(11, -1, -1)})
    digits, lines = data.load("digits"), [paths.segment(ends[0], w) for w in (ends[1], copy)]
    one, two = (NeuronExplorer(NETWORK, p, digits, points=3, outgoing=False) for p in lines)
    assert torch.equal(one.source.routes[0].codes, two.source.routes[0].codes)
    whole = NeuronExplorer(NETWORK, lines[1], digits, points=3)
    assert whole.layer.name == "1"
    assert not torch.equal(whole.source.routes[0].codes, one.source.routes[0].codes)


def test_the_page_and_the_live_one(explorer):
    assert repr(explorer).startswith("NeuronExplorer(11 points; linear: worst accuracy 0.")
    html = explorer._repr_html_()
    assert html.count('class="mc-neuron"') == html.count('class="mc-trail"') == 12
    assert html.count('class="mc-ring mc-a"') == html.count('class="mc-ring mc-b"') == 12
    live = explorer.live()
    live.sliders[0].value = 0.0
    start = re.findall(r'mc-neuron"[^>]*? r="4.5" (.*?)/>', live.picture.value)
    assert start == re.findall(r'mc-ring mc-a" r="4.5" (.*?)/>', live.picture.value)
    live.sliders[0].value = 0.73
    there = re.findall(r'mc-neuron"[^>]*? r="4.5" (.*?)/>', live.picture.value)
    assert len(there) == 12 and there != start


def test_filters_are_neurons_too():
    network, digits = networks.cnn3(6, side=8), data.load("digits")
    images = [s.x.view(-1, 1, 8, 8) for s in (digits.train, digits.test)]
    splits = [
        data.Split(x, s.y, s.name, s.classes)
        for x, s in zip(images, (digits.train, digits.test), strict=True)
    ]
    seen = data.Dataset("digits", *splits, (8, 8))
    a, b = (fresh_weights(network, seed) for seed in range(2))
    found = NeuronExplorer(network, paths.segment(a, b), seen, "4", points=3)
    assert found._repr_html_().count('class="mc-neuron"') == 6


def test_layers_that_are_not_there(ends):
    line = paths.segment(*ends[:2])
    with pytest.raises(ValueError, match=r"no hidden layer '5' .*there are \('1', '3'\)"):
        NeuronExplorer(NETWORK, line, data.load("digits"), "5")
    thin = networks.mlp((1, 5, 2), bias=False)
    one, two = (fresh_weights(thin, seed) for seed in range(2))
    x, y = torch.randn(6, 1), torch.arange(6) % 2
    few = data.Split(x, y, "few", ("0", "1"))
    with pytest.raises(ValueError, match="single number each"):
        points = data.Dataset("few", few, few, None)
        NeuronExplorer(thin, paths.segment(one, two), points, outgoing=False)
    lone = networks.mlp((64, 1, 10))
    one, two = (fresh_weights(lone, seed) for seed in range(2))
    with pytest.raises(ValueError, match="two neurons or more"):
        NeuronExplorer(lone, paths.segment(one, two), data.load("digits"))


def test_neurons_that_swell_on_the_way_stay_in_the_picture(ends):
    a, b, c = ends
    far = {key: 5 * w for key, w in c.items()}
    path = paths.polychain([a, far, b])
    found = NeuronExplorer(NETWORK, path, data.load("digits"), "3", points=5)
    _, codes = next(decoded(found))
    seen = codes[:, :-1].double() / 100
    assert 45 < float((seen - 50).abs().max()) < 50


def test_neurons_that_are_all_alike():
    network = networks.mlp((64, 3, 10))
    a, b = ({key: torch.zeros_like(w) for key, w in fresh_weights(network, 0).items()},) * 2
    b = b | {"3.bias": torch.ones(10)}
    found = NeuronExplorer(network, paths.segment(a, b), data.load("digits"), points=3)
    assert 'cx="50.00%"' in found._repr_html_()


def test_the_caption_says_how_much_the_two_axes_show(ends, explorer):
    both = torch.cat([butterflies(w, hidden_layers(NETWORK)[1]) for w in ends[:2]]).double()
    variances = torch.linalg.svdvals(both - both.mean(0)).square()
    share = float(variances[:2].sum() / variances.sum())
    assert f"two axes that show {100 * share:.0f}\u202f% of" in explorer._repr_html_()
    assert "the 12 neurons of layer 3" in explorer._repr_html_()
    assert "of the test data correctly" in explorer._repr_html_()


def test_the_cloud_fills_its_picture_and_trails_lead_from_a(explorer, ends):
    page = BeautifulSoup(explorer.picture((0.4,), {}), "html.parser")
    dots = [(float(c["cx"][:-1]), float(c["cy"][:-1])) for c in page.select("circle.mc-neuron")]
    rings = {
        end: [(float(c["cx"][:-1]), float(c["cy"][:-1])) for c in page.select(f".mc-ring.mc-{end}")]
        for end in "ab"
    }
    away = [abs(x - 50) for ring in rings.values() for spot in ring for x in spot]
    assert 44 < max(away) < 50, "no ring outside, and the farthest near the border"
    trails = page.select("line.mc-trail")
    for trail, start, dot in zip(trails, rings["a"], dots, strict=True):
        assert [float(trail[k][:-1]) for k in ("x1", "y1")] == pytest.approx(start, abs=0.01)
        assert [float(trail[k][:-1]) for k in ("x2", "y2")] == pytest.approx(dot, abs=0.01)
    for k, dot in enumerate(dots):  # on a straight line between the rings, 40 per cent of the way
        way = [0.6 * x + 0.4 * y for x, y in zip(rings["a"][k], rings["b"][k], strict=True)]
        assert dot == pytest.approx(way, abs=0.02)
    layer = hidden_layers(NETWORK)[1]
    at = explorer.routes[0](0.4)
    usual = 0.6 * butterflies(ends[0], layer).double().var(0).sum()
    usual += 0.4 * butterflies(ends[1], layer).double().var(0).sum()
    spread = float(butterflies(at, layer).double().var(0).sum() / usual)
    said = page.select_one("b.mc-count").text
    assert float(said[:-2]) == pytest.approx(100 * spread, abs=0.6)
    assert page.select_one(".mc-cloud")["style"] == "--mc-t:40%"
    options = [(o["value"], o.text) for o in page.select("option")]
    assert options == [("", "none"), *((str(k), str(k)) for k in range(12))]
    assert [c["data-neuron"] for c in page.select("circle.mc-neuron")] == [
        str(k) for k in range(12)
    ]


def test_beyond_the_ends_the_spread_is_against_that_of_the_nearer_end(ends):
    beyond = NeuronExplorer(
        NETWORK, paths.segment(*ends[:2]), data.load("digits"), "3", points=5, span=(-0.5, 1.5)
    )
    layer = hidden_layers(NETWORK)[1]
    t, codes = next(decoded(beyond))
    for place, end in ((0, 0), (-1, 1)):
        far = butterflies(beyond.routes[0](t[place]), layer).double().var(0).sum()
        usual = butterflies(ends[end], layer).double().var(0).sum()
        assert codes[place, -1].tolist() == pytest.approx(
            [10000 * float(far / usual), 1e4 * end], 1e-3
        )


def test_outlines_are_the_clouds_of_all_paths_at_the_time_of_the_slider(ends):
    routes = [paths.segment(*ends[:2]), paths.polychain([ends[0], ends[2], ends[1]])]
    overlaid = NeuronExplorer(NETWORK, routes, data.load("digits"), "3", points=5, outlines=True)
    layer = hidden_layers(NETWORK)[1]
    for times, codes in decoded(overlaid):
        assert codes.shape[1] == 12 + 1 + 3 * 2
        for t, code in zip(times, codes.double() / 100, strict=True):
            for k, route in enumerate(routes):
                places = overlaid.view._places(overlaid.view._seen(butterflies(route(t), layer)))
                centre, half, (angle, _) = code[13 + 3 * k : 16 + 3 * k]
                assert torch.allclose(centre, places.mean(0), atol=0.01)
                turn = torch.deg2rad(angle)
                axes = torch.stack([turn.cos(), turn.sin(), -turn.sin(), turn.cos()]).view(2, 2)
                cov = axes.T @ torch.diag((half / 2) ** 2) @ axes
                assert torch.allclose(cov, torch.cov(places.T), atol=0.2)
    page = BeautifulSoup(overlaid.picture((0.5,), {}), "html.parser")
    drawn = [float(e["rx"]) for e in page.select("ellipse.mc-outline")]
    at = [float(codes[codes.shape[0] // 2, 14, 0]) / 100 for _, codes in decoded(overlaid)]
    assert drawn[0] == pytest.approx(at[0], abs=0.01) and len(drawn) == 2
    assert "for every path at once" in overlaid._repr_html_()
    other = NeuronExplorer(NETWORK, routes, data.load("digits"), points=3, ends=("one", "two"))
    assert "ellipse" not in other._repr_html_()
    assert "in one (blue) and in two (orange)" in other._repr_html_()
