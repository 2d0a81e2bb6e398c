"""What storing a batch reads and writes, as a small interface, and SQLite behind it.

`Intake` decides, whoever keeps the books; so both stores decide the same.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from edge_hub.store._counters import count
from edge_hub.store._numbers import Boot, find_boot, other_message, put
from edge_hub.store._rows import Row, command_record
from edge_hub.store.records import HELD_OFF_S, Arrival, CommandRecord, EventRecord, Malformed
from edge_sdk.mqtt import DeviceId, Event, Reply
from edge_sdk.wire import encode

KEPT_QUARANTINED = 1000
KEPT_PAYLOAD_BYTES = 4096
KEPT_TOPIC_CHARS = 300
# What of a device a batch looks at. Not the documents: they are long, and are only ever replaced.
LOOKED_AT = (
    "id, first_seen, last_seen, online, boot, birth_sent, state_boot, state_sent, sample_boot, sample_seq,"
    " sample_at, messages, duplicates, skew_s, skew_next_s, skew_until"
)
_DEVICE = f"SELECT {LOOKED_AT} FROM devices WHERE tenant = ? AND name = ?"  # noqa: S608 - our own words
_REMOVED = "SELECT 1 FROM removed WHERE tenant = ? AND name = ? AND at > ?"
# SQLite gives the number of a deleted row again, and what hangs on a removed device is still there for a while.
FRESH_ID = "(SELECT max(n) + 1 FROM (SELECT max(id) AS n FROM devices UNION ALL SELECT max(device) FROM removed))"


def excused(message: Arrival | Malformed) -> float:
    """A removal after this moment still holds when the message comes.

    What was sent before may be on its way for a while; what the broker had kept says nothing about now at all.
    """
    kept = isinstance(message, Arrival) and message.retained
    return 0.0 if kept else message.received - HELD_OFF_S


class Happened(NamedTuple):
    """An event, with its device's row."""

    row: int
    device: DeviceId
    received: float
    event: Event


class Books(Protocol):
    """One transaction's view of the tables. Rows are named by their numbers; what is once read is nobody else's."""

    def device(self, device: DeviceId) -> Row | None:
        """Its row of `devices` (`LOOKED_AT`)."""

    def new_device(self, device: DeviceId, *, since: float) -> Row | None:
        """A row for a device that has none; None where one of its name was removed after this moment."""

    def boot(self, device: int, boot: str) -> Boot:
        """A boot's row, made where there is none."""

    def put(self, numbered: Iterable[tuple[int, Boot, Arrival | Malformed]]) -> set[int]:
        """Write to the log what is new.

        Args:
            numbered: Position in the batch, boot, message; ascending positions.

        Returns:
            The positions of what was new.
        """

    def other_message(self, boot: Boot, seq: int, message: str) -> bool:
        """Whether the log has another message of this number than the one of this id."""

    def born(self, boot: Boot) -> None:
        """A birth of it was seen."""

    def happened(self, events: Sequence[Happened]) -> tuple[EventRecord, ...]:
        """Keep events, in this order."""

    def reply(self, command: str | None, device: DeviceId, row: int, reply: Reply, at: float) -> CommandRecord | None:
        """End a command of this device with the first reply to it; None where there is nothing to end."""

    def change(self, devices: Sequence[tuple[int, Mapping[str, Any]]]) -> None:
        """Write columns of rows of `devices`; a struct is a document."""

    def refused(self, messages: Sequence[Malformed], counts: Mapping[str, int]) -> None:
        """Keep the last refused messages, cut to a bearable size, and raise counters."""


class SqliteBooks:
    """`Books` on a connection with `sqlite3.Row` rows, in a transaction. Nobody else writes within it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def device(self, device: DeviceId) -> Row | None:
        """See `Books`."""
        row: Row | None = self._connection.execute(_DEVICE, (device.tenant, device.device)).fetchone()
        return row

    def new_device(self, device: DeviceId, *, since: float) -> Row | None:
        """See `Books`."""
        names = (device.tenant, device.device)
        if self._connection.execute(_REMOVED, (*names, since)).fetchone() is not None:
            return None
        self._connection.execute(f"INSERT INTO devices (id, tenant, name) VALUES ({FRESH_ID}, ?, ?)", names)  # noqa: S608
        return self.device(device)

    def boot(self, device: int, boot: str) -> Boot:
        """See `Books`."""
        return find_boot(self._connection, device, boot)

    def put(self, numbered: Iterable[tuple[int, Boot, Arrival | Malformed]]) -> set[int]:
        """See `Books`."""
        return put(self._connection, numbered)

    def other_message(self, boot: Boot, seq: int, message: str) -> bool:
        """See `Books`."""
        return other_message(self._connection, boot, seq, message)

    def born(self, boot: Boot) -> None:
        """See `Books`."""
        self._connection.execute("UPDATE boots SET born = 1 WHERE id = ?", (boot.row,))

    def happened(self, events: Sequence[Happened]) -> tuple[EventRecord, ...]:
        """See `Books`; their ids can be told before they are there."""
        last = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
        first = 1 + (0 if last is None else last[0])
        self._connection.executemany(
            "INSERT INTO events (id, device, received, body) VALUES (?, ?, ?, ?)",
            [(number, one.row, one.received, encode(one.event)) for number, one in enumerate(events, first)],
        )
        return tuple(
            EventRecord(id=number, device=one.device, received=one.received, event=one.event)
            for number, one in enumerate(events, first)
        )

    def reply(self, command: str | None, device: DeviceId, row: int, reply: Reply, at: float) -> CommandRecord | None:
        """See `Books`."""
        updated = self._connection.execute(
            "UPDATE commands SET late = state <> 'pending', reply = ?, finished = coalesce(finished, ?),"
            " state = CASE state WHEN 'pending' THEN ? ELSE state END"
            " WHERE id = ? AND device = ? AND reply IS NULL RETURNING *",
            (encode(reply), at, reply.status.value, command, row),
        ).fetchone()
        return None if updated is None else command_record(updated, device)

    def change(self, devices: Sequence[tuple[int, Mapping[str, Any]]]) -> None:
        """See `Books`."""
        alike: dict[tuple[str, ...], list[tuple[Any, ...]]] = defaultdict(list)
        for row, columns in devices:
            alike[tuple(columns)].append((*map(storable_value, columns.values()), row))
        for names, rows in alike.items():
            # The names are our own words, never a message's.
            assignments = ", ".join(f"{name} = ?" for name in names)
            self._connection.executemany(f"UPDATE devices SET {assignments} WHERE id = ?", rows)  # noqa: S608

    def refused(self, messages: Sequence[Malformed], counts: Mapping[str, int]) -> None:
        """See `Books`."""
        count(self._connection, counts.items())
        if not messages:
            return
        self._connection.executemany(
            "INSERT INTO quarantine (received, topic, problem, size_bytes, payload) VALUES (?, ?, ?, ?, ?)",
            [
                (
                    message.received,
                    message.topic[:KEPT_TOPIC_CHARS],
                    message.problem,
                    len(message.payload),
                    message.payload[:KEPT_PAYLOAD_BYTES],
                )
                for message in messages[-KEPT_QUARANTINED:]
            ],
        )
        self._connection.execute(
            "DELETE FROM quarantine WHERE id <= (SELECT max(id) FROM quarantine) - ?", (KEPT_QUARANTINED,)
        )


def storable_value(value: Any) -> Any:
    """A document as its bytes, anything else as it is."""
    return encode(value) if isinstance(value, msgspec.Struct) else value
