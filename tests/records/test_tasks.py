"""A graph of tasks: found or made in its order, kept at once, and no failure spreads."""

import json

import pytest
import torch
from small_tasks import chain, fail, small_lab, total
from tqdm.auto import tqdm

from modeconn_lite.records.tasks import Task, run_tasks
from modeconn_lite.records.workers import Here
from modeconn_lite.storage import load


def run(tasks, lab):
    return run_tasks(tasks, lab, Here(lab), "a test")


def test_results_go_to_those_who_need_them_and_into_files(tmp_path):
    lab = small_lab(tmp_path / "run")
    found = run(chain(lab), lab)
    assert {name: result["value"] for name, result in found.items()} == {
        "one": 1,
        "two": 2,
        "four": 4,
        "five": 5,
    }
    assert {file.name for file in lab.folder.iterdir()} == {
        "one.json",
        "two.json",
        "four.json",
        "five.json",
        "ones.safetensors",
    }
    assert json.loads((lab.folder / "four.json").read_text())["content"] == found["four"]
    assert load(lab.folder / "ones.safetensors")["x"].tolist() == [1] * 5


def test_what_is_there_is_not_made_again_and_what_is_damaged_is(tmp_path, monkeypatch):
    lab, made = small_lab(tmp_path), []
    start = Here.start
    monkeypatch.setattr(
        Here,
        "start",
        lambda self, task, inputs: (made.append(task.name), start(self, task, inputs)),
    )
    run(chain(lab)[:2], lab)
    run(chain(lab), lab)
    assert made == ["one", "two", "four", "ones", "five"]
    for name in ("two.json", "ones.safetensors"):
        (tmp_path / name).write_bytes(b"{")
    with pytest.warns(UserWarning, match="it is made again") as warned:
        run(chain(lab), lab)
    assert len(warned) == 2
    assert made[5:] == ["two", "ones"]
    fresh = small_lab(tmp_path, fresh=True)
    run(chain(fresh), fresh)
    assert made[7:] == ["one", "two", "four", "five"]  # measured again; tensors stay


def test_tasks_begin_in_the_order_given(tmp_path):
    lab, seen = small_lab(tmp_path), []
    tasks = [Task(f"t{k}", _note, (seen, k)) for k in (3, 1, 2)]
    late = Task("late", _note, (seen, 0), ("t1",))
    run([tasks[0], late, *tasks[1:]], lab)
    assert seen == [3, 1, 0, 2]  # `late` had a place before t2


def _note(lab, seen, k, *_):
    seen.append(k)
    return {}


def test_a_failure_stops_only_what_needs_it(tmp_path):
    lab = small_lab(tmp_path)
    tasks = [Task("bad", fail), Task("after", total, (1,), ("bad",)), *chain(lab)]
    with pytest.raises(RuntimeError, match=r"1 of 7 tasks failed.*bad: LookupError: nothing") as e:
        run(tasks, lab)
    assert isinstance(e.value.__cause__, LookupError)
    assert (tmp_path / "four.json").exists() and not (tmp_path / "after.json").exists()


@pytest.mark.parametrize("about", [None, {"name": "odd"}])
def test_so_does_a_result_that_cannot_be_kept(tmp_path, about):
    lab = small_lab(tmp_path)
    tasks = [Task("odd", _odd, about=about), Task("after", total, (1,), ("odd",)), *chain(lab)]
    with pytest.raises(RuntimeError, match=r"1 of 7 tasks failed.*odd: (Type|Value)Error"):
        run(tasks, lab)
    assert (tmp_path / "four.json").exists()
    assert not list(tmp_path.glob("odd*")) and not (tmp_path / "after.json").exists()


def _odd(lab):
    return {"x": torch.tensor(torch.nan)}


@pytest.mark.parametrize("fresh", [False, True])
def test_an_empty_result_is_a_result(tmp_path, fresh):
    lab, seen = small_lab(tmp_path, fresh=fresh), []
    run([Task("empty", _note, ([], 0)), Task("after", _seen, (seen,), ("empty",))], lab)
    assert seen == [{}]


def _seen(lab, seen, result):
    seen.append(result)
    return {}


def test_graphs_that_make_no_sense_are_refused(tmp_path):
    lab = small_lab(tmp_path / "new")
    with pytest.raises(ValueError, match="two tasks have the same name"):
        run([Task("a", total), Task("a", total)], lab)
    with pytest.raises(ValueError, match=r"tasks need \['b'\], which are no tasks"):
        run([Task("a", total, needs=("b",))], lab)
    with pytest.raises(ValueError, match=r"in a circle: (a → b → a|b → a → b); leave one out"):
        run([Task("a", total, needs=("b",)), Task("b", total, needs=("a",))], lab)
    assert not lab.folder.exists()


def test_the_bar_counts_work_and_leaves_what_was_found_out_of_the_speed(tmp_path, monkeypatch):
    bars = []

    class Bar(tqdm):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            bars.append(self)

    monkeypatch.setattr("modeconn_lite.records.tasks.tqdm", Bar)
    lab = small_lab(tmp_path)
    tasks = [Task("one", total, (1,), work=3), Task("two", total, (2,), work=4)]
    run(tasks[:1], lab)
    run(tasks, lab)
    assert [(bar.total, bar.n, bar.initial) for bar in bars] == [(3, 3, 0), (7, 7, 3)]


def test_each_task_runs_on_one_thread_and_the_others_come_back(tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert run([Task("one", total, (1,))], small_lab(tmp_path))["one"]["threads"] == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
