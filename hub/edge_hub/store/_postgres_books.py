"""`Books` for PostgreSQL: all that a batch may read is read at once, all that it changes is written at once.

Two workers may store messages of one device at the same time, and in either order. The rows of a batch's devices are
held until its end, taken in the order of their numbers so that nobody waits in a circle; so one batch sees all that the
other has changed, and what `edge_hub.freshness` decides holds for any number of workers.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edge_hub.ranges import join_ranges, to_ranges
from edge_hub.store._books import (
    KEPT_PAYLOAD_BYTES,
    KEPT_QUARANTINED,
    KEPT_TOPIC_CHARS,
    LOOKED_AT,
    Happened,
    excused,
    storable_value,
)
from edge_hub.store._counters import STORED_EVENTS, count_there
from edge_hub.store._numbers import Boot, log_row
from edge_hub.store._rows import Row, command_record
from edge_hub.store.records import (
    Arrival,
    CommandRecord,
    CommandState,
    Committed,
    EventRecord,
    Malformed,
)
from edge_sdk.mqtt import DeviceId, Reply
from edge_sdk.wire import encode

if TYPE_CHECKING:
    from edge_hub.store._postgres_pool import Connection

# Columns that name a boot.
_BOOTS = ("boot", "state_boot", "sample_boot")
# What a batch changes of a device.
_TYPES = {
    "first_seen": "double precision",
    "last_seen": "double precision",
    "online": "smallint",
    "boot": "text",
    "birth_sent": "double precision",
    "birth": "bytea",
    "state_boot": "text",
    "state_sent": "double precision",
    "state": "bytea",
    "sample_boot": "text",
    "sample_seq": "bigint",
    "sample_at": "double precision",
    "sample": "bytea",
    "messages": "bigint",
    "duplicates": "bigint",
    "skew_s": "double precision",
    "skew_next_s": "double precision",
    "skew_until": "double precision",
}


class _Numbers:
    """The numbers of a boot: what of them is stored, where it touches what comes, and what is new."""

    __slots__ = ("_firsts", "held", "new")

    def __init__(self, held: list[tuple[int, int]]) -> None:
        self.held = sorted(set(held))
        self.new: set[int] = set()
        self._firsts = [first for first, _ in self.held]

    def has(self, number: int) -> bool:
        at = bisect.bisect_right(self._firsts, number)
        return number in self.new or (at > 0 and self.held[at - 1][1] >= number)


class PostgresBooks:
    """`Books` of one batch. `await load(...)`, then what `Intake` does, then `await write()`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._devices: dict[DeviceId, Mapping[str, Any]] = {}
        self._boots: dict[tuple[int, str], Boot] = {}
        self._numbers: dict[int, _Numbers] = defaultdict(lambda: _Numbers([]))
        self._messages: dict[tuple[int, int], str] = {}
        self._commands: dict[str, dict[str, Any]] = {}
        self._born: set[int] = set()
        self._log: list[tuple[int, int, str, str, float, float, bytes]] = []
        self._events: Sequence[Happened] = ()
        self._replied: set[str] = set()
        self._refused: Sequence[Malformed] = ()
        self._counts: Mapping[str, int] = {}
        self._changes: Sequence[tuple[int, Mapping[str, Any]]] = ()

    async def load(self, batch: Sequence[Arrival | Malformed]) -> None:
        """Read, and hold, all that the batch may touch."""
        numbers: dict[tuple[DeviceId, str], set[int]] = defaultdict(set)
        commands = set()
        for message in batch:
            if isinstance(message, Arrival):
                numbers[message.device, message.envelope.boot].add(message.envelope.seq)
                commands.add(message.envelope.reply_to)
            elif message.device is not None and message.boot is not None:
                numbers[message.device, message.boot].add(message.seq)
        since: dict[DeviceId, float] = {}
        for message in batch:
            if message.device is not None:
                since[message.device] = max(since.get(message.device, 0.0), excused(message))
        await self._load_devices({device: since[device] for device in sorted({one for one, _ in numbers}, key=str)})
        there = {key: found for key, found in numbers.items() if key[0] in self._devices}
        boots = {(self._devices[device]["id"], boot) for device, boot in there}
        # What is known came from some boot, too, and that one may have been the last or not.
        boots |= {(row["id"], row[name]) for row in self._devices.values() for name in _BOOTS if row[name] is not None}
        await self._load_boots(sorted(boots))
        await self._load_numbers({self._boots[self._devices[d]["id"], b].row: found for (d, b), found in there.items()})
        ordered = sorted(command for command in commands if command is not None)
        if ordered:
            rows = await self._connection.fetch(
                "SELECT * FROM commands WHERE id = ANY($1::text[]) ORDER BY id FOR UPDATE", ordered
            )
            self._commands = {row["id"]: dict(row) for row in rows}

    async def _load_devices(self, devices: Mapping[DeviceId, float]) -> None:
        """Make and hold the rows of these devices, but for those that were removed after the moment of each."""
        names = [device.tenant for device in devices], [device.device for device in devices]
        # A row may go while it is waited for: then the removal can be seen, and it stays away.
        for _ in range(2):
            await self._connection.execute(
                "INSERT INTO devices (tenant, name) SELECT n.tenant, n.name"
                " FROM unnest($1::text[], $2::text[], $3::double precision[]) n (tenant, name, since)"
                " WHERE NOT EXISTS (SELECT 1 FROM devices d WHERE d.tenant = n.tenant AND d.name = n.name) AND NOT"
                " EXISTS (SELECT 1 FROM removed r WHERE r.tenant = n.tenant AND r.name = n.name AND r.at > n.since)"
                " ORDER BY 1, 2 ON CONFLICT DO NOTHING",
                *(*names, list(devices.values())),
            )
            rows = await self._connection.fetch(
                f"SELECT tenant, name, {LOOKED_AT} FROM devices WHERE (tenant, name) IN"  # noqa: S608
                " (SELECT * FROM unnest($1::text[], $2::text[])) ORDER BY id FOR NO KEY UPDATE",
                *names,
            )
            if len(rows) == len(devices):
                break
        self._devices = {DeviceId(tenant=row["tenant"], device=row["name"]): dict(row) for row in rows}

    async def _load_boots(self, boots: Sequence[tuple[int, str]]) -> None:
        keys = [device for device, _ in boots], [boot for _, boot in boots]
        await self._connection.execute(
            "INSERT INTO boots (device, boot) SELECT * FROM unnest($1::bigint[], $2::text[]) n (device, boot)"
            " WHERE NOT EXISTS (SELECT 1 FROM boots b WHERE b.device = n.device AND b.boot = n.boot)",
            *keys,
        )
        rows = await self._connection.fetch(
            "SELECT b.id, b.device, b.boot, b.born FROM boots b"
            " JOIN unnest($1::bigint[], $2::text[]) n (device, boot) USING (device, boot)",
            *keys,
        )
        self._boots = {(row["device"], row["boot"]): Boot(row=row["id"], born=row["born"], last=0) for row in rows}

    async def _load_numbers(self, numbers: Mapping[int, set[int]]) -> None:
        """Of each boot, the ranges that hold or touch what comes: few, however many there are."""
        asked = [(boot, *span) for boot, found in numbers.items() for span in to_ranges(found - {0})]
        columns = [list(column) for column in zip(*asked, strict=True)] or [[], [], []]
        rows = await self._connection.fetch(
            "SELECT n.boot, r.first, r.last FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) n (boot, low, high),"
            " LATERAL ((SELECT first, last FROM numbers WHERE boot = n.boot AND first <= n.low"
            "           ORDER BY first DESC LIMIT 1)"
            "          UNION ALL"
            "          SELECT first, last FROM numbers"
            "           WHERE boot = n.boot AND first > n.low AND first <= n.high + 1) r",
            *columns,
        )
        held: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for row in rows:
            held[row["boot"]].append((row["first"], row["last"]))
        self._numbers.update({boot: _Numbers(ranges) for boot, ranges in held.items()})
        again = [(boot, n) for boot, found in numbers.items() for n in found if n and self._numbers[boot].has(n)]
        if again:
            rows = await self._connection.fetch(
                "SELECT boot, seq, message FROM log JOIN unnest($1::bigint[], $2::bigint[]) n (boot, seq)"
                " USING (boot, seq)",
                *(list(column) for column in zip(*again, strict=True)),
            )
            self._messages = {(row["boot"], row["seq"]): row["message"] for row in rows}

    # ------------------------------------------------------------------------------------------------ for Intake

    def device(self, device: DeviceId) -> Row | None:
        """See `Books`."""
        return self._devices.get(device)

    def new_device(self, device: DeviceId, *, since: float) -> Row | None:  # noqa: ARG002 - the interface's
        """See `Books`; `load` made those that there are to be."""
        return None

    def boot(self, device: int, boot: str) -> Boot:
        """See `Books`."""
        return self._boots[device, boot]

    def put(self, numbered: Iterable[tuple[int, Boot, Arrival | Malformed]]) -> set[int]:
        """See `Books`."""
        new = set()
        for position, boot, message in numbered:
            row = log_row(boot, message)
            numbers = self._numbers[boot.row]
            if not numbers.has(row[1]):
                numbers.new.add(row[1])
                self._messages[row[:2]] = row[3]
                self._log.append(row)
                new.add(position)
        return new

    def other_message(self, boot: Boot, seq: int, message: str) -> bool:
        """See `Books`."""
        return self._messages.get((boot.row, seq), message) != message

    def born(self, boot: Boot) -> None:
        """See `Books`."""
        self._born.add(boot.row)

    def happened(self, events: Sequence[Happened]) -> tuple[EventRecord, ...]:
        """See `Books`; numbered within the batch, until `write` knows the numbers they get."""
        self._events = events
        return tuple(
            EventRecord(id=number, device=one.device, received=one.received, event=one.event)
            for number, one in enumerate(events, 1)
        )

    def reply(self, command: str | None, device: DeviceId, row: int, reply: Reply, at: float) -> CommandRecord | None:
        """See `Books`."""
        found = None if command is None else self._commands.get(command)
        if found is None or found["device"] != row or found["reply"] is not None:
            return None
        pending = found["state"] == CommandState.PENDING.value
        found.update(
            late=not pending,
            reply=encode(reply),
            finished=at if found["finished"] is None else found["finished"],
            state=reply.status.value if pending else found["state"],
        )
        self._replied.add(found["id"])
        return command_record(found, device)

    def change(self, devices: Sequence[tuple[int, Mapping[str, Any]]]) -> None:
        """See `Books`."""
        self._changes = devices

    def refused(self, messages: Sequence[Malformed], counts: Mapping[str, int]) -> None:
        """See `Books`."""
        self._refused = messages[-KEPT_QUARANTINED:]
        self._counts = counts

    # --------------------------------------------------------------------------------------------------- writing

    async def write(self, committed: Committed) -> Committed:
        """Write what was decided; returns it with the numbers its events got.

        The counters come last: who counts events holds that row until the commit, so that events can be seen in the
        order of their numbers and a reader who asks for those after the last it saw misses none.
        """
        await self._write_log()
        await self._write_devices()
        if self._born:
            await self._connection.execute("UPDATE boots SET born = true WHERE id = ANY($1)", sorted(self._born))
        if committed.born:
            await self._connection.execute(
                "INSERT INTO births (device) SELECT * FROM unnest($1::bigint[]) ON CONFLICT (device)"
                " DO UPDATE SET turn = DEFAULT",
                [self._devices[device]["id"] for device in committed.born],
            )
        await self._write_replies()
        await self._write_refused()
        return replace(committed, events=await self._write_events(committed.events))

    async def _write_events(self, events: Sequence[EventRecord]) -> tuple[EventRecord, ...]:
        if not events:
            return ()
        before = await count_there(self._connection, STORED_EVENTS, len(events)) - len(events)
        await self._connection.execute(
            "INSERT INTO events (id, device, received, body)"
            " SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::double precision[], $4::bytea[])",
            range(before + 1, before + 1 + len(events)),
            [one.row for one in self._events],
            [one.received for one in self._events],
            [encode(one.event) for one in self._events],
        )
        return tuple(replace(one, id=before + one.id) for one in events)

    async def _write_log(self) -> None:
        if not self._log:
            return
        await self._connection.execute(
            "INSERT INTO log (boot, seq, kind, message, sent, received, payload) SELECT * FROM unnest($1::bigint[],"
            " $2::bigint[], $3::text[], $4::text[], $5::double precision[], $6::double precision[], $7::bytea[])",
            *(list(column) for column in zip(*self._log, strict=True)),
        )
        kept, gone = [], []
        for boot, numbers in self._numbers.items():
            if numbers.new:
                joined = join_ranges([*numbers.held, *to_ranges(numbers.new)])
                firsts = {first for first, _ in joined}
                gone += [(boot, first) for first, _ in numbers.held if first not in firsts]
                kept += [(boot, *span) for span in joined if span not in numbers.held]
        if gone:
            await self._connection.execute(
                "DELETE FROM numbers WHERE (boot, first) IN (SELECT * FROM unnest($1::bigint[], $2::bigint[]))",
                *(list(column) for column in zip(*gone, strict=True)),
            )
        await self._connection.execute(
            "INSERT INTO numbers (boot, first, last) SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[])"
            " ON CONFLICT (boot, first) DO UPDATE SET last = excluded.last",
            *(list(column) for column in zip(*kept, strict=True)),
        )

    async def _write_devices(self) -> None:
        alike: dict[tuple[str, ...], list[tuple[int, Mapping[str, Any]]]] = defaultdict(list)
        for device, columns in self._changes:
            alike[tuple(sorted(columns))].append((device, columns))
        for names, devices in alike.items():
            # The names are our own words, never a message's.
            arrays = ", ".join(f"${number}::{_TYPES[name]}[]" for number, name in enumerate(names, 2))
            await self._connection.execute(
                f"UPDATE devices d SET {', '.join(f'{name} = n.{name}' for name in names)}"  # noqa: S608
                f" FROM unnest($1::bigint[], {arrays}) n (id, {', '.join(names)}) WHERE d.id = n.id",
                [device for device, _ in devices],
                *([storable_value(columns[name]) for _, columns in devices] for name in names),
            )

    async def _write_replies(self) -> None:
        if not self._replied:
            return
        rows = [self._commands[command] for command in sorted(self._replied)]
        await self._connection.execute(
            "UPDATE commands c SET state = n.state, reply = n.reply, finished = n.finished, late = n.late"
            " FROM unnest($1::text[], $2::text[], $3::bytea[], $4::double precision[], $5::boolean[])"
            " n (id, state, reply, finished, late) WHERE c.id = n.id",
            *([row[name] for row in rows] for name in ("id", "state", "reply", "finished", "late")),
        )

    async def _write_refused(self) -> None:
        for name in sorted(self._counts):
            await count_there(self._connection, name, self._counts[name])
        if not self._refused:
            return
        await self._connection.execute(
            "INSERT INTO quarantine (received, topic, problem, size_bytes, payload) SELECT * FROM"
            " unnest($1::double precision[], $2::text[], $3::text[], $4::bigint[], $5::bytea[])",
            [one.received for one in self._refused],
            [storable(one.topic)[:KEPT_TOPIC_CHARS] for one in self._refused],
            [storable(one.problem) for one in self._refused],
            [len(one.payload) for one in self._refused],
            [one.payload[:KEPT_PAYLOAD_BYTES] for one in self._refused],
        )
        await self._connection.execute(
            "DELETE FROM quarantine WHERE id <= (SELECT id FROM quarantine ORDER BY id DESC OFFSET $1 LIMIT 1)",
            KEPT_QUARANTINED,
        )


def storable(text: str) -> str:
    """Text as PostgreSQL takes it: no zero characters, no halves of surrogate pairs."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
