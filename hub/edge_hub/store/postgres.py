"""The store in PostgreSQL, for hubs of more than one process.

What several processes must agree on is decided under locks of rows, in the database and nowhere else: nothing is kept
in memory. `Store` says what the methods promise.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager

import asyncpg

from edge_hub.errors import StoreError
from edge_hub.store._counters import totals_of
from edge_hub.store._intake import Intake
from edge_hub.store._objections import check_version, enrolled, unknown
from edge_hub.store._postgres_books import PostgresBooks
from edge_hub.store._postgres_control import PostgresControl, held_commands
from edge_hub.store._postgres_days import AHEAD_DAYS, NotRolledUpError, day_of, make_days, trim, used_bytes
from edge_hub.store._postgres_forgetting import forget
from edge_hub.store._postgres_history import PostgresHistory, mend_order
from edge_hub.store._postgres_leases import PostgresLeases
from edge_hub.store._postgres_pool import Connection, Database, DatabaseUrl, Record
from edge_hub.store._postgres_removal import PostgresRemovals
from edge_hub.store._rows import (
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

_CONNECTIONS = 8


class PostgresStore(PostgresControl, PostgresHistory, PostgresLeases, PostgresRemovals):
    """A `Store`; `open` makes one."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        # Days whose partitions are known to be there. A memory of what may be gone: then the insert says so.
        self._days: set[int] = set()

    @classmethod
    async def open(cls, url: str, *, connections: int = _CONNECTIONS) -> PostgresStore:
        """Connect, and bring the tables to this version.

        Args:
            url: Of the database.
            connections: At most; a server has a hundred for all, unless told otherwise.

        Raises:
            UsageError: It is no `postgresql://` URL.
            StoreError: The database cannot be reached, or is no database of this version.
        """
        database = Database(DatabaseUrl.parse(url), connections=connections, mend=mend_order)
        await database.open()
        return cls(database)

    @property
    def database(self) -> Database:
        """For `Relay`."""
        return self._database

    async def close(self) -> None:
        """Finish what is under way and let go of the database."""
        await self._database.close()

    def reading(self) -> AbstractAsyncContextManager[Connection]:
        """A transaction that sees the database as it is at its beginning, for who reads much of it."""
        return self._database.transaction(readonly=True)

    # -------------------------------------------------------------------------------------------------- messages

    async def commit(self, batch: Sequence[Arrival | Malformed]) -> Committed:
        """Store messages in the order given, each (device, boot, seq) once."""
        days = {day_of(message.received) for message in batch}
        try:
            await self._make_days(days)
            return await self._commit(batch)
        except StoreError as error:
            if not isinstance(error.__cause__, asyncpg.CheckViolationError):
                raise
        # Retention took a day that we thought was there.
        self._days.clear()
        await self._make_days(days)
        return await self._commit(batch)

    async def _commit(self, batch: Sequence[Arrival | Malformed]) -> Committed:
        async with self._database.transaction() as connection:
            books = PostgresBooks(connection)
            await books.load(batch)
            return await books.write(Intake(books).store(batch))

    async def _make_days(self, days: set[int]) -> None:
        today = day_of(time.time())
        if not days | {today + 1} <= self._days:
            ahead = {today + number for number in range(AHEAD_DAYS + 1)}
            async with self._database.transaction() as connection:
                await make_days(connection, days | ahead)
            self._days = days | ahead

    async def events(
        self, *, device: DeviceId | None = None, after: int | None = None, before: int | None = None, limit: int = 100
    ) -> tuple[EventRecord, ...]:
        """Events in ascending order of id: the first ones after `after`, else the last ones (before `before`)."""
        ascending = after is not None
        edge = after if after is not None else before if before is not None else 2**62
        where, order = ("e.id > $1", "ASC") if ascending else ("e.id < $1", "DESC")
        values: list[object] = [edge, limit]
        if device is not None:
            where += " AND e.device = (SELECT id FROM devices WHERE tenant = $3 AND name = $4)"
            values += [device.tenant, device.device]
        async with self._database.connection() as connection:
            rows = await connection.fetch(f"{EVENTS} WHERE {where} ORDER BY e.id {order} LIMIT $2", *values)
        found = tuple(event_record(row) for row in rows)
        return found if ascending else found[::-1]

    async def quarantined(self, *, limit: int = 100) -> tuple[QuarantinedRecord, ...]:
        """The last refused messages, the newest first."""
        async with self._database.connection() as connection:
            rows = await connection.fetch("SELECT * FROM quarantine ORDER BY id DESC LIMIT $1", limit)
        return tuple(quarantined_record(row) for row in rows)

    # --------------------------------------------------------------------------------------------------- devices

    async def devices(self) -> tuple[DeviceRecord, ...]:
        """All devices enrolled or heard of, by name."""
        async with self._database.connection() as connection:
            # By their bytes, as SQLite sorts: a database's own order of letters may be any.
            rows = await connection.fetch('SELECT * FROM devices ORDER BY tenant COLLATE "C", name COLLATE "C"')
        return tuple(device_record(row) for row in rows)

    async def device(self, device: DeviceId) -> DeviceRecord | None:
        """One device."""
        async with self._database.connection() as connection:
            row = await _device_row(connection, device)
        return None if row is None else device_record(row)

    async def enrol(self, device: DeviceId, password_hash: str, *, now: float, again: bool) -> None:
        """Keep a device's credentials."""
        await self.enrol_all({device: password_hash}, now=now, again=again)

    async def enrol_all(self, passwords: Mapping[DeviceId, str], *, now: float, again: bool) -> None:
        """Keep the credentials of devices, all or none."""
        names = [device.tenant for device in passwords], [device.device for device in passwords]
        async with self._database.transaction() as connection:
            # In the order in which a batch of messages takes them.
            await connection.execute(
                "SELECT id FROM devices WHERE (tenant, name) IN (SELECT * FROM unnest($1::text[], $2::text[]))"
                " ORDER BY id FOR NO KEY UPDATE",
                *names,
            )
            rows = await connection.fetch(
                "INSERT INTO devices AS d (tenant, name, password, enrolled)"
                " SELECT n.tenant, n.name, n.password, $4 FROM unnest($1::text[], $2::text[], $3::text[])"
                " n (tenant, name, password) ORDER BY 1, 2"
                " ON CONFLICT (tenant, name) DO UPDATE SET password = excluded.password, enrolled = excluded.enrolled"
                " WHERE d.password IS NULL OR $5 RETURNING tenant, name",
                *(*names, list(passwords.values()), now, again),
            )
            kept = {device_id(row) for row in rows}
            for device in passwords:
                if device not in kept:
                    raise enrolled(device)

    async def accounts(self) -> dict[str, str]:
        """Password hash by `tenant/device`, of all enrolled devices."""
        async with self._database.connection() as connection:
            rows = await connection.fetch("SELECT tenant, name, password FROM devices WHERE password IS NOT NULL")
        return {str(device_id(row)): row["password"] for row in rows}

    # -------------------------------------------------------------------------------------------------- commands

    async def add_commands(self, commands: Sequence[CommandRecord]) -> None:
        """Keep pending commands, all or none."""
        async with self._database.transaction() as connection:
            rows = await connection.fetch(
                "SELECT id, tenant, name FROM devices"
                " WHERE (tenant, name) IN (SELECT * FROM unnest($1::text[], $2::text[])) ORDER BY id FOR KEY SHARE",
                [command.device.tenant for command in commands],
                [command.device.device for command in commands],
            )
            numbers = {device_id(row): row["id"] for row in rows}
            for command in commands:
                if command.device not in numbers:
                    raise unknown(command.device)
            await connection.execute(
                "INSERT INTO commands (id, device, sent, expires, body, state, by, batch)"
                " SELECT n.id, n.device, n.sent, n.expires, n.body, 'pending', n.by, n.batch FROM unnest($1::text[],"
                " $2::bigint[], $3::double precision[], $4::double precision[], $5::bytea[], $6::text[], $7::text[])"
                " n (id, device, sent, expires, body, by, batch)",
                [command.id for command in commands],
                [numbers[command.device] for command in commands],
                [command.sent for command in commands],
                [command.expires for command in commands],
                [encode(command.command) for command in commands],
                [command.by for command in commands],
                [command.batch for command in commands],
            )

    async def command(self, command_id: str) -> CommandRecord | None:
        """One command."""
        found = await self._commands_where("WHERE c.id = $1", command_id)
        return found[0] if found else None

    async def commands(self, device: DeviceId, *, limit: int = 20) -> tuple[CommandRecord, ...]:
        """A device's last commands, the newest first."""
        return await self._commands_where(
            "WHERE d.tenant = $1 AND d.name = $2 ORDER BY c.sent DESC LIMIT $3", device.tenant, device.device, limit
        )

    async def pending(self, *, device: DeviceId | None = None, unsent: bool = False) -> tuple[CommandRecord, ...]:
        """Commands without a final state, the oldest first; of one device, or only those never published."""
        where = "c.state = 'pending'" + (" AND c.published = 0" if unsent else "")
        values: tuple[str, ...] = ()
        if device is not None:
            where, values = f"d.tenant = $1 AND d.name = $2 AND {where}", (device.tenant, device.device)
        return await self._commands_where(f"WHERE {where} ORDER BY c.sent, c.id", *values)

    async def published(self, *command_ids: str) -> None:
        """Commands were sent once more."""
        async with self._database.connection() as connection:
            these = held_commands("id = ANY($1::text[])")
            await connection.execute(
                f"UPDATE commands c SET published = published + 1 WHERE {these}",  # noqa: S608 - our own words
                command_ids,
            )

    async def expire_commands(self, *, now: float, grace_s: float) -> tuple[CommandRecord, ...]:
        """Call pending commands expired whose time ended `grace_s` ago; returns them."""
        over = held_commands("state = 'pending' AND expires < $2")
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "UPDATE commands c SET state = 'expired', finished = $1 FROM devices d"  # noqa: S608 - our own words
                f" WHERE d.id = c.device AND {over} RETURNING c.*, d.tenant, d.name",
                *(now, now - grace_s),
            )
        return tuple(command_record(row) for row in rows)

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
        async with self._database.transaction() as connection:
            row = await _device_row(connection, device, held=True)
            if row is None:
                raise unknown(device)
            present = row["desired_version"]
            check_version(device, present, expected_version)
            record = DesiredRecord(
                device=device,
                desired=Desired(version=present + 1, preferences=preferences, pins=pins),
                sent=now,
                message=new_token(),
            )
            await connection.execute(
                "UPDATE devices SET desired_version = $2, desired_sent = $3, desired_message = $4, desired = $5"
                " WHERE id = $1",
                *(row["id"], present + 1, now, record.message, encode(record.desired)),
            )
        return record

    async def desired(self, device: DeviceId) -> DesiredRecord | None:
        """A device's desired document."""
        async with self._database.connection() as connection:
            row = await _device_row(connection, device)
        return None if row is None or row["desired"] is None else desired_record(row)

    async def all_desired(self) -> tuple[DesiredRecord, ...]:
        """Every desired document."""
        async with self._database.connection() as connection:
            rows = await connection.fetch("SELECT * FROM devices WHERE desired IS NOT NULL")
        return tuple(desired_record(row) for row in rows)

    # ---------------------------------------------------------------------------------------------------- upkeep

    async def totals(self) -> Totals:
        """Counts."""
        async with self._database.transaction(readonly=True) as connection:
            sums = await connection.fetchrow(
                "SELECT count(*) AS devices, coalesce(sum(online), 0)::bigint AS online,"
                " coalesce(sum(messages), 0)::bigint AS messages, coalesce(sum(duplicates), 0)::bigint AS duplicates"
                " FROM devices"
            )
            counted = await connection.fetch("SELECT name, value FROM counters")
            states = await connection.fetch("SELECT state, count(*) AS commands FROM commands GROUP BY state")
            size_bytes = await used_bytes(connection)
        assert sums is not None  # noqa: S101 - an aggregate has one row
        return totals_of(
            {row["name"]: row["value"] for row in counted},
            **sums,
            commands={row["state"]: row["commands"] for row in states},
            size_bytes=size_bytes,
        )

    async def trim(self, retention: Retention, *, now: float) -> int:
        """Delete some of what exceeds the bounds; returns how many rows, 0 when there is nothing more to delete."""
        try:
            async with self._database.transaction() as connection:
                deleted = await trim(connection, retention, now=now)
        except NotRolledUpError:
            return await self.roll_up(now=now)
        # By itself: it may fail where there are millions of boots to look at, and nothing else goes with it.
        async with self._database.transaction() as connection:
            return deleted + await forget(connection)


async def _device_row(connection: Connection, device: DeviceId, *, held: bool = False) -> Record | None:
    """Its row; held until the end of the transaction where it is going to be changed."""
    sql = f"SELECT * FROM devices WHERE tenant = $1 AND name = $2{' FOR NO KEY UPDATE' if held else ''}"  # noqa: S608
    return await connection.fetchrow(sql, device.tenant, device.device)
