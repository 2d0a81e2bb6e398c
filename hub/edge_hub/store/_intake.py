"""Storing a batch of messages within one transaction: what is new, what changes, what is to be acknowledged.

Decides for every store; what is read and written goes through `Books`. A device's row is read and written once a batch,
and what can be written together is: statements are most of what a message costs.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge_hub.freshness import Known, birth_applies, sample_applies, state_applies
from edge_hub.ranges import to_ranges
from edge_hub.skew import Skew, heard
from edge_hub.store._books import Books, Happened, excused
from edge_hub.store._counters import MALFORMED, NEWER, refused
from edge_hub.store._numbers import Boot
from edge_hub.store._rows import Row
from edge_hub.store.records import Arrival, CommandRecord, Committed, Late, Malformed, Refusal
from edge_sdk.mqtt import DeviceId, Reply, Up

if sys.version_info >= (3, 11):
    from typing import assert_never
else:
    from typing_extensions import assert_never


@dataclass(slots=True)
class _Device:
    """A device's row while a batch is being stored; written back once. A document in it is encoded only then."""

    row: int
    device: DeviceId
    columns: Row
    boots: dict[str, Boot] = field(default_factory=dict)
    changed: dict[str, Any] = field(default_factory=dict)
    born: bool = False

    def get(self, column: str) -> Any:
        return self.changed[column] if column in self.changed else self.columns[column]

    def count(self, column: str) -> None:
        self.changed[column] = self.get(column) + 1


