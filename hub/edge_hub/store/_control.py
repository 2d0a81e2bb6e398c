"""`Control` in SQLite: labels, cancelled commands, tokens, rules, alerts, the audit log."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from edge_hub.store._objections import unknown
from edge_hub.store._opening import SqliteFile
from edge_hub.store._rows import ALERTS, COMMANDS, alert_record, command_record, outline
from edge_hub.store.outline import COLUMNS, Outline
from edge_hub.store.records import AlertRecord, AuditRecord, CommandRecord, RuleRecord, TokenRecord
from edge_sdk.mqtt import DeviceId
from edge_sdk.wire import encode

_NO_EDGE = 2**62
_AT_ONCE = 400  # names in one statement, two variables each: SQLite before 3.32 takes 999


class SqliteControl(SqliteFile):
    """What a `SqliteStore` has of `Control`."""

    async def outlines(self, devices: Sequence[DeviceId] | None = None) -> tuple[Outline, ...]:
        """All devices, or of these the ones there are, by name."""
        if devices is not None:
            return await self._read(lambda connection: _some_outlines(connection, devices))
        sql = f"SELECT {COLUMNS} FROM devices ORDER BY tenant, name"  # noqa: S608 - columns of ours
        return await self._read(lambda connection: tuple(outline(row) for row in connection.execute(sql)))

    async def set_labels(self, device: DeviceId, labels: dict[str, str]) -> None:
        """Replace a device's labels."""

        def write(connection: sqlite3.Connection) -> None:
            changed = connection.execute(
                "UPDATE devices SET labels = ? WHERE tenant = ? AND name = ?",
                (encode(labels) if labels else None, device.tenant, device.device),
            ).rowcount
            if not changed:
                raise unknown(device)

        await self._write(write)

    async def cancel_command(self, command_id: str, *, now: float) -> CommandRecord | None:
        """Call a pending command cancelled; the record as it is now (which may have ended before), None without one."""

        def write(connection: sqlite3.Connection) -> CommandRecord | None:
            connection.execute(
                "UPDATE commands SET state = 'cancelled', finished = ? WHERE id = ? AND state = 'pending'",
                (now, command_id),
            )
            row = connection.execute(f"{COMMANDS} WHERE c.id = ?", (command_id,)).fetchone()
            return None if row is None else command_record(row)

        return await self._write(write)

    async def batch(self, batch: str) -> tuple[CommandRecord, ...]:
        """The commands that were ordered at once, by device."""
        return await self._commands_where("WHERE c.batch = ? ORDER BY d.tenant, d.name", (batch,))

    async def recent_commands(self, *, before: float | None = None, limit: int = 100) -> tuple[CommandRecord, ...]:
        """Of all devices, the newest first; those sent before."""
        edge = _NO_EDGE if before is None else before
        return await self._commands_where("WHERE c.sent < ? ORDER BY c.sent DESC, c.id LIMIT ?", (edge, limit))

    async def audit(self, *, before: int | None = None, limit: int = 100) -> tuple[AuditRecord, ...]:
        """The newest first; those with a lower id."""
        sql = "SELECT * FROM audit WHERE id < ? ORDER BY id DESC LIMIT ?"
        values = (_NO_EDGE if before is None else before, limit)
        return await self._read(lambda c: tuple(AuditRecord(**dict(row)) for row in c.execute(sql, values)))

    async def add_audit(self, record: AuditRecord) -> None:
        """Append to the audit log."""
        sql = "INSERT INTO audit (at, who, role, what, target, detail) VALUES (?, ?, ?, ?, ?, ?)"
        values = (record.at, record.who, record.role, record.what, record.target, record.detail)
        await self._write(lambda c: c.execute(sql, values))

    async def tokens(self) -> tuple[TokenRecord, ...]:
        """All, by name."""
        sql = "SELECT * FROM tokens ORDER BY name"
        return await self._read(lambda c: tuple(TokenRecord(**dict(row)) for row in c.execute(sql)))

    async def put_token(self, record: TokenRecord) -> None:
        """Keep a token, instead of one of the same name."""
        sql = (
            "INSERT OR REPLACE INTO tokens (name, role, digest, created, expires, last_used) VALUES (?, ?, ?, ?, ?, ?)"
        )
        values = (record.name, record.role, record.digest, record.created, record.expires, record.last_used)
        await self._write(lambda c: c.execute(sql, values))

    async def token_used(self, name: str, *, now: float) -> None:
        """A token was used; one that is not there any more stays away."""
        await self._write(lambda c: c.execute("UPDATE tokens SET last_used = ? WHERE name = ?", (now, name)))

    async def delete_token(self, name: str) -> bool:
        """Forget a token; whether there was one."""
        return await self._write(lambda c: c.execute("DELETE FROM tokens WHERE name = ?", (name,)).rowcount > 0)

    async def rules(self) -> tuple[RuleRecord, ...]:
        """All, by name."""
        sql = "SELECT * FROM rules ORDER BY name"
        return await self._read(lambda c: tuple(RuleRecord(**dict(row)) for row in c.execute(sql)))

    async def put_rule(self, record: RuleRecord) -> None:
        """Keep a rule, instead of one of the same name."""
        sql = "INSERT OR REPLACE INTO rules (name, body, changed) VALUES (?, ?, ?)"
        await self._write(lambda c: c.execute(sql, (record.name, record.body, record.changed)))

    async def delete_rule(self, name: str) -> bool:
        """Forget a rule; whether there was one."""
        return await self._write(lambda c: c.execute("DELETE FROM rules WHERE name = ?", (name,)).rowcount > 0)

    async def raise_alert(self, record: AlertRecord) -> AlertRecord:
        """Keep a new alert; of one rule and device only one is open, which is returned unchanged."""

        def write(connection: sqlite3.Connection) -> AlertRecord:
            names = (record.device.tenant, record.device.device)
            connection.execute(
                "INSERT INTO alerts (rule, device, severity, began, text, value)"
                " SELECT ?, id, ?, ?, ?, ? FROM devices WHERE tenant = ? AND name = ?"
                " ON CONFLICT (rule, device) WHERE ended IS NULL DO NOTHING",
                (record.rule, record.severity, record.began, record.text, record.value, *names),
            )
            row = connection.execute(
                f"{ALERTS} WHERE a.rule = ? AND d.tenant = ? AND d.name = ? AND a.ended IS NULL", (record.rule, *names)
            ).fetchone()
            if row is None:
                raise unknown(record.device)
            return alert_record(row)

        return await self._write(write)

    async def end_alert(self, alert_id: int, *, now: float) -> AlertRecord | None:
        """Close an open alert; None where it was closed already."""
        sql = "UPDATE alerts SET ended = ? WHERE id = ? AND ended IS NULL"
        return await self._write(lambda c: _alert(c, alert_id) if c.execute(sql, (now, alert_id)).rowcount else None)

    async def acknowledge_alert(self, alert_id: int, *, who: str, now: float) -> AlertRecord | None:
        """Somebody has seen it; who saw it first stands. None without such an alert."""

        def write(connection: sqlite3.Connection) -> AlertRecord | None:
            connection.execute(
                "UPDATE alerts SET acknowledged = ?, acknowledged_at = ? WHERE id = ? AND acknowledged IS NULL",
                (who, now, alert_id),
            )
            return _alert(connection, alert_id)

        return await self._write(write)

    async def alerts(
        self, *, open_only: bool = False, device: DeviceId | None = None, before: int | None = None, limit: int = 100
    ) -> tuple[AlertRecord, ...]:
        """The newest first."""
        # Open ones are few, and have an index: the plus keeps SQLite from going through all by their ids instead.
        number, more = ("+a.id", " AND a.ended IS NULL") if open_only else ("a.id", "")
        where = f"{number} < ?{more}"
        values: list[object] = [_NO_EDGE if before is None else before]
        if device is not None:
            where += " AND a.device = (SELECT id FROM devices WHERE tenant = ? AND name = ?)"
            values += [device.tenant, device.device]
        sql = f"{ALERTS} WHERE {where} ORDER BY {number} DESC LIMIT ?"
        return await self._read(lambda c: tuple(alert_record(row) for row in c.execute(sql, (*values, limit))))

    async def _commands_where(self, where: str, values: tuple[object, ...]) -> tuple[CommandRecord, ...]:
        return await self._read(
            lambda c: tuple(command_record(row) for row in c.execute(f"{COMMANDS} {where}", values))
        )


def _some_outlines(connection: sqlite3.Connection, devices: Sequence[DeviceId]) -> tuple[Outline, ...]:
    found: list[Outline] = []
    for first in range(0, len(devices), _AT_ONCE):
        part = devices[first : first + _AT_ONCE]
        pairs = ", ".join("(?, ?)" for _ in part)
        names = [name for device in part for name in (device.tenant, device.device)]
        where = f"(tenant, name) IN (VALUES {pairs})"
        rows = connection.execute(f"SELECT {COLUMNS} FROM devices WHERE {where}", names)  # noqa: S608
        found += [outline(row) for row in rows]
    return tuple(sorted(found, key=lambda one: (one.device.tenant, one.device.device)))


def _alert(connection: sqlite3.Connection, alert_id: int) -> AlertRecord | None:
    row = connection.execute(f"{ALERTS} WHERE a.id = ?", (alert_id,)).fetchone()
    return None if row is None else alert_record(row)
