"""Counts over everything ever stored, which retention does not lower: their names, and how each store keeps them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from edge_hub.store.records import Refusal, Totals

if TYPE_CHECKING:
    from edge_hub.store._postgres_pool import Connection

MALFORMED, NEWER, STORED_EVENTS = "malformed", "newer", "events"
CLOSED_GAPS, FORGOTTEN_BOOTS = "closed-gaps", "forgotten-boots"
# Of the messages that were counted, how many were of devices that are gone.
GONE_MESSAGES, GONE_DUPLICATES = "gone:messages", "gone:duplicates"


def refused(why: Refusal) -> str:
    """The counter of messages that were refused for this reason."""
    return f"refused:{why.value}"


def count(connection: sqlite3.Connection, counted: Iterable[tuple[str, int]]) -> None:
    """Raise counters of the SQLite store."""
    connection.executemany(
        "INSERT INTO counters VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
        [(name, by) for name, by in counted if by],
    )


async def count_there(connection: Connection, name: str, by: int) -> int:
    """Raise a counter in PostgreSQL, whose row is held until the commit; its new value."""
    value: int = await connection.fetchval(
        "INSERT INTO counters AS c VALUES ($1, $2)"
        " ON CONFLICT (name) DO UPDATE SET value = c.value + excluded.value RETURNING value",
        *(name, by),
    )
    return value


def totals_of(
    counters: Mapping[str, int],
    *,
    devices: int,
    online: int,
    messages: int,
    duplicates: int,
    commands: Mapping[str, int],
    size_bytes: int,
) -> Totals:
    """All counts, from the counters and what is counted in the tables; messages are those of devices still there."""
    return Totals(
        devices=devices,
        online=online,
        messages=messages + counters.get(GONE_MESSAGES, 0),
        duplicates=duplicates + counters.get(GONE_DUPLICATES, 0),
        malformed=counters.get(MALFORMED, 0),
        events=counters.get(STORED_EVENTS, 0),
        commands=commands,
        size_bytes=size_bytes,
        refused={why.value: counters[refused(why)] for why in Refusal if refused(why) in counters},
        newer=counters.get(NEWER, 0),
        closed_gaps=counters.get(CLOSED_GAPS, 0),
        forgotten_boots=counters.get(FORGOTTEN_BOOTS, 0),
    )
