import torch

from modeconn_lite.blocks import BlockExplorer
from modeconn_lite.dropout import path_to_dropped, walk
from modeconn_lite.networks import cnn3, mlp
from modeconn_lite.weights import fresh_weights

KEPT = {"1": [0, 1], "3": [0, 1]}


def test_the_labels_are_those_of_the_slides():
    network = mlp((3, 4, 4, 2), bias=False)
    a = fresh_weights(network, 0)
    found = BlockExplorer(network, path_to_dropped(network, a, KEPT), KEPT, {"A": a})
    said = [found._spoken(k) for k in range(7)]
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
