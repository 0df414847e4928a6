"""What a comparison is made of: names of files that earlier runs kept, and methods that learn."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from modeconn_lite import data
from modeconn_lite.checkpoints import digest
from modeconn_lite.paths import polychain
from modeconn_lite.records import comparison
from modeconn_lite.records.lab import Lab
from modeconn_lite.records.mnist_1hl import EXPERIMENT
from modeconn_lite.records.pieces import Learned, Pieces
from modeconn_lite.storage import load


def test_networks_are_found_again_where_earlier_runs_kept_them():
    """Folder and key of a network are promises: it cost an hour."""
    words = json.dumps(EXPERIMENT.protocol, sort_keys=True)
    assert digest([], words) == "a83d5f5181b40d86"
    lab = Lab(Path("mnist-1hl-5988493a"), data.load("digits"), torch.device("cpu"))
    pieces = Pieces(lab, EXPERIMENT.network, EXPERIMENT.protocol["training"], {}, {})
    task = pieces.trained(3)
    assert task.name == "seed-3"
    assert task.about == {
        "name": "mnist-1hl-5988493a/seed-3, seed 3",
        "layers": "a261884e5fade4ad",
    }
    assert pieces.row("linear", (0, 1)).name == "row-linear-0-1"


def fit(network, many, split, *, checkpoint, share):
    """The mean of what it learns from; `split` and `checkpoint` are there to be used."""
    assert len(many) == 16 and len(split) > 1000 and checkpoint.suffix == ".part"
    return {key: share * sum(w[key] for w in many) / 16 for key in many[0]}


def through_mean(network, a, b, split, learned):
    return polychain([a, learned, b])


def test_what_is_learned_is_kept_and_learned_anew_with_other_options(small, tmp_path):
    def run(share):
        learning = replace(small, learned={"arc": Learned(fit, through_mean, {"share": share})})
        return learning.run(pairs=1, methods=["linear", "arc"], root=tmp_path).content

    one = run(1.0)
    (file,) = tmp_path.glob("runs/*/learned-arc-*.safetensors")
    many = [load(file.with_name(f"seed-{seed}.safetensors")) for seed in range(10, 26)]
    for key, value in load(file).items():
        assert torch.allclose(value, sum(w[key] for w in many) / 16)
    assert [end["seed"] for end in one["ends"]] == [0, 1]
    assert one["rows"][1]["length"] > 1 and one["rows"][1]["method"] == "arc"
    before = file.stat().st_mtime_ns
    assert run(1.0) == one and file.stat().st_mtime_ns == before
    other = run(0.5)
    assert other["rows"][0] == one["rows"][0] and other["rows"][1] != one["rows"][1]
    assert len(list(tmp_path.glob("runs/*/learned-arc-*"))) == 2
    plain = small.run(pairs=1, methods=["arc"], root=tmp_path).content
    assert plain["rows"][0] != one["rows"][1]  # each has a file of its own


def test_methods_that_must_learn_first_are_refused_where_they_have_not(small, monkeypatch):
    monkeypatch.setattr(comparison, "LEARNING", ("arc",))
    with pytest.raises(ValueError, match="'arc' is not fitted to the networks of mnist-1hl"):
        small.check(methods=["arc"])
    assert "arc" not in small.methods()
    fitted = replace(small, learned={"arc": Learned(fit, through_mean)})
    fitted.check(methods=["arc"])
    assert "arc" in fitted.methods()


def test_pairs_come_one_after_another_and_what_is_learned_last():
    lab = Lab(Path("somewhere"), data.load("digits"), torch.device("cpu"))
    learned = {"arc": Learned(fit, through_mean, work=7)}
    pieces = Pieces(lab, EXPERIMENT.network, EXPERIMENT.training, learned, {})
    tasks = pieces.tasks([(0, 1), (2, 3)], ["linear", "arc"])
    names = [task.name for task in tasks]
    assert names[:6] == ["seed-0", "seed-1", "end-0", "end-1", "row-linear-0-1", "seed-2"]
    assert names[10:26] == [f"seed-{seed}" for seed in range(10, 26)]
    lesson, *rows = tasks[26:]
    assert lesson.needs == tuple(names[10:26]) and lesson.work == 70
    assert [row.needs for row in rows] == [
        ("seed-0", "seed-1", lesson.name),
        ("seed-2", "seed-3", lesson.name),
    ]
