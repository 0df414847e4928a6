import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from modeconn_lite import data, records
from modeconn_lite.evaluation import evaluate
from modeconn_lite.methods.stability import dropped, stability
from modeconn_lite.networks import cnn3
from modeconn_lite.records import lab, mnist_cnn3_dropout
from modeconn_lite.records.mnist_cnn3_dropout import EXPERIMENT
from modeconn_lite.storage import load
from modeconn_lite.tables import percent, span

FILE = Path(__file__).resolve().parents[2] / "book" / "records" / "mnist-cnn3-dropout.json"
SMALL = EXPERIMENT.protocol | {
    "channels": 4,
    "training": EXPERIMENT.protocol["training"] | {"epochs": 2},
    "seeds": [0, 1, 2],
    "pairs": [[0, 1], [1, 2]],
    "narrow": [1, 4],
    "images": 100,
    "search images": 50,
    "masks": 2,
}


@pytest.fixture
def dataset():
    """Digits for MNIST."""
    digits = data.load("digits")
    splits = [
        data.Split(s.x[:400].view(-1, 1, 8, 8), s.y[:400], s.name, s.classes)
        for s in (digits.train, digits.test)
    ]
    return data.Dataset("digits", *splits, (8, 8))


def test_run_and_read_back(dataset, tmp_path, monkeypatch):
    """The experiment in all but size: four channels, two epochs."""
    small = replace(EXPERIMENT, settings=SMALL)
    first = small.run(root=tmp_path, command="test", dataset=dataset)
    first.write(tmp_path)
    record = records.read_record(tmp_path / "mnist-cnn3-dropout.json")
    assert record.experiment is EXPERIMENT
    assert record.content == first.content
    check(record.content)
    book = records.read_record(FILE).content
    assert form(record.content) == form(book)
    assert "worst test accuracy" in repr(record)
    assert record._repr_html_().startswith("<!--mc-explorer-->")

    def fail(*arguments, **options):
        raise AssertionError("what is done is not done again")

    for module, name in (
        (lab, "train"),
        (mnist_cnn3_dropout, "walk"),
        (mnist_cnn3_dropout, "mute"),
    ):
        monkeypatch.setattr(module, name, fail)
    again = small.run(root=tmp_path, command="test", dataset=dataset)
    assert json.dumps(again.content) == json.dumps(first.content)


def form(content):
    """The keys that a record has, however deep; numbers and words left out."""
    if isinstance(content, dict):
        return {key: form(value) for key, value in content.items()}
    return [form(content[0])] if isinstance(content, list) and content else None


def test_a_run_finds_what_it_says(dataset, tmp_path):
    """Each number of a small run against the network it is of."""
    small = replace(EXPERIMENT, settings=SMALL)
    record = small.run(root=tmp_path, command="test", dataset=dataset)
    c = record.content
    network, test = cnn3(4, side=8), dataset.test
    some = dataset.train.take(100)

    def kept(name):
        return load(next(tmp_path.glob(f"runs/*/{name}.safetensors")))

    nets = [kept(f"seed-{seed}") for seed in range(3)]
    known = [evaluate(network, w, test).accuracy for w in nets]
    assert [end["test"] for end in c["ends"]] == pytest.approx(known)
    narrow = [evaluate(cnn3(k, side=8), kept(f"width-{k}"), test).accuracy for k in (1, 4)]
    assert [n["test"] for n in c["narrow"]] == pytest.approx(narrow)
    whole = evaluate(network, nets[0], some)
    for level in c["keep"]:
        assert len(level["accuracy"]) == len(level["loss"]) == 6
        if level["keep"] > 0.9:  # of four channels all
            assert level["loss"][:2] == pytest.approx([whole.loss] * 2, rel=1e-5)
            assert level["accuracy"][:2] == pytest.approx([whole.accuracy] * 2)
        if level["keep"] < 0.6:
            assert level["loss"][0] != pytest.approx(whole.loss) != level["loss"][1]
    line = c["line"]
    assert line["loss"][0] == pytest.approx(whole.loss)
    assert line["accuracy"][0] == pytest.approx(whole.accuracy) and len(line["accuracy"]) == 2
    loss = torch.tensor(line["loss"]).double()
    chord = loss[0] + (loss[-1] - loss[0]) * torch.linspace(0, 1, 101)
    assert line["barrier"] == pytest.approx(float((loss - chord).max()), abs=1e-6)
    for pair in c["pairs"]:
        path, ends = pair["path"], [nets[seed] for seed in pair["seeds"]]
        for way, count in ((pair["linear"], 21), (path, 4 * path["pieces"] + 1)):
            for on, split in (("train", some), ("test", test)):
                seen = way[on]
                assert seen["t"] == pytest.approx(torch.linspace(0, 1, count).tolist())
                for place, w in ((0, ends[0]), (-1, ends[1])):
                    score = evaluate(network, w, split)
                    assert seen["loss"][place] == pytest.approx(score.loss, rel=1e-5)
                    assert seen["accuracy"][place] == pytest.approx(score.accuracy)
                assert seen["worst"] == pytest.approx(min(seen["accuracy"]))
                assert seen["highest"] == pytest.approx(max(seen["loss"]))
        for w, channels, costs, half in zip(
            ends, path["kept"], path["epsilon"], path["half"], strict=True
        ):
            assert all(len(units) == len(set(units)) == 2 for units in channels.values())
            units = {name: torch.tensor(found) for name, found in channels.items()}
            assert costs == pytest.approx(list(stability(network, w, units, some)))
            score = evaluate(network, dropped(network, w, units), test)
            assert half == pytest.approx(score.accuracy)
        worse = max(path["train"]["loss"][0], path["train"]["loss"][-1])
        epsilon = max(0.0, *(cost for costs in path["epsilon"] for cost in costs))
        assert path["bound"] == pytest.approx(worse + epsilon)
    check_words(record)


