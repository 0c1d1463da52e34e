"""A race's result in the terminal: the same words and numbers as in the report."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from thalweg.race.race import REPORT
from thalweg.race.records import RaceResult
from thalweg.race.report import words
from thalweg.race.report.page import LABELS, Row, rows

COLOURS = {"better": "bold green", "worse": "red", "can't tell": "yellow", "reference": "bold", "not judged": "dim"}


def print_result(result: RaceResult, folder: Path) -> None:
    """Print the verdicts, or how far the race has come, and the path of the report.

    Args:
        result: the race.
        folder: where it is kept.
    """
    console = Console(highlight=False)
    settings = result.settings
    console.print(f"\n[bold]{escape(settings.task)}[/bold]: {escape(words.headline(result))}" if result.complete else _unfinished(result))
    if result.complete:
        decimals = words.decimals_for(result.verdicts)
        judged = rows(result, decimals)
        console.print(_table(judged, result))
        for row in judged:
            if row.outcome != "reference":
                console.print(f"[bold]{escape(row.method)}[/bold]: {escape(row.sentence)}")
        lower = "lower" if settings.direction == "min" else "higher"
        console.print(
            f"[dim]Test {escape(settings.metric)}, {lower} is better; differences are oriented so that plus is better. "
            f"{settings.trials} trials and {settings.seeds} fresh seeds for each method, {settings.steps} steps.[/dim]"
        )
    report = folder / REPORT
    if report.is_file():
        console.print(f"\nReport: {escape(str(report.resolve()))}", soft_wrap=True)


def _table(judged: list[Row], result: RaceResult) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    metric = f"Test {result.settings.metric}"
    table.add_column("Method", no_wrap=True)
    table.add_column("Verdict", no_wrap=True)
    for heading in (metric, "Difference", "Detectable", "ms per step", "Failures"):
        table.add_column(escape(heading), justify="right")
    for row in judged:
        cells = {cell.label: cell for cell in (*row.cells, *row.costs)}
        difference = cells["Difference"].text + (f"\n[dim]{cells['Difference'].note}[/dim]" if cells["Difference"].note else "")
        verdict = f"[{COLOURS[row.outcome]}]{LABELS[row.outcome]}[/]"
        failures = cells["Failures"].text if cells["Failures"].text == "0" else f"[red]{cells['Failures'].text}[/red]"
        table.add_row(escape(row.method), verdict, cells[metric].text, difference, cells["Detectable"].text, cells["ms per step"].text, failures)
    return table


def _unfinished(result: RaceResult) -> str:
    ended = Counter(t.method for t in result.trials)
    counts = ", ".join(f"{method} {ended[method]}" for method in result.settings.methods)
    return (
        f"[bold]{escape(result.settings.task)}[/bold]: not finished; {len(result.trials)} trials have ended ({escape(counts)}). "
        "Start the race again with --resume to go on."
    )
