"""What is finished is kept, and found again only where it belongs. See also test_base.py."""

import os

import pytest
import torch
from torch import nn

from modeconn_lite import data
from modeconn_lite.networks import mlp
from modeconn_lite.records.lab import Lab
from modeconn_lite.weights import distance


def test_other_layers_under_the_same_protocol(tmp_path):
    """Shapes are the same, and so is the name; what the network does is not."""
    digits = data.load("digits")
    lab = Lab(tmp_path, digits, torch.device("cpu"))
    options = {"epochs": 1, "batch": 400}
    relu = lab.trained(mlp((64, 4, 10)), digits.train, 0, "seed-0", **options)
    tanh = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Tanh(), nn.Linear(4, 10))
    with pytest.warns(UserWarning, match=r"seed-0\.safetensors is of a network with other layers"):
        assert distance(lab.trained(tanh, digits.train, 0, "seed-0", **options), relu) > 0


def test_what_is_cached_is_made_once_and_reads_back_as_json(tmp_path):
    lab, asked = Lab(tmp_path / "new", data.load("digits"), torch.device("cpu")), []

    def make(*arguments):
        asked.append(arguments)
        return {"pair": (0, 1), "values": [0.5]}

    for _ in range(2):  # the same at first as later, tuples and all
        assert lab.cached("part", make, 3, "x") == {"pair": [0, 1], "values": [0.5]}
    assert asked == [(3, "x")]
    lab.cached("other", make)
    assert asked == [(3, "x"), ()]
    assert sorted(p.name for p in lab.folder.iterdir()) == ["other.json", "part.json"]


def test_tensors_are_known_by_their_words(tmp_path):
    lab, tensors = Lab(tmp_path, data.load("digits"), torch.device("cpu")), {"x": torch.ones(3)}
    about = {"name": lab.key("flow"), "options": "{}"}
    assert lab.find_weights("flow", about) is None
    lab.part("flow").write_bytes(b"a checkpoint")
    lab.keep_weights("flow", tensors, about)
    assert not lab.part("flow").exists()  # no longer needed
    assert torch.equal(lab.find_weights("flow", about)["x"], tensors["x"])
    with pytest.warns(UserWarning, match=r"was made otherwise; it is made again"):
        assert lab.find_weights("flow", about | {"options": "others"}) is None


def test_a_folder_that_is_not_there_makes_no_checkpoint(tmp_path):
    """As on a node of a cluster that does not share the disk."""
    lab = Lab(tmp_path / "elsewhere", data.load("digits"), torch.device("cpu"))
    lab.train(mlp((64, 4, 10)), lab.dataset.train, 0, "seed-0", epochs=1, batch=400)
    assert not lab.folder.exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
@pytest.mark.parametrize("name", ["part.json", "part.safetensors"])
def test_a_pipe_is_not_waited_for(tmp_path, name):
    lab = Lab(tmp_path, data.load("digits"), torch.device("cpu"))
    os.mkfifo(tmp_path / name)
    find = lab.find if name.endswith("json") else lambda part: lab.find_weights(part, {"name": ""})
    with pytest.raises(ValueError, match=f"{name} is a device or a pipe"):
        find("part")
