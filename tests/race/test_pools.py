"""Pools: a process that dies takes only its trial with it; a Ray cluster gives the same figures."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from dataclasses import replace

import pytest

from thalweg.core.space import Log, Space
from thalweg.race.local import LocalPool, PoolError, packed
from thalweg.race.methods import Method, find
from thalweg.race.race import RaceError, race
from thalweg.race.ray_pool import RayPool
from thalweg.race.records import Trial
from thalweg.race.task import source
from thalweg.race.trial import Job, run_job

BROKEN = """
import os, signal
def quits(model, hyper): os._exit(3)
def killed(model, hyper): os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def broken(tmp_path, monkeypatch):
    (tmp_path / "broken_methods.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    import broken_methods

    yield broken_methods
    del sys.modules["broken_methods"]


def job(method, index=0):
    trial = Trial(key=f"tune/{method.name}/{index:03d}", method=method.name, stage="tune", index=index, seed=index, hyper=dict(method.defaults))
    return Job(trial=trial, method=method, task=source("diabetes"), steps=20, batch=16, grid=4, test=False)


def made(build):
    return Method(name="broken", space=Space({"lr": Log(0.1, 1)}), build=build)


def collected(pool, count):
    ended, until = [], time.monotonic() + 120
    while len(ended) < count and time.monotonic() < until:
        ended += pool.collect(1.0)
    return ended


def test_a_process_that_dies_is_a_status_and_is_replaced(broken):
    pool = LocalPool(1)
    try:
        for build, status, words in ((broken.quits, "failed", "exit code 3"), (broken.killed, "out of memory", "exit code -9")):
            assert pool.free == 1
            pool.submit(job(made(build)))
            assert pool.free == 0 and not pool.idle
            (ended,) = collected(pool, 1)
            assert ended.status == status and words in ended.message and ended.key == "tune/broken/000"
        good = job(find("torch.SGD"))
        pool.submit(good)
        (ended,) = collected(pool, 1)
        assert ended.score == run_job(good).score
    finally:
        pool.close()


def test_what_cannot_be_sent_says_so():
    with pytest.raises(PoolError, match="importable module, or pass workers=0"):
        packed(job(made(lambda model, hyper: None)))


def test_what_a_worker_cannot_import_is_a_failure(broken):
    pool = LocalPool(1)
    try:
        sent = job(made(broken.quits))
        os.remove(broken.__file__)
        pool.submit(sent)
        (ended,) = collected(pool, 1)
        assert ended.status == "failed" and "cannot import the task or the method" in ended.message
        assert replace(ended, status="done", message="") == sent.trial
    finally:
        pool.close()


def test_no_ray_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(PoolError, match=r'pip install "thalweg\[ray\]"'):
        RayPool("auto")


needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is an extra: pip install 'thalweg[ray]'")


@needs_ray
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_ray_cluster_of_two_nodes_gives_the_same_figures(tmp_path, monkeypatch):
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options = {"reference": "torch.AdamW", "trials": 2, "seeds": 2, "steps": 10, "report": False}
    methods = ["torch.AdamW", "torch.SGD"]
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        pool = RayPool(cluster.address)
        try:
            assert pool.free == 2 and len({n["NodeID"] for n in ray.nodes() if n["Alive"]}) == 2
        finally:
            pool.close()
        far = race("diabetes", methods, out=tmp_path / "far", ray=cluster.address, **options)
    finally:
        cluster.shutdown()
    near = race("diabetes", methods, out=tmp_path / "near", workers=0, **options)
    assert {t.key: (t.score, t.test, t.hyper) for t in far.trials} == {t.key: (t.score, t.test, t.hyper) for t in near.trials}
    assert far.complete and [v.mean for v in far.verdicts] == [v.mean for v in near.verdicts]


@needs_ray
@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")
def test_no_cluster_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(RaceError, match=r"No Ray cluster answers at '127.0.0.1:1'"):
        race("diabetes", ["torch.AdamW", "torch.SGD"], reference="torch.AdamW", out=tmp_path, ray="127.0.0.1:1", steps=5)
