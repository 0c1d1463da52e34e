"""`thalweg claims`: what papers claim, and what was measured here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from thalweg.cli.terminal import output

if TYPE_CHECKING:
    from thalweg.claims.claim import Claim
    from thalweg.claims.run import Result

COLOURS = {"supported": "green", "refuted": "red", "inconclusive": "yellow"}
Name = Annotated[str, typer.Argument(help="The claim, or a part of its name.", metavar="NAME")]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("claims list")(list_claims)
    app.command("claims run")(run_claim)
    app.command("claims show")(show_claims)


def list_claims() -> None:
    """List the claims, with what a run takes and the newest verdict."""
    from thalweg.claims.claim import module, names  # here, like the other commands' own: torch takes a second
    from thalweg.claims.run import latest, read

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1))
    for heading in ("Claim", "Minutes", "Verdict", "Paper"):
        table.add_column(heading, overflow="fold" if heading == "Paper" else "ellipsis", no_wrap=heading != "Paper")
    for name in names():
        claim: Claim = module(name).CLAIM
        path = latest(name)
        table.add_row(f"[bold]{claim.name}[/bold]", f"{claim.minutes:g}", coloured(read(path).verdict if path else "not run"), escape(claim.paper))
    output().print(table)


def run_claim(
    name: Name,
    out: Annotated[Path | None, typer.Option(help="Folder of the result file.", show_default="with the library's own")] = None,
) -> None:
    """Run one claim; an interrupted run goes on where it stopped."""
    from thalweg.claims.claim import ClaimError
    from thalweg.claims.run import run

    console = output()
    try:
        result = run(name, out=out, report=lambda done, total, what: console.print(f"[dim]{done}/{total}[/dim] {escape(what)}"))
    except ClaimError as error:
        raise typer.BadParameter(str(error)) from error
    _show(console, result)
    console.print(f"\nWritten to {result.path}")


def show_claims(
    name: Annotated[str, typer.Argument(help="The claim, or a part of its name; all without it.", metavar="[NAME]")] = "",
    folder: Annotated[Path | None, typer.Option("--from", help="Folder of result files.", show_default="the library's own")] = None,
) -> None:
    """Show the newest result: paper, claim, what was measured, verdict."""
    from thalweg.claims.claim import ClaimError, module, names
    from thalweg.claims.run import RESULTS, latest, read

    console = output()
    try:
        wanted = [module(name).CLAIM.name] if name else names()
    except ClaimError as error:
        raise typer.BadParameter(str(error)) from error
    for i, each in enumerate(wanted):
        path = latest(each, folder or RESULTS)
        if i:
            console.print()
        if path is None:
            _head(console, module(each).CLAIM)
            console.print(f"Not run yet: [bold]thalweg claims run {each}[/bold]")
        else:
            _show(console, read(path))


def _head(console: Console, claim: Claim) -> None:
    console.print(f"[bold]{claim.name}[/bold]  {escape(claim.paper)}. https://arxiv.org/abs/{claim.arxiv}")
    console.print(f"[dim]Claim[/dim]    {escape(claim.statement)}")
    console.print(f"[dim]Check[/dim]    {escape(claim.check)}")


def _show(console: Console, result: Result) -> None:
    _head(console, result.claim)
    for j in result.judged:
        interval = f"{j.mean:.4g} ({j.low:.4g} to {j.high:.4g}, {len(result.rows)} seeds)"
        console.print(f"[dim]Measured[/dim] {escape(j.condition.meaning)}: {interval}, threshold {j.condition.threshold}: {coloured(j.verdict)}")
    environment = ", ".join(f"{key} {value}" for key, value in result.environment.items())
    console.print(f"[dim]Verdict[/dim]  {coloured(result.verdict)}  [dim]{result.date}, commit {result.commit}, {environment}[/dim]")


def coloured(verdict: str) -> str:
    """A verdict, or "not run", in its colour."""
    return f"[{COLOURS[verdict]}]{verdict}[/]" if verdict in COLOURS else verdict
