"""The store: claims, leases, refusals, exports."""

from __future__ import annotations

import csv
import json
import math
import os
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from thalweg.race.export import export
from thalweg.race.records import RaceSettings, Trial
from thalweg.race.store import SCHEMA, Store, StoreError

SETTINGS = RaceSettings(
    task="toy", metric="error", direction="min", methods=("a", "b"), reference="a", trials=4, seeds=3, steps=100, target=None, quick=False,
    code_hash="c0de", environment={"torch": "2.13.0", "python": "3.11", "thalweg": "0.1"}, created="now",
)


def trial(index, method="a", **changes):
    hyper = {"lr": 0.1 * (index + 1), "betas.0": 0.9}
    return Trial(key=f"tune/{method}/{index:03d}", method=method, stage="tune", index=index, seed=0, hyper=hyper, **changes)


def opened(folder, **options):
    store = Store(folder, **options)
    store.open(SETTINGS)
    return store


def test_a_trial_comes_back_as_it_was(tmp_path):
    curve = {"step": [0.0, 1.0], "train": [math.nan, 0.5], "val": [1.0, math.inf]}
    ended = trial(0, score=0.1 + 0.2, test=0.3, curve=curve, step_ms=1.5, warmup_s=0.1, state_bytes=12, peak_mib=3.5, message="a line")
    with opened(tmp_path) as store:
        store.plan([trial(0)])
        assert store.claim() == [trial(0)]
        assert store.finish(ended)
    with Store(tmp_path) as store:
        back = store.ended()[ended.key]
        assert store.settings() == SETTINGS
    assert math.isnan(back.curve["train"][0])
    assert replace(back, curve={}) == replace(ended, curve={}) and back.curve["val"] == ended.curve["val"]


def test_trials_are_claimed_in_order_and_once(tmp_path):
    with opened(tmp_path) as one, opened(tmp_path) as two:
        one.plan(trial(i) for i in (2, 0, 1))
        two.plan(trial(i) for i in (2, 0, 1))
        assert [t.index for t in one.claim(2)] == [2, 0]
        assert [t.index for t in two.claim(5)] == [1]
        assert one.claim(1) == [] and one.left() == (0, 3)
        assert not two.finish(trial(0, score=1.0)), "a trial that another process runs"
        assert one.finish(trial(0, score=1.0)) and not one.finish(trial(0, score=2.0))
        assert two.ended()["tune/a/000"].score == 1.0


def test_a_claim_that_is_not_renewed_runs_out(tmp_path):
    with Store(tmp_path, lease=0.3) as silent, opened(tmp_path, lease=0.3) as other:
        silent.owner = "another-machine:1:0"  # never opened, so nothing renews its claims
        silent.plan([trial(0)])
        assert len(silent.claim()) == 1
        assert other.claim() == []
        time.sleep(0.4)
        assert [t.index for t in other.claim()] == [0]
        assert not silent.finish(trial(0, score=1.0))
        assert other.finish(trial(0, score=2.0))
        assert other.ended()["tune/a/000"].score == 2.0


def test_a_claim_is_renewed_while_its_process_lives(tmp_path):
    with opened(tmp_path, lease=2.0) as alive, opened(tmp_path, lease=2.0) as other:
        alive.plan([trial(0)])
        alive.claim()
        time.sleep(3.0)
        assert other.claim() == []
        assert alive.finish(trial(0, score=1.0))


def test_a_process_that_was_killed_gives_its_trials_back_at_once(tmp_path):
    code = ("from thalweg.race.store import Store; import os, signal; from tests_race_settings import S; "
            f"s = Store({str(tmp_path)!r}, lease=3600); s.open(S); print(len(s.claim(2)), flush=True); os.kill(os.getpid(), signal.SIGKILL)")
    (tmp_path / "tests_race_settings.py").write_text(f"from thalweg.race.records import RaceSettings\nS = {SETTINGS!r}\n")
    with opened(tmp_path) as store:
        store.plan(trial(i) for i in range(3))
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
        ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120, check=False)
        assert (ran.stdout.strip(), ran.returncode) == ("2", -9), ran.stderr
        assert [t.index for t in store.claim(5)] == [0, 1, 2]
        assert [s["pid"] for s in store.sessions()][0] == os.getpid() and len(store.sessions()) == 2


