import json
import re

import pytest
import torch

from modeconn_lite import data
from modeconn_lite.blocks import BlockExplorer
from modeconn_lite.dropout import path_to_dropped, walk
from modeconn_lite.evaluation import evaluate
from modeconn_lite.networks import cnn3, mlp
from modeconn_lite.weights import fresh_weights

KEPT = {"1": [0, 1], "3": [0, 1]}


def test_the_labels_are_those_of_the_slides():
    network = mlp((3, 4, 4, 2), bias=False)
    a = fresh_weights(network, 0)
    found = BlockExplorer(network, path_to_dropped(network, a, KEPT), KEPT, {"A": a})
    said = [found._spoken(state) for state in found.states]
    assert said[0] == ["W3 = (L₃ R₃)", "W2 = (L₂ C₂ / D₂ R₂)", "W1 = (L₁ / B₁)"]
    assert said[2] == ["W3 = (2L₃ 0)", "W2 = (L₂ C₂ / 2L₂ 0)", "W1 = (L₁ / B₁)"]
    assert said[6] == ["W3 = (2L₃ 0)", "W2 = (2L₂ 0 / 0 0)", "W1 = (L₁ / 0)"]
    assert repr(found) == "BlockExplorer(7 states, moves ababab)"
    lit = {key for key, (_, _, on) in found.states[3].items() if on}
    assert lit == {(2, 0, 1), (1, 1, 0), (0, 0, 0)}  # only the copy in the idle half


def test_every_block_of_a_whole_walk_is_known_and_the_page_is_whole():
    for network, side in ((mlp((3, 4, 4, 4, 2)), None), (cnn3(4, side=3, classes=2), 3)):
        a, b = (fresh_weights(network, s) for s in range(2))
        names = [k.split(".")[0] for k in a if k.endswith("weight")][:-1]
        kept = {name: [0, 1] for name in names}
        chain = walk(network, a, b, kept, kept).merged()
        html = (found := BlockExplorer(network, chain, kept, {"A": a, "B": b}))._repr_html_()
        labels = [cell[0] for state in found.states for cell in state.values()]
        assert "·" not in labels
        assert html.startswith("<!--mc-explorer-->")
        assert html.endswith("<!--/mc-explorer-->")
        assert html.count("<svg") == len(chain.points)
        assert html.count('type="range"') == 1
        assert "<noscript><table>" in html
        assert side is None or torch.is_tensor(a["0.weight"])


@pytest.fixture(scope="module")
def shown():
    network, split = mlp((64, 6, 6, 10)), data.load("digits").test.take(range(100))
    a = fresh_weights(network, 0)
    half = {"1": [0, 1, 2], "3": [1, 3, 5]}
    return (
        network,
        split,
        BlockExplorer(network, path_to_dropped(network, a, half), half, {"A": a}, split=split),
    )


def test_the_page_says_the_loss_of_every_state(shown):
    network, split, found = shown
    html = found._repr_html_()
    says = json.loads(re.search(r'application/json">(.*?)</script>', html)[1])["says"]
    assert len(says) == 7
    for (_, _, loss), w in zip(says, found.chain.points, strict=True):
        assert loss == f"{evaluate(network, w, split)[0]:.3f} nats"


def test_live_evaluates_between_the_states(shown):
    network, split, found = shown
    live = found.live()
    live.sliders[0].value = 0.0
    assert "(1)" in live.picture.value and "the start" in live.picture.value
    live.sliders[0].value = 0.05  # in the first of six pieces: the last layer swings
    there = evaluate(network, found.path(0.05), split)[0]
    assert f"{there:.3f} nats" in live.picture.value
    assert "(1) to (2)" in live.picture.value and "(a)" in live.picture.value
    live.sliders[0].value = 1.0
    assert "(7)" in live.picture.value and "(b)" in live.picture.value
