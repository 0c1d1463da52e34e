"""Where commands print."""

from __future__ import annotations

from rich.console import Console

PIPE_WIDTH = 160  # where no terminal has a width, lines stay whole


def output() -> Console:
    """Standard output, as wide as the terminal, or wide where there is none."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPE_WIDTH)
