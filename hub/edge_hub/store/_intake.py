"""Storing a batch of messages within one SQLite transaction: what is new, what changes, what is to be acknowledged."""

from __future__ import annotations

import sqlite3
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from edge_hub.freshness import Known, birth_applies, sample_applies, state_applies
from edge_hub.ranges import to_ranges
from edge_hub.store._rows import command_record
from edge_hub.store.records import Arrival, CommandRecord, Committed, EventRecord, Malformed
from edge_sdk.mqtt import DeviceId, Reply, Sample, Up
from edge_sdk.wire import encode

if sys.version_info >= (3, 11):
    from typing import assert_never
else:
    from typing_extensions import assert_never

_KEPT_QUARANTINED = 1000
_KEPT_PAYLOAD_BYTES = 4096
_KEPT_TOPIC_CHARS = 300


@dataclass(slots=True)
class _Device:
    """A device's row while a batch is being stored; written back once."""

    row: int
    device: DeviceId
    columns: dict[str, Any]
    boots: dict[str, tuple[int, bool]] = field(default_factory=dict)
    changed: dict[str, Any] = field(default_factory=dict)
    born: bool = False

    def get(self, column: str) -> Any:
        return self.changed.get(column, self.columns[column])


class Intake:
    """One batch. Made within a transaction, used once.

    Args:
        connection: In a transaction, with `sqlite3.Row` rows.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._devices: dict[DeviceId, _Device] = {}
        self._acks: dict[tuple[DeviceId, str], list[int]] = defaultdict(list)
        self._events: list[EventRecord] = []
        self._finished: list[CommandRecord] = []
        self._late: list[tuple[DeviceId, tuple[Sample, ...]]] = []
        self._stored = 0
        self._duplicates = 0
        self._malformed = 0

    def store(self, batch: Sequence[Arrival | Malformed]) -> Committed:
        """Store all of it."""
        for message in batch:
            if isinstance(message, Malformed):
                self._refuse(message)
            else:
                self._take(message)
        for device in self._devices.values():
            self._write_back(device)
        self._trim_quarantine()
        return Committed(
            acks={key: to_ranges(numbers) for key, numbers in self._acks.items()},
            stored=self._stored,
            duplicates=self._duplicates,
            malformed=self._malformed,
            events=tuple(self._events),
            finished=tuple(self._finished),
            born=tuple(d.device for d in self._devices.values() if d.born),
            touched=tuple(d.device for d in self._devices.values() if d.changed),
            late=tuple(self._late),
        )

    def _take(self, arrival: Arrival) -> None:
        device = self._device(arrival.device)
        envelope = arrival.envelope
        boot, born_before = self._boot(device, envelope.boot)
        self._seen(device, arrival)
        if envelope.seq and not self._log(device, boot, arrival):
            return
        body = envelope.body
        kind = arrival.kind
        if kind is Up.BIRTH:
            self._birth(device, arrival, born_before=born_before)
        elif kind is Up.STATE:
            known = Known(boot=device.get("state_boot"), sent=device.get("state_sent"))
            if state_applies(
                boot=envelope.boot,
                sent=envelope.sent,
                known=known,
                current=device.get("boot"),
                born_before=born_before,
            ):
                device.changed.update(state_boot=envelope.boot, state_sent=envelope.sent, state=encode(body))
        elif kind is Up.TELE:
            sample = body.samples[-1]
            known = Known(boot=device.get("sample_boot"), sent=device.get("sample_at"))
            if sample_applies(
                boot=envelope.boot,
                seq=envelope.seq,
                at=sample.at,
                known=known,
                known_seq=device.get("sample_seq"),
                current=device.get("boot"),
            ):
                device.changed.update(
                    sample_boot=envelope.boot, sample_seq=envelope.seq, sample_at=sample.at, sample=encode(sample)
                )
                if body.samples[:-1]:
                    self._late.append((arrival.device, body.samples[:-1]))
            else:
                self._late.append((arrival.device, body.samples))
        elif kind is Up.EVENT:
            cursor = self._connection.execute(
                "INSERT INTO events (device, received, body) VALUES (?, ?, ?)",
                (device.row, arrival.received, encode(body)),
            )
            self._events.append(
                EventRecord(id=cursor.lastrowid or 0, device=arrival.device, received=arrival.received, event=body)
            )
        elif kind is Up.REPLY:
            self._reply(device, arrival, body)
        else:
            assert_never(kind)

    def _birth(self, device: _Device, arrival: Arrival, *, born_before: bool) -> None:
        envelope = arrival.envelope
        online = envelope.body.online
        known = Known(boot=device.get("boot"), sent=device.get("birth_sent"))
        if not birth_applies(
            boot=envelope.boot, online=online, sent=envelope.sent, known=known, born_before=born_before
        ):
            return
        device.changed.update(boot=envelope.boot, online=int(online))
        if online:
            device.changed.update(birth_sent=envelope.sent, birth=encode(envelope.body))
            device.born = True
            row, _ = device.boots[envelope.boot]
            device.boots[envelope.boot] = (row, True)
            self._connection.execute("UPDATE boots SET born = 1 WHERE id = ?", (row,))

    def _reply(self, device: _Device, arrival: Arrival, reply: Reply) -> None:
        """The first reply to a pending command is final; one that comes after the hub gave up is kept as late."""
        updated = self._connection.execute(
            "UPDATE commands SET late = state <> 'pending', reply = ?, finished = coalesce(finished, ?),"
            " state = CASE state WHEN 'pending' THEN ? ELSE state END"
            " WHERE id = ? AND device = ? AND reply IS NULL RETURNING *",
            (encode(reply), arrival.received, reply.status.value, arrival.envelope.reply_to, device.row),
        ).fetchone()
        if updated is not None:
            self._finished.append(command_record(updated, arrival.device))

    def _log(self, device: _Device, boot: int, arrival: Arrival) -> bool:
        """Put it into the log; false where its number is there already."""
        envelope = arrival.envelope
        key = (boot, envelope.seq)
        self._acks[arrival.device, envelope.boot].append(envelope.seq)
        inserted = self._connection.execute(
            "INSERT INTO log (boot, seq, kind, message, sent, received, payload) SELECT ?, ?, ?, ?, ?, ?, ?"
            " WHERE NOT EXISTS (SELECT 1 FROM trimmed WHERE boot = ? AND first <= ? AND last >= ?)"
            " ON CONFLICT (boot, seq) DO NOTHING",
            (
                *key,
                arrival.kind.value,
                envelope.id,
                envelope.sent,
                arrival.received,
                arrival.payload,
                boot,
                envelope.seq,
                envelope.seq,
            ),
        ).rowcount
        if inserted:
            self._stored += 1
            device.changed["messages"] = device.get("messages") + 1
            return True
        self._duplicates += 1
        device.changed["duplicates"] = device.get("duplicates") + 1
        other = self._connection.execute("SELECT message FROM log WHERE boot = ? AND seq = ?", key).fetchone()
        if other is not None and other["message"] != envelope.id:
            self._quarantine(
                Malformed(
                    topic=f"{arrival.device}/{arrival.kind.value}",
                    payload=arrival.payload,
                    problem=f"another message has number {envelope.seq} of boot {envelope.boot} already",
                    received=arrival.received,
                )
            )
        return False

    def _refuse(self, message: Malformed) -> None:
        """Quarantine it, and remember its number so that its device can be told to forget it."""
        if message.device is not None and message.boot is not None and message.seq:
            device = self._device(message.device)
            boot, _ = self._boot(device, message.boot)
            self._acks[message.device, message.boot].append(message.seq)
            known = self._connection.execute(
                "INSERT INTO log (boot, seq, kind, message, sent, received, payload)"
                " SELECT ?, ?, 'malformed', '', ?, ?, x''"
                " WHERE NOT EXISTS (SELECT 1 FROM trimmed WHERE boot = ? AND first <= ? AND last >= ?)"
                " ON CONFLICT (boot, seq) DO NOTHING",
                (boot, message.seq, message.received, message.received, boot, message.seq, message.seq),
            ).rowcount
            if not known:
                device.changed["duplicates"] = device.get("duplicates") + 1
                self._duplicates += 1
                return
        self._quarantine(message)

    def _quarantine(self, message: Malformed) -> None:
        self._malformed += 1
        self._connection.execute(
            "INSERT INTO quarantine (received, topic, problem, size_bytes, payload) VALUES (?, ?, ?, ?, ?)",
            (
                message.received,
                message.topic[:_KEPT_TOPIC_CHARS],
                message.problem,
                len(message.payload),
                message.payload[:_KEPT_PAYLOAD_BYTES],
            ),
        )

    def _trim_quarantine(self) -> None:
        if not self._malformed:
            return
        self._connection.execute(
            "INSERT INTO counters VALUES ('malformed', ?) "
            "ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
            (self._malformed,),
        )
        self._connection.execute(
            "DELETE FROM quarantine WHERE id <= (SELECT max(id) FROM quarantine) - ?", (_KEPT_QUARANTINED,)
        )

    def _seen(self, device: _Device, arrival: Arrival) -> None:
        """A will and a retained message say nothing about the device being there now."""
        alive = not (arrival.retained or (arrival.kind is Up.BIRTH and not arrival.envelope.body.online))
        when = arrival.received if alive else min(arrival.received, arrival.envelope.sent)
        if device.get("first_seen") is None:
            device.changed["first_seen"] = when
        if when > (device.get("last_seen") or 0.0):
            device.changed["last_seen"] = when

    def _device(self, device: DeviceId) -> _Device:
        known = self._devices.get(device)
        if known is None:
            names = (device.tenant, device.device)
            self._connection.execute("INSERT INTO devices (tenant, name) VALUES (?, ?) ON CONFLICT DO NOTHING", names)
            row = self._connection.execute("SELECT * FROM devices WHERE tenant = ? AND name = ?", names).fetchone()
            known = self._devices[device] = _Device(row=row["id"], device=device, columns=dict(row))
        return known

    def _boot(self, device: _Device, boot: str) -> tuple[int, bool]:
        known = device.boots.get(boot)
        if known is None:
            key = (device.row, boot)
            self._connection.execute("INSERT INTO boots (device, boot) VALUES (?, ?) ON CONFLICT DO NOTHING", key)
            row = self._connection.execute("SELECT id, born FROM boots WHERE device = ? AND boot = ?", key).fetchone()
            known = device.boots[boot] = (row["id"], bool(row["born"]))
        return known

    def _write_back(self, device: _Device) -> None:
        if device.changed:
            # The names are this module's own words, never a message's.
            assignments = ", ".join(f"{column} = ?" for column in device.changed)
            self._connection.execute(
                f"UPDATE devices SET {assignments} WHERE id = ?",  # noqa: S608
                (*device.changed.values(), device.row),
            )
