"""Results as Markdown and as text for a terminal."""

from __future__ import annotations

import math
from typing import Any

from steps.lists import LISTS
from steps.rows import COLUMNS

MIB = 2**20


def markdown(results: dict[str, Any]) -> str:
    """The page's tables."""
    where = results["environment"]
    parts = [
        f"Measured {results['date']} at commit `{results['commit']}`: torch {where['torch']}, Python {where['python']}, {where['threads']} threads "
        f"on {where['processor']}, {results['repeats']} rounds, clock: {results['clock']}; peers: "
        + (", ".join(f"{name} {version}" for name, version in where["peers"].items()) or "none installed")
        + ". Rows of another commit are named below their table.\n",
        *_goals(results["goals"]),
        *(part for listing, by_row in results["times"].items() for part in (*_times(listing, by_row), *_notes(results, listing))),
        *_facts(results),
    ]
    return "\n".join(parts) + "\n"


def _other_commits(results: dict[str, Any], part: str) -> list[str]:
    """Which rows of a table were measured at another commit than the last."""
    by_commit: dict[str, list[str]] = {}
    for name, commit in results["commits"][part].items():
        by_commit.setdefault(commit, []).append(name)
    return [f"Measured at `{commit}`: {'; '.join(names)}.\n" for commit, names in by_commit.items() if commit != results["commit"]]


def _notes(results: dict[str, Any], listing: str) -> list[str]:
    """What differs between the rows of a table."""
    rounds: dict[int, list[str]] = {}
    for name, columns in results["times"][listing].items():
        rounds.setdefault(columns["reference"].get("rounds", results["repeats"]), []).append(name)
    more = [f"Of {count} rounds: {'; '.join(names)}.\n" for count, names in rounds.items() if count != results["repeats"]]
    return [*_other_commits(results, listing), *more]


def _goals(goals: list[dict[str, Any]]) -> list[str]:
    words = {True: "met", False: "**missed**", None: "not measured"}
    lines = [f"| {g['goal']} | {_number(g['worst'])} | {g['where']} | {words[g['met']]} |" for g in goals]
    return ["## Goals\n", "| Goal | Worst case | Where | |\n|---|---:|---|---|", *lines, ""]


def _times(listing: str, by_row: dict[str, Any]) -> list[str]:
    references = [columns["reference"]["seconds"] for columns in by_row.values()]
    shown = [c for c in COLUMNS if any("ratio" in columns.get(c, {}) for columns in by_row.values())]
    lines = [f"| {row} | " + " | ".join(_cell(columns.get(c)) for c in shown) + " |" for row, columns in by_row.items()]
    middle = 1e3 * sorted(references)[len(references) // 2]
    title = f"## {LISTS[listing].title}\n\nTime of a step over that of torch's fused AdamW on the same parameters ({middle:.2f} ms)."
    missing = sorted({f"{c} ({row}): {f['absent']}" for row, columns in by_row.items() for c, f in columns.items() if "absent" in f})
    notes = ["\nCould not run: " + "; ".join(missing) + ".\n"] if missing else [""]
    return [title + "\n", f"| Rule | {' | '.join(shown)} |\n|---|{'---:|' * len(shown)}", *lines, *notes]


def _facts(results: dict[str, Any]) -> list[str]:
    lines = []
    for name, row in results["rows"].items():
        fresh = results["fresh"].get(name, {})
        ratios = [
            columns[name]["thalweg compiled"] for columns in results["times"].values() if "ratio" in columns.get(name, {}).get("thalweg compiled", {})
        ]
        state = next((f"{facts['state_bytes']:.2f}" for facts in ratios), "")
        base = results["rows"].get("AdamW", {}).get("per_parameter", math.nan)
        per_byte = [
            _number(columns.get(name, {}).get("thalweg compiled", {}).get("ratio", math.nan) * base / row["per_parameter"])
            for columns in results["times"].values()
        ]
        cells = [
            _number(row["per_parameter"]),
            " / ".join(p or "–" for p in per_byte),
            state,
            _number(fresh.get("cold", math.nan)),
            _number(fresh.get("warm", math.nan)),
            _number(fresh.get("memory compiled", math.nan) / MIB),
            _number(fresh.get("memory eager", math.nan) / MIB),
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    names = " / ".join(LISTS[listing].title for listing in results["times"])
    return [
        "## Bytes, first steps and memory\n",
        "Bytes that a step must read and write per fp32 parameter; the compiled time over torch's fused AdamW per such byte "
        f"({names}); bytes of state per parameter (first list); seconds of the first compiled step with an empty and with a warm cache; "
        "MiB that a step takes beyond parameters, gradients and state.\n",
        "| Rule | bytes | per byte | state | cold | warm | MiB compiled | MiB eager |\n|---|---:|---:|---:|---:|---:|---:|---:|",
        *lines,
        "",
        *(f"First steps and memory m{part[1:]}" for part in _other_commits(results, "fresh")),
    ]


def _cell(facts: dict[str, Any] | None) -> str:
    if facts is None:
        return ""
    return _number(facts["ratio"]) if "ratio" in facts else "fails"


def _number(x: float) -> str:
    return "" if math.isnan(x) else f"{x:.0f}" if x >= 100 else f"{x:.1f}" if x >= 10 else f"{x:.2f}"
