from dataclasses import replace
from itertools import combinations
from statistics import mean
from types import SimpleNamespace

import pytest
import torch

from modeconn_lite import data, zoo
from modeconn_lite.evaluation import evaluate, profile
from modeconn_lite.paths import segment
from modeconn_lite.storage import read
from modeconn_lite.weights import check_weights

PAIRS = [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10, 11)]


def test_chapter_1_speaks_of_any_two_networks():
    network, split, weights = zoo.network("digits"), data.load("digits").test, zoo.load("digits")
    for i, j in combinations(range(12), 2):
        assert profile(network, segment(weights[i], weights[j]), split, 21).worst_accuracy < 0.70


@pytest.mark.parametrize("name", zoo.names())
def test_networks_fit_and_are_good(name):
    network, split = zoo.network(name), data.load(zoo.recipe(name).dataset).test
    weights = zoo.load(name)
    assert len(weights) == len(zoo.recipe(name).seeds)
    for w in weights:
        assert list(w) == [key for key, _ in network.named_parameters()]
        check_weights(w, like=network)
        assert evaluate(network, w, split).accuracy >= (0.96 if name == "digits-dropout" else 0.97)


@pytest.mark.parametrize("name", zoo.names())
def test_each_file_says_how_it_was_made(name):
    _, about = read(zoo.FOLDER / f"{name}.safetensors")
    assert about == {"name": name, "recipe": zoo.recipe(name).about}


def test_a_share_is_left_out_behind_each_hidden_layer_in_training_only():
    network = zoo.dropout_mlp((50, 400, 400, 2), 0.25)
    found = [m for m in network.modules() if isinstance(m, torch.nn.Dropout)]
    assert [m.p for m in found] == [0.25, 0.25]
    assert [m.p for m in zoo.dropout_mlp((5, 4, 2)).modules() if hasattr(m, "p")] == [0.5]
    x = torch.randn(5, 50)
    assert torch.equal(network.eval()(x), network(x))
    for share in (1.5, -0.1):
        with pytest.raises(
            ValueError, match="share must be a finite number of at least 0 and up to 1"
        ):
            zoo.dropout_mlp((5, 4, 2), share)


def test_dropout_leaves_the_names_of_the_weights():
    """So that both sets run in one architecture, and a chapter compares like with like."""
    check_weights(zoo.load("digits-dropout")[0], like=zoo.network("digits"))


def test_the_story_is_visible_on_every_pair():
    """The straight line loses at least ten points of accuracy between any two digits networks."""
    network, split, weights = zoo.network("digits"), data.load("digits").test, zoo.load("digits")
    for i, j in PAIRS:
        seen = profile(network, segment(weights[i], weights[j]), split)
        assert seen.worst_accuracy < min(float(seen.accuracy[0]), float(seen.accuracy[-1])) - 0.10


def test_there_are_enough_networks_to_learn_from():
    assert len(zoo.load("digits-wide")) >= 16 + 4


def test_retraining_goes_by_the_recipe(monkeypatch):
    asked = {}

    def train(network, split, seeds, **options):
        asked.update(options, network=network, split=split, seeds=seeds)
        return SimpleNamespace(weights="trained")

    monkeypatch.setattr(zoo, "train", train)
    shift = data.jitter(0.1)
    odd = replace(zoo.recipe("spirals"), seeds=range(3, 5), epochs=7, rate=0.3, batch=9)
    monkeypatch.setitem(zoo.RECIPES, "spirals", replace(odd, augment=shift))
    assert zoo.retrain("spirals") == "trained"
    assert str(asked.pop("network")) == str(zoo.network("spirals"))
    assert torch.equal(asked.pop("split").x, data.load("spirals").train.x)
    wanted = {"seeds": range(3, 5), "epochs": 7, "rate": 0.3, "batch": 9, "augment": shift}
    assert asked == wanted | {"progress": False}
    zoo.retrain("spirals", progress=True)
    assert asked["progress"] is True


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A copy of the folder, read anew."""
    for file in zoo.FOLDER.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    zoo._read.cache_clear()
    yield tmp_path
    zoo._read.cache_clear()


def test_one_changed_bit_is_noticed(elsewhere):
    file = elsewhere / "spirals.safetensors"
    content = bytearray(file.read_bytes())
    content[20_000] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"spirals\.safetensors is damaged \(wrong checksum\)"):
        zoo.load("spirals")


@pytest.mark.parametrize("harm", ["missing", "a folder", "empty", "zeros"])
def test_a_file_that_cannot_be_read_says_what_to_do(elsewhere, harm):
    file = elsewhere / "spirals.safetensors"
    file.unlink()
    if harm == "a folder":
        file.mkdir()
    elif harm != "missing":
        file.write_bytes(bytes({"empty": 0, "zeros": 5000}[harm]))
    said = r"spirals\.safetensors .*; install the package again, or run .* retrain spirals"
    with pytest.raises(ValueError, match=said):
        zoo.load("spirals")


def test_files_that_change_places_are_noticed(elsewhere):
    dropout, plain = elsewhere / "digits-dropout.safetensors", elsewhere / "digits.safetensors"
    plain.write_bytes(dropout.read_bytes())
    with pytest.raises(ValueError, match=r"digits\.safetensors is 'digits-dropout' instead"):
        zoo.load("digits")


def test_only_networks_of_the_set_are_written(elsewhere):
    before = (elsewhere / "digits.safetensors").read_bytes()
    for wrong in (zoo.load("spirals"), [], None, zoo.load("digits")[0]):
        with pytest.raises(ValueError, match=r"do not fit|must be a list|0 weights given"):
            zoo.write("digits", wrong)
    assert (elsewhere / "digits.safetensors").read_bytes() == before


def test_loading_gives_copies():
    first = zoo.load("spirals")[0]
    first["1.weight"].zero_()
    assert float(zoo.load("spirals")[0]["1.weight"].abs().max()) > 0
    assert first["1.weight"].device == torch.device("cpu")


def test_unknown_name():
    with pytest.raises(
        ValueError, match=r"no networks called 'imagenet'; choose one of \('digits'"
    ):
        zoo.load("imagenet")
    for wrong in (None, 3, ["digits"]):
        for function in (zoo.load, zoo.network, zoo.recipe, zoo.retrain):
            with pytest.raises(ValueError, match="no networks called"):
                function(wrong)
    with pytest.raises(ValueError, match="device cannot be 'gpu'"):
        zoo.load("digits", "gpu")


@pytest.mark.parametrize("name", zoo.names())
def test_retraining_gives_equal_quality(name, monkeypatch):
    """The whole recipe, for some of its seeds: two where networks train one after another."""
    recipe = zoo.recipe(name)
    some = range(2 if name == "digits-dropout" else 3)
    monkeypatch.setitem(zoo.RECIPES, name, replace(recipe, seeds=some))
    split, network = data.load(recipe.dataset).test, zoo.network(name)
    again = [evaluate(network, w, split).accuracy for w in zoo.retrain(name)]
    shipped = [evaluate(network, w, split).accuracy for w in zoo.load(name)[: len(some)]]
    assert len(again) == len(shipped) == len(some)
    assert mean(again) == pytest.approx(mean(shipped), abs=0.01)
