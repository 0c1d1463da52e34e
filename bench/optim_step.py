"""Time and memory of whole optimizer steps, this library beside its peers in one run.

python bench/optim_step.py [--list gpt,small] [--rules "AdamW;Lion"] [--repeats 11] [--fresh yes|no] [--first all]
                            [--threads 2] [--clock wall|cpu] [--out DIR] [--update]

All columns of a rule are timed in turns on the same parameters; a table has the median of the ratios to torch's fused AdamW within each
round. A peer that has several ways to run (foreach or not, ...) is taken in the fastest. The results go to DIR as dated JSON and as the
Markdown table that the docs include.
An interrupted run goes on where it stopped. With --update the last results in DIR are kept: rows named by --rules are measured anew on the lists of
--list, and whatever else is missing there is measured; each table says which of its rows are of another commit or had more rounds.
On a machine that is busy with other work, `--threads 1 --clock cpu` counts the processor time of this process and not of its neighbours.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import math
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from beside.facts import commit, environment, replace, without_nan
from steps import fresh, goals, tables, timing
from steps.lists import DEFAULT, LISTS, Shape, parameters
from steps.rows import COLUMNS, Row, peer, rows

HERE = Path(__file__).resolve().parent
FIRST = ("AdamW", "Lion", "AdEMAMix", "AdamW, 8-bit state")
"""Rows whose first step is timed unless all are asked for: what it takes is the compiler's, and hardly the rule's."""
PEERS = ("pytorch_optimizer", "heavyball", "torch-optimi", "torchao")


def main() -> None:
    options = arguments()
    if options.threads:
        torch.set_num_threads(options.threads)
    timing.clock = time.process_time if options.clock == "cpu" else time.perf_counter
    torch._dynamo.config.recompile_limit = 1024  # peers that want a graph for each shape shall have them
    torch._dynamo.config.accumulated_recompile_limit = 4096
    warnings.filterwarnings("ignore")
    chosen = [row for row in rows() if not options.rules or row.name in options.rules]
    if unknown := sorted(set(options.rules) - {row.name for row in chosen}):
        raise SystemExit(f"--rules: no row is called {', '.join(unknown)}; there are: {'; '.join(row.name for row in rows())}.")
    begun: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "environment": environment(PEERS),
        "repeats": options.repeats,
        "clock": options.clock,
        "rows": {row.name: facts(row) for row in chosen},
        "commits": {part: {} for part in (*options.list, "fresh")},
        "times": {name: {} for name in options.list},
        "fresh": {},
    }
    if options.update:
        chosen, begun = rows(), updated(options.out, begun, [*options.list, *(["fresh"] if options.fresh == "yes" else [])])
    partial = options.out / ".optim_step.partial.json"
    results = resumed(partial, begun)
    for listing in options.list:
        for row in chosen:
            if shapes_of(row, listing) and row.name not in results["times"][listing]:
                results["times"][listing][row.name] = measure(listing, row, options.repeats)
                results["commits"][listing][row.name] = results["commit"]
                keep(partial, results)
    if options.fresh == "yes":
        for row in chosen:
            if row.name not in results["fresh"]:
                results["fresh"][row.name] = in_fresh_processes(row, options.list[0], options.first == "all" or row.name in FIRST)
                results["commits"]["fresh"][row.name] = results["commit"]
                keep(partial, results)
                print(f"{row.name}: {results['fresh'][row.name]}", flush=True)
    results = in_order(results)
    results["goals"] = goals.judge(results)
    path = write(results, options.out)
    partial.unlink(missing_ok=True)
    print(tables.markdown(results))
    print(f"Written to {path}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--list", type=lambda s: s.split(","), default=list(DEFAULT), help=f"some of {', '.join(LISTS)}")
    parser.add_argument("--rules", type=lambda s: s.split(";"), default=[], help="some rows of the table, separated by semicolons")
    parser.add_argument("--repeats", type=int, default=11, help="rounds")
    parser.add_argument("--fresh", choices=("yes", "no"), default="yes", help="also measure memory and first steps, in processes of their own")
    parser.add_argument("--first", choices=("some", "all"), default="some", help=f"whose first steps: {'; '.join(FIRST)}, or all rows")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0 leaves its choice")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--update", action="store_true", help="keep the other rows of the last results, and measure what they lack")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    if unknown := [name for name in options.list if name not in LISTS]:
        parser.error(f"--list: {', '.join(unknown)}; expected some of {', '.join(LISTS)}")
    return options


def measure(listing: str, row: Row, repeats: int) -> dict[str, Any]:
    """One row on one list."""
    candidates = {"reference": peer("torch.optim", "AdamW", [{"fused": True}]), **row.candidates()}
    out = timing.race(parameters(shapes_of(row, listing)), candidates, repeats, row.period)
    gc.collect()
    cells = [f"{c} {out[c]['ratio']:.2f}" for c in COLUMNS if "ratio" in out.get(c, {})]
    print(f"{listing}: {row.name}: {' | '.join(cells)}", flush=True)
    return out


def shapes_of(row: Row, listing: str) -> tuple[Shape, ...]:
    """The parameters of a list that the row is timed on; none where it is not timed there."""
    return LISTS[listing].chosen(row.matrices) if not row.lists or listing in row.lists else ()


def in_fresh_processes(row: Row, listing: str, first: bool) -> dict[str, float]:
    listing = row.lists[0] if row.lists else listing
    out = fresh.first_steps(row.name, listing) if first else {}
    for backend in ("compiled", "eager"):
        out[f"memory {backend}"] = fresh.memory(row.name, listing, backend).get("resident", math.nan)
    return out


def facts(row: Row) -> dict[str, Any]:
    return {
        "per_parameter": row.per_parameter,
        "elementwise": row.elementwise,
        "matrices": row.matrices,
        "two_passes": bool(row.rule.phases),
        "options": row.options,
        "period": row.period,
        "rule": repr(row.rule),
    }


def updated(folder: Path, begun: dict[str, Any], parts: list[str]) -> dict[str, Any]:
    """The last results, but for these parts of the rows that this run has begun, with all rows of today."""
    path = max(folder.glob("optim_step_*.json"), default=None)
    if path is None:
        raise SystemExit(f"--update: there are no results in {folder}; run without it first.")
    last = with_nan(json.loads(path.read_text(encoding="utf-8")))
    if begun["clock"] != last["clock"] or begun["repeats"] < last["repeats"]:
        raise SystemExit(f"--update: {path.name} has --clock {last['clock']} and --repeats {last['repeats']}; give that clock and no fewer rounds.")
    today = {row.name: facts(row) for row in rows()}
    anew = begun["rows"] if len(begun["rows"]) < len(today) else {}

    def kept(part: str, by_row: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in by_row.items() if name in today and not (name in anew and part in parts)}

    times = {listing: kept(listing, last["times"].get(listing, {})) for listing in {**last["times"], **begun["times"]}}
    commits = {part: kept(part, last["commits"].get(part, {})) for part in {**last["commits"], **begun["commits"]}}
    return {**begun, "repeats": last["repeats"], "rows": today, "times": times, "commits": commits, "fresh": kept("fresh", last["fresh"])}


def in_order(results: dict[str, Any]) -> dict[str, Any]:
    """The same with every table's rows in the order of `rows`."""

    def sorted_rows(parts: dict[str, Any]) -> dict[str, Any]:
        return {part: {name: by_row[name] for name in results["rows"] if name in by_row} for part, by_row in parts.items()}

    return {**results, "times": sorted_rows(results["times"]), "commits": sorted_rows(results["commits"])}


