"""The bench runs and its results have the structure that the documentation relies on. Times are not judged here."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from thalweg.inspect.catalogue import load

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    run("--rules", "SGDW;Muon", "--out", str(folder))
    return folder


def run(*options: str, fails: bool = False) -> str:
    """What a small run of the bench says."""
    command = [sys.executable, str(ROOT / "bench/optim_step.py"), "--list", "tiny", "--repeats", "2", "--fresh", "no", *options]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, check=False)
    assert (done.returncode != 0) == fails, done.stderr
    return done.stderr if fails else done.stdout


@pytest.fixture(scope="module")
def results(out: Path) -> dict:
    return json.loads(next(out.glob("optim_step_*.json")).read_text(encoding="utf-8"))


def test_results_say_when_where_and_of_what(results: dict) -> None:
    assert {"date", "commit", "repeats", "clock", "environment"} <= set(results)
    assert {"torch", "python", "threads", "processor", "load", "peers"} <= set(results["environment"])


def test_every_column_has_a_time_or_a_reason(results: dict) -> None:
    columns = results["times"]["tiny"]["SGDW"]
    assert {"reference", "thalweg compiled", "thalweg eager"} <= set(columns)
    for column, facts in columns.items():
        assert "absent" in facts or (facts["seconds"] > 0 and facts["ratio"] > 0 and len(facts["quartiles"]) == 2), column
    assert columns["reference"]["ratio"] == 1.0
    assert columns["thalweg eager"]["state_bytes"] == 4.0  # one fp32 momentum


def test_goals_without_a_measurement_are_not_called_met(results: dict) -> None:
    by_goal = {goal["goal"]: goal for goal in results["goals"]}
    assert by_goal["AdamW on 200 small parameters: at most 0.6 of torch's fused"]["met"] is None
    assert any(goal["met"] is not None for goal in by_goal.values())


def test_the_table_has_each_rule_and_each_goal(out: Path, results: dict) -> None:
    page = (out / "optim_step.md").read_text(encoding="utf-8")
    assert "| SGDW |" in page and "| Muon |" in page
    assert all(goal["goal"] in page for goal in results["goals"])
    assert not list(out.glob("*.part"))


@pytest.fixture(scope="module")
def timed() -> dict[str, str]:
    """Every row of the bench, with its rule in words."""
    spec = importlib.util.spec_from_file_location("bench_rows", ROOT / "bench/steps/rows.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_rows"] = module  # its dataclasses look themselves up there
    try:
        spec.loader.exec_module(module)
        return {row.name: repr(row.rule) for row in module.rows()}
    finally:
        del sys.modules["bench_rows"]


def test_an_update_measures_the_named_rows_anew_and_keeps_the_others(results: dict, timed: dict[str, str], tmp_path: Path) -> None:
    held = {name: name if name in results["rows"] else "SGDW" for name in timed}  # so that nothing else is missing
    old = {**results, "commit": "before", "rows": {name: results["rows"][like] for name, like in held.items()}}
    old["commits"] = {"tiny": dict.fromkeys(held, "before"), "fresh": {}}
    old["times"] = {"tiny": {name: results["times"]["tiny"][like] for name, like in held.items()}}
    (tmp_path / "optim_step_2000-01-01.json").write_text(json.dumps(old), encoding="utf-8")
    assert "--clock wall and --repeats 2; give" in run("--rules", "Muon", "--out", str(tmp_path), "--update", "--repeats", "1", fails=True)
    run("--rules", "Muon", "--out", str(tmp_path), "--update", "--repeats", "3")
    new = json.loads(max(tmp_path.glob("optim_step_*.json")).read_text(encoding="utf-8"))
    assert new["times"]["tiny"]["SGDW"] == old["times"]["tiny"]["SGDW"] and new["times"]["tiny"]["Muon"] != old["times"]["tiny"]["Muon"]
    commits = new["commits"]["tiny"]
    assert commits["SGDW"] == "before" != commits["Muon"] == new["commit"] and list(commits) == list(new["times"]["tiny"])
    page = (tmp_path / "optim_step.md").read_text(encoding="utf-8")
    assert "\nMeasured at `before`: AdamW; " in page and "\nOf 3 rounds: Muon.\n" in page and ", 2 rounds, " in page
    assert list(new["times"]["tiny"]) == [name for name in new["rows"] if name in new["times"]["tiny"]]


def test_an_update_without_results_is_refused(tmp_path: Path) -> None:
    assert f"--update: there are no results in {tmp_path}; run without it first." in run("--out", str(tmp_path), "--update", fails=True)


def test_every_rule_of_the_library_has_a_row(timed: dict[str, str]) -> None:
    words = " ".join(timed.values())
    assert not [entry.name for entry in load() if entry.family == "optim" and f"{entry.name}(" not in words]
