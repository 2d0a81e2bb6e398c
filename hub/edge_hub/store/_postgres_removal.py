"""Taking devices out of the fleet, in PostgreSQL: as `_removal` does in SQLite, where others write meanwhile.

Who adds something to a device holds its row until the end (`PostgresBooks`, commands, alerts, roll-ups): it comes
before the removal, which deletes it, or after, and then finds no device.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge_hub.store._counters import GONE_DUPLICATES, GONE_MESSAGES, count_there
from edge_hub.store._objections import unknown
from edge_hub.store._postgres_control import held_commands
from edge_hub.store._postgres_pool import Connection, Database, rows_changed
from edge_hub.store._removal import removal
from edge_hub.store._rows import alert_record, command_record, device_id
from edge_hub.store.records import KEPT_ALERTS_S, AlertRecord, Removal, Removed
from edge_sdk.mqtt import DeviceId

_STEP_ROWS = 2000
# See `_removal`; each by an index.
_OF_BOOT = (
    "DELETE FROM log WHERE boot = $1 AND seq IN (SELECT seq FROM log WHERE boot = $1 LIMIT $2)",
    "DELETE FROM numbers WHERE boot = $1 AND first IN (SELECT first FROM numbers WHERE boot = $1 LIMIT $2)",
)
_OF_DEVICE = (
    "DELETE FROM events WHERE device = $1 AND id IN (SELECT id FROM events WHERE device = $1 LIMIT $2)",
    "DELETE FROM commands WHERE id IN (SELECT id FROM commands WHERE device = $1 LIMIT $2)",
    (
        "DELETE FROM condensed WHERE device = $1 AND (step, at) IN"
        " (SELECT step, at FROM condensed WHERE device = $1 LIMIT $2)"
    ),
    (
        "DELETE FROM alerts WHERE id IN (SELECT id FROM alerts WHERE device = $1"  # noqa: S608 - a number of ours
        f" AND ended < (SELECT at FROM removed WHERE device = $1) - {KEPT_ALERTS_S} LIMIT $2)"
    ),
)


class PostgresRemovals:
    """What a `PostgresStore` has of `Removals`."""

    _database: Database

    async def remove(self, devices: Sequence[DeviceId], *, now: float) -> Removed:
        """Take these devices out of the fleet, all or none."""
        async with self._database.transaction() as connection:
            return await _remove(connection, devices, now=now)

    async def removals(self) -> tuple[Removal, ...]:
        """Of the last hours at least, the first first."""
        async with self._database.connection() as connection:
            rows = await connection.fetch("SELECT device AS id, tenant, name, at FROM removed ORDER BY at, device")
        return tuple(removal(row) for row in rows)

    async def sweep(self, *, now: float) -> int:
        """Delete some of what removed devices left; returns how many rows, 0 when there is nothing more to delete."""
        async with self._database.transaction() as connection:
            return await _sweep(connection, now=now)

    async def alert_of_removed(self, alert_id: int) -> AlertRecord | None:
        """An alert that ended because its device was removed, for `KEPT_ALERTS_S`."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                "SELECT a.*, r.tenant, r.name FROM alerts a JOIN removed r ON r.device = a.device WHERE a.id = $1",
                alert_id,
            )
        return None if row is None else alert_record(row)


async def _remove(connection: Connection, devices: Sequence[DeviceId], *, now: float) -> Removed:
    found = await connection.fetch(
        "SELECT id, tenant, name, messages, duplicates FROM devices"
        " WHERE (tenant, name) IN (SELECT * FROM unnest($1::text[], $2::text[])) ORDER BY id FOR UPDATE",
        [device.tenant for device in devices],
        [device.device for device in devices],
    )
    there = {device_id(row) for row in found}
    for device in devices:
        if device not in there:
            raise unknown(device)
    numbers = [row["id"] for row in found]
    pending = held_commands("device = ANY($1::bigint[]) AND state = 'pending'")
    commands = await connection.fetch(
        "UPDATE commands c SET state = 'cancelled', finished = $2 FROM devices d"  # noqa: S608 - our own words
        f" WHERE d.id = c.device AND {pending} RETURNING c.*, d.tenant, d.name",
        *(numbers, now),
    )
    alerts = await connection.fetch(
        "UPDATE alerts a SET ended = $2 FROM devices d"
        " WHERE d.id = a.device AND a.device = ANY($1::bigint[]) AND a.ended IS NULL RETURNING a.*, d.tenant, d.name",
        *(numbers, now),
    )
    await connection.execute("DELETE FROM births WHERE device = ANY($1::bigint[])", numbers)
    await connection.execute(
        "INSERT INTO removed (device, tenant, name, at)"
        " SELECT id, tenant, name, $2 FROM devices WHERE id = ANY($1::bigint[])",
        *(numbers, now),
    )
    await connection.execute("DELETE FROM devices WHERE id = ANY($1::bigint[])", numbers)
    # Last, as in a batch of messages: who counts holds that row until the commit.
    await count_there(connection, GONE_MESSAGES, sum(row["messages"] for row in found))
    await count_there(connection, GONE_DUPLICATES, sum(row["duplicates"] for row in found))
    return Removed(commands=tuple(map(command_record, commands)), alerts=tuple(map(alert_record, alerts)))


async def _sweep(connection: Connection, *, now: float) -> int:
    left = _STEP_ROWS
    # Held: what another has deleted and not committed yet would look to us like nothing left.
    held = "SELECT device FROM removed WHERE NOT swept ORDER BY at, device FOR UPDATE"
    for row in await connection.fetch(held):
        left -= await _empty(connection, row["device"], left)
        if left <= 0:
            break
        await connection.execute("UPDATE removed SET swept = true WHERE device = $1", row["device"])
    over = now - KEPT_ALERTS_S
    told = await connection.execute(
        "DELETE FROM alerts WHERE device IN (SELECT device FROM removed WHERE swept AND at < $1)", over
    )
    gone = await connection.execute("DELETE FROM removed WHERE swept AND at < $1", over)
    return _STEP_ROWS - left + rows_changed(told) + rows_changed(gone)


async def _empty(connection: Connection, device: int, most: int) -> int:
    """Delete so many rows of a device; fewer where it has no more."""
    left = most
    for boot in await connection.fetch("SELECT id FROM boots WHERE device = $1 LIMIT $2", device, most):
        for sql in _OF_BOOT:
            left -= rows_changed(await connection.execute(sql, boot["id"], left))
        if left <= 0:
            return most
        left -= rows_changed(await connection.execute("DELETE FROM boots WHERE id = $1", boot["id"]))
    for sql in _OF_DEVICE:
        left -= rows_changed(await connection.execute(sql, device, left))
    return most - left
