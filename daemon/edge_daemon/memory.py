"""Which commands were answered, and how: a replay gets the same answer and is never run twice.

The memory is bounded. What falls out of it is covered by a floor: a command that was sent before the youngest
forgotten one is too old to be run, so forgetting never makes a replay look new.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

MAX_COMMANDS = 2_000
MAX_AGE_S = 30 * 86_400.0
_FLOOR = "commands.floor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """A command that was seen before; `reply` is the payload it was answered with, None while it runs."""

    reply: bytes | None


class CommandMemory:
    """The commands of the past. The methods that write run within a transaction of `edge_daemon.store`."""

    def __init__(self, connection: sqlite3.Connection, *, max_commands: int = MAX_COMMANDS) -> None:
        self._connection = connection
        self._max_commands = max_commands

    def recall(self, command: str) -> Remembered | None:
        """What became of this command; None if it is new."""
        found = self._connection.execute("SELECT reply FROM commands WHERE id = ?", (command,)).fetchone()
        return None if found is None else Remembered(reply=None if found[0] is None else bytes(found[0]))

    def floor(self) -> float:
        """A command sent at or before this moment, and not remembered, may have been run and forgotten."""
        found = self._connection.execute("SELECT value FROM kv WHERE key = ?", (_FLOOR,)).fetchone()
        try:
            return 0.0 if found is None else float(found[0])
        except ValueError:  # damaged: no command would be run any more
            return 0.0

    def unfinished(self) -> list[tuple[str, float]]:
        """Commands that had begun when the daemon died: id and when they were sent."""
        return list(self._connection.execute("SELECT id, sent FROM commands WHERE reply IS NULL ORDER BY at"))

    def begin(self, command: str, sent: float, now: float) -> None:
        """A command that takes long has begun."""
        self._connection.execute("INSERT INTO commands VALUES (?, ?, ?, NULL)", (command, sent, now))
        self._forget(now)

    def answer(self, command: str, sent: float, now: float, reply: bytes) -> None:
        """A command was answered."""
        self._connection.execute("INSERT OR REPLACE INTO commands VALUES (?, ?, ?, ?)", (command, sent, now, reply))
        self._forget(now)

    def _forget(self, now: float) -> None:
        count = self._connection.execute("SELECT count(*) FROM commands").fetchone()[0]
        old = self._connection.execute(
            "SELECT id, sent FROM commands WHERE at < ? OR id IN (SELECT id FROM commands ORDER BY at, id LIMIT ?)",
            (now - MAX_AGE_S, max(0, count - self._max_commands)),
        ).fetchall()
        if not old:
            return
        self._connection.executemany("DELETE FROM commands WHERE id = ?", [(command,) for command, _ in old])
        # A hub whose clock runs ahead must not lift the floor above the present, or nothing would be run any more.
        floor = min(now, max(sent for _, sent in old))
        if floor > self.floor():
            self._connection.execute("INSERT OR REPLACE INTO kv VALUES (?, ?)", (_FLOOR, str(floor).encode()))