def check_words(record):
    """The table says what the record holds, each in its row."""
    c = record.content
    rows = record.experiment.rows(c)
    ours = [row[1] for row in rows]
    level = {k["keep"]: k["accuracy"] for k in c["keep"]}
    four = next(n["test"] for n in c["narrow"] if n["width"] == 4)
    paths = [pair["path"] for pair in c["pairs"]]
    highest = max(paths, key=lambda path: path["train"]["highest"])
    assert ours == [
        span([end["test"] for end in c["ends"]]),
        span(level[0.8]),
        span(level[0.5]),
        f"{c['line']['barrier']:.3f}",
        percent(four),
        " and ".join(percent(pair["linear"]["test"]["worst"]) for pair in c["pairs"]),
        " and ".join(percent(path["test"]["worst"]) for path in paths),
        f"{highest['train']['highest']:.3f} ≤ {highest['bound']:.3f}",
    ]
    assert f" {len(c['ends'])} networks" in rows[0][0] and "keep 0.8" in rows[1][0]
    assert "keep 0.5" in rows[2][0] and f" {highest['pieces']} pieces" in rows[6][0]
    theirs = {key: text for key, text in c["published"].items() if key != "protocol"}
    assert [row[2] for row in rows if row[2]] == list(theirs.values()), "each in its order"
    head, body = record.experiment.table(c)
    assert (head, body) == (["", "this book", "published"], [list(row) for row in rows])
    html = record._repr_html_()
    assert f"Seeds {c['protocol']['seeds']}, pairs {c['protocol']['pairs']}" in html
    assert repr(record).startswith("DropoutRecord(mnist-cnn3-dropout)\n  ")


def check(content):
    for pair in content["pairs"]:
        path = pair["path"]
        assert path["pieces"] == len(path["moves"]) == 8 * (4 - 2) + 9 - 2  # two (b) moves merged
        assert path["train"]["highest"] <= path["bound"] + 1e-6
    assert len(content["line"]["loss"]) == 101
    assert [k["keep"] for k in content["keep"]] == EXPERIMENT.protocol["keep"]
    protocol = content["protocol"]
    assert all(len(k["loss"]) == len(content["ends"]) * protocol["masks"] for k in content["keep"])
    assert [end["seed"] for end in content["ends"]] == protocol["seeds"]
    assert [n["width"] for n in content["narrow"]] == protocol["narrow"]
    assert {"torch", "python"} <= content["versions"].keys()
    assert content["hardware"]
    assert content["command"]


def test_the_record_of_the_book_is_whole():
    record = records.read_record(FILE)
    content = record.content
    check(content)
    check_words(record)
    assert content["protocol"] == json.loads(json.dumps(EXPERIMENT.protocol))
    assert content["published"] == EXPERIMENT.published
    assert all(torch.isfinite(torch.tensor(k["loss"])).all() for k in content["keep"])


def test_what_chapter_3_says_of_it():
    c = records.read_record(FILE).content
    level = {k["keep"]: k["accuracy"] for k in c["keep"]}
    assert 0.64 < sum(level[0.5]) / 100 < 0.67  # two in three
    assert sum(accuracy > 0.98 for accuracy in level[0.8]) == 15
    assert [round(c["line"]["loss"][k], 2) for k in (0, -1)] == [0.02, 0.06]
    ends = {end["seed"]: end["test"] for end in c["ends"]}
    for pair in c["pairs"]:
        path, line = pair["path"], pair["linear"]
        for seed in pair["seeds"]:
            assert 0.02 < ends[seed] - path["test"]["worst"] < 0.04
            assert 0.05 < ends[seed] - line["test"]["worst"] < 0.09
        assert 6 < line["train"]["highest"] / path["train"]["highest"] < 7.5
        assert 0.97 < path["train"]["highest"] / path["bound"] <= 1
    above = [pair["path"]["test"]["highest"] > pair["path"]["bound"] for pair in c["pairs"]]
    assert above == [True, False], "on test images the certificate promises nothing"
