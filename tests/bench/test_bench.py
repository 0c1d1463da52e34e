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
    command = [
        sys.executable,
        str(ROOT / "bench/optim_step.py"),
        "--list",
        "tiny",
        "--rules",
        "SGDW;Muon",
        "--repeats",
        "2",
        "--fresh",
        "no",
        "--out",
        str(folder),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return folder


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


def test_every_rule_of_the_library_has_a_row() -> None:
    spec = importlib.util.spec_from_file_location("bench_rows", ROOT / "bench/steps/rows.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_rows"] = module  # its dataclasses look themselves up there
    try:
        spec.loader.exec_module(module)
        timed = " ".join(f"{row.name} {row.rule!r}" for row in module.rows())
    finally:
        del sys.modules["bench_rows"]
    missing = [entry.name for entry in load() if entry.family == "optim" and f"{entry.name}(" not in timed]
    assert not missing
