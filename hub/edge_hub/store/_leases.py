"""Leases: which number somebody gets is decided here, for both stores; below, SQLite's part."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from edge_hub.store._opening import SqliteFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Somebody has a number until a moment."""

    slot: int
    holder: str
    until: float


def choose(taken: Sequence[Lease], holder: str, *, slots: int, now: float) -> int | None:
    """The number the holder has or is to get, None where all are taken.

    Who has one keeps it, even if its time is over: nobody else has taken it.
    """
    own = [lease.slot for lease in taken if lease.holder == holder and lease.slot < slots]
    if own:
        return min(own)
    held = {lease.slot for lease in taken if lease.until > now}
    return next((slot for slot in range(slots) if slot not in held), None)


def take(connection: sqlite3.Connection, kind: str, holder: str, *, slots: int, now: float, ttl_s: float) -> int | None:
    """`Leases.lease`, within a transaction."""
    rows = connection.execute("SELECT slot, holder, until FROM leases WHERE kind = ?", (kind,))
    taken = [Lease(slot=row["slot"], holder=row["holder"], until=row["until"]) for row in rows]
    slot = choose(taken, holder, slots=slots, now=now)
    if slot is not None:
        connection.execute(
            "INSERT INTO leases VALUES (?, ?, ?, ?) ON CONFLICT (kind, slot)"
            " DO UPDATE SET holder = excluded.holder, until = excluded.until",
            (kind, slot, holder, now + ttl_s),
        )
    return slot


class SqliteLeases(SqliteFile):
    """`Leases` on SQLite; mixed into its store."""

    async def lease(self, kind: str, holder: str, *, slots: int, now: float, ttl_s: float) -> int | None:
        """The lowest free number below `slots`, held until `now + ttl_s`; the same again for the same holder."""
        return await self._write(lambda c: take(c, kind, holder, slots=slots, now=now, ttl_s=ttl_s))

    async def release(self, kind: str, holder: str) -> None:
        """Let go of it at once."""
        # The row stays: that a number was in use is worth knowing.
        sql = "UPDATE leases SET until = 0 WHERE kind = ? AND holder = ?"
        await self._write(lambda c: c.execute(sql, (kind, holder)))
