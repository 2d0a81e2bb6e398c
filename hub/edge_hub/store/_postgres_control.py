"""`Control` in PostgreSQL: labels, cancelled commands, tokens, rules, alerts, the audit log."""

from __future__ import annotations

from collections.abc import Sequence

from edge_hub.store._objections import unknown
from edge_hub.store._postgres_books import storable
from edge_hub.store._postgres_pool import Connection, Database, rows_changed
from edge_hub.store._rows import ALERTS, COMMANDS, alert_record, command_record, outline
from edge_hub.store.outline import COLUMNS, Outline
from edge_hub.store.records import AlertRecord, AuditRecord, CommandRecord, RuleRecord, TokenRecord
from edge_sdk.mqtt import DeviceId
from edge_sdk.wire import encode

# By their bytes, as SQLite sorts: a database's own order of letters may be any.
_BY_DEVICE = 'd.tenant COLLATE "C", d.name COLLATE "C"'
_NO_EDGE = 2**62


class PostgresControl:
    """What a `PostgresStore` has of `Control`."""

    _database: Database

    async def outlines(self, devices: Sequence[DeviceId] | None = None) -> tuple[Outline, ...]:
        """All devices, or of these the ones there are, by name."""
        names = [(one.tenant, one.device) for one in devices or ()]
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                f"SELECT {COLUMNS} FROM devices d"  # noqa: S608 - columns of ours
                " WHERE $3 OR (tenant, name) IN (SELECT * FROM unnest($1::text[], $2::text[]))"
                f" ORDER BY {_BY_DEVICE}",
                [tenant for tenant, _ in names],
                [name for _, name in names],
                devices is None,
            )
        return tuple(outline(row) for row in rows)

    async def set_labels(self, device: DeviceId, labels: dict[str, str]) -> None:
        """Replace a device's labels."""
        async with self._database.connection() as connection:
            changed = await connection.execute(
                "UPDATE devices SET labels = $3 WHERE tenant = $1 AND name = $2",
                *(device.tenant, device.device, encode(labels) if labels else None),
            )
        if not rows_changed(changed):
            raise unknown(device)

    async def cancel_command(self, command_id: str, *, now: float) -> CommandRecord | None:
        """Call a pending command cancelled; the record as it is now (which may have ended before), None without one."""
        async with self._database.transaction() as connection:
            await connection.execute(
                "UPDATE commands SET state = 'cancelled', finished = $2 WHERE id = $1 AND state = 'pending'",
                *(command_id, now),
            )
            row = await connection.fetchrow(f"{COMMANDS} WHERE c.id = $1", command_id)
        return None if row is None else command_record(row)

    async def batch(self, batch: str) -> tuple[CommandRecord, ...]:
        """The commands that were ordered at once, by device."""
        return await self._commands_where(f"WHERE c.batch = $1 ORDER BY {_BY_DEVICE}", batch)

    async def recent_commands(self, *, before: float | None = None, limit: int = 100) -> tuple[CommandRecord, ...]:
        """Of all devices, the newest first; those sent before."""
        edge = float(_NO_EDGE) if before is None else before
        return await self._commands_where("WHERE c.sent < $1 ORDER BY c.sent DESC, c.id LIMIT $2", edge, limit)

    async def audit(self, *, before: int | None = None, limit: int = 100) -> tuple[AuditRecord, ...]:
        """The newest first; those with a lower id."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT * FROM audit WHERE id < $1 ORDER BY id DESC LIMIT $2",
                *(_NO_EDGE if before is None else before, limit),
            )
        return tuple(AuditRecord(**dict(row)) for row in rows)

    async def add_audit(self, record: AuditRecord) -> None:
        """Append to the audit log."""
        async with self._database.connection() as connection:
            await note(connection, record)

    async def tokens(self) -> tuple[TokenRecord, ...]:
        """All, by name."""
        async with self._database.connection() as connection:
            rows = await connection.fetch('SELECT * FROM tokens ORDER BY name COLLATE "C"')
        return tuple(TokenRecord(**dict(row)) for row in rows)

    async def put_token(self, record: TokenRecord) -> None:
        """Keep a token, instead of one of the same name."""
        async with self._database.connection() as connection:
            await connection.execute(
                "INSERT INTO tokens (name, role, digest, created, expires, last_used) VALUES ($1, $2, $3, $4, $5, $6)"
                " ON CONFLICT (name) DO UPDATE SET role = excluded.role, digest = excluded.digest,"
                " created = excluded.created, expires = excluded.expires, last_used = excluded.last_used",
                *(record.name, record.role, record.digest, record.created, record.expires, record.last_used),
            )

    async def token_used(self, name: str, *, now: float) -> None:
        """A token was used; one that is not there any more stays away."""
        async with self._database.connection() as connection:
            await connection.execute("UPDATE tokens SET last_used = $2 WHERE name = $1", name, now)

    async def delete_token(self, name: str) -> bool:
        """Forget a token; whether there was one."""
        async with self._database.connection() as connection:
            return rows_changed(await connection.execute("DELETE FROM tokens WHERE name = $1", name)) > 0

    async def rules(self) -> tuple[RuleRecord, ...]:
        """All, by name."""
        async with self._database.connection() as connection:
            rows = await connection.fetch('SELECT * FROM rules ORDER BY name COLLATE "C"')
        return tuple(RuleRecord(**dict(row)) for row in rows)

    async def put_rule(self, record: RuleRecord) -> None:
        """Keep a rule, instead of one of the same name."""
        async with self._database.connection() as connection:
            await connection.execute(
                "INSERT INTO rules (name, body, changed) VALUES ($1, $2, $3)"
                " ON CONFLICT (name) DO UPDATE SET body = excluded.body, changed = excluded.changed",
                *(record.name, record.body, record.changed),
            )

    async def delete_rule(self, name: str) -> bool:
        """Forget a rule; whether there was one."""
        async with self._database.connection() as connection:
            return rows_changed(await connection.execute("DELETE FROM rules WHERE name = $1", name)) > 0

    async def raise_alert(self, record: AlertRecord) -> AlertRecord:
        """Keep a new alert; of one rule and device only one is open, which is returned unchanged."""
        names = (record.device.tenant, record.device.device)
        async with self._database.transaction() as connection:
            await connection.execute(
                "INSERT INTO alerts (rule, device, severity, began, text, value)"
                " SELECT $1, id, $2, $3, $4, $5 FROM devices WHERE tenant = $6 AND name = $7 FOR KEY SHARE"
                " ON CONFLICT (rule, device) WHERE ended IS NULL DO NOTHING",
                *(record.rule, record.severity, record.began, storable(record.text), record.value, *names),
            )
            row = await connection.fetchrow(
                f"{ALERTS} WHERE a.rule = $1 AND d.tenant = $2 AND d.name = $3 AND a.ended IS NULL",
                *(record.rule, *names),
            )
        if row is None:
            raise unknown(record.device)
        return alert_record(row)

    async def end_alert(self, alert_id: int, *, now: float) -> AlertRecord | None:
        """Close an open alert; None where it was closed already."""
        async with self._database.transaction() as connection:
            changed = await connection.execute(
                "UPDATE alerts SET ended = $2 WHERE id = $1 AND ended IS NULL", *(alert_id, now)
            )
            return await _alert(connection, alert_id) if rows_changed(changed) else None

    async def acknowledge_alert(self, alert_id: int, *, who: str, now: float) -> AlertRecord | None:
        """Somebody has seen it; who saw it first stands. None without such an alert."""
        async with self._database.transaction() as connection:
            await connection.execute(
                "UPDATE alerts SET acknowledged = $2, acknowledged_at = $3 WHERE id = $1 AND acknowledged IS NULL",
                *(alert_id, storable(who), now),
            )
            return await _alert(connection, alert_id)

    async def alerts(
        self, *, open_only: bool = False, device: DeviceId | None = None, before: int | None = None, limit: int = 100
    ) -> tuple[AlertRecord, ...]:
        """The newest first."""
        where = "a.id < $1" + (" AND a.ended IS NULL" if open_only else "")
        values: list[object] = [_NO_EDGE if before is None else before, limit]
        if device is not None:
            where += " AND a.device = (SELECT id FROM devices WHERE tenant = $3 AND name = $4)"
            values += [device.tenant, device.device]
        async with self._database.connection() as connection:
            rows = await connection.fetch(f"{ALERTS} WHERE {where} ORDER BY a.id DESC LIMIT $2", *values)
        return tuple(alert_record(row) for row in rows)

    async def _commands_where(self, where: str, *values: object) -> tuple[CommandRecord, ...]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(f"{COMMANDS} {where}", *values)
        return tuple(command_record(row) for row in rows)


def held_commands(where: str) -> str:
    """That `c` is one of the commands of which this holds, held in the order in which a batch of messages does it."""
    return f"c.id IN (SELECT id FROM commands WHERE {where} ORDER BY id FOR UPDATE)"  # noqa: S608 - our own words


async def note(connection: Connection, record: AuditRecord) -> None:
    """Append to the audit log."""
    await connection.execute(
        "INSERT INTO audit (at, who, role, what, target, detail) VALUES ($1, $2, $3, $4, $5, $6)",
        *(record.at, storable(record.who), record.role, record.what, storable(record.target), record.detail),
    )


async def _alert(connection: Connection, alert_id: int) -> AlertRecord | None:
    row = await connection.fetchrow(f"{ALERTS} WHERE a.id = $1", alert_id)
    return None if row is None else alert_record(row)
