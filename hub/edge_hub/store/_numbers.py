"""Putting numbered messages into the log of the SQLite store: each (boot, seq) once, and which of a batch were new.

A number above all that its boot ever had is new for certain: such rows are written in one go, which is nearly always
the whole batch. Only what may be a repetition is looked up one by one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from edge_hub.store.records import Arrival, Malformed

_INSERT = "INSERT INTO log (boot, seq, kind, message, sent, received, payload) VALUES (?, ?, ?, ?, ?, ?, ?)"
_INSERT_UNLESS_KNOWN = (
    "INSERT INTO log (boot, seq, kind, message, sent, received, payload) SELECT ?, ?, ?, ?, ?, ?, ?"
    " WHERE ? > coalesce((SELECT last FROM trimmed WHERE boot = ? AND first <= ? ORDER BY first DESC LIMIT 1), 0)"
    " ON CONFLICT (boot, seq) DO NOTHING"
)
_BOOT = (
    "SELECT id, born, coalesce((SELECT max(seq) FROM log WHERE boot = b.id), 0) AS logged,"
    " coalesce((SELECT last FROM trimmed WHERE boot = b.id ORDER BY first DESC LIMIT 1), 0) AS trimmed"
    " FROM boots b WHERE device = ? AND boot = ?"
)


@dataclass(slots=True)
class Boot:
    """A boot's row while a batch is being stored.

    Attributes:
        born: A birth of it was seen.
        last: The highest number it ever had.
    """

    row: int
    born: bool
    last: int


def find_boot(connection: sqlite3.Connection, device: int, boot: str) -> Boot:
    """The boot's row, made where there is none."""
    found = connection.execute(_BOOT, (device, boot)).fetchone()
    if found is None:
        row = connection.execute("INSERT INTO boots (device, boot) VALUES (?, ?)", (device, boot)).lastrowid
        return Boot(row=row or 0, born=False, last=0)
    return Boot(row=found["id"], born=bool(found["born"]), last=max(found["logged"], found["trimmed"]))


def put(connection: sqlite3.Connection, numbered: Iterable[tuple[int, Boot, Arrival | Malformed]]) -> set[int]:
    """Write what is new to the log.

    Args:
        connection: In a transaction.
        numbered: Position in the batch, boot, message; ascending positions.

    Returns:
        The positions of what was new.
    """
    new: set[int] = set()
    surely, perhaps = [], []
    for position, boot, message in numbered:
        row = log_row(boot, message)
        if row[1] > boot.last:
            boot.last = row[1]
            surely.append(row)
            new.add(position)
        else:
            perhaps.append((position, row))
    connection.executemany(_INSERT, surely)
    for position, row in perhaps:
        boot_row, seq = row[:2]
        if connection.execute(_INSERT_UNLESS_KNOWN, (*row, seq, boot_row, seq)).rowcount:
            new.add(position)
    return new


def other_message(connection: sqlite3.Connection, boot: Boot, seq: int, message: str) -> bool:
    """Whether the log has another message of this number than the one of this id."""
    found = connection.execute("SELECT message FROM log WHERE boot = ? AND seq = ?", (boot.row, seq)).fetchone()
    return found is not None and found["message"] != message


def log_row(boot: Boot, message: Arrival | Malformed) -> tuple[int, int, str, str, float, float, bytes]:
    """A row of the log, but for what the store adds itself."""
    if isinstance(message, Malformed):  # its bytes are in quarantine
        return boot.row, message.seq, "malformed", "", message.received, message.received, b""
    envelope = message.envelope
    return (
        boot.row,
        envelope.seq,
        message.kind.value,
        envelope.id,
        envelope.sent,
        message.received,
        message.payload,
    )