def resumed(partial: Path, begun: dict[str, Any]) -> dict[str, Any]:
    """What an interrupted run of the same commit and settings had measured, or an empty run."""
    same = ("commit", "repeats", "clock", "rows")
    if partial.exists():
        held = with_nan(json.loads(partial.read_text(encoding="utf-8")))
        if all(held[key] == json.loads(json.dumps(begun[key])) for key in same) and list(held["times"]) == list(begun["times"]):
            print(f"Going on with the run of {held['date']}.", flush=True)
            return held
    return begun


def keep(partial: Path, results: dict[str, Any]) -> None:
    partial.parent.mkdir(parents=True, exist_ok=True)
    replace(partial, json.dumps(without_nan(results)))


def with_nan(value: Any) -> Any:
    """The inverse of `without_nan`."""
    if isinstance(value, dict):
        return {k: with_nan(v) for k, v in value.items()}
    if isinstance(value, list):
        return [with_nan(v) for v in value]
    return math.nan if value is None else value


def write(results: dict[str, Any], folder: Path) -> Path:
    """The JSON of this run, named by its date, and the table; each written beside its place and moved there."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"optim_step_{results['date'][:10]}.json"
    for target, text in ((path, json.dumps(without_nan(results), indent=1)), (folder / "optim_step.md", tables.markdown(results))):
        replace(target, text)
    return path


if __name__ == "__main__":
    main()
