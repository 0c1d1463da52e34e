"""`thalweg task new`: a task file to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from thalweg.cli.errors import Failed
from thalweg.cli.terminal import output


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("task new")(new_task)


def new_task(file: Annotated[Path, typer.Argument(help="The file to write, for example my_task.py.", metavar="FILE")]) -> None:
    """Write a commented task file that runs as it is."""
    from thalweg.race.task import TaskError, write_template

    if file.suffix != ".py":
        raise typer.BadParameter(f"{file}: a task is a Python file; give it a name that ends in .py.")
    try:
        written = write_template(file)
    except TaskError as error:
        raise Failed(str(error)) from error
    output().print(f"Wrote {escape(str(written))}. Try it: [bold]thalweg race {escape(str(written))} --quick[/bold]", soft_wrap=True)
