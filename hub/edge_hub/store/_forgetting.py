"""How much a store remembers of numbers whose messages are gone, and how the SQLite store forgets the rest.

A device that leaves out every other number would cost a range for each for ever, and one that draws a new boot for each
message a boot for each. Honest devices come nowhere near either bound.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from edge_hub.ranges import close_oldest, join_ranges, to_ranges
from edge_hub.store._counters import CLOSED_GAPS, FORGOTTEN_BOOTS, count

# Of a boot's numbers that are not in the log any more. An honest daemon's are one range once it has told them all; a
# gap stays where its full spool dropped telemetry between two events, and one is open for each event of a spool that is
# coming in, for events come first.
KEPT_RANGES = 1000
# Of a device's boots of which the log has no message. By then its spool has none either, where the log reaches back
# further than spools do; where it does not, it takes a thousand restarts besides.
KEPT_BOOTS = 1000
_STEP_ROWS = 1000
# Of a row of `boots`: no message is left of it, and nothing that is known of its device came from it.
MAY_GO = (
    "NOT EXISTS (SELECT 1 FROM log WHERE log.boot = boots.id) AND NOT EXISTS (SELECT 1 FROM devices d"
    " WHERE d.id = boots.device AND boots.boot IN (d.boot, d.state_boot, d.sample_boot))"
)


def remember(connection: sqlite3.Connection, boot: int, numbers: Iterable[int]) -> None:
    """Keep numbers whose messages go: they must never count again."""
    held = [
        (row["first"], row["last"])
        for row in connection.execute("SELECT first, last FROM trimmed WHERE boot = ?", (boot,))
    ]
    exact = join_ranges([*held, *to_ranges(numbers)])
    kept = close_oldest(exact, KEPT_RANGES)
    before, after = set(held), set(kept)
    connection.executemany(
        "DELETE FROM trimmed WHERE boot = ? AND first = ?", [(boot, first) for first, _ in before - after]
    )
    connection.executemany("INSERT INTO trimmed VALUES (?, ?, ?)", [(boot, *span) for span in after - before])
    count(connection, [(CLOSED_GAPS, len(exact) - len(kept))])


def boots_too_many(connection: sqlite3.Connection) -> list[int]:
    """A device's oldest boots that may go, beyond those worth remembering: at most a step's worth; only reads."""
    crowded = connection.execute(
        "SELECT device FROM boots GROUP BY device HAVING count(*) > ?", (KEPT_BOOTS,)
    ).fetchall()
    found: list[int] = []
    for (device,) in crowded:
        (edge,) = connection.execute(
            "SELECT id FROM boots WHERE device = ? ORDER BY id DESC LIMIT 1 OFFSET ?", (device, KEPT_BOOTS)
        ).fetchone()
        rows = connection.execute(
            f"SELECT id FROM boots WHERE device = ? AND id <= ? AND {MAY_GO} LIMIT ?",  # noqa: S608 - our words
            (device, edge, _STEP_ROWS - len(found)),
        )
        found += [row["id"] for row in rows]
        if len(found) >= _STEP_ROWS:
            break
    return found


def forget_boots(connection: sqlite3.Connection, boots: Iterable[int]) -> int:
    """Forget those that still may go, about a step's worth; how many rows they had, their ranges with them."""
    gone = ranges = 0
    for boot in boots:
        if connection.execute(f"DELETE FROM boots WHERE id = ? AND {MAY_GO}", (boot,)).rowcount:  # noqa: S608
            gone += 1
            ranges += connection.execute("DELETE FROM trimmed WHERE boot = ?", (boot,)).rowcount
        if gone + ranges >= _STEP_ROWS:
            break
    count(connection, [(FORGOTTEN_BOOTS, gone)])
    return gone + ranges
