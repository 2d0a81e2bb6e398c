"""News between processes: whoever could not listen for a while hears that it missed some."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from hub_messages import CAM, NEW, came, tele
from store_stage import PostgresPlace

from edge_hub import relay as relaying
from edge_hub.relay import Bulletin, Relay, recall
from edge_hub.store.records import AlertRecord, CommandRecord, Committed, EventRecord, Late
from edge_sdk.mqtt import Conditions, DeviceId, Event, Report, Sample, Tele, Up
from edge_sdk.wire import decode, encode, new_token

PATIENCE_S = 60.0  # nothing of it takes a second, but for a machine that is busy


class Wire:
    """A connection that only says what it is told to."""

    def __init__(self) -> None:
        self.say: Callable[[str], None]
        self.end: Callable[[], None]

    def add_termination_listener(self, ended: Callable[[Any], None]) -> None:
        self.end = lambda: ended(self)

    async def add_listener(self, channel: str, heard: Callable[[Any, int, str, str], None]) -> None:
        self.say = lambda text: heard(self, 1, channel, text)

    async def execute(self, statement: str) -> None:
        raise AssertionError(statement)

    def terminate(self) -> None:
        pass


class Wires:
    """A database that gives out such connections, and notes what it is told."""

    def __init__(self) -> None:
        self.given: asyncio.Queue[Wire] = asyncio.Queue()
        self.told: asyncio.Queue[str] = asyncio.Queue()

    async def connect(self) -> Wire:
        wire = Wire()
        self.given.put_nowait(wire)
        return wire

    async def notify(self, channel: str, text: str) -> None:
        assert channel == relaying.CHANNEL
        self.told.put_nowait(text)

    def refusals(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


def listening(play: Callable[[Wires, asyncio.Queue[Bulletin]], Awaitable[None]]) -> None:
    """Run with a relay that listens, and what it hears."""

    async def run() -> None:
        wires, heard = Wires(), asyncio.Queue[Bulletin]()
        task = asyncio.create_task(Relay(wires, heard.put).run_listening())
        try:
            await asyncio.wait_for(play(wires, heard), PATIENCE_S)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())


def test_a_connection_that_is_lost_is_made_anew_at_once() -> None:
    async def play(wires: Wires, heard: asyncio.Queue[Bulletin]) -> None:
        first = await wires.given.get()
        await asyncio.sleep(0)  # it begins to wait
        first.end()
        await wires.given.get()
        assert (await heard.get()).missed

    listening(play)


def test_more_than_can_wait_is_said_to_be_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying, "_MAX_WAITING", 3)
    told = [Bulletin(by=new_token(), touched=(f"acme/cam{number}",)) for number in range(5)]

    async def play(wires: Wires, heard: asyncio.Queue[Bulletin]) -> None:
        wire = await wires.given.get()
        await asyncio.sleep(0)
        for bulletin in told:
            wire.say(encode(bulletin).decode())
        came = [await heard.get() for _ in range(4)]
        assert [one for one in came if not one.missed] == told[:3]
        assert came[1].missed
        assert heard.empty()

    listening(play)


def longest(number: int) -> Committed:
    """What takes the most room in a bulletin, of every kind."""
    device = DeviceId(tenant="t" * 64, device=f"{number:064}")
    far = 2**53 - 2 * number  # no two of them are neighbours
    command = CommandRecord(id=f"{number:064x}", device=device, command=Report(), sent=1.0, expires=2.0)
    event = EventRecord(id=far, device=device, received=1.0, event=Event(at=1.0, kind="sensor", text="x"))
    alert = AlertRecord(id=far, rule="hot", device=device, severity="info", began=1.0, text="x")
    sample = Sample(at=1.0, window_s=1.0, conditions=Conditions())
    return Committed(
        touched=(device,),
        born=(device,),
        finished=(command,),
        events=(event,),
        alerts=(alert,),
        late=(Late(device=device, boot=far, seq=far, samples=(sample,) * 600),),
        noted=(("token-withdrawn", "silence-ended", "acknowledge", "rule-deleted")[number % 4],),
    )


def test_a_bulletin_is_never_longer_than_notify_takes() -> None:
    count = 100

    async def run() -> None:
        wires = Wires()
        relay = Relay(wires)
        for number in range(count):
            relay.tell(longest(number))
        task = asyncio.create_task(relay.run())
        try:
            heard: list[Bulletin] = []
            while sum(len(one.late) for one in heard) < count:
                text = await asyncio.wait_for(wires.told.get(), PATIENCE_S)
                assert len(text.encode()) < 8000
                heard.append(decode(text.encode(), Bulletin, where="test", max_bytes=relaying._MAX_BYTES))
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        for kind in ("touched", "born", "finished", "events", "alerts"):
            assert len({one for bulletin in heard for one in getattr(bulletin, kind)}) == count

    asyncio.run(run())


def test_more_telemetry_of_the_past_than_can_wait_costs_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying, "_MAX_WAITING", 20)
    relay = Relay(Wires())
    sample = Sample(at=1.0, window_s=1.0, conditions=Conditions())
    relay.tell(Committed(touched=(CAM,)))
    for seq in range(1, 3000):
        relay.tell(Committed(late=(Late(device=CAM, boot=1, seq=seq, samples=(sample,)),)))
    bulletins = relay._bulletins()
    late = [one for bulletin in bulletins for one in bulletin.late]
    assert late == [(1, seq, 1) for seq in range(3000 - relaying._MAX_LATE, 3000)]
    assert bulletins[0].touched == (str(CAM),)
    assert not any(bulletin.missed for bulletin in bulletins)


@pytest.mark.postgres
def test_what_was_told_is_read_back_as_it_was(database: PostgresPlace) -> None:
    """The first samples of a message whose last is what is known now, and all of one that came late."""
    now = 1.8e9
    samples = tuple(Sample(at=now + number, window_s=1.0, conditions=Conditions(temp_c=number)) for number in range(3))
    newest = came(Up.TELE, Tele(samples=samples), boot=NEW, seq=2, sent=now + 3)
    spooled = tele(now - 100, boot=NEW, seq=1)

    async def run() -> None:
        store = await database.open()
        try:
            received = time.time()
            stored = [await store.commit([replace(message, received=received)]) for message in (newest, spooled)]
            alert = AlertRecord(rule="hot", device=CAM, severity="info", began=1.0, text="x")
            alert = await store.raise_alert(alert)
            relay = Relay(Wires())
            for one in (*stored, Committed(alerts=(alert,))):
                relay.tell(one)
            relay.tell(Committed(noted=("rule",)))
            relay.tell(Committed(noted=("rule",)))
            (bulletin,) = relay._bulletins()
            found = await recall(store, bulletin, late=True)
            assert sorted(found.late, key=lambda one: -one.seq) == [*stored[0].late, *stored[1].late]
            assert [one.samples for one in stored[0].late] == [samples[:2]]
            assert len(stored[1].late) == 1
            assert found.alerts == (alert,)
            assert found.noted == ("rule",)
            assert (await recall(store, bulletin, late=False)).late == ()
        finally:
            await store.close()

    asyncio.run(run())
