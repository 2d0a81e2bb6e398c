"""The play as it is watched: a live table on a terminal, a line per change elsewhere. Both on stderr."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from edge_lab.story import CommandSent, Moment, Story, Switch
from edge_sdk.cli.output import say
from edge_sdk.mqtt import Conditions

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_MAX_WIDTH = 110
# Rows of the table that are always there; what is left of the terminal's height goes to switches and commands.
_FIXED_ROWS = 13
_FEWEST_ROWS = 2
_COMMANDS_AT_MOST = 7


class View(Protocol):
    """Whoever shows the play."""

    def show(self, story: Story, act: str, at_s: float) -> None:
        """Show how it stands; called a few times a second."""

    def close(self) -> None:
        """Show nothing more, and leave the terminal as it was."""


def open_view() -> View:
    """The table where stderr is a terminal, else lines."""
    return TableView() if sys.stderr.isatty() else LineView()


class LineView:
    """A line for each act, switch and reply."""

    def __init__(self) -> None:
        self._act = ""
        self._switches = 0
        self._replied: set[int] = set()

    def show(self, story: Story, act: str, at_s: float) -> None:
        """Print what is new."""
        if act != self._act:
            self._act = act
            say(f"{at_s:6.1f} s  act      {act} (played)")
        for switch in story.switches[self._switches :]:
            say(f"{switch.at_s:6.1f} s  switch   {arrow(switch)} ({switch.code}) {switch.text}")
        self._switches = len(story.switches)
        for number, command in enumerate(story.commands):
            if command.status is not None and number not in self._replied:
                self._replied.add(number)
                say(f"{command.at_s:6.1f} s  command  {command.words}: {outcome(command)}")

    def close(self) -> None:
        """Nothing is held."""


class TableView:
    """A table that is drawn anew in place and wiped away at the end."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True, vertical_overflow="crop")
        self._live.start()

    def show(self, story: Story, act: str, at_s: float) -> None:
        """Draw it."""
        width = min(self._console.width, _MAX_WIDTH)
        self._live.update(frame(story, act, at_s, width=width, height=self._console.height), refresh=True)

    def close(self) -> None:
        """Wipe it."""
        self._live.stop()


def frame(story: Story, act: str, at_s: float, *, width: int, height: int) -> RenderableType:
    """One picture of the play, no wider and no higher than the terminal."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    free = max(height - _FIXED_ROWS, 2 * _FEWEST_ROWS)
    commands = story.commands[-min(max(free // 2, _FEWEST_ROWS), _COMMANDS_AT_MOST) :]
    switches = story.switches[-max(free - len(commands), _FEWEST_ROWS) :]
    head = Text.assemble(
        ("played: ", "yellow"), (act, "bold yellow"), f"  ({min(at_s, story.length_s):.0f} of {story.length_s:.0f} s)"
    )
    head.truncate(width, overflow="ellipsis")
    return Group(
        head,
        Padding(ProgressBar(total=story.length_s, completed=min(at_s, story.length_s), width=width), 0),
        _conditions(story.moments[-1] if story.moments else None, width),
        _answers(story, width),
        _switches(switches, width),
        _commands(commands, width),
    )


def _conditions(moment: Moment | None, width: int) -> Table:
    table = _table(width, ("conditions", 2), ("the daemon senses", 5), ("this machine, really", 3))
    if moment is None:
        return table
    sensed, real = moment.sensed, moment.real
    added = f" [yellow]{moment.played.rtt_ms:.0f} of them played[/]" if moment.played.rtt_ms else ""
    table.add_row("temperature", f"{_temperature(sensed)} [yellow]played[/]", _temperature(real))
    table.add_row("battery", f"{_battery(sensed)} [yellow]played[/]", _battery(real))
    table.add_row("round trip", f"{_number(sensed.rtt_ms, ' ms', 1)}{added}", "")
    table.add_row("processor", _number(sensed.load_pct, " % busy"), _number(real.load_pct, " % busy"))
    free = (_number(each.memory_available_mb, " MB free") for each in (sensed, real))
    table.add_row("memory", *free)
    return table


def _answers(story: Story, width: int) -> Table:
    work, recent = story.work(), story.recent()
    active = story.moments[-1].active if story.moments else None
    table = _table(
        width, ("the app runs", 5), ("median", 2), ("answers", 2), ("failed", 2), ("right", 2), ("hub has", 5)
    )
    table.add_row(
        f"[bold green]{active or '-'}[/]",
        _number(recent.p50_ms, " ms", 1),
        str(work.answers),
        f"[bold red]{work.failed}[/]" if work.failed else "0",
        _number(work.accuracy, " %", 1),
        f"{story.hub_devices} device, {story.hub_messages} messages",
    )
    return table


def _switches(switches: Sequence[Switch], width: int) -> Table:
    from rich.markup import escape

    table = _table(width, ("at s", 1), ("switches, as the hub has them", 5), ("because", 8))
    for switch in switches:
        cause = f"[cyan]{switch.code}[/] [dim]{escape(cause_of(switch).removeprefix(switch.code + ' '))}[/]"
        table.add_row(f"{switch.at_s:.1f}", arrow(switch), cause)
    return table


def _commands(commands: Sequence[CommandSent], width: int) -> Table:
    from rich.markup import escape

    table = _table(width, ("at s", 1), ("commands over MQTT", 5), ("reply", 8))
    for command in commands:
        colour = {"done": "green", None: "dim"}.get(command.status, "red")
        table.add_row(f"{command.at_s:.1f}", command.words, f"[{colour}]{escape(outcome(command))}[/]")
    return table


def _table(width: int, *columns: tuple[str, int]) -> Table:
    """A table of one line a row; the numbers share out the width."""
    from rich.table import Table

    table = Table(box=None, width=width, pad_edge=False, header_style="dim underline")
    for header, ratio in columns:
        table.add_column(header, ratio=ratio, no_wrap=True, overflow="ellipsis")
    return table


def arrow(switch: Switch) -> str:
    """From what to what."""
    return f"{switch.old or 'nothing'} -> {switch.new or 'nothing'}"


def outcome(command: CommandSent) -> str:
    """How a command ended."""
    if command.status is None:
        return "on its way"
    took = "" if command.took_s is None else f" in {command.took_s:.2f} s"
    return f"{command.status}{took}" if command.status == "done" else f"{command.status}{took}, {command.text}"


def cause_of(switch: Switch) -> str:
    """The first half of the sentence: the rest repeats the variants."""
    return switch.text.partition(f": {switch.new} (")[0]


def _number(value: float | None, unit: str, digits: int = 0) -> str:
    return "[dim]no sensor[/]" if value is None else f"{value:.{digits}f}{unit}"


def _temperature(conditions: Conditions) -> str:
    limit = "" if conditions.temp_limit_c is None else f" of at most {conditions.temp_limit_c:.0f}"
    return _number(conditions.temp_c, f" °C{limit}", 1) if conditions.temp_c is not None else _number(None, "")


def _battery(conditions: Conditions) -> str:
    if conditions.battery_pct is None:
        return _number(None, "")
    return f"{conditions.battery_pct:.0f} % {'charging' if conditions.charging else 'draining'}"
