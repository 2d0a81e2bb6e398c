"""Storing a batch of messages within one transaction: what is new, what changes, what is to be acknowledged.

Decides for every store; what it reads and writes goes through `Books`.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge_hub.freshness import Known, birth_applies, sample_applies, state_applies
from edge_hub.ranges import to_ranges
from edge_hub.store._books import REFUSED, Books, Logged
from edge_hub.store.records import Arrival, CommandRecord, Committed, EventRecord, Malformed
from edge_sdk.mqtt import DeviceId, Reply, Up
from edge_sdk.wire import encode

if sys.version_info >= (3, 11):
    from typing import assert_never
else:
    from typing_extensions import assert_never


@dataclass(slots=True)
class _Device:
    """A device's row while a batch is being stored; written back once."""

    row: int
    device: DeviceId
    columns: Mapping[str, Any]
    boots: dict[str, tuple[int, bool]] = field(default_factory=dict)
    changed: dict[str, Any] = field(default_factory=dict)
    born: bool = False

    def get(self, column: str) -> Any:
        return self.changed.get(column, self.columns[column])


class Intake:
    """One batch. Made within a transaction, used once.

    Args:
        books: Of the transaction.
    """

    def __init__(self, books: Books) -> None:
        self._books = books
        self._devices: dict[DeviceId, _Device] = {}
        self._acks: dict[tuple[DeviceId, str], list[int]] = defaultdict(list)
        self._events: list[EventRecord] = []
        self._finished: list[CommandRecord] = []
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
            if device.changed:
                self._books.change(device.row, device.changed)
        self._books.close(self._malformed)
        return Committed(
            acks={key: to_ranges(numbers) for key, numbers in self._acks.items()},
            stored=self._stored,
            duplicates=self._duplicates,
            malformed=self._malformed,
            events=tuple(self._events),
            finished=tuple(self._finished),
            born=tuple(d.device for d in self._devices.values() if d.born),
            touched=tuple(d.device for d in self._devices.values() if d.changed),
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
        elif kind is Up.EVENT:
            number = self._books.event(device.row, arrival.received, encode(body))
            self._events.append(EventRecord(id=number, device=arrival.device, received=arrival.received, event=body))
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
            self._books.born(row)

    def _reply(self, device: _Device, arrival: Arrival, reply: Reply) -> None:
        """The first reply to a pending command is final; one that comes after the hub gave up is kept as late."""
        ended = self._books.reply(arrival.envelope.reply_to, arrival.device, device.row, reply, arrival.received)
        if ended is not None:
            self._finished.append(ended)

    def _log(self, device: _Device, boot: int, arrival: Arrival) -> bool:
        """Put it into the log; false where its number is there already."""
        envelope = arrival.envelope
        self._acks[arrival.device, envelope.boot].append(envelope.seq)
        entry = Logged(
            boot, envelope.seq, arrival.kind.value, envelope.id, envelope.sent, arrival.received, arrival.payload
        )
        if self._books.log(entry):
            self._stored += 1
            device.changed["messages"] = device.get("messages") + 1
            return True
        self._duplicates += 1
        device.changed["duplicates"] = device.get("duplicates") + 1
        if self._books.message(boot, envelope.seq) not in {None, envelope.id}:
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
            number = Logged(boot, message.seq, REFUSED, "", message.received, message.received, b"")
            if not self._books.log(number):
                device.changed["duplicates"] = device.get("duplicates") + 1
                self._duplicates += 1
                return
        self._quarantine(message)

    def _quarantine(self, message: Malformed) -> None:
        self._malformed += 1
        self._books.quarantine(message)

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
            columns = self._books.device(device)
            known = self._devices[device] = _Device(row=columns["id"], device=device, columns=columns)
        return known

    def _boot(self, device: _Device, boot: str) -> tuple[int, bool]:
        known = device.boots.get(boot)
        if known is None:
            known = device.boots[boot] = self._books.boot(device.row, boot)
        return known
