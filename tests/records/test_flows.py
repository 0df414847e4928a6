"""Rows through flows: what is learned is what chapter 4's trainings learn, on the same networks."""

from dataclasses import replace

import torch

from modeconn_lite import data
from modeconn_lite.evaluation import profile
from modeconn_lite.methods.bijection import fit_bijection
from modeconn_lite.methods.flow_training import fit_likelihood
from modeconn_lite.methods.flows import flow_path
from modeconn_lite.records.comparison import QUICK
from modeconn_lite.records.flows import learned_flow
from modeconn_lite.storage import load

FORM = {"kind": "rnvp", "layers": 2, "hidden": 8}
LEARNED = {
    "iaf-flow": learned_flow("iaf-flow", "iaf", 1, 8, work=1, epochs=1),
    "rnvp-bijection": learned_flow("rnvp-bijection", **FORM, work=1, epochs=1, images=20),
}


def test_a_row_is_that_of_the_flow_that_the_chapter_would_learn(small, tmp_path):
    options = {"pairs": 1, "methods": ["arc", *LEARNED], "root": tmp_path}
    record = replace(small, learned=LEARNED).run(**options)
    for key in LEARNED:
        as_in_the_chapter(small, tmp_path, record, key)
    assert record.content["learned"] == {
        "iaf-flow": {"kind": "iaf", "layers": 1, "hidden": 8, "epochs": 1},
        "rnvp-bijection": FORM | {"epochs": 1, "images": 20},
    }
    assert "IAF Flow: kind iaf, layers 1, hidden 8, epochs 1" in record._repr_html_()
    assert "kind" not in record.only("ends", "arc")._repr_html_()


def as_in_the_chapter(small, root, record, key):
    (file,) = root.glob(f"runs/*/learned-{key}-*.safetensors")
    nets = {
        seed: load(file.with_name(f"seed-{seed}.safetensors")) for seed in (0, 1, *range(10, 26))
    }
    network, digits = small.network(), data.load("digits")
    many, options = [nets[seed] for seed in range(10, 26)], LEARNED[key].options
    if key == "iaf-flow":
        flow = fit_likelihood(network, many, **options).flow
    else:
        flow = fit_bijection(network, many, digits.train, **options).flow
    for name, value in load(file).items():
        assert torch.allclose(value, flow.state_dict()[name], atol=1e-5), name
    seen = profile(network, flow_path(network, nets[0], nets[1], flow), digits.test, 21)
    (row,) = (row for row in record.content["rows"] if row["method"] == key)
    assert row["worst_test"] <= seen.worst_accuracy + 0.002
    (arc,) = (row for row in record.content["rows"] if row["method"] == "arc")
    assert row["barrier_test"] != arc["barrier_test"]


def test_a_quick_trial_trains_flows_for_as_few_epochs_as_networks(small, tmp_path):
    long = {"iaf-flow": learned_flow("iaf-flow", "iaf", 1, 8, work=9, epochs=99)}
    quick = replace(small, learned=long).run(
        quick=True, pairs=1, methods=["iaf-flow"], root=tmp_path
    )
    assert quick.content["learned"]["iaf-flow"]["epochs"] == QUICK["epochs"]
    assert quick.content["protocol"]["quick"] == QUICK
