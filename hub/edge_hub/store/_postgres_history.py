"""`History` in PostgreSQL: what `_history` does for SQLite, where several write and none waits for another.

What is rolled up already is a position in the log: the number of a transaction and of a row in it. Transactions end in
another order than they began, so only those count that began before any that is still under way: nothing can appear
behind the position any more.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edge_hub.store._assembly import LOG_STEP_S, Assembly
from edge_hub.store._logged import LONGEST_BATCH_S, samples_of
from edge_hub.store._objections import unknown
from edge_hub.store._postgres_pool import Connection, Database
from edge_hub.store._roll_up import Key, sum_up
from edge_hub.store.condense import (
    HOUR_S,
    MINUTE_S,
    Span,
    decode_span,
    encode_span,
    gather,
    moments,
    of_sample,
)
from edge_hub.store.records import Late, Point
from edge_sdk.errors import UsageError
from edge_sdk.mqtt import DeviceId

# A step ends at whichever comes first.
_STEP_MESSAGES = 500
_STEP_BYTES = 256 * 1024
_STEP_ROWS = 2000
# The position: two counters, the transaction's and the row's number.
_MARKS = ("condensed-tx", "condensed-id")
# What was told of was stored just so; older partitions are not looked into.
_JUST_SO_S = 3600.0
_AFTER = "(log.tx, log.id) > ($1::bigint::text::xid8, $2::bigint)"
_SETTLED = "log.tx < pg_snapshot_xmin(pg_current_snapshot())"

Position = tuple[int, int]
_Spans = AsyncIterator[tuple[float, Span]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """What one step of the roll-up adds: see `_roll_up.Step`."""

    after: Position
    last: Position
    messages: int
    spans: dict[Key, Span]


class PostgresHistory:
    """`History` of a `PostgresStore`."""

    _database: Database

    async def history(self, device: DeviceId, *, since: float, until: float, step_s: float) -> tuple[Point, ...]:
        """At most 2,000 points in ascending order, from whichever of samples, minutes and hours has this step."""
        assembly = Assembly(since=since, until=until, step_s=step_s)
        async with self._database.transaction(readonly=True) as connection:
            row = await connection.fetchrow(
                "SELECT id FROM devices WHERE tenant = $1 AND name = $2", device.tenant, device.device
            )
            if row is None:
                raise unknown(device)
            for width_s in assembly.widths_s:
                read = _KEPT[width_s](connection, row["id"], assembly.first, assembly.edge)
                assembly.add([span async for span in read], width_s=width_s)
        return assembly.points()

    async def late(self, numbers: Sequence[tuple[int, int, int]]) -> tuple[Late, ...]:
        """Telemetry of the past that another process stored within the last hour.

        Args:
            numbers: Of messages: boot and number as in `Late`, and how many of its samples.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT d.tenant, d.name, log.boot, log.seq, log.payload, n.samples"
                " FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) n (boot, seq, samples)"
                " JOIN log USING (boot, seq) JOIN boots b ON b.id = log.boot JOIN devices d ON d.id = b.device"
                " WHERE log.received > $4 ORDER BY log.boot, log.seq",
                *(list(column) for column in zip(*numbers, strict=True)),
                time.time() - _JUST_SO_S,
            )
        return tuple(
            Late(
                device=DeviceId(tenant=row["tenant"], device=row["name"]),
                boot=row["boot"],
                seq=row["seq"],
                samples=samples_of(row["payload"])[: row["samples"]],
            )
            for row in rows
        )

    async def roll_up(self, *, now: float) -> int:  # noqa: ARG002 - positions say what is new
        """Condense some of what is in the log and not in the minutes and hours yet; how many messages."""
        async with self._database.transaction(readonly=True) as connection:
            step = await _next_step(connection)
        if step.messages:
            async with self._database.transaction() as connection:
                await _apply(connection, step)
        return step.messages

    async def back_up(self, target: Path) -> None:
        """Not our business: PostgreSQL's own tools do it.

        Raises:
            UsageError: Says how.
        """
        raise UsageError(
            "a store in PostgreSQL is copied by PostgreSQL's own tools",
            where=str(target),
            hint=f"pg_dump --format=custom --schema=edge_hub --file={target} --dbname={self._database.url}",
        )


async def position(connection: Connection) -> Position:
    """Of the last message of the log that is rolled up."""
    rows = await connection.fetch("SELECT name, value FROM counters WHERE name = ANY($1::text[])", _MARKS)
    found = {row["name"]: row["value"] for row in rows}
    return found.get(_MARKS[0], 0), found.get(_MARKS[1], 0)


async def set_position(connection: Connection, last: Position) -> None:
    """Remember it; in the transaction that makes it true."""
    await connection.execute(
        "INSERT INTO counters SELECT * FROM unnest($1::text[], $2::bigint[])"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        *(_MARKS, last),
    )


async def all_rolled_up(connection: Connection, partition: str) -> bool:
    """The minutes know all of a day; `partition` is our own name."""
    left = f"SELECT EXISTS (SELECT 1 FROM {partition} log WHERE {_AFTER})"  # noqa: S608
    return not await connection.fetchval(left, *await position(connection))


