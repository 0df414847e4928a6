import importlib.util
import os

import pytest
import torch
from small_tasks import small_lab

from modeconn_lite.records import engines, workers
from modeconn_lite.records.engines import check_engine, check_place, make_engine
from modeconn_lite.records.workers import Here, Local


def test_engines_by_name(tmp_path, monkeypatch):
    lab = small_lab(tmp_path)
    assert isinstance(make_engine("here", lab), Here)
    monkeypatch.setattr(workers, "cores", lambda: 3)
    for asked, capacity in ((None, 3), (1, 1), (2, 2), (8, 3)):
        engine = make_engine("local", lab, asked)
        assert isinstance(engine, Local) and engine.capacity == capacity


def test_cores_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5}, raising=False)
    assert workers.cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    assert workers.cores() == (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("engine", "count", "message"),
    [
        ("dask", None, "engine must be one of"),
        ("local", 0, "workers must be a whole number of at least 1"),
        ("local", 1.5, "workers must be a whole number"),
        ("here", 1, "workers are of engine 'local'; 'here' has its own number"),
        ("ray", 4, "workers are of engine 'local'"),
    ],
)
def test_nonsense_is_refused(engine, count, message):
    with pytest.raises(ValueError, match=message):
        check_engine(engine, count)


def test_without_ray_the_error_names_the_remedy(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'modeconn-lite\[ray\]'.*engine 'local'"):
        engines.check_engine("ray", None)


def test_a_cluster_has_gpus_that_this_machine_need_not_have():
    assert check_place("cuda", "ray") == torch.device("cuda")
    assert check_place("cpu", "ray") == check_place("cpu", None) == torch.device("cpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device cannot be 'cuda'"):
            check_place("cuda", "local")
