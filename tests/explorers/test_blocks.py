import json
import re

import pytest
import torch
from bs4 import BeautifulSoup

from modeconn_lite import data
from modeconn_lite.evaluation import evaluate
from modeconn_lite.explorers import BlockExplorer
from modeconn_lite.methods.dropout import merged, path_to_dropped, walk
from modeconn_lite.networks import cnn3, mlp
from modeconn_lite.paths import polychain
from modeconn_lite.weights import apply, fresh_weights

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


# --- Read back ------------------------------------------------------------------------------------


def blocks_of(svg):
    """{matrix: {(row, column): (label, classes)}}, by where things stand under their heads."""
    heads = {h.text: float(h["x"]) for h in svg.select("text.mc-head")}
    cells = [
        (float(g.rect["x"]) + float(g.rect["width"]) / 2, float(g.rect["y"]), g)
        for g in svg.select("g")
    ]
    found = {name: [] for name in heads}
    for x, y, g in cells:
        found[min(heads, key=lambda name: abs(heads[name] - x))].append((x, y, g))
    for name, group in found.items():
        xs, ys = sorted({x for x, *_ in group}), sorted({y for _, y, _ in group})
        assert heads[name] == pytest.approx(sum(xs) / len(xs), abs=3), "the head is in the middle"
        found[name] = {
            (ys.index(y), xs.index(x)): (g.find("text").text, set(g["class"])) for x, y, g in group
        }
    return found


def test_the_drawing_reads_as_the_product_of_matrices(shown):
    _, _, found = shown
    page = BeautifulSoup(found._repr_html_(), "html.parser")
    before = None
    for state, picture in zip(found.states, page.select("[data-state]"), strict=True):
        svg = picture.svg
        heads = svg.select("text.mc-head")
        assert [h.text for h in heads] == ["W3", "W2", "W1"]
        assert [float(h["x"]) for h in heads] == sorted(float(h["x"]) for h in heads)
        drawn = blocks_of(svg)
        for (s, row, column), block in state.items():
            label, classes = drawn[f"W{s + 1}"][row, column]
            assert label == block.label
            assert ("mc-lit" in classes) == block.lit
            assert ("mc-from0" in classes) == (block.source == 0)
            assert ("mc-mixed" in classes) == (block.source is None)
            moved = before is not None and before[s, row, column].label != label
            assert ("mc-moved" in classes) == moved
        assert svg["aria-label"] == "; ".join(found.matrices.words(state))
        left, top, width, height = map(float, svg["viewbox"].split())
        taken = []
        for box in svg.select("rect"):
            x, y, w, h = (float(box[k]) for k in ("x", "y", "width", "height"))
            assert left <= x and x + w <= left + width and top <= y and y + h <= top + height
            assert w == h and all(abs(x - u) > w or abs(y - v) > h for u, v in taken)
            text = box.find_next("text")
            assert x < float(text["x"]) < x + w and y < float(text["y"]) < y + h
            taken.append((x, y))
        before = state
    hidden = [div.has_attr("hidden") for div in page.select("[data-state]")]
    assert hidden == [False] + [True] * 6


def test_rows_and_columns_of_the_drawing_are_halves_of_layers(shown):
    """What is lit in a state is what the outputs depend on, block by block."""
    network, split, found = shown
    corners = found.walk.corners()
    for state, w in zip(found.states, corners, strict=True):
        out = apply(network, w, split.x[:20])
        for (s, row, column), block in state.items():
            rows, columns = found.matrices.rows[s][row], found.matrices.columns[s][column]
            name = found.matrices.tensors[s]
            changed = w[name].clone()
            rows = torch.arange(len(changed)) if rows is None else rows
            columns = torch.arange(changed.shape[1]) if columns is None else columns
            changed[rows[:, None], columns] = 0
            same = torch.allclose(apply(network, w | {name: changed}, split.x[:20]), out, atol=1e-6)
            assert same != block.lit


