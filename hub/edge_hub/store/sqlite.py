"""The store in one SQLite file; `Store` says what the methods promise."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from edge_hub.store._books import FRESH_ID, SqliteBooks
from edge_hub.store._control import SqliteControl
from edge_hub.store._counters import STORED_EVENTS, totals_of
from edge_hub.store._forgetting import boots_too_many
from edge_hub.store._history import SqliteHistory
from edge_hub.store._intake import Intake
from edge_hub.store._leases import SqliteLeases
from edge_hub.store._objections import check_version, enrolled, unknown
from edge_hub.store._removal import SqliteRemovals
from edge_hub.store._retention import trim, used_bytes
from edge_hub.store._roll_up import in_snapshot
from edge_hub.store._rows import (
    COMMANDS,
    EVENTS,
    command_record,
    desired_record,
    device_id,
    device_record,
    event_record,
    quarantined_record,
)
from edge_hub.store.records import (
    Arrival,
    CommandRecord,
    Committed,
    DesiredRecord,
    DeviceRecord,
    EventRecord,
    Malformed,
    QuarantinedRecord,
    Retention,
    Totals,
)
from edge_sdk.mqtt import Desired, DeviceId
from edge_sdk.preference import Preference
from edge_sdk.wire import encode, new_token


class SqliteStore(SqliteControl, SqliteHistory, SqliteLeases, SqliteRemovals):
    """A `Store`.

    Args:
        path: The file; made (0600) where it does not exist.

    Raises:
        StoreError: It cannot be opened, is damaged, or is no database of this version.
    """

    # -------------------------------------------------------------------------------------------------- messages

    async def commit(self, batch: Sequence[Arrival | Malformed]) -> Committed:
        """Store messages in the order given, each (device, boot, seq) once."""
        return await self._write(lambda connection: Intake(SqliteBooks(connection)).store(batch))

    async def events(
        self, *, device: DeviceId | None = None, after: int | None = None, before: int | None = None, limit: int = 100
    ) -> tuple[EventRecord, ...]:
        """Events in ascending order of id: the first ones after `after`, else the last ones (before `before`)."""
        ascending = after is not None
        edge = after if after is not None else before if before is not None else 2**62

        def read(connection: sqlite3.Connection) -> tuple[EventRecord, ...]:
            where, order = ("e.id > ?", "ASC") if ascending else ("e.id < ?", "DESC")
            values: list[object] = [edge]
            if device is not None:
                where += " AND e.device = (SELECT id FROM devices WHERE tenant = ? AND name = ?)"
                values += [device.tenant, device.device]
            rows = connection.execute(f"{EVENTS} WHERE {where} ORDER BY e.id {order} LIMIT ?", (*values, limit))
            found = tuple(event_record(row) for row in rows)
            return found if ascending else found[::-1]

        return await self._read(read)

    async def quarantined(self, *, limit: int = 100) -> tuple[QuarantinedRecord, ...]:
        """The last refused messages, the newest first."""
        sql = "SELECT * FROM quarantine ORDER BY id DESC LIMIT ?"
        return await self._read(lambda c: tuple(quarantined_record(row) for row in c.execute(sql, (limit,))))

    # --------------------------------------------------------------------------------------------------- devices

    async def devices(self) -> tuple[DeviceRecord, ...]:
        """All devices enrolled or heard of, by name."""
        sql = "SELECT * FROM devices ORDER BY tenant, name"
        return await self._read(lambda c: tuple(device_record(row) for row in c.execute(sql)))

    async def device(self, device: DeviceId) -> DeviceRecord | None:
        """One device."""

        def read(connection: sqlite3.Connection) -> DeviceRecord | None:
            row = _device_row(connection, device)
            return None if row is None else device_record(row)

        return await self._read(read)

    async def enrol(self, device: DeviceId, password_hash: str, *, now: float, again: bool) -> None:
        """Keep a device's credentials."""
        await self.enrol_all({device: password_hash}, now=now, again=again)

    async def enrol_all(self, passwords: Mapping[DeviceId, str], *, now: float, again: bool) -> None:
        """Keep the credentials of devices, all or none."""

        def write(connection: sqlite3.Connection) -> None:
            for device, password_hash in passwords.items():
                kept = connection.execute(
                    "INSERT INTO devices (id, tenant, name, password, enrolled)"  # noqa: S608 - our own words
                    f" VALUES ({FRESH_ID}, ?, ?, ?, ?) ON CONFLICT (tenant, name)"
                    " DO UPDATE SET password = excluded.password, enrolled = excluded.enrolled"
                    " WHERE password IS NULL OR ?",
                    (device.tenant, device.device, password_hash, now, again),
                ).rowcount
                if not kept:
                    raise enrolled(device)

        await self._write(write)

    async def accounts(self) -> dict[str, str]:
        """Password hash by `tenant/device`, of all enrolled devices."""
        sql = "SELECT tenant, name, password FROM devices WHERE password IS NOT NULL"
        return await self._read(lambda c: {str(device_id(row)): row["password"] for row in c.execute(sql)})

    # -------------------------------------------------------------------------------------------------- commands

    async def add_commands(self, commands: Sequence[CommandRecord]) -> None:
        """Keep pending commands, all or none."""

        def write(connection: sqlite3.Connection) -> None:
            for command in commands:
                row = _must_device_row(connection, command.device)
                connection.execute(
                    "INSERT INTO commands (id, device, sent, expires, body, state, by, batch)"
                    " VALUES (?, ?, ?, ?, ?, 'pending', ?, ?)",
                    (
                        command.id,
                        row["id"],
                        command.sent,
                        command.expires,
                        encode(command.command),
                        command.by,
                        command.batch,
                    ),
                )

        await self._write(write)

    async def command(self, command_id: str) -> CommandRecord | None:
        """One command."""
        found = await self._commands_where("WHERE c.id = ?", (command_id,))
        return found[0] if found else None

    async def commands(self, device: DeviceId, *, limit: int = 20) -> tuple[CommandRecord, ...]:
        """A device's last commands, the newest first."""
        return await self._commands_where(
            "WHERE d.tenant = ? AND d.name = ? ORDER BY c.sent DESC LIMIT ?", (device.tenant, device.device, limit)
        )

    async def pending(self, *, device: DeviceId | None = None, unsent: bool = False) -> tuple[CommandRecord, ...]:
        """Commands without a final state, the oldest first; of one device, or only those never published."""
        where = "c.state = 'pending'" + (" AND c.published = 0" if unsent else "")
        values: tuple[str, ...] = ()
        if device is not None:
            where, values = f"d.tenant = ? AND d.name = ? AND {where}", (device.tenant, device.device)
        return await self._commands_where(f"WHERE {where} ORDER BY c.sent, c.id", values)

    async def published(self, *command_ids: str) -> None:
        """Commands were sent once more."""
        sql = "UPDATE commands SET published = published + 1 WHERE id = ?"
        await self._write(lambda c: c.executemany(sql, [(each,) for each in command_ids]))

    async def expire_commands(self, *, now: float, grace_s: float) -> tuple[CommandRecord, ...]:
        """Call pending commands expired whose time ended `grace_s` ago; returns them."""

        def write(connection: sqlite3.Connection) -> tuple[CommandRecord, ...]:
            over = connection.execute(
                f"{COMMANDS} WHERE c.state = 'pending' AND c.expires < ?", (now - grace_s,)
            ).fetchall()
            done = []
            for found in over:
                row = connection.execute(
                    "UPDATE commands SET state = 'expired', finished = ? WHERE id = ? RETURNING *", (now, found["id"])
                ).fetchone()
                done.append(command_record(row, device_id(found)))
            return tuple(done)

        return await self._write(write)

    # --------------------------------------------------------------------------------------------------- desired

    async def put_desired(
        self,
        device: DeviceId,
        *,
        preferences: dict[str, Preference],
        pins: dict[str, str | None],
        expected_version: int | None,
        now: float,
    ) -> DesiredRecord:
        """Replace the desired document; its version becomes one more than the last."""

        def write(connection: sqlite3.Connection) -> DesiredRecord:
            row = _must_device_row(connection, device)
            present = row["desired_version"]
            check_version(device, present, expected_version)
            record = DesiredRecord(
                device=device,
                desired=Desired(version=present + 1, preferences=preferences, pins=pins),
                sent=now,
                message=new_token(),
            )
            connection.execute(
                "UPDATE devices SET desired_version = ?, desired_sent = ?, desired_message = ?, desired = ? "
                "WHERE id = ?",
                (present + 1, now, record.message, encode(record.desired), row["id"]),
            )
            return record

        return await self._write(write)

    async def desired(self, device: DeviceId) -> DesiredRecord | None:
        """A device's desired document."""

        def read(connection: sqlite3.Connection) -> DesiredRecord | None:
            row = _device_row(connection, device)
            return None if row is None or row["desired"] is None else desired_record(row)

        return await self._read(read)

    async def all_desired(self) -> tuple[DesiredRecord, ...]:
        """Every desired document."""
        sql = "SELECT * FROM devices WHERE desired IS NOT NULL"
        return await self._read(lambda c: tuple(desired_record(row) for row in c.execute(sql)))

    # ---------------------------------------------------------------------------------------------------- upkeep

    async def totals(self) -> Totals:
        """Counts."""

        def read(connection: sqlite3.Connection) -> Totals:
            sums = connection.execute(
                "SELECT count(*), total(online), total(messages), total(duplicates) FROM devices"
            ).fetchone()
            counters: dict[str, int] = dict(connection.execute("SELECT name, value FROM counters").fetchall())
            # Their ids are counted up by SQLite itself.
            events = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
            return totals_of(
                {**counters, STORED_EVENTS: events[0] if events else 0},
                devices=sums[0],
                online=int(sums[1]),
                messages=int(sums[2]),
                duplicates=int(sums[3]),
                commands=dict(connection.execute("SELECT state, count(*) FROM commands GROUP BY state").fetchall()),
                size_bytes=used_bytes(connection),
            )

        return await self._read(read)

    async def trim(self, retention: Retention, *, now: float) -> int:
        """Delete some of what exceeds the bounds; returns how many rows, 0 when there is nothing more to delete."""
        # Looked for in the thread that reads: where there are many of them, messages don't wait.
        boots = await self._read(lambda connection: in_snapshot(connection, boots_too_many))
        async with self._condensing:  # it begins the numbers of the log anew where nothing is left of it
            return await self._write(lambda connection: trim(connection, retention, boots, now=now))


def _device_row(connection: sqlite3.Connection, device: DeviceId) -> sqlite3.Row | None:
    sql = "SELECT * FROM devices WHERE tenant = ? AND name = ?"
    row: sqlite3.Row | None = connection.execute(sql, (device.tenant, device.device)).fetchone()
    return row


def _must_device_row(connection: sqlite3.Connection, device: DeviceId) -> sqlite3.Row:
    row = _device_row(connection, device)
    if row is None:
        raise unknown(device)
    return row
