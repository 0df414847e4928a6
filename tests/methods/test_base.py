import pytest
import torch

from modeconn_lite import data, zoo
from modeconn_lite.methods import CHAPTERS, METHODS, base, flows, method
from modeconn_lite.paths import segment
from modeconn_lite.weights import apply


@pytest.mark.parametrize("key", METHODS)
def test_every_method_joins_a_to_b(key):
    name = "digits-wide" if key in flows.FLOWS else "digits"  # flows are of one hidden layer
    network, dataset, (a, b) = zoo.network(name), data.load("digits"), zoo.load(name)[-2:]
    found = METHODS[key]
    assert found is method(key)
    assert found.key == key
    path = found.connect(network, a, b, dataset.train)
    assert all((path(0.0)[k] == v).all() for k, v in a.items())
    there = path(1.0)
    assert all((there[k] == v).all() for k, v in b.items()) != found.to_copy
    assert ("to a copy of B" in found.name) == found.to_copy
    x = dataset.test.x[:100]  # a copy is the same function all the same
    assert torch.allclose(apply(network, there, x), apply(network, b, x), atol=1e-4)


def test_linear_is_the_segment():
    a, b = zoo.load("digits")[:2]
    path = METHODS["linear"].connect(zoo.network("digits"), a, b, data.load("digits").train)
    assert METHODS["linear"].name == "Linear"
    assert all(torch.equal(path(0.3)[k], segment(a, b)(0.3)[k]) for k in a)


def test_one_way_to_a_copy_makes_two_methods():
    asked = []

    def connect(network, a, b, split, *, undo=True, **options):
        asked.append((undo, options))

    copy, back = base.and_to_copy("turn", "Turning", connect, hard=True)
    assert (copy.key, copy.name, copy.to_copy) == ("turn-copy", "Turning, to a copy of B", True)
    assert (back.key, back.name, back.to_copy) == ("turn", "Turning + swaps back to B", False)
    for found in (copy, back):
        found.connect(None, {}, {}, None)
    assert asked == [(False, {"hard": True}), (True, {"hard": True})]


def test_no_key_and_no_name_stands_for_two_methods():
    declared = [m for part in CHAPTERS.values() for module in part for m in methods_of(module)]
    assert len({m.key for m in declared}) == len({m.name for m in declared}) == len(declared)
    assert list(METHODS) == [m.key for m in declared]
    assert declared[0].key == "linear"


def methods_of(module):
    return getattr(module, "METHODS", ())


def test_an_unknown_method_is_refused():
    with pytest.raises(
        ValueError, match=r"no method called 'teleport'; choose one of \('linear', "
    ):
        method("teleport")
    for key in (None, 1, ["linear"], {}, ""):
        with pytest.raises(ValueError, match="no method called"):
            method(key)


def test_tables_call_the_methods_so():
    """Committed tables, records and pages hold these names: a change must be meant."""
    assert {key: method.name for key, method in METHODS.items()} == {
        "linear": "Linear",
        "weights-copy": "Weight matching + line, to a copy of B",
        "weights": "Weight matching + line + swaps back to B",
        "activations-copy": "Activation matching + line, to a copy of B",
        "activations": "Activation matching + line + swaps back to B",
        "activations-repair-copy": "Activation matching + line + REPAIR, to a copy of B",
        "activations-repair": "Activation matching + line + REPAIR + swaps back to B",
        "dropout": "Dropout path",
        "arc": "Arc",
        "rnvp-flow": "RNVP Flow",
        "iaf-flow": "IAF Flow",
        "rnvp-bijection": "RNVP Bijection",
        "transport-copy": "OT + line, to a copy of B",
        "transport": "OT + swaps back to B",
        "transport-free": "OT + free swaps",
        "linear-wa": "Linear + WA",
        "arc-wa": "Arc + WA",
        "transport-wa-copy": "OT + WA, to a copy of B",
        "transport-wa": "OT + WA + swaps back to B",
        "linear-butterfly": "Linear + Butterfly",
        "arc-butterfly": "Arc + Butterfly",
        "transport-butterfly-copy": "OT + Butterfly, to a copy of B",
        "transport-butterfly": "OT + Butterfly + swaps back to B",
    }