async def mend_order(connection: Connection) -> None:
    """Number what is in the log anew where it comes from another server, whose transactions were ahead of this one's.

    A dump that is restored elsewhere carries the old numbers. Transactions here are numbered from 3.
    """
    after = await position(connection)
    if await connection.fetchval(
        "SELECT $1::bigint::text::xid8 > pg_current_xact_id()"
        " OR EXISTS (SELECT 1 FROM log WHERE tx > pg_current_xact_id())",
        after[0],
    ):
        await connection.execute(
            f"UPDATE log SET tx = CASE WHEN {_AFTER} THEN '1'::xid8 ELSE '0'::xid8 END",  # noqa: S608
            *after,
        )
        last = await connection.fetchval("SELECT coalesce(max(id), 0) FROM log WHERE tx = '0'::xid8")
        await set_position(connection, (0, last))


async def _next_step(connection: Connection) -> _Step:
    """Sum up the next messages of the log; only reads."""
    after = last = await position(connection)
    rows = await connection.fetch(
        "SELECT log.id, log.tx::text::bigint AS tx, log.received, boots.device,"  # noqa: S608
        " CASE WHEN log.kind = 'tele' THEN log.payload END AS payload"
        f" FROM log JOIN boots ON boots.id = log.boot WHERE {_AFTER} AND {_SETTLED}"
        " ORDER BY log.tx, log.id LIMIT $3",
        *(*after, _STEP_MESSAGES),
    )
    spans: dict[Key, Span] = {}
    messages = size_bytes = 0
    for row in rows:
        last = row["tx"], row["id"]
        messages += 1
        if row["payload"] is not None:
            size_bytes += len(row["payload"])
            sum_up(row, spans)
        if size_bytes >= _STEP_BYTES or len(spans) >= _STEP_ROWS:
            break
        if messages % 50 == 0:
            await asyncio.sleep(0)  # decoding takes its time; requests go first
    return _Step(after=after, last=last, messages=messages, spans=spans)


async def _apply(connection: Connection, step: _Step) -> None:
    """Add a step to the sums, within a transaction; nothing where another was added before it."""
    # Made where it is not there, and held until the end, so that two never add the same.
    await connection.execute(
        "INSERT INTO counters AS c VALUES ($1, 0) ON CONFLICT (name) DO UPDATE SET value = c.value", _MARKS[0]
    )
    if await position(connection) != step.after:
        return
    # Held, so that none is removed before this can be seen; of one that was, nothing is kept.
    rows = await connection.fetch(
        "SELECT id FROM devices WHERE id = ANY($1::bigint[]) ORDER BY id FOR KEY SHARE",
        sorted({device for device, _, _ in step.spans}),
    )
    there = {row["id"] for row in rows}
    keys = sorted(key for key in step.spans if key[0] in there)
    columns = [list(column) for column in zip(*keys, strict=True)] or [[], [], []]
    rows = await connection.fetch(
        "SELECT c.* FROM condensed c JOIN unnest($1::bigint[], $2::integer[], $3::bigint[]) n (device, step, at)"
        " USING (device, step, at)",
        *columns,
    )
    spans = dict(step.spans)
    for row in rows:
        gather(spans, (row["device"], row["step"], row["at"]), decode_span(row["body"]))
    await connection.execute(
        "INSERT INTO condensed (device, step, at, body)"
        " SELECT * FROM unnest($1::bigint[], $2::integer[], $3::bigint[], $4::bytea[])"
        " ON CONFLICT (device, step, at) DO UPDATE SET body = excluded.body",
        *(*columns, [encode_span(spans[key]) for key in keys]),
    )
    await set_position(connection, step.last)


async def _from_log(connection: Connection, device: int, since: float, until: float) -> _Spans:
    """Each sample by itself."""
    boots = await connection.fetch("SELECT id FROM boots WHERE device = $1", device)
    for boot in boots:
        # A message is sent after its last sample was taken, so none that was sent before `since` matters; nor does a
        # day before `since`, for nothing was sampled after it was received. No batch gathers for longer than a day, so
        # none that was sent later matters either, unless its clock is ahead: then it was received in time.
        rows = connection.cursor(
            "SELECT received, payload FROM log WHERE boot = $1 AND kind = 'tele' AND sent >= $2 AND received >= $2"
            " AND (sent <= $3 OR received <= $3)",
            *(boot["id"], since, until + LONGEST_BATCH_S),
        )
        async for row in rows:
            told = samples_of(row["payload"])
            when = moments(told, received=row["received"])
            for moment, sample in zip(when, told, strict=True):
                if since <= moment < until:
                    yield moment, of_sample(sample, moment=moment)


async def _condensed(step: int, connection: Connection, device: int, since: float, until: float) -> _Spans:
    rows = await connection.fetch(
        "SELECT at, body FROM condensed WHERE device = $1 AND step = $2 AND at >= $3 AND at < $4 ORDER BY at",
        *(device, step, math.ceil(since), math.ceil(until)),
    )
    for row in rows:
        yield row["at"], decode_span(row["body"])


_KEPT: dict[float, Callable[[Connection, int, float, float], _Spans]] = {
    LOG_STEP_S: _from_log,
    MINUTE_S: partial(_condensed, MINUTE_S),
    HOUR_S: partial(_condensed, HOUR_S),
}
