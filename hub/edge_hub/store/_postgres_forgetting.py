"""What `_forgetting` does for SQLite, where numbers of the log and those that left it lie in one table.

A gap is closed only between two numbers of which neither is in the log any more. What may go is looked for without a
lock. Then the devices it belongs to are held, in the order in which batches hold them, and it goes if it still may.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from edge_hub.ranges import join_ranges
from edge_hub.store import _forgetting
from edge_hub.store._counters import CLOSED_GAPS, FORGOTTEN_BOOTS, count_there

if TYPE_CHECKING:
    from edge_hub.store._postgres_pool import Connection

_STEP_BOOTS = 1000
_STEP_RANGES = 10_000
# Of the devices with too many boots and the boots with too many ranges, a step looks at those that have most.
_CROWDED_DEVICES = 100
_CROWDED_BOOTS = 10


class _Run(NamedTuple):
    """Ranges of a boot that become one: those that begin from `low` to `high`."""

    device: int
    boot: int
    low: int
    high: int


async def forget(connection: Connection) -> int:
    """About a step's worth of boots and ranges, within a transaction that holds no device yet; how many rows."""
    boots = await _boots_too_many(connection)
    runs = await _ranges_too_many(connection)
    if not boots and not runs:
        return 0
    await connection.execute(
        "SELECT 1 FROM devices WHERE id = ANY($1::bigint[]) ORDER BY id FOR NO KEY UPDATE",
        sorted({device for device, _ in boots} | {run.device for run in runs}),
    )
    return await _forget_boots(connection, [boot for _, boot in boots]) + await _close(connection, runs)


async def _boots_too_many(connection: Connection) -> list[tuple[int, int]]:
    """A device's oldest boots of which no message is left, beyond those worth remembering: device and boot."""
    kept = _forgetting.KEPT_BOOTS
    crowded = await connection.fetch(
        "SELECT device FROM boots GROUP BY device HAVING count(*) > $1 ORDER BY count(*) DESC LIMIT $2",
        *(kept, _CROWDED_DEVICES),
    )
    found: list[tuple[int, int]] = []
    ranges = 0
    for device in crowded:
        rows = await connection.fetch(
            "SELECT id, (SELECT count(*) FROM numbers WHERE numbers.boot = boots.id) AS ranges"  # noqa: S608 - our words
            f" FROM boots WHERE device = $1 AND {_forgetting.MAY_GO}"
            " AND id <= (SELECT id FROM boots WHERE device = $1 ORDER BY id DESC LIMIT 1 OFFSET $2) LIMIT $3",
            *(device["device"], kept, _STEP_BOOTS),
        )
        for row in rows:
            if len(found) >= _STEP_BOOTS or ranges >= _STEP_RANGES:
                return found
            found.append((device["device"], row["id"]))
            ranges += row["ranges"]
    return found


async def _forget_boots(connection: Connection, boots: Sequence[int]) -> int:
    gone = await connection.fetch(
        f"DELETE FROM boots WHERE id = ANY($1::bigint[]) AND {_forgetting.MAY_GO} RETURNING id",  # noqa: S608 - our words
        boots,
    )
    if gone:
        await count_there(connection, FORGOTTEN_BOOTS, len(gone))
    return len(gone)


async def _ranges_too_many(connection: Connection) -> list[_Run]:
    """The lowest gaps of a boot between numbers that have left the log, beyond those worth remembering."""
    kept = _forgetting.KEPT_RANGES
    crowded = await connection.fetch(
        "SELECT n.boot, b.device FROM numbers n JOIN boots b ON b.id = n.boot"
        " GROUP BY n.boot, b.device HAVING count(*) > $1 ORDER BY count(*) DESC LIMIT $2",
        *(kept, _CROWDED_BOOTS),
    )
    found: list[_Run] = []
    left = _STEP_RANGES
    for boot in crowded:
        rows = await connection.fetch(
            "SELECT low, high FROM (SELECT first AS low, last, lead(first) OVER (ORDER BY first) AS high"
            "  FROM numbers WHERE boot = $1) n WHERE high IS NOT NULL"
            " AND NOT EXISTS (SELECT 1 FROM log WHERE log.boot = $1 AND log.seq = n.last)"
            " AND NOT EXISTS (SELECT 1 FROM log WHERE log.boot = $1 AND log.seq = n.high)"
            " ORDER BY low DESC LIMIT $3 OFFSET $2",
            *(boot["boot"], kept - 1, left),
        )
        spans = join_ranges((row["low"], row["high"]) for row in rows)
        found += [_Run(boot["device"], boot["boot"], *span) for span in spans]
        left -= len(rows)
        if left <= 0:
            break
    return found


async def _close(connection: Connection, runs: Sequence[_Run]) -> int:
    """Make each run one range."""
    columns = [[run[at] for run in runs] for at in (1, 2, 3)]
    gone = await connection.fetch(
        "DELETE FROM numbers n USING unnest($1::bigint[], $2::bigint[], $3::bigint[]) r (boot, low, high)"
        " WHERE n.boot = r.boot AND n.first BETWEEN r.low AND r.high RETURNING n.boot, r.low, n.first, n.last",
        *columns,
    )
    joined: dict[tuple[int, int], tuple[int, int]] = {}
    for row in gone:
        first, last = joined.get((row["boot"], row["low"]), (row["first"], row["last"]))
        joined[row["boot"], row["low"]] = min(first, row["first"]), max(last, row["last"])
    await connection.execute(
        "INSERT INTO numbers (boot, first, last) SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[])",
        [boot for boot, _ in joined],
        [first for first, _ in joined.values()],
        [last for _, last in joined.values()],
    )
    closed = len(gone) - len(joined)
    if closed:
        await count_there(connection, CLOSED_GAPS, closed)
    return closed