class Intake:
    """One batch. Made within a transaction, used once.

    Args:
        books: Of the transaction.
    """

    def __init__(self, books: Books) -> None:
        self._books = books
        self._batch: Sequence[Arrival | Malformed] = ()
        self._devices: dict[DeviceId, _Device | None] = {}
        self._acks: dict[tuple[DeviceId, str], list[int]] = defaultdict(list)
        self._events: list[Happened] = []
        self._finished: list[CommandRecord] = []
        self._late: list[Late] = []
        self._quarantined: list[Malformed] = []
        self._stored = 0
        self._duplicates = 0
        self._newer = 0

    def store(self, batch: Sequence[Arrival | Malformed]) -> Committed:
        """Store all of it."""
        self._batch = batch
        new = self._books.put(self._numbered(batch))
        for position, message in enumerate(batch):
            device = None if message.device is None else self._devices.get(message.device)
            if isinstance(message, Malformed):
                self._refuse(message, device, is_new=position in new)
            elif device is not None:
                self._take(message, device, is_new=position in new)
        events = self._books.happened(self._events) if self._events else ()
        there = [device for device in self._devices.values() if device is not None]
        self._books.change([(device.row, device.changed) for device in there if device.changed])
        self._refuse_all()
        return Committed(
            acks={key: to_ranges(numbers) for key, numbers in self._acks.items()},
            stored=self._stored,
            duplicates=self._duplicates,
            malformed=len(self._quarantined),
            events=events,
            finished=tuple(self._finished),
            born=tuple(device.device for device in there if device.born),
            touched=tuple(device.device for device in there if device.changed),
            late=tuple(self._late),
        )

    # ------------------------------------------------------------------------------------------------- numbers

    def _numbered(self, batch: Sequence[Arrival | Malformed]) -> Iterator[tuple[int, Boot, Arrival | Malformed]]:
        """What has a number, each of which is to be acknowledged; makes all devices and boots known on the way.

        Of a device that was removed just now nothing is kept; it is told to forget what it has, all the same.
        """
        for position, message in enumerate(batch):
            if isinstance(message, Malformed):
                device_id, boot, seq = message.device, message.boot, message.seq
                if device_id is None or boot is None:
                    continue
            else:
                device_id, boot, seq = message.device, message.envelope.boot, message.envelope.seq
            if seq:
                self._acks[device_id, boot].append(seq)
            device = self._device(device_id)
            if device is None:
                continue
            known = device.boots.get(boot)
            if known is None:
                known = device.boots[boot] = self._books.boot(device.row, boot)
            if seq:
                yield position, known, message

    def _device(self, device: DeviceId) -> _Device | None:
        if device not in self._devices:
            columns = self._books.device(device)
            if columns is None:
                since = max(excused(message) for message in self._batch if message.device == device)
                columns = self._books.new_device(device, since=since)
            found = None if columns is None else _Device(row=columns["id"], device=device, columns=columns)
            self._devices[device] = found
        return self._devices[device]

    def _repeated(self, device: _Device) -> None:
        self._duplicates += 1
        device.count("duplicates")

    # ------------------------------------------------------------------------------------------------- messages

    def _take(self, arrival: Arrival, device: _Device, *, is_new: bool) -> None:
        envelope = arrival.envelope
        boot = device.boots[envelope.boot]
        self._seen(device, arrival)
        self._newer += bool(arrival.ignored)
        if envelope.seq:
            if not is_new:
                self._repeated(device)
                if self._books.other_message(boot, envelope.seq, envelope.id):
                    problem = f"another message has number {envelope.seq} of boot {envelope.boot} already"
                    self._quarantined.append(_contradiction(arrival, problem))
                return
            self._stored += 1
            device.count("messages")
        kind, body = arrival.kind, envelope.body
        if kind is Up.BIRTH:
            self._birth(device, arrival, boot)
        elif kind is Up.STATE:
            self._state(device, arrival, boot)
        elif kind is Up.TELE:
            self._sample(device, arrival, boot)
        elif kind is Up.EVENT:
            self._events.append(Happened(device.row, arrival.device, arrival.received, body))
        elif kind is Up.REPLY:
            self._reply(device, arrival, body)
        else:
            assert_never(kind)

    def _birth(self, device: _Device, arrival: Arrival, boot: Boot) -> None:
        envelope = arrival.envelope
        online = envelope.body.online
        known = Known(boot=device.get("boot"), sent=device.get("birth_sent"))
        if not birth_applies(boot=envelope.boot, online=online, sent=envelope.sent, known=known, born_before=boot.born):
            return
        device.changed.update(boot=envelope.boot, online=int(online))
        if online:
            self._clock(device, arrival, known)
            device.changed.update(birth_sent=envelope.sent, birth=envelope.body)
            device.born = True
            if not boot.born:
                boot.born = True
                self._books.born(boot)

    def _state(self, device: _Device, arrival: Arrival, boot: Boot) -> None:
        envelope = arrival.envelope
        known = self._known(device, device.get("state_boot"), device.get("state_sent"))
        if state_applies(
            boot=envelope.boot, sent=envelope.sent, known=known, current=device.get("boot"), born_before=boot.born
        ):
            self._clock(device, arrival, known)
            device.changed.update(state_boot=envelope.boot, state_sent=envelope.sent, state=envelope.body)

    def _sample(self, device: _Device, arrival: Arrival, boot: Boot) -> None:
        envelope = arrival.envelope
        *earlier, sample = envelope.body.samples
        # Of times from the future the one thing known is that they are not true.
        at = min(sample.at, arrival.received)
        known = self._known(device, device.get("sample_boot"), device.get("sample_at"))
        if sample_applies(
            boot=envelope.boot,
            seq=envelope.seq,
            at=at,
            known=known,
            known_seq=device.get("sample_seq"),
            current=device.get("boot"),
            born_before=boot.born,
        ):
            device.changed.update(sample_boot=envelope.boot, sample_seq=envelope.seq, sample_at=at, sample=sample)
        else:
            earlier.append(sample)
        if earlier:
            self._late.append(Late(device=arrival.device, boot=boot.row, seq=envelope.seq, samples=tuple(earlier)))

    def _known(self, device: _Device, boot: str | None, sent: float) -> Known:
        """What counts now; whether its boot was born is asked only where it may be another one than the message's."""
        if boot is None or boot == device.get("boot"):
            return Known(boot=boot, sent=sent)
        found = device.boots.get(boot)
        if found is None:
            found = device.boots[boot] = self._books.boot(device.row, boot)
        return Known(boot=boot, sent=sent, born=found.born)

    def _reply(self, device: _Device, arrival: Arrival, reply: Reply) -> None:
        """The first reply to a pending command is final; one that comes after the hub gave up is kept as late."""
        ended = self._books.reply(arrival.envelope.reply_to, arrival.device, device.row, reply, arrival.received)
        if ended is not None:
            self._finished.append(ended)

    def _seen(self, device: _Device, arrival: Arrival) -> None:
        """A will and a retained message say nothing about the device being there now."""
        alive = not (arrival.retained or (arrival.kind is Up.BIRTH and not arrival.envelope.body.online))
        when = arrival.received if alive else min(arrival.received, arrival.envelope.sent)
        if device.get("first_seen") is None:
            device.changed["first_seen"] = when
        if when > (device.get("last_seen") or 0.0):
            device.changed["last_seen"] = when

    def _clock(self, device: _Device, arrival: Arrival, known: Known) -> None:
        """Births and states are composed when they are sent, so they show how the device's clock goes."""
        if arrival.retained:
            return
        envelope = arrival.envelope
        before = Skew(
            s=device.get("skew_s"), next_s=device.get("skew_next_s") or 0.0, until=device.get("skew_until") or 0.0
        )
        set_back = known.boot == envelope.boot and envelope.sent < known.sent
        found = heard(before, sent=envelope.sent, received=arrival.received, set_back=set_back)
        device.changed.update(skew_s=found.s, skew_next_s=found.next_s, skew_until=found.until)

    # ------------------------------------------------------------------------------------------------- refusals

    def _refuse(self, message: Malformed, device: _Device | None, *, is_new: bool) -> None:
        """Quarantine it, once; its number is remembered so that its device can be told to forget it."""
        if message.seq and device is not None and message.boot is not None and not is_new:
            self._repeated(device)
            return
        self._quarantined.append(message)

    def _refuse_all(self) -> None:
        counts = Counter(refused(message.reason) for message in self._quarantined)
        counts.update({MALFORMED: len(self._quarantined), NEWER: self._newer})
        self._books.refused(self._quarantined, {name: count for name, count in counts.items() if count})


def _contradiction(arrival: Arrival, problem: str) -> Malformed:
    return Malformed(
        topic=f"{arrival.device}/{arrival.kind.value}",
        payload=arrival.payload,
        problem=problem,
        received=arrival.received,
        reason=Refusal.NUMBER,
    )
