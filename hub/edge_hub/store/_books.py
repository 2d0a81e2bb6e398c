"""What storing a batch reads and writes, as a small interface, and SQLite behind it.

`Intake` decides, whoever keeps the books; so both stores decide the same.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from edge_hub.store._rows import command_record
from edge_hub.store.records import CommandRecord, Malformed
from edge_sdk.mqtt import DeviceId, Reply
from edge_sdk.wire import encode

KEPT_QUARANTINED = 1000
KEPT_PAYLOAD_BYTES = 4096
KEPT_TOPIC_CHARS = 300
# The kind under which the number of a refused message is logged.
REFUSED = "malformed"


@dataclass(frozen=True, slots=True)
class Logged:
    """A row of the log."""

    boot: int
    seq: int
    kind: str
    message: str
    sent: float
    received: float
    payload: bytes


class Books(Protocol):
    """One transaction's view of the tables. Rows are named by their numbers."""

    def device(self, device: DeviceId) -> Mapping[str, Any]:
        """Its row of `devices`, made where it is new, and held until the end: nobody else changes it meanwhile."""

    def boot(self, device: int, boot: str) -> tuple[int, bool]:
        """The row of a boot, made where it is new, and whether a birth of it was seen."""

    def born(self, boot: int) -> None:
        """A birth of it was seen."""

    def log(self, entry: Logged) -> bool:
        """Append it; false where its number was stored at any time before."""

    def message(self, boot: int, seq: int) -> str | None:
        """The id of the message that has this number, if it is still in the log."""

    def event(self, device: int, received: float, body: bytes) -> int:
        """Keep an event; its id."""

    def reply(self, command: str | None, device: DeviceId, row: int, reply: Reply, at: float) -> CommandRecord | None:
        """End a command of this device with the first reply to it; None where there is nothing to end."""

    def quarantine(self, refused: Malformed) -> None:
        """Keep a refused message, cut to a bearable size."""

    def change(self, device: int, columns: Mapping[str, Any]) -> None:
        """Change a row of `devices`."""

    def close(self, malformed: int) -> None:
        """The batch is through; so many of it were put into quarantine."""


class SqliteBooks:
    """`Books` on a connection with `sqlite3.Row` rows, in a transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def device(self, device: DeviceId) -> Mapping[str, Any]:
        """See `Books`."""
        names = (device.tenant, device.device)
        self._connection.execute("INSERT INTO devices (tenant, name) VALUES (?, ?) ON CONFLICT DO NOTHING", names)
        row = self._connection.execute("SELECT * FROM devices WHERE tenant = ? AND name = ?", names).fetchone()
        return dict(row)

    def boot(self, device: int, boot: str) -> tuple[int, bool]:
        """See `Books`."""
        key = (device, boot)
        self._connection.execute("INSERT INTO boots (device, boot) VALUES (?, ?) ON CONFLICT DO NOTHING", key)
        row = self._connection.execute("SELECT id, born FROM boots WHERE device = ? AND boot = ?", key).fetchone()
        return row["id"], bool(row["born"])

    def born(self, boot: int) -> None:
        """See `Books`."""
        self._connection.execute("UPDATE boots SET born = 1 WHERE id = ?", (boot,))

    def log(self, entry: Logged) -> bool:
        """See `Books`."""
        inserted = self._connection.execute(
            "INSERT INTO log (boot, seq, kind, message, sent, received, payload) SELECT ?, ?, ?, ?, ?, ?, ?"
            " WHERE NOT EXISTS (SELECT 1 FROM trimmed WHERE boot = ? AND first <= ? AND last >= ?)"
            " ON CONFLICT (boot, seq) DO NOTHING",
            (
                entry.boot,
                entry.seq,
                entry.kind,
                entry.message,
                entry.sent,
                entry.received,
                entry.payload,
                entry.boot,
                entry.seq,
                entry.seq,
            ),
        ).rowcount
        return bool(inserted)

    def message(self, boot: int, seq: int) -> str | None:
        """See `Books`."""
        row = self._connection.execute("SELECT message FROM log WHERE boot = ? AND seq = ?", (boot, seq)).fetchone()
        return None if row is None else row["message"]

    def event(self, device: int, received: float, body: bytes) -> int:
        """See `Books`."""
        cursor = self._connection.execute(
            "INSERT INTO events (device, received, body) VALUES (?, ?, ?)", (device, received, body)
        )
        return cursor.lastrowid or 0

    def reply(self, command: str | None, device: DeviceId, row: int, reply: Reply, at: float) -> CommandRecord | None:
        """See `Books`."""
        updated = self._connection.execute(
            "UPDATE commands SET late = state <> 'pending', reply = ?, finished = coalesce(finished, ?),"
            " state = CASE state WHEN 'pending' THEN ? ELSE state END"
            " WHERE id = ? AND device = ? AND reply IS NULL RETURNING *",
            (encode(reply), at, reply.status.value, command, row),
        ).fetchone()
        return None if updated is None else command_record(updated, device)

    def quarantine(self, refused: Malformed) -> None:
        """See `Books`."""
        self._connection.execute(
            "INSERT INTO quarantine (received, topic, problem, size_bytes, payload) VALUES (?, ?, ?, ?, ?)",
            (
                refused.received,
                refused.topic[:KEPT_TOPIC_CHARS],
                refused.problem,
                len(refused.payload),
                refused.payload[:KEPT_PAYLOAD_BYTES],
            ),
        )

    def change(self, device: int, columns: Mapping[str, Any]) -> None:
        """See `Books`."""
        # The names are our own words, never a message's.
        assignments = ", ".join(f"{column} = ?" for column in columns)
        self._connection.execute(
            f"UPDATE devices SET {assignments} WHERE id = ?",  # noqa: S608
            (*columns.values(), device),
        )

    def close(self, malformed: int) -> None:
        """See `Books`."""
        if not malformed:
            return
        self._connection.execute(
            "INSERT INTO counters VALUES ('malformed', ?) "
            "ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
            (malformed,),
        )
        self._connection.execute(
            "DELETE FROM quarantine WHERE id <= (SELECT max(id) FROM quarantine) - ?", (KEPT_QUARANTINED,)
        )
