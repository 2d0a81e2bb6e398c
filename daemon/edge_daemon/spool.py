"""What waits for the hub: messages that are deleted only when the hub says it has stored them.

Bounded by bytes and by age. Where room is short, the oldest of the lowest priority goes first: telemetry before
events before replies. What was dropped is counted, and the count outlives a restart.

A message is stored as the very bytes that are sent, so that however often it is sent it is the same message. The
methods here run within a transaction of `edge_daemon.store`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edge_sdk.mqtt import Event, Reply, Tele, Up, UpEnvelope, pack
from edge_sdk.until import CLOCK_SET_SINCE
from edge_sdk.wire import new_token

PRIORITY: Final = {Up.TELE: 1, Up.EVENT: 2, Up.REPLY: 3}
SQUEEZE_BYTES = 1024  # below, zlib gains less than an IP packet's header
# What a row costs beside its payload: the other columns and two index entries, as measured on a full file.
ROW_BYTES = 160
_DROPPED = "spool.dropped"
_REPORTED = "spool.dropped.reported"
_TOLD_IN = "spool.dropped.told"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much may wait."""

    max_bytes: int
    max_age_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Something to tell the hub, not yet numbered."""

    body: Tele | Event | Reply
    reply_to: str | None = None

    @property
    def kind(self) -> Up:
        """Its topic."""
        if isinstance(self.body, Tele):
            return Up.TELE
        return Up.EVENT if isinstance(self.body, Event) else Up.REPLY


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A numbered message. `row` is None if the spool had no room for it."""

    row: int | None
    kind: Up
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """How the spool stands.

    Attributes:
        dropped: Messages lost since the file was begun, for want of room or by age.
        unreported: Of those, how many no event has told of yet.
    """

    rows: int
    bytes: int
    dropped: int
    unreported: int


