"""How far a conversion is, on stderr: bars on a terminal, one line a stage elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from edge_sdk.cli.output import say

if TYPE_CHECKING:
    from rich.progress import TaskID
    from typing_extensions import Self

    from edge_converter.request import Progress


# A stage that goes on for longer than this says so, as often.
_SAID_EVERY_S = 20.0
_A_WHILE_S = 100.0


class Lines:
    """A line when a stage begins, now and then while it lasts, and for each note: what a log should hold.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._what, self._total, self._done = "", 0, 0
        self._begun_s = self._said_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held."""

    def stage(self, what: str, total: int) -> None:
        """Say that it begins."""
        say(f"edge: {what}, {total} step{'' if total == 1 else 's'}" if total else f"edge: {what}")
        self._what, self._total, self._done = what, total, 0
        self._begun_s = self._said_s = self._clock()

    def advance(self, steps: int) -> None:
        """Say how far it is and what is left, where it lasts."""
        self._done += steps
        now_s = self._clock()
        if 0 < self._done < self._total and now_s - self._said_s >= _SAID_EVERY_S:
            self._said_s = now_s
            left_s = (now_s - self._begun_s) / self._done * (self._total - self._done)
            say(f"edge: {self._what}, {self._done} of {self._total}, about {_duration(left_s)} left")

    def note(self, text: str) -> None:
        """Say it."""
        say(f"edge: note: {text}")


class Bars:
    """One bar a stage; they stay on the terminal when they are full.

    While they are drawn, what libraries print on stderr of their own (XNNPACK greets every process) goes nowhere: it
    would tear the bars. Errors come as exceptions and are printed afterwards.
    """

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._terminal = os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding, errors="replace")
        self._bars = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}", justify="left"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]left"),
            TimeRemainingColumn(),
            console=Console(file=self._terminal),
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stderr.fileno())
        os.close(nowhere)
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()
        self._bars.stop()
        sys.stderr.flush()
        os.dup2(self._terminal.fileno(), sys.stderr.fileno())
        self._terminal.close()

    def stage(self, what: str, total: int) -> None:
        """Fill the bar that stands, and begin another."""
        from rich.markup import escape

        self._finish()
        self._task = self._bars.add_task(escape(what), total=total or None)

    def advance(self, steps: int) -> None:
        """Lengthen the bar."""
        if self._task is not None:
            self._bars.advance(self._task, steps)

    def note(self, text: str) -> None:
        """Print it above the bars."""
        from rich.text import Text

        self._bars.console.print(Text(f"note: {text}", style="yellow"))

    def _finish(self) -> None:
        """The next stage has begun, so this one is done, whatever it counted."""
        if self._task is not None:
            task = self._bars.tasks[self._task]
            total = task.total or task.completed or 1
            self._bars.update(self._task, total=total, completed=total)


def _duration(seconds: float) -> str:
    """In the unit a person would say it in."""
    return f"{seconds:.0f} s" if seconds < _A_WHILE_S else f"{seconds / 60:.0f} min"


def chosen() -> Bars | Lines:
    """Bars where a person watches."""
    return Bars() if sys.stderr is not None and sys.stderr.isatty() else Lines()


def _check(bars: Bars, lines: Lines) -> tuple[Progress, Progress]:
    """Both are what the converter asks for; mypy holds this."""
    return bars, lines
