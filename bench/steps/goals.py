"""The goals, judged from the results of one run."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

Results = dict[str, Any]

MIB = 2**20


@dataclass(frozen=True)
class Goal:
    """One goal and what was measured: the worst case and where it was. `met` is None where the run did not measure it."""

    goal: str
    limit: float
    worst: float
    where: str
    met: bool | None


def judge(results: Results) -> list[dict[str, Any]]:
    """All goals.

    Args:
        results: "rows" (name to facts), "times" (list to row to column to facts) and "fresh" (row to facts), as `optim_step.py` writes them.
    """
    rows, times, fresh = results["rows"], results["times"], results["fresh"]
    elementwise = [name for name, row in rows.items() if row["elementwise"] and not row["options"]]
    matrices = [name for name, row in rows.items() if row["matrices"]]
    single = [name for name in elementwise if not row_reads_twice(rows[name])]
    compiled = "thalweg compiled"
    goals = [
        _goal("elementwise rules, compiled: time per byte at most 1.15 of torch's fused AdamW", 1.15, _per_byte(results, single)),
        _goal("the same for rules that first read everything for a norm", 1.15, _per_byte(results, [n for n in elementwise if n not in single])),
        _goal(
            "elementwise rules, compiled: at most 0.5 of pytorch-optimizer's time", 0.5, _against(times, elementwise, compiled, "pytorch-optimizer")
        ),
        _goal("AdamW on 200 small parameters: at most 0.6 of torch's fused", 0.6, _ratios(times, ["small"], ["AdamW"], compiled)),
        _goal("elementwise rules, first compiled step, cold: at most 10 s", 10.0, _fresh(fresh, elementwise, "cold")),
        _goal("elementwise rules, first compiled step, warm cache: at most 1.5 s", 1.5, _fresh(fresh, elementwise, "warm")),
        _goal("all rules, eager: at most pytorch-optimizer's time", 1.0, _against(times, list(rows), "thalweg eager", "pytorch-optimizer")),
        _goal(
            "elementwise rules: at most 16 MiB beyond state",
            16.0,
            ((value / MIB, where) for key in ("memory compiled", "memory eager") for value, where in _fresh(fresh, elementwise, key)),
        ),
        _goal("Muon, the better backend: at most the fastest peer's time", 1.0, _fastest(times, ["Muon"])),
        _goal("every matrix rule, the better backend: at most its fastest peer's time", 1.0, _fastest(times, matrices)),
        _goal("AdamW in 8 bit, compiled: at most 2 of the fp32 step", 2.0, _between(times, "AdamW, 8-bit state", "AdamW", compiled)),
        _goal("AdamW in 8 bit, compiled: at most torchao's time", 1.0, _against(times, ["AdamW, 8-bit state"], compiled, "torchao")),
        _goal("AdamW in 8 bit: at most 2.1 bytes of state per parameter (the list of 53 M)", 2.1, _state(times)),
        _goal("Shampoo in 4 bit: at most 1/7 of Shampoo's state in fp32 (GPT of width 256)", 1 / 7, _smaller(times, "Shampoo4bit", "Shampoo")),
    ]
    return [asdict(goal) for goal in goals]


def row_reads_twice(row: dict[str, Any]) -> bool:
    return bool(row["two_passes"])


Cases = Iterable[tuple[float, str]]


def _goal(text: str, limit: float, cases: Cases) -> Goal:
    known = [(value, where) for value, where in cases if not math.isnan(value)]
    if not known:
        return Goal(text, limit, math.nan, "", None)
    worst, where = max(known)
    return Goal(text, limit, worst, where, worst <= limit)


def _cell(times: Results, listing: str, row: str, column: str) -> float:
    return float(times.get(listing, {}).get(row, {}).get(column, {}).get("ratio", math.nan))


def _ratios(times: Results, lists: list[str], names: list[str], column: str) -> Cases:
    return [(_cell(times, listing, name, column), f"{name}, {listing}") for listing in lists for name in names]


def _per_byte(results: Results, names: list[str]) -> Cases:
    scale = {name: results["rows"]["AdamW"]["per_parameter"] / results["rows"][name]["per_parameter"] for name in names if "AdamW" in results["rows"]}
    return [
        (_cell(results["times"], listing, name, "thalweg compiled") * scale[name], f"{name}, {listing}")
        for listing in results["times"]
        if listing != "small"
        for name in scale
    ]


def _against(times: Results, names: list[str], ours: str, theirs: str) -> Cases:
    return [(_cell(times, listing, name, ours) / _cell(times, listing, name, theirs), f"{name}, {listing}") for listing in times for name in names]


def _between(times: Results, numerator: str, denominator: str, column: str) -> Cases:
    return [
        (_cell(times, listing, numerator, column) / _cell(times, listing, denominator, column), listing) for listing in times if listing != "small"
    ]


def _fastest(times: Results, names: list[str]) -> Cases:
    for listing, by_row in times.items():
        for name in names:
            columns = by_row.get(name, {})
            peers = {c: facts["ratio"] for c, facts in columns.items() if not c.startswith("thalweg") and c != "reference" and "ratio" in facts}
            ours = [columns[c]["ratio"] for c in ("thalweg compiled", "thalweg eager") if "ratio" in columns.get(c, {})]
            if peers and ours:
                best = min(peers, key=lambda column: peers[column])
                yield min(ours) / peers[best], f"{name}, {listing}, against {best}"


def _fresh(fresh: Results, names: list[str], key: str) -> Cases:
    return [(float(fresh[name][key]), name) for name in names if key in fresh.get(name, {})]


def _state(times: Results) -> Cases:
    value = times.get("gpt", {}).get("AdamW, 8-bit state", {}).get("thalweg compiled", {}).get("state_bytes", math.nan)
    return [(float(value), "gpt")]


def _smaller(times: Results, small: str, large: str) -> Cases:
    """Bytes of state of one rule over those of another."""
    by_row = times.get("narrow", {})
    a, b = (by_row.get(name, {}).get("thalweg eager", {}).get("state_bytes", math.nan) for name in (small, large))
    return [(float(a) / float(b), "narrow")]