class Spool:
    """The waiting messages.

    Args:
        connection: Of the store.
        boot: This start of the daemon.
        limits: How much may wait.
    """

    def __init__(self, connection: sqlite3.Connection, *, boot: str, limits: Limits) -> None:
        self.boot = boot
        self._connection = connection
        self._limits = limits
        self.recount()

    def recount(self) -> None:
        """Read the totals from the disk: at the start, and after a transaction that was taken back."""
        self._rows, self._bytes = self._connection.execute(
            "SELECT count(*), coalesce(sum(length(payload)), 0) FROM spool"
        ).fetchone()
        self._bytes += self._rows * ROW_BYTES
        self._seq = self._number(f"seq.{self.boot}")
        self._dropped = self._number(_DROPPED)
        self._reported = self._number(_REPORTED)

    @property
    def seq(self) -> int:
        """The number of the message that was added last within this boot; 0 before the first."""
        return self._seq

    def totals(self) -> Totals:
        """How the spool stands."""
        return Totals(
            rows=self._rows, bytes=self._bytes, dropped=self._dropped, unreported=self._dropped - self._reported
        )

    def add(self, message: Message, now: float) -> Stored:
        """Number a message and let it wait; others may have to go for it."""
        self._seq += 1
        if self._seq == 1:  # the counters of earlier boots are of no use any more
            self._connection.execute("DELETE FROM kv WHERE key GLOB 'seq.*'")
        self._keep(f"seq.{self.boot}", self._seq)
        kind = message.kind
        payload = _pack(
            UpEnvelope(
                id=new_token(), boot=self.boot, seq=self._seq, sent=now, reply_to=message.reply_to, body=message.body
            )
        )
        if not self._make_room(len(payload) + ROW_BYTES, PRIORITY[kind]):
            self._count_dropped(1)
            return Stored(row=None, kind=kind, payload=payload)
        row = self._connection.execute(
            "INSERT INTO spool (boot, seq, kind, priority, expires, payload) VALUES (?, ?, ?, ?, ?, ?)",
            (self.boot, self._seq, kind.value, PRIORITY[kind], now + self._limits.max_age_s, payload),
        ).lastrowid
        self._rows += 1
        self._bytes += len(payload) + ROW_BYTES
        return Stored(row=row, kind=kind, payload=payload)

    def acknowledge(self, boot: str, ranges: Sequence[tuple[int, int]]) -> int:
        """Forget the messages of `boot` whose `seq` lies in one of the inclusive ranges."""
        gone = 0
        for first, last in ranges:
            gone += self._delete("boot = ? AND seq BETWEEN ? AND ?", (boot, first, last))
        return gone

    def expire(self, now: float, stepped_s: float = 0.0) -> int:
        """Drop what is older than the limit.

        Args:
            now: Wall clock.
            stepped_s: How far the wall clock was set forward since the last call. A board without a battery-backed
                clock begins in 1970: when it learns the time, what it recorded is not suddenly decades old.
        """
        if stepped_s > 0:
            self._connection.execute("UPDATE spool SET expires = expires + ?", (stepped_s,))
        # Set backward, the clock would give what waits a longer life than the limit.
        latest = now + self._limits.max_age_s
        self._connection.execute("UPDATE spool SET expires = ? WHERE expires > ?", (latest, latest))
        # Nobody knows how old that is which a daemon before this one recorded without a clock.
        if now >= CLOCK_SET_SINCE:
            self._connection.execute("UPDATE spool SET expires = ? WHERE expires < ?", (latest, CLOCK_SET_SINCE))
        gone = self._delete("expires <= ?", (now,))
        self._count_dropped(gone)
        return gone

    def reported(self, count: int, row: int | None) -> None:
        """The event in `row` tells of `count` dropped messages."""
        self._reported += count
        self._keep(_REPORTED, self._reported)
        self._keep(_TOLD_IN, row or 0)

    def is_telling(self) -> bool:
        """The event that told of dropped messages last waits itself."""
        row = self._number(_TOLD_IN)
        return self._connection.execute("SELECT 1 FROM spool WHERE row = ?", (row,)).fetchone() is not None

    def head(self, limit: int) -> list[int]:
        """The rows to send first: replies, then events, then telemetry, each in the order recorded."""
        found = self._connection.execute("SELECT row FROM spool ORDER BY priority DESC, row LIMIT ?", (limit,))
        return [row for (row,) in found]

    def last_row(self) -> int:
        """The newest row; 0 where nothing waits."""
        return int(self._connection.execute("SELECT coalesce(max(row), 0) FROM spool").fetchone()[0])

    def live(self, limit: int, after: int) -> list[int]:
        """Of the rows after one, and of all replies, which to send first, as `head` does."""
        found = self._connection.execute(
            "SELECT row FROM (SELECT row, priority FROM spool WHERE row > ?"
            " UNION SELECT row, priority FROM spool WHERE priority = ?) ORDER BY priority DESC, row LIMIT ?",
            (after, PRIORITY[Up.REPLY], limit),
        )
        return [row for (row,) in found]

    def backlog(self, limit: int, until: int) -> list[int]:
        """Of the rows up to one, which to send first: events, then telemetry, each in the order recorded."""
        found: list[int] = []
        for priority in (PRIORITY[Up.EVENT], PRIORITY[Up.TELE]):
            rows = self._connection.execute(
                "SELECT row FROM spool WHERE priority = ? AND row <= ? ORDER BY row LIMIT ?",
                (priority, until, limit - len(found)),
            )
            found += [row for (row,) in rows]
        return found

    def payloads(self, rows: Sequence[int]) -> list[Stored]:
        """What is to be sent of these rows; a row that is gone is left out."""
        found = []
        for row in rows:
            one = self._connection.execute("SELECT kind, payload FROM spool WHERE row = ?", (row,)).fetchone()
            if one is not None:
                found.append(Stored(row=row, kind=Up(one[0]), payload=bytes(one[1])))
        return found

    def _make_room(self, wanted: int, priority: int) -> bool:
        """Delete the least important until `wanted` bytes fit; False if only more important messages are left."""
        if wanted > self._limits.max_bytes:
            return False
        while self._bytes + wanted > self._limits.max_bytes:
            least = self._connection.execute(
                "SELECT row, priority FROM spool ORDER BY priority, row LIMIT 1"
            ).fetchone()
            if least is None or least[1] > priority:
                return False
            self._count_dropped(self._delete("row = ?", (least[0],)))
        return True

    def _delete(self, where: str, values: tuple[object, ...]) -> int:
        rows, size = self._connection.execute(
            f"SELECT count(*), coalesce(sum(length(payload)), 0) FROM spool WHERE {where}",  # noqa: S608 - ours, above
            values,
        ).fetchone()
        if rows:
            self._connection.execute(f"DELETE FROM spool WHERE {where}", values)  # noqa: S608 - ours, above
            self._rows -= rows
            self._bytes -= size + rows * ROW_BYTES
        return int(rows)

    def _count_dropped(self, count: int) -> None:
        if count:
            self._dropped += count
            self._keep(_DROPPED, self._dropped)

    def _number(self, key: str) -> int:
        found = self._connection.execute("SELECT value FROM kv WHERE key = ?", (key,)).fetchone()
        try:
            return 0 if found is None else int(found[0])
        except ValueError:  # damaged: it is counted anew
            return 0

    def _keep(self, key: str, value: int) -> None:
        self._connection.execute("INSERT OR REPLACE INTO kv VALUES (?, ?)", (key, str(value).encode()))


def _pack(envelope: UpEnvelope[Tele | Event | Reply]) -> bytes:
    plain = pack(envelope)
    if isinstance(envelope.body, Tele) and len(plain) > SQUEEZE_BYTES:
        return pack(envelope, squeeze=True)
    return plain
