"""Taking devices out of the fleet, in the SQLite store.

The row of `devices` goes at once, and as all is reached through it, nothing of the device can be found any more. Its
number moves to `removed`, where it waits for what hangs on it to be deleted a little at a time: a device may have left
millions of rows, and arriving messages must not wait for them. Whoever is killed meanwhile, the next one goes on.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from edge_hub.store._counters import GONE_DUPLICATES, GONE_MESSAGES, count
from edge_hub.store._objections import unknown
from edge_hub.store._opening import SqliteFile
from edge_hub.store._roll_up import mark, set_mark
from edge_hub.store._rows import ALERTS, COMMANDS, Row, alert_record, command_record, device_id
from edge_hub.store.records import KEPT_ALERTS_S, AlertRecord, CommandRecord, CommandState, Removal, Removed
from edge_sdk.mqtt import DeviceId

# Half of what retention takes at once: a device's messages lie far apart.
_STEP_ROWS = 500
# How the messages and numbers of a boot, and what hangs on a device itself, are found by an index and deleted.
_OF_BOOT = (
    "DELETE FROM log WHERE id IN (SELECT id FROM log WHERE boot = ?1 LIMIT ?2)",
    "DELETE FROM trimmed WHERE boot = ?1 AND first IN (SELECT first FROM trimmed WHERE boot = ?1 LIMIT ?2)",
)
_OF_DEVICE = (
    "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE device = ?1 LIMIT ?2)",
    "DELETE FROM commands WHERE id IN (SELECT id FROM commands WHERE device = ?1 LIMIT ?2)",
    (
        "DELETE FROM condensed WHERE device = ?1 AND (step, at) IN"
        " (SELECT step, at FROM condensed WHERE device = ?1 LIMIT ?2)"
    ),
    (
        "DELETE FROM alerts WHERE id IN (SELECT id FROM alerts WHERE device = ?1"  # noqa: S608 - a number of ours
        f" AND ended < (SELECT at FROM removed WHERE device = ?1) - {KEPT_ALERTS_S} LIMIT ?2)"
    ),
)


class SqliteRemovals(SqliteFile):
    """What a `SqliteStore` has of `Removals`."""

    async def remove(self, devices: Sequence[DeviceId], *, now: float) -> Removed:
        """Take these devices out of the fleet, all or none."""
        return await self._write(lambda connection: _remove(connection, devices, now=now))

    async def removals(self) -> tuple[Removal, ...]:
        """Of the last hours at least, the first first."""
        sql = "SELECT device AS id, tenant, name, at FROM removed ORDER BY at, device"
        return await self._read(lambda c: tuple(removal(row) for row in c.execute(sql)))

    async def sweep(self, *, now: float) -> int:
        """Delete some of what removed devices left; returns how many rows, 0 when there is nothing more to delete."""
        async with self._condensing:
            return await self._write(lambda connection: _sweep(connection, now=now))

    async def alert_of_removed(self, alert_id: int) -> AlertRecord | None:
        """An alert that ended because its device was removed, for `KEPT_ALERTS_S`."""
        sql = "SELECT a.*, r.tenant, r.name FROM alerts a JOIN removed r ON r.device = a.device WHERE a.id = ?"

        def read(connection: sqlite3.Connection) -> AlertRecord | None:
            row = connection.execute(sql, (alert_id,)).fetchone()
            return None if row is None else alert_record(row)

        return await self._read(read)


def removal(row: Row) -> Removal:
    """Of a row of `removed`."""
    return Removal(id=row["id"], device=device_id(row), at=row["at"])


def _remove(connection: sqlite3.Connection, devices: Sequence[DeviceId], *, now: float) -> Removed:
    commands: list[CommandRecord] = []
    alerts: list[AlertRecord] = []
    for device in dict.fromkeys(devices):
        row = connection.execute(
            "SELECT id, messages, duplicates FROM devices WHERE tenant = ? AND name = ?", (device.tenant, device.device)
        ).fetchone()
        if row is None:
            raise unknown(device)
        number = row["id"]
        # The plus: by the few of this device, not by all that are pending.
        pending = connection.execute(f"{COMMANDS} WHERE c.device = ? AND +c.state = 'pending'", (number,))
        commands += [replace(command_record(one), state=CommandState.CANCELLED, finished=now) for one in pending]
        still = connection.execute(f"{ALERTS} WHERE a.device = ? AND a.ended IS NULL", (number,))
        alerts += [replace(alert_record(one), ended=now) for one in still]
        connection.execute("UPDATE alerts SET ended = ? WHERE device = ? AND ended IS NULL", (now, number))
        count(connection, ((GONE_MESSAGES, row["messages"]), (GONE_DUPLICATES, row["duplicates"])))
        connection.execute(
            "INSERT INTO removed (device, tenant, name, at) VALUES (?, ?, ?, ?)",
            (number, device.tenant, device.device, now),
        )
        connection.execute("DELETE FROM devices WHERE id = ?", (number,))
    return Removed(commands=tuple(commands), alerts=tuple(alerts))


def _sweep(connection: sqlite3.Connection, *, now: float) -> int:
    left = _STEP_ROWS
    for row in connection.execute("SELECT device FROM removed WHERE NOT swept ORDER BY at, device").fetchall():
        left -= _empty(connection, row["device"], left)
        if left <= 0:
            break
        connection.execute("UPDATE removed SET swept = 1 WHERE device = ?", (row["device"],))
    _keep_mark(connection)
    over = (now - KEPT_ALERTS_S,)
    told = connection.execute(
        "DELETE FROM alerts WHERE device IN (SELECT device FROM removed WHERE swept AND at < ?)", over
    ).rowcount
    gone = connection.execute("DELETE FROM removed WHERE swept AND at < ?", over).rowcount
    return _STEP_ROWS - left + told + gone


def _empty(connection: sqlite3.Connection, device: int, most: int) -> int:
    """Delete so many rows of a device; fewer where it has no more."""
    left = most
    # Its messages first: what they are condensed to meanwhile goes after them.
    for boot in connection.execute("SELECT id FROM boots WHERE device = ? LIMIT ?", (device, most)).fetchall():
        for sql in _OF_BOOT:
            left -= connection.execute(sql, (boot["id"], left)).rowcount
        if left <= 0:
            return most
        left -= connection.execute("DELETE FROM boots WHERE id = ?", (boot["id"],)).rowcount
    for sql in _OF_DEVICE:
        left -= connection.execute(sql, (device, left)).rowcount
    return most - left


def _keep_mark(connection: sqlite3.Connection) -> None:
    """SQLite counts on from the last message there is: what comes next must not pass for rolled up."""
    last = connection.execute("SELECT coalesce(max(id), 0) FROM log").fetchone()[0]
    if mark(connection) > last:
        set_mark(connection, last)