def test_closing_gives_claims_back(tmp_path):
    with opened(tmp_path) as store:
        store.plan([trial(0)])
        store.claim()
    with opened(tmp_path) as store:
        assert len(store.claim()) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 50}, "steps: the store has 100, this race has 50"),
        ({"methods": ("a", "c")}, r"methods: the store has \('a', 'b'\), this race has \('a', 'c'\)"),
        ({"code_hash": "0ther"}, "code hash: the store has c0de, this race has 0ther"),
        ({"environment": {**SETTINGS.environment, "torch": "9.9"}}, "torch: the store has 2.13.0, this race has 9.9"),
    ],
)
def test_another_race_is_refused_with_both_values(tmp_path, changes, words):
    with opened(tmp_path):
        pass
    with Store(tmp_path) as store, pytest.raises(StoreError, match=words):
        store.open(replace(SETTINGS, **changes))


def test_the_date_and_the_machine_may_differ(tmp_path):
    with opened(tmp_path):
        pass
    with Store(tmp_path) as store:
        assert store.open(replace(SETTINGS, created="later", environment={**SETTINGS.environment, "cpu": "faster"})).created == "now"


def test_a_newer_schema_is_refused_with_both_numbers(tmp_path):
    with opened(tmp_path):
        pass
    with sqlite3.connect(tmp_path / "race.db") as db:
        db.execute("UPDATE facts SET value = '7' WHERE name = 'schema'")
    db.close()
    with pytest.raises(StoreError, match=f"has schema 7; this version of thalweg reads schemas up to {SCHEMA}"):
        Store(tmp_path)


def test_a_file_that_is_no_store_is_refused(tmp_path):
    (tmp_path / "race.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match="is not a race store"):
        Store(tmp_path)


def filled(folder):
    store = opened(folder)
    store.plan([trial(0), trial(0, "b")])
    store.claim(2)
    store.finish(trial(0, score=0.5, curve={"step": [0.0, 1.0]}))
    store.finish(replace(trial(0, "b", status="diverged", message="loss is nan, at step 3"), hyper={"lr": 1, "norm": "l2"}))
    return store


def test_csv_has_one_row_for_each_trial(tmp_path):
    with filled(tmp_path) as store:
        path = export(store, tmp_path / "trials.csv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["key"] for r in rows] == ["tune/a/000", "tune/b/000"]
    assert (rows[0]["hyper.lr"], rows[0]["hyper.betas.0"], rows[0]["hyper.norm"]) == ("0.1", "0.9", "")
    assert (rows[1]["status"], rows[1]["message"], rows[1]["score"]) == ("diverged", "loss is nan, at step 3", "")
    assert json.loads(rows[0]["curve"]) == {"step": [0.0, 1.0]}


def test_parquet_holds_the_same(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is an extra")
    with filled(tmp_path) as store:
        rows = parquet.read_table(export(store, tmp_path / "trials.parquet")).to_pylist()
    found = [(r["key"], r["hyper.lr"], r["score"], r["status"]) for r in rows]
    assert found == [("tune/a/000", 0.1, 0.5, "done"), ("tune/b/000", 1.0, None, "diverged")]


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with filled(tmp_path) as store, pytest.raises(StoreError, match=r'pip install "thalweg\[parquet\]"'):
        export(store, tmp_path / "trials.parquet")
    assert not list(tmp_path.glob("*.tmp"))


def test_other_endings_and_folders_are_refused(tmp_path):
    with filled(tmp_path) as store:
        with pytest.raises(StoreError, match=".csv or a .parquet"):
            export(store, tmp_path / "trials.xlsx")
        with pytest.raises(StoreError, match="does not exist"):
            export(store, tmp_path / "no" / "trials.csv")
