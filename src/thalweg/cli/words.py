"""Commands of one or two words, so that `race TASK` and `race show DIR` are both commands."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup


class TwoWords(TyperGroup):
    """A group whose commands may have two words: the longest command that the line starts with is meant."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        """The command that `args` starts with, and the arguments that are left."""
        two = " ".join(args[:2])
        if two in self.commands:
            return two, self.commands[two], args[2:]
        longer = [name for name in self.commands if name.startswith(f"{args[0]} ")]
        if longer and args[0] not in self.commands:
            ctx.fail(f"`{args[0]}` needs a second word: {' or '.join(f'`thalweg {name}`' for name in longer)}.")
        return super().resolve_command(ctx, args)
