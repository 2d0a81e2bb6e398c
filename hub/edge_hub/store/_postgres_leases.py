"""Leases in PostgreSQL, and what comes with more than one process: the hub's name, and who came up."""

from __future__ import annotations

from edge_hub.store._leases import Lease, choose
from edge_hub.store._postgres_pool import Database, rows_changed
from edge_hub.store._rows import device_id
from edge_sdk.mqtt import DeviceId


class PostgresLeases:
    """`Leases`, and the part of the store that only a hub of several processes uses."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def lease(self, kind: str, holder: str, *, slots: int, now: float, ttl_s: float) -> int | None:
        """The lowest free number below `slots`, held until `now + ttl_s`; the same again for the same holder."""
        async with self._database.transaction() as connection:
            await connection.execute("LOCK TABLE leases IN SHARE ROW EXCLUSIVE MODE")
            rows = await connection.fetch("SELECT slot, holder, until FROM leases WHERE kind = $1", kind)
            taken = [Lease(slot=row["slot"], holder=row["holder"], until=row["until"]) for row in rows]
            slot = choose(taken, holder, slots=slots, now=now)
            if slot is not None:
                await connection.execute(
                    "INSERT INTO leases VALUES ($1, $2, $3, $4) ON CONFLICT (kind, slot)"
                    " DO UPDATE SET holder = excluded.holder, until = excluded.until",
                    *(kind, slot, holder, now + ttl_s),
                )
        return slot

    async def release(self, kind: str, holder: str) -> None:
        """Let go of it at once."""
        async with self._database.connection() as connection:
            # The row stays: that a number was in use is worth knowing.
            await connection.execute("UPDATE leases SET until = 0 WHERE kind = $1 AND holder = $2", kind, holder)

    async def leases(self, kind: str) -> tuple[Lease, ...]:
        """The numbers that are or were in use; one that was let go of ended at 0."""
        async with self._database.connection() as connection:
            rows = await connection.fetch("SELECT slot, holder, until FROM leases WHERE kind = $1 ORDER BY slot", kind)
        return tuple(Lease(**dict(row)) for row in rows)

    async def take_over(self, kind: str, holder: str, *, slot: int, now: float, ttl_s: float) -> bool:
        """Lease this very number, whose time is over; false where somebody was faster."""
        async with self._database.connection() as connection:
            status = await connection.execute(
                "UPDATE leases SET holder = $3, until = $4::double precision + $5"
                " WHERE kind = $1 AND slot = $2 AND until < $4",
                *(kind, slot, holder, now, ttl_s),
            )
        return rows_changed(status) > 0

    async def forget(self, kind: str, holder: str) -> None:
        """Let go of it at once; nobody needs to know that it was in use."""
        async with self._database.connection() as connection:
            await connection.execute("DELETE FROM leases WHERE kind = $1 AND holder = $2", kind, holder)

    async def identity(self) -> str:
        """A random name of this hub, the same for all its processes."""
        async with self._database.connection() as connection:
            name: str = await connection.fetchval("SELECT id FROM identity")
        return name

    async def births(self, *, limit: int = 100) -> tuple[tuple[DeviceId, int], ...]:
        """Devices that came up and were not `greeted`, with the turn of each, the first first."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT d.tenant, d.name, b.turn FROM births b JOIN devices d ON d.id = b.device"
                " ORDER BY b.turn LIMIT $1",
                limit,
            )
        return tuple((device_id(row), row["turn"]) for row in rows)

    async def greeted(self, device: DeviceId, turn: int) -> bool:
        """It was sent its orders; if it came up again meanwhile, that stays."""
        async with self._database.connection() as connection:
            status = await connection.execute(
                "DELETE FROM births WHERE turn = $3 AND device ="
                " (SELECT id FROM devices WHERE tenant = $1 AND name = $2)",
                *(device.tenant, device.device, turn),
            )
        return rows_changed(status) > 0