def test_the_curve_over_the_blocks_is_the_loss_of_the_walk(shown):
    network, split, found = shown
    page = BeautifulSoup(found.picture((0.4,), {}), "html.parser")
    strip = page.select_one("svg.mc-strip")
    pairs = re.findall(r"([-\d.]+) ([-\d.]+)", strip.select_one("path")["d"])
    seen = found.profile
    assert len(pairs) == len(seen.t) > 4 * 6
    xs, ys = zip(*((float(x) / 1000, 1 - float(y) / 1000) for x, y in pairs), strict=True)
    assert xs == pytest.approx(seen.t.tolist(), abs=1e-3)
    scale = max(ys) / float(seen.loss.max())
    assert 0.8 < max(ys) < 1, "the curve fills the strip and stays inside"
    assert ys == pytest.approx((scale * seen.loss).tolist(), abs=1e-3)
    ticks = strip.select(".mc-grid line")
    knots = [float(line["x1"][:-1]) / 100 for line in ticks]
    assert knots == pytest.approx(list(found.walk.knots), abs=1e-3)
    assert all((line["x2"], line["y1"], line["y2"]) == (line["x1"], "0", "100%") for line in ticks)
    spot = strip.select_one("circle.mc-spot")
    loss = evaluate(network, found.walk(0.4), split).loss
    assert float(spot["cx"][:-1]) == pytest.approx(40, abs=0.01)
    assert 1 - float(spot["cy"][:-1]) / 100 == pytest.approx(scale * loss, abs=1e-3)
    said = f"highest {float(seen.loss.max()):.2f}"
    assert said in page.select_one(".mc-key").text and said in strip["aria-label"]
    assert split.name in page.select_one(".mc-key").text
    content = json.loads(re.search(r'application/json">(.*?)</script>', found._repr_html_())[1])
    assert [s["cx"] / 100 for s in content["spots"]] == pytest.approx(list(found.walk.knots))
    losses = [evaluate(network, w, split).loss for w in found.walk.corners()]
    heights = [1 - s["cy"] / 100 for s in content["spots"]]
    assert heights == pytest.approx([scale * loss for loss in losses], abs=1e-3)


def test_the_slider_of_the_page_has_every_state_and_names_its_ends(shown):
    _, _, found = shown
    page = BeautifulSoup(found._repr_html_(), "html.parser")
    slider = page.select_one("input")
    assert (slider["min"], slider["max"], slider["value"], slider["step"]) == ("0", "6", "0", "1")
    ticks = [(t.text, t["style"]) for t in page.select(".mc-ticks span")]
    assert ticks == [("A", "left:0%"), ("B", "left:100%")]
    assert [li.text for li in page.select("li")] == found.steps
    assert [li["data-step"] for li in page.select("li")] == [str(k) for k in range(1, 7)]
    assert not page.select("li[aria-current]"), "no step is done at the start"
    rows = [[c.text for c in r.select("td")] for r in page.select("noscript tbody tr")]
    head = [c.text for c in page.select("noscript th")]
    assert head == ["state", "move", f"loss, {found.split.name}", "step", "blocks"]
    for k, (row, said) in enumerate(zip(rows, found.says, strict=True)):
        assert row[:3] == list(said.values()) and row[0] == f"({k + 1})"
        assert row[3] == (found.steps[k - 1] if k else "")
        assert row[4] == "; ".join(found.matrices.words(found.states[k]))
    (control,) = found.controls()
    assert (control.low, control.high, control.value) == (0, 1, 0)
    assert found.title == "Blocks along the walk" == page.select_one(".mc-title").text
    assert "blue: blocks of A" in page.figcaption.text and "orange" not in page.figcaption.text


@pytest.mark.parametrize(
    ("t", "state", "step"),
    [
        (0.0, "(1)", None),
        (1 / 6, "(2)", 1),
        (0.25, "(2) to (3)", 2),
        (0.5, "(4)", 3),
        (1, "(7)", 6),
    ],
)
def test_live_says_between_which_states_one_is(shown, t, state, step):
    page = BeautifulSoup(shown[2].picture((t,), {}), "html.parser")
    said = {b["data-say"]: b.text for b in page.select("[data-say]")}
    assert said["state"] == state and said["t"] == f"{t:.3f}"
    lit = [int(li["data-step"]) for li in page.select("li[aria-current]")]
    assert lit == ([step] if step else [])


def test_blocks_of_the_second_network_are_orange():
    network = mlp((3, 4, 4, 2))
    a, b = (fresh_weights(network, s) for s in range(2))
    chain = walk(network, a, b, KEPT, KEPT)
    found = BlockExplorer(network, chain, KEPT, {"A": a, "B": b})
    first, last = found.states[0], found.states[-1]
    assert {block.source for block in first.values()} == {0}
    assert {block.source for block in last.values()} == {1}
    assert all(block.label.endswith("ᴮ") for block in last.values())
    assert "blue: blocks of A, orange: blocks of B" in found._repr_html_()
    assert found.profile is None and 'class="mc-strip"' not in found._repr_html_()
