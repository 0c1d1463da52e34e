"""Comparisons side by side: goals are judged as they are worded, and a run writes JSON and a page with one structure. Times are not judged here."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from thalweg.inspect.catalogue import load

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture(scope="module")
def beside() -> Iterator[ModuleType]:
    """`beside.main`, found as the scripts find it."""
    before = set(sys.modules)
    sys.path.insert(0, str(BENCH))
    try:
        yield importlib.import_module("beside.main")
    finally:
        sys.path.remove(str(BENCH))
        for name in set(sys.modules) - before:
            if name.split(".")[0] == "beside":
                del sys.modules[name]


WAYS: dict[str, dict[str, Any]] = {
    "reference": {"seconds": 2.0, "ratio": 1.0, "memory": 100.0, "figures": {"error": 0.5}},
    "ours": {"seconds": 3.0, "ratio": 1.25, "memory": 130.0, "figures": {"error": 0.01}},
    "peer": {"absent": "ImportError: no peer"},
}


@pytest.mark.parametrize(
    ("over", "of", "limit", "held", "value", "met"),
    [
        ("reference", "time", 1.25, 0.0, 1.25, True),  # the median of the ratios within rounds, not the ratio of the medians, 1.5
        ("reference", "time", 1.2, 0.0, 1.25, False),
        (None, "time", 2.9, 0.0, 3.0, False),
        ("reference", "memory", 1.2, 0.0, 1.3, False),
        ("reference", "memory", 1.2, 100.0, 1.15, True),
        ("reference", "error", 0.05, 100.0, 0.02, True),
        (None, "error", 0.005, 0.0, 0.01, False),
        ("peer", "time", 1.0, 0.0, None, None),
        ("reference", "another figure", 1.0, 0.0, None, None),
    ],
)
def test_a_goal_is_met_missed_or_not_measured(
    beside: ModuleType, over: str | None, of: str, limit: float, held: float, value: float | None, met: bool | None
) -> None:
    case = importlib.import_module("beside.case")
    found = beside.judged(case.Goal(text="a goal", way="ours", over=over, of=of, limit=limit), WAYS, held)
    assert found["met"] is met and found["limit"] == limit and found["goal"] == "a goal"
    assert beside.without_nan(found)["value"] == (None if value is None else pytest.approx(value))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("estimators")
    command = [sys.executable, str(BENCH / "estimators.py"), "--cases", "evolution,wta-crs", "--repeats", "1", "--out", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(BENCH.parent / "src")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_run_writes_the_structure_that_the_page_needs(out: Path) -> None:
    results = json.loads(next(out.glob("estimators_*.json")).read_text(encoding="utf-8"))
    assert {"title", "date", "commit", "repeats", "environment", "cases"} == set(results)
    assert {"torch", "python", "threads", "processor", "load", "peers"} <= set(results["environment"])
    assert list(results["cases"]) == ["evolution", "wta-crs"]
    for case in results["cases"].values():
        assert case["setting"] and {"ways", "goals"} <= set(case)
        for way, facts in case["ways"].items():
            assert facts["seconds"] > 0 and facts["ratio"] > 0 and len(facts["quartiles"]) == 2, way
    assert results["cases"]["evolution"]["ways"]["loop"]["ratio"] == 1.0 and results["cases"]["evolution"]["goals"] == []
    (goal,) = results["cases"]["wta-crs"]["goals"]
    ways = results["cases"]["wta-crs"]["ways"]
    held = [ways[way]["figures"]["MiB held by the layers"] for way in ("thalweg, 0.3", "torch.nn.Linear")]
    assert goal["value"] == pytest.approx(held[0] / held[1]) and goal["met"] is True and all(facts["memory"] > 0 for facts in ways.values())


def test_the_page_has_each_way_and_each_goal_and_nothing_is_left_behind(out: Path) -> None:
    page = (out / "estimators.md").read_text(encoding="utf-8")
    assert all(f"| {way} |" in page for way in ("loop", "one batched run", "thalweg", "torch.nn.Linear", "thalweg, 0.3"))
    assert "| met |" in page and "| | ms | ratio | peak MiB | MiB held | MiB held by the layers |" in page.replace("|  |", "| |")
    assert not [*out.glob("*.part"), *out.glob(".*.json")]


def test_every_wrapper_of_the_library_has_a_way() -> None:
    """And runs and state are counted, here for the recurrent net."""
    sys.path.insert(0, str(BENCH))
    before = set(sys.modules)
    try:
        cases = importlib.import_module("wrappers").CASES
        named = {name.split(",")[0] for case in cases for name in case.ways}
        found = cases[-2].figures()
    finally:
        sys.path.remove(str(BENCH))
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCH)):
                del sys.modules[name]
    assert not [entry.name for entry in load() if entry.family == "wrap" and entry.name not in named]
    assert found == {"runs of the network": {"SGD": 1.0, "Omega": 1.0}, "state bytes per weight": {"SGD": 0.0, "Omega": 0.0}}


def test_an_update_keeps_the_other_cases_with_their_commit(beside: ModuleType) -> None:
    last = {"commit": "before", "cases": {"a": {"setting": "x"}, "b": {"setting": "y", "commit": "earlier"}, "c": {"setting": "z"}}}
    held = beside.kept(last, ["a", "b", "d"])
    assert held == {"a": {"commit": "before", "setting": "x"}, "b": {"commit": "earlier", "setting": "y"}}


def test_an_unknown_case_is_named(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCH / "estimators.py"), "--cases", "mezzo", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(BENCH.parent / "src")}, check=False)
    assert done.returncode == 2 and "--cases: mezzo; expected some of forward-gradient-mlp" in done.stderr
