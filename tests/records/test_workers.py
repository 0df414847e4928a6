"""Processes of this machine: the same results, whoever is killed. Each costs seconds to start."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import active_children
from pathlib import Path

import pytest
from small_networks import same
from small_tasks import chain, die, die_once, fail_strangely, small_lab, total_after

from modeconn_lite.records import workers
from modeconn_lite.records.tasks import Task, run_tasks
from modeconn_lite.records.workers import Here, Local
from modeconn_lite.storage import load

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(workers, "cores", lambda: 2)


def values(found: dict) -> dict:
    return {name: result["value"] for name, result in found.items()}


def test_tasks_run_in_as_many_processes_as_pay_off(tmp_path, two_cores):
    lab = small_lab(tmp_path)
    engine = Local(lab, 5)
    assert engine.capacity == 2  # never more than cores
    slow = [Task(f"slow-{k}", total_after, (0.5, k)) for k in range(4)]
    strange = [Task("strange", fail_strangely), Task("unlucky", die_once)]
    crews = []
    wait = engine.wait
    engine.wait = lambda seconds: (crews.append(len(engine.crew)), wait(seconds))[1]
    with pytest.raises(RuntimeError) as raised:
        run_tasks([*chain(lab), *slow, *strange], lab, engine, "a test")
    said = str(raised.value)
    assert said.startswith("1 of 11 tasks failed") and "strange" in said
    assert "Unsendable: this and that" in said
    assert max(crews) == 2 and not active_children()
    again = run_tasks([*chain(lab), *slow, strange[1]], lab, Here(lab), "a test")  # all is kept
    assert values(again) == {
        **{"one": 1, "two": 2, "four": 4, "five": 5, "unlucky": 0},
        **{f"slow-{k}": k for k in range(4)},
    }
    assert {result.get("threads", 1) for result in again.values()} == {1}
    assert os.getpid() not in {result.get("process") for result in again.values()}


def test_a_task_that_kills_its_process_is_given_up_in_the_end(tmp_path, two_cores):
    lab = small_lab(tmp_path)
    engine = Local(lab, 1)
    engine.deaths["deadly"] = workers.TRIES - 1
    with pytest.raises(RuntimeError, match=r"deadly: RuntimeError: .*code -9.*out of memory"):
        run_tasks([Task("deadly", die)], lab, engine, "a test")


def found(record) -> dict:
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in record.content["rows"]]
    return record.content | {"rows": rows}


METHODS = ["linear", "arc", "weights"]


def test_processes_killed_at_random_moments_change_no_bit(small, tmp_path, two_cores):
    """Here, in one process, and in two that are killed now and then: the same record."""
    whole = found(small.run(pairs=2, methods=METHODS, root=tmp_path / "here"))
    options = {"methods": METHODS, "engine": "local"}
    assert found(small.run(pairs=2, root=tmp_path / "1", workers=1, **options)) == whole
    killed, over, chance = [], threading.Event(), random.Random(0)

    def kill_now_and_then():
        while not over.wait(chance.uniform(0.0, 1.0)) and len(killed) < 2:
            busy = [p for p in active_children() if (time.time() - started) > 0.5]
            if any((tmp_path / "2").rglob("seed-*")) and busy:
                victim = chance.choice(busy)
                os.kill(victim.pid, signal.SIGKILL)
                killed.append(victim.pid)

    started = time.time()
    killer = threading.Thread(target=kill_now_and_then)
    killer.start()
    try:
        record = small.run(pairs=2, root=tmp_path / "2", workers=2, **options)
    finally:
        over.set()
        killer.join()
    assert found(record) == whole
    assert not list((tmp_path / "2").rglob("*.part"))
    for one in (tmp_path / "here").rglob("seed-*"):
        for other in ("1", "2"):
            (two,) = (tmp_path / other).rglob(one.name)
            assert same(load(one), load(two))


SCRIPT = """
import signal
import sys
from pathlib import Path
import torch
from small_tasks import total, total_after
from modeconn_lite.records.lab import Lab
from modeconn_lite.records.tasks import Task, run_tasks
from modeconn_lite.records.workers import Local

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    lab = Lab(Path(sys.argv[1]), None, torch.device("cpu"))
    tasks = [Task("first", total, (1,)), Task("endless", total_after, (600, 1), ("first",))]
    run_tasks(tasks, lab, Local(lab, 1), "a test")
"""


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_processes_end_with_the_one_that_started_them(tmp_path, sign):
    """Ctrl-C, or worse: what was finished is kept, nobody goes on, and nothing else is left."""
    (tmp_path / "sweep.py").write_text(SCRIPT)
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    command = [sys.executable, str(tmp_path / "sweep.py"), str(tmp_path / "run")]
    shared = tmp_path / "shared"
    shared.mkdir()
    environment = os.environ | {"PYTHONPATH": path, "TMPDIR": str(shared)}
    run = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    first = tmp_path / "run" / "first.json"
    until(first.exists)
    lab = small_lab(tmp_path / "run")
    worker = lab.find("first")["process"]
    assert worker != run.pid
    run.send_signal(sign)
    _, said = run.communicate(timeout=60)
    assert run.returncode != 0 and ("KeyboardInterrupt" in said) == (sign == signal.SIGINT)
    until(lambda: not running(worker))
    assert lab.find("first")["value"] == 1
    assert not list(shared.glob("modeconn-*"))


def until(true, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
