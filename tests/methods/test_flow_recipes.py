"""The flows that ship, made again."""

from itertools import combinations
from statistics import mean

import pytest
import torch
from small_networks import same

from modeconn_lite import data, zoo
from modeconn_lite.evaluation import evaluate
from modeconn_lite.methods import flow_recipes, flows
from modeconn_lite.methods.flows import flow_path, neuron_sample
from modeconn_lite.methods.invertible import Flow


@pytest.fixture(scope="module")
def wide():
    return zoo.network("digits-wide"), zoo.load("digits-wide"), data.load("digits")


def half_way_loss(network, many, flow, split):
    paths = [flow_path(network, a, b, flow) for a, b in combinations(many, 2)]
    return mean(evaluate(network, path(0.5), split).loss for path in paths)


def untrained(network, many):
    flow = Flow((64, 1, 10), layers=0)
    flow.fit_gaussian(neuron_sample(network, many[: flow_recipes.LEARNED_FROM]))
    return flow


def test_retraining_gives_equal_quality(wide, monkeypatch):
    """The likelihood's recipes as they are; the bijection's for a twelfth of the epochs."""
    network, many, digits = wide
    unseen = neuron_sample(network, many)[flow_recipes.LEARNED_FROM :].flatten(0, 1)
    for name in ("rnvp-flow", "iaf-flow"):
        again, shipped = flow_recipes.retrain(name), flows.load(name)
        densities = [float(f.log_density(unseen).mean()) for f in (again, shipped)]
        assert densities[0] == pytest.approx(densities[1], abs=0.05)
    recipe = flow_recipes.RECIPES["rnvp-bijection"]
    short = recipe | {"epochs": recipe["epochs"] // 12, "images": 256}
    monkeypatch.setitem(flow_recipes.RECIPES, "rnvp-bijection", short)
    ends = many[flow_recipes.LEARNED_FROM :]
    again, shipped, arc = (
        half_way_loss(network, ends, flow, digits.train)
        for flow in (
            flow_recipes.retrain("rnvp-bijection"),
            flows.load("rnvp-bijection"),
            untrained(network, many),
        )
    )
    assert shipped < again < 0.6 * arc


def test_a_flow_is_written_and_read(tmp_path, monkeypatch):
    flow = Flow((64, 1, 10), "iaf", layers=1, hidden=4, seed=9)
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    flows._load.cache_clear()
    try:
        flow_recipes.write("iaf-flow", flow)
        again = flows.load("iaf-flow")
    finally:
        flows._load.cache_clear()
    assert repr(again) == repr(flow)
    assert same(again.state_dict(), flow.state_dict())


def test_only_flows_of_the_zoo_s_neurons_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match=r"\(4, 1, 2\) numbers"):
        flow_recipes.write("iaf-flow", Flow((4, 1, 2)))
    with pytest.raises(ValueError, match="flow must be a Flow"):
        flow_recipes.write("iaf-flow", {"mean": torch.zeros(75)})
    for call in (flow_recipes.retrain, lambda name: flow_recipes.write(name, Flow((64, 1, 10)))):
        with pytest.raises(ValueError, match="name must be one of"):
            call("digits")
    assert not list(tmp_path.iterdir())


def test_every_flow_that_ships_has_a_recipe():
    assert flow_recipes.RECIPES.keys() == flows.FLOWS.keys()
    for name, recipe in flow_recipes.RECIPES.items():
        flow = flows.load(name)
        assert (flow.kind, len(flow.layers), flow.hidden) == tuple(
            recipe[key] for key in ("kind", "layers", "hidden")
        )
