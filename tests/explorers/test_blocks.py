import json
import re

import pytest

from modeconn_lite import data
from modeconn_lite.evaluation import evaluate
from modeconn_lite.explorers import BlockExplorer
from modeconn_lite.methods.dropout import merged, path_to_dropped, walk
from modeconn_lite.networks import cnn3, mlp
from modeconn_lite.paths import polychain
from modeconn_lite.weights import fresh_weights

KEPT = {"1": [0, 1], "3": [0, 1]}


def test_the_labels_are_those_of_the_slides():
    network = mlp((3, 4, 4, 2), bias=False)
    a = fresh_weights(network, 0)
    found = BlockExplorer(network, path_to_dropped(network, a, KEPT), KEPT, {"A": a})
    said = [found.matrices.words(state) for state in found.states]
    assert said[0] == ["W3 = (L₃ R₃)", "W2 = (L₂ C₂ / D₂ R₂)", "W1 = (L₁ / B₁)"]
    assert said[2] == ["W3 = (2L₃ 0)", "W2 = (L₂ C₂ / 2L₂ 0)", "W1 = (L₁ / B₁)"]
    assert said[6] == ["W3 = (2L₃ 0)", "W2 = (2L₂ 0 / 0 0)", "W1 = (L₁ / 0)"]
    assert repr(found) == "BlockExplorer(7 states, moves ababab)"
    lit = {place for place, block in found.states[3].items() if block.lit}
    assert lit == {(2, 0, 1), (1, 1, 0), (0, 0, 0)}  # only the copy in the idle half


def test_every_block_of_a_whole_walk_is_known_and_the_page_is_whole():
    for network in (mlp((3, 4, 4, 4, 2)), cnn3(4, side=3, classes=2)):
        a, b = (fresh_weights(network, s) for s in range(2))
        names = [k.split(".")[0] for k in a if k.endswith("weight")][:-1]
        kept = {name: [0, 1] for name in names}
        chain = merged(walk(network, a, b, kept, kept))
        html = (found := BlockExplorer(network, chain, kept, {"A": a, "B": b}))._repr_html_()
        labels = [block.label for state in found.states for block in state.values()]
        assert "·" not in labels
        assert html.startswith("<!--mc-explorer-->")
        assert html.endswith("<!--/mc-explorer-->")
        assert html.count("<svg") == len(chain.corners())
        assert html.count('type="range"') == 1
        assert "<noscript><table>" in html
        words = html.count("W1 = ")  # in each state's label, and in its row without scripts
        assert words == 2 * len(chain.corners())


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
    for said, w in zip(says, found.walk.corners(), strict=True):
        assert said["loss, digits test"] == f"{evaluate(network, w, split).loss:.3f} nats"


def test_live_evaluates_between_the_states(shown):
    network, split, found = shown
    live = found.live()
    live.sliders[0].value = 0.0
    assert "(1)" in live.picture.value and "the start" in live.picture.value
    live.sliders[0].value = 0.05  # in the first of six pieces: the last layer swings
    there = evaluate(network, found.walk(0.05), split).loss
    assert f"{there:.3f} nats" in live.picture.value
    assert "(1) to (2)" in live.picture.value and "(a)" in live.picture.value
    live.sliders[0].value = 1.0
    assert "(7)" in live.picture.value and "(b)" in live.picture.value


def test_every_step_has_its_sentence_and_the_curve_its_spot(shown):
    network, split, found = shown
    assert found.steps[0] == "(a) the last layer swings: W3"
    assert found.steps[1].startswith("(b) neurons nobody reads move: W2")
    html = found._repr_html_()
    content = json.loads(re.search(r'application/json">(.*?)</script>', html)[1])
    assert content["steps"] == found.steps and len(content["spots"]) == 7
    highest = max(evaluate(network, w, split).loss for w in found.walk.corners())
    heights = [
        1.12 * float(found.profile.loss.max()) * (1 - s["cy"] / 100) for s in content["spots"]
    ]
    assert max(heights) == pytest.approx(highest, abs=1e-3)
    assert "from A to B" in html


def test_a_path_without_labels_is_no_walk():
    network = mlp((3, 4, 2))
    a, b = (fresh_weights(network, s) for s in range(2))
    with pytest.raises(ValueError, match="no labels that say how they move"):
        BlockExplorer(network, polychain([a, b]), {"1": [0, 1]}, {"A": a})
