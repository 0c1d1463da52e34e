"""How a race looks while it runs: live bars in a terminal, plain lines in a log. Both write to stderr."""

from __future__ import annotations

import time
from collections import Counter
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

if TYPE_CHECKING:
    from thalweg.race.race import Event
    from thalweg.race.records import Trial

STAGES = {"defaults": "defaults", "tune": "tuning", "extend": "tuning wider", "target": "finding the target", "final": "fresh seeds"}


class Watch(Protocol):
    """Shows a race while it is open."""

    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...
    def on_event(self, event: Event) -> None:
        """What `thalweg.race.race.race` calls."""


class Bars:
    """A bar with the time left, and each method's best so far, redrawn in place."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[left]}"))
        self._bar = Progress(*columns, console=console)
        self._task = self._bar.add_task("starting", total=None, left="")
        self._live = Live(self._bar, console=console, refresh_per_second=4)
        self._ended: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._stage: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.stop()

    def on_event(self, event: Event) -> None:
        """Redraw."""
        if event.trial is not None:
            self._ended[event.trial.method] += 1
            self._failed[event.trial.method] += event.trial.status != "done"
            self._stage[event.trial.method] = STAGES[event.trial.stage]
        left = event.message if event.kind == "wait" else left_in_words(event.seconds_left)
        self._bar.update(self._task, description=escape(event.settings.task), total=event.total, completed=event.done, left=left)
        self._live.update(Group(self._bar, self._table(event)))

    def _table(self, event: Event) -> Table:
        settings = event.settings
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for heading in ("Method", f"Best validation {settings.metric} so far", "Ended here", "Failed", "Now"):
            table.add_column(escape(heading), justify="left" if heading in ("Method", "Now") else "right")
        first = (min if settings.direction == "min" else max)(event.best.values(), default=None)
        for method in settings.methods:
            best = event.best.get(method)
            shown = "" if best is None else f"[green]{best:.5g}[/green]" if best == first else f"{best:.5g}"
            failed = f"[red]{self._failed[method]}[/red]" if self._failed[method] else ""
            table.add_row(escape(method), shown, str(self._ended[method]), failed, self._stage.get(method, ""))
        return table


class Lines:
    """One line for each trial."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return None

    def on_event(self, event: Event) -> None:
        """Print."""
        match event.kind:
            case "begin":
                self._print(_beginning(event))
            case "trial" if event.trial is not None:
                self._print(_ending(event, event.trial))
            case "wait":
                self._print(event.message)
            case _:
                return

    def _print(self, line: str) -> None:
        self._console.print(f"{time.strftime('%H:%M:%S')} {line}", markup=False, highlight=False, soft_wrap=True)


def _beginning(event: Event) -> str:
    settings = event.settings
    size = f"{counted(settings.trials, 'trial')}, {counted(settings.seeds, 'seed')}, {counted(settings.steps, 'step')}"
    before = f"; {counted(event.done, 'run')} from before" if event.done else ""
    return f"race on {settings.task}: {', '.join(settings.methods)}; {size}{before}"


def _ending(event: Event, trial: Trial) -> str:
    metric, best = event.settings.metric, event.best.get(trial.method)
    result = f"{metric} {trial.score:.5g}" if trial.status == "done" and trial.score is not None else f"{trial.status} {trial.message}"
    parts = (
        f"{trial.stage} {trial.method}: {' '.join(result.split())}",
        "" if best is None else f"best {best:.5g}",
        left_in_words(event.seconds_left),
    )
    return f"[{event.done}/{event.total}] {', '.join(part for part in parts if part)}"


def counted(number: int, noun: str) -> str:
    """1 seed, 2 seeds."""
    return f"{number} {noun}{'s' * (number != 1)}"


def left_in_words(seconds: float | None) -> str:
    """The time left, as coarse as an estimate deserves."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{max(1, round(seconds))} s left"
    minutes = round(seconds / 60)
    return f"{minutes} min left" if minutes < 90 else f"{minutes / 60:.1f} h left"
