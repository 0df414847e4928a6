"""The command line: what it runs, and what it refuses before any work is done."""

import runpy
import sys

import pytest

from modeconn_lite import records, zoo
from modeconn_lite.__main__ import main
from modeconn_lite.methods import flow_recipes
from modeconn_lite.records import comparison


def test_retrain_writes_the_networks_that_ship(tmp_path, monkeypatch):
    before = zoo.load("spirals")
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    monkeypatch.setattr(zoo, "retrain", lambda name, progress: before[:2])
    main(["retrain", "spirals"])
    zoo._read.cache_clear()
    try:
        assert len(zoo.load("spirals")) == 2
    finally:
        zoo._read.cache_clear()
    assert [file.name for file in tmp_path.iterdir()] == ["spirals.safetensors"]


def test_retrain_writes_the_flows_that_ship(monkeypatch):
    done = []
    monkeypatch.setattr(flow_recipes, "retrain", lambda name, progress: (name, progress))
    monkeypatch.setattr(flow_recipes, "write", lambda name, flow: done.append((name, flow)))
    for name in flow_recipes.RECIPES:
        main(["retrain", name])
    assert done == [(name, (name, True)) for name in flow_recipes.RECIPES]


def test_options_reach_the_experiment(tmp_path, monkeypatch):
    asked = {}

    class Written:
        def write(self, folder):
            asked["out"] = folder

    def run(self, **options):
        asked[self.name] = options
        return Written()

    for kind in (records.Experiment, comparison.Comparison):
        monkeypatch.setattr(kind, "run", run)
    line = f"run mnist-1hl --pairs 3 --methods linear weights --fresh --out {tmp_path}"
    main(line.split())
    shared = {"device": "cpu", "root": None}
    assert asked == {
        "out": tmp_path,
        "mnist-1hl": {
            "command": f"python -m modeconn_lite {line}",
            "pairs": 3,
            "methods": ["linear", "weights"],
            "epochs": None,
            "quick": False,
            "engine": "local",
            "workers": None,
            "fresh": True,
            **shared,
        },
    }
    main(["run", "mnist-cnn3-dropout", "--device", "cpu:0"])
    options = asked["mnist-cnn3-dropout"]
    assert options.pop("command") == "python -m modeconn_lite run mnist-cnn3-dropout --device cpu:0"
    assert options == {"device": "cpu:0", "root": None, "fresh": False}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "required: command"),
        ("run", "required: EXPERIMENT"),
        ("run imagenet", "invalid choice: 'imagenet'"),
        ("run mnist-cnn3-dropout --pairs 2", "unrecognized arguments: --pairs 2"),
        ("run mnist-cnn3-dropout --methods linear", "unrecognized arguments: --methods linear"),
        ("run mnist-1hl --pairs two", "invalid int value: 'two'"),
        ("run mnist-1hl --methods linear teleport", "invalid choice: 'teleport'"),
        ("run mnist-1hl --pairs 0", "pairs must be a whole number of at least 1, not 0"),
        ("run mnist-1hl --methods linear linear", "methods must be different ones"),
        ("run mnist-1hl --device gpu", "device cannot be 'gpu'"),
        ("run mnist-1hl --engine dask", "invalid choice: 'dask'"),
        ("run mnist-1hl --epochs 0", "epochs must be a whole number of at least 1, not 0"),
        ("run mnist-1hl --workers 0", "workers must be a whole number of at least 1, not 0"),
        ("run mnist-1hl --engine here --workers 2", "workers are of engine 'local'"),
        (f"run mnist-1hl --out {__file__}", "is no folder"),
        ("retrain imagenet", "invalid choice: 'imagenet'"),
        ("retrain digits --pairs 2", "unrecognized arguments: --pairs 2"),
    ],
)
def test_what_makes_no_sense_is_refused(line, message, monkeypatch, capsys):
    """As typed: python -m modeconn_lite …"""
    monkeypatch.setattr(sys, "argv", ["modeconn_lite", *line.split()])
    monkeypatch.delitem(sys.modules, "modeconn_lite.__main__")
    monkeypatch.setattr(records.Experiment, "run", None)
    monkeypatch.setattr(zoo, "retrain", None)
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("modeconn_lite", run_name="__main__")
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("usage: python -m modeconn_lite")


def test_help_names_every_experiment(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["run", "--help"])
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    assert all(name in said for name in records.EXPERIMENTS)


def test_records_go_to_the_book_unless_told_otherwise(monkeypatch):
    asked = []
    made = type("Written", (), {"write": lambda self, folder: asked.append(folder.as_posix())})
    monkeypatch.setattr(records.Experiment, "run", lambda self, **options: made())
    main(["run", "mnist-1hl"])
    assert asked == ["book/records"]


def test_ctrl_c_says_what_is_kept(monkeypatch, capsys):
    def stopped(self, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(records.Experiment, "run", stopped)
    with pytest.raises(SystemExit) as end:
        main(["run", "mnist-1hl"])
    assert end.value.code == 130
    assert "the same command goes on" in capsys.readouterr().err
