"""A Ray cluster: the same record to the bit, though a node goes away. See also test_workers.py."""

import importlib.util
import os
import threading
import time
from pathlib import Path

import pytest
from small_networks import same
from small_tasks import chain, die_once, fail, small_lab, total

from modeconn_lite.records.cluster import Ray
from modeconn_lite.records.tasks import Task, run_tasks
from modeconn_lite.storage import load

TESTS = Path(__file__).resolve().parents[1]
pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None,
        reason="Ray is not installed: pip install 'modeconn-lite[ray]'",
    ),
    pytest.mark.filterwarnings("ignore"),  # Ray's own, of sockets and files that it leaves open
]


@pytest.fixture(scope="module")
def cluster():
    """Three nodes on this machine: a head that computes nothing, and two of one core."""
    path = [str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
    os.environ |= {
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    import ray

    for tries_left in (2, 1, 0):
        try:
            nodes = three_nodes()
            break
        except Exception:  # Ray waits for a node a fixed time, which a busy machine can exceed
            if not tries_left:
                raise
    yield nodes
    ray.shutdown()
    nodes.shutdown()


def three_nodes():
    import ray
    from ray.cluster_utils import Cluster

    nodes = Cluster()
    try:
        nodes.add_node(num_cpus=0, include_dashboard=False)
        for _ in range(2):
            nodes.add_node(num_cpus=1)
        ray.init(address=nodes.address, log_to_driver=False)
    except Exception:
        ray.shutdown()
        nodes.shutdown()
        raise
    return nodes


def test_a_node_goes_away_and_the_record_is_the_same(small, tmp_path, cluster):
    def found(root, **options):
        content = small.run(pairs=3, methods=["linear", "weights"], root=root, **options).content
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in content["rows"]]
        return content | {"rows": rows}

    import ray

    own = ray._private.worker._global_node._raylet_socket_name  # the driver's node must stay
    _, *workers = cluster.list_all_nodes()
    first_to_go = next(node for node in workers if node._raylet_socket_name != own)

    def remove():
        while not list((tmp_path / "ray").rglob("seed-*.safetensors")):
            time.sleep(0.01)
        cluster.remove_node(first_to_go)

    remover = threading.Thread(target=remove)
    remover.start()
    on_ray = found(tmp_path / "ray", engine="ray")
    remover.join()
    assert first_to_go not in cluster.list_all_nodes()
    here = found(tmp_path / "here")
    assert on_ray == here
    for one in (tmp_path / "here").rglob("seed-*"):
        (two,) = (tmp_path / "ray").rglob(one.name)
        assert same(load(one), load(two))


def test_killed_processes_and_failures(tmp_path, cluster):
    lab = small_lab(tmp_path)
    bad = [Task("unlucky", die_once, (7,)), Task("bad", fail), Task("after", total, (), ("bad",))]
    with pytest.raises(RuntimeError, match=r"1 of 8 tasks failed.*bad: LookupError"):
        run_tasks([*bad, *chain(lab)], lab, Ray(lab), "a test")
    assert lab.find("unlucky")["value"] == 7
    assert {lab.find(name)["threads"] for name in ("unlucky", "one", "four")} == {1}


def test_more_is_under_way_than_runs_at_once(tmp_path, cluster):
    with Ray(small_lab(tmp_path)) as engine:
        assert engine.capacity >= 2
        assert not engine.own  # the cluster was there
