"""What a command raises when it cannot do its work."""

from __future__ import annotations

import typer


class Failed(typer.TyperException):
    """The work failed; the message is one line that says why and what to do. Exit code 1."""


class Interrupted(typer.TyperException):
    """The user stopped it; the message says how to go on. Exit code 130."""

    exit_code = 130
