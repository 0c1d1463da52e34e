"""`thalweg methods`: what there is, and what one method is."""

from __future__ import annotations

from itertools import groupby
from typing import Annotated

import typer
from rich import box
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from thalweg.cli.claims import coloured
from thalweg.cli.terminal import output
from thalweg.inspect.catalogue import UnknownMethod, find, load
from thalweg.inspect.entry import Entry
from thalweg.inspect.evidence import evidence
from thalweg.inspect.memory import state_in_words


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("methods")(list_methods)
    app.command("methods show")(show_method)


def list_methods(family: Annotated[str, typer.Option(help="Only this family, for example optim.", metavar="NAME")] = "") -> None:
    """List the methods, each with its paper and what it needs."""
    entries = load()
    families = sorted({entry.family for entry in entries})
    if family and family not in families:
        raise typer.BadParameter(f"--family {family}: no such family; there are {', '.join(families)}.")
    chosen = [entry for entry in entries if family in ("", entry.family)]
    widths = [max(map(len, column)) for column in ([e.name for e in chosen], [", ".join(e.needs) for e in chosen])]
    console = output()
    for shown in dict.fromkeys(entry.family for entry in chosen):
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1))
        table.add_column(shown, style="bold", no_wrap=True, min_width=widths[0])
        table.add_column("Needs", no_wrap=True, min_width=widths[1])
        table.add_column("Paper", no_wrap=True, overflow="ellipsis")
        for entry in (e for e in chosen if e.family == shown):
            paper = f"{escape(entry.authors)} {entry.year}: [link={entry.link}]{escape(entry.title)}[/link]"
            table.add_row(escape(entry.name), ", ".join(entry.needs), paper)
        console.print(table)
        console.print()
    console.print(f"{len(chosen)} methods. One of them in full: [bold]thalweg methods show {chosen[0].name}[/bold]")


def show_method(name: Annotated[str, typer.Argument(help="The method, for example Lion.", metavar="NAME")]) -> None:
    """Show one method: paper, equations, hyperparameters, needs, state, when to use it."""
    try:
        entry = find(name)
    except UnknownMethod as error:
        raise typer.BadParameter(str(error)) from error
    console = output()
    paper = f"{escape(entry.authors)} ({entry.year}). [italic]{escape(entry.title)}[/italic]. [link={entry.link}]{escape(entry.link)}[/link]"
    also = escape(f"  also: {', '.join(entry.also)}") if entry.also else ""
    console.print(f"[bold green]{entry.name}[/bold green]  [dim]thalweg.{entry.family}.{entry.name}{also}[/dim]\n{paper}")
    _section(console, "What it is", escape(entry.summary.partition("\n\n")[0].replace("\n", " ")))
    _equations(console, entry.equations)
    _section(console, "Hyperparameters", _hypers(entry) if entry.hyper else "none")
    _section(console, "Needs", ", ".join(entry.needs))
    _section(console, "State", state_in_words(entry))
    lists = (("Bias", entry.bias_in_words), ("Reduces to (tested)", entry.reduces_to), ("Departures from the paper", entry.departures))
    for heading, sentences in lists:
        if sentences:
            _section(console, heading, "\n".join(escape(s) for s in sentences))
    _section(console, "When to use it, and the evidence", escape(entry.use))
    if found := evidence(entry):
        lines = [f"{escape(e.statement)}\n[dim]thalweg claims show[/dim] {e.claim}: {coloured(e.verdict)} [dim]{e.date}[/dim]" for e in found]
        _section(console, "Its paper's claims, measured here", "\n".join(lines))


def _section(console: Console, heading: str, body: RenderableType) -> None:
    console.print(f"\n[bold]{heading}[/bold]")
    console.print(Padding(body, (0, 0, 0, 2)))


def _equations(console: Console, text: str) -> None:
    """Indented blocks line by line, for their columns mean something; prose filled to the width."""
    console.print("\n[bold]Equations[/bold]")
    for indented, lines in groupby(text.splitlines(), key=lambda line: line.startswith("    ") or not line):
        if indented:
            console.print("\n".join(lines), markup=False, soft_wrap=True)
        else:
            console.print(Padding(escape(" ".join(lines)), (0, 0, 0, 2)))


def _hypers(entry: Entry) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in ("Name", "Default", "Range", "A race searches", "Meaning"):
        table.add_column(heading, overflow="fold")
    for h in entry.hyper:
        table.add_row(f"[bold]{h.name}[/bold]", escape(h.default), escape(h.range), escape(h.search.replace("; ", "\n")), escape(h.meaning))
    return table
