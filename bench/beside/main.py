"""The command of every comparison: measure, judge, write JSON and table; what an interrupted run had measured is kept."""

from __future__ import annotations

import argparse
import datetime
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from beside import measure
from beside.case import Case, Goal
from beside.facts import HERE, commit, environment, replace, without_nan

MIB = 2**20


def main(script: str, title: str, cases: Sequence[Case], peers: Sequence[str]) -> None:
    """Run the cases of the module `script` and write `results/SCRIPT_DATE.json` and `results/SCRIPT.md`."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--cases", type=lambda s: s.split(","), default=[case.name for case in cases])
    parser.add_argument("--repeats", type=int, default=11, help="rounds")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--update", action="store_true", help="keep the other cases of the last results")
    options = parser.parse_args()
    if unknown := sorted(set(options.cases) - {case.name for case in cases}):
        parser.error(f"--cases: {', '.join(unknown)}; expected some of {', '.join(case.name for case in cases)}")
    partial = options.out / f".{script}.partial.json"
    results = begun = {"title": title, "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"), "commit": commit(),
                       "repeats": options.repeats, "environment": environment(peers), "cases": {}}
    if options.update and (last := max(options.out.glob(f"{script}_*.json"), default=None)):
        begun["cases"] = kept(json.loads(last.read_text(encoding="utf-8")), [case.name for case in cases if case.name not in options.cases])
    if partial.exists():
        held = json.loads(partial.read_text(encoding="utf-8"))
        results = held if (held["commit"], held["repeats"]) == (begun["commit"], begun["repeats"]) else begun
    options.out.mkdir(parents=True, exist_ok=True)
    for case in cases:
        if case.name in options.cases and case.name not in results["cases"]:
            results["cases"][case.name] = measured(script, case, options.repeats)
            replace(partial, json.dumps(without_nan(results)))
            print(row_words(case.name, results["cases"][case.name]), flush=True)
    results["cases"] = {case.name: results["cases"][case.name] for case in cases if case.name in results["cases"]}
    replace(options.out / f"{script}_{results['date'][:10]}.json", json.dumps(without_nan(results), indent=1) + "\n")
    replace(options.out / f"{script}.md", markdown(results))
    partial.unlink(missing_ok=True)
    print(markdown(results))


def kept(last: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The named cases of earlier results, each with the commit that it was measured at."""
    return {name: {"commit": last["commit"], **last["cases"][name]} for name in names if name in last["cases"]}


def measured(script: str, case: Case, repeats: int) -> dict[str, Any]:
    """One case: every way's time, memory and figures, and the goals."""
    ways = measure.times(case, repeats)
    for name, facts in ways.items():
        if case.memory and "absent" not in facts:
            facts["memory"] = measure.memory(script, case.name, name)
    for figure, by_way in case.figures().items():
        for name, value in by_way.items():
            ways[name].setdefault("figures", {})[figure] = value
    return {"setting": case.setting, "ways": ways, "goals": [judged(goal, ways, case.held) for goal in case.goals]}


def judged(goal: Goal, ways: dict[str, dict[str, Any]], held: float = 0.0) -> dict[str, Any]:
    """A goal with what was measured; `met` is None where it was not. `held`: bytes that count beside each way's peak memory."""

    def number(way: str) -> float:
        facts = ways.get(way, {})
        value = facts.get("seconds" if goal.of == "time" else goal.of, facts.get("figures", {}).get(goal.of))
        return math.nan if value is None else float(value) + (held if goal.of == "memory" else 0.0)

    if goal.of == "time" and goal.over is not None:
        both = [ways.get(way, {}).get("ratio", math.nan) for way in (goal.way, goal.over)]
        value = both[0] / both[1]
    else:
        value = number(goal.way) / (1.0 if goal.over is None else number(goal.over))
    return {"goal": goal.text, "limit": goal.limit, "value": value, "met": None if math.isnan(value) else value <= goal.limit}


def markdown(results: dict[str, Any]) -> str:
    """The page's table."""
    goals = [goal for case in results["cases"].values() for goal in case["goals"]]
    lines = [*heading(results, f"{results['repeats']} rounds"), *goal_lines(goals)]
    for name, case in results["cases"].items():
        figures = sorted({figure for facts in case["ways"].values() for figure in facts.get("figures", {})})
        has_memory = any("memory" in facts for facts in case["ways"].values())
        heads = ["", "ms", "ratio", *["peak MiB"] * has_memory, *figures]
        at = case.get("commit", results["commit"])
        where = "" if at == results["commit"] else f" Measured at commit `{at}`."
        lines += [f"**{name}.** {case['setting']}{where}\n", "| " + " | ".join(heads) + " |",
                  "|---|---:|---:|" + "---:|" * (has_memory + len(figures))]
        for way, facts in case["ways"].items():
            if "absent" in facts:
                lines.append(f"| {way} | fails | |" + " |" * (has_memory + len(figures)))
                continue
            cells = [shown(1e3 * facts["seconds"]), shown(facts["ratio"])] + [shown(facts.get("memory"), MIB)] * has_memory
            lines.append(f"| {way} | " + " | ".join(cells + [shown(facts.get("figures", {}).get(f)) for f in figures]) + " |")
        lines += [f"\n{way} could not run: {facts['absent']}." for way, facts in case["ways"].items() if "absent" in facts] + [""]
    return "\n".join(lines) + "\n"


def heading(results: dict[str, Any], how: str) -> list[str]:
    """The title, and when, where and how it was measured."""
    where = results["environment"]
    peers = ", ".join(f"{name} {version}" for name, version in where["peers"].items()) or "none installed"
    return [f"## {results['title']}\n",
            f"Measured {results['date']} at commit `{results['commit']}`: torch {where['torch']}, {where['threads']} threads on "
            f"{where['processor']}, {how}; load at the start {where['load'][0]:.1f}; peers: {peers}.\n"]


def goal_lines(goals: Sequence[dict[str, Any]]) -> list[str]:
    """The table of goals; nothing where there are none."""
    words = {True: "met", False: "**missed**", None: "not measured"}
    rows = [f"| {g['goal']} | {g['limit']:g} | {shown(g['value'])} | {words[g['met']]} |" for g in goals]
    return ["| Goal | Limit | Measured | |", "|---|---:|---:|---|", *rows, ""] if goals else []


def row_words(name: str, case: dict[str, Any]) -> str:
    """One case in one line."""
    ways = case["ways"].items()
    return f"{name}: " + " | ".join(f"{way} {shown(1e3 * facts['seconds'])} ms" if "seconds" in facts else f"{way} fails" for way, facts in ways)


def shown(value: float | None, unit: float = 1.0) -> str:
    """A number with three digits; nothing where there is none."""
    if value is None or math.isnan(value):
        return ""
    x = value / unit
    return f"{x:.0f}" if abs(x) >= 100 else f"{x:.1f}" if abs(x) >= 10 else f"{x:.3g}"
