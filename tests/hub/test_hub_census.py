"""What is counted over the fleet, on both databases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from store_stage import AnyStore, Place, within

from edge_hub import census
from edge_hub.census import Census
from edge_hub.errors import StoreError
from edge_hub.store.outline import birth_outline
from edge_hub.store.records import Arrival, EventRecord
from edge_sdk import mqtt
from edge_sdk.mqtt import Birth, DeviceId, Event, ServedModel, ServedVariant, Up, UpEnvelope
from edge_sdk.wire import new_token

CAMS = tuple(DeviceId(tenant="acme", device=f"cam{number}") for number in range(3))
NOON = 1_800_000_000.0  # a full minute


def test_switches_are_counted_by_the_minute_for_an_hour_by_an_old_process_as_by_a_new_one(place: Place) -> None:
    async def play(store: AnyStore) -> None:
        now = NOON
        boot, seq = new_token(), 0
        old = Census(store, clock=lambda: now)

        async def happen(kind: str, *when_s: float, who: DeviceId = CAMS[0]) -> None:
            nonlocal seq
            batch = []
            for at in when_s:
                seq += 1
                envelope = UpEnvelope(id=new_token(), boot=boot, seq=seq, sent=at, body=Event(at=at, kind=kind))
                batch.append(
                    Arrival(device=who, kind=Up.EVENT, envelope=envelope, payload=mqtt.pack(envelope), received=at)
                )
            await store.commit(batch)

        async def counted() -> Sequence[int]:
            found = [await one.counts([await one.query(f"switches_h = {n}") for n in range(7)]) for one in (old, new())]
            assert found[0] == found[1]
            return found[0]

        def new() -> Census:
            return Census(store, clock=lambda: now)

        await happen("switch", NOON - 7200, NOON - 3590, NOON - 3580, NOON - 1800, NOON - 10)
        await happen("sensor", NOON - 20)
        await happen("switch", NOON - 5, who=CAMS[1])
        await happen("sensor", NOON - 5, who=CAMS[2])
        assert await counted() == (1, 1, 0, 0, 1, 0, 0)
        now = NOON + 70
        assert await counted() == (1, 1, 1, 0, 0, 0, 0)
        await happen("switch", NOON + 65)
        assert await counted() == (1, 1, 0, 1, 0, 0, 0)
        now = NOON + 1870
        assert await counted() == (1, 1, 1, 0, 0, 0, 0)
        now = NOON + 3670
        assert await counted() == (2, 1, 0, 0, 0, 0, 0)
        now = NOON + 86_400
        assert await counted() == (3, 0, 0, 0, 0, 0, 0)

    within(place, play)


def test_a_clock_that_is_set_back_does_not_end_the_counting(place: Place) -> None:
    async def play(store: AnyStore) -> None:
        now = NOON + 86_400
        fleet = Census(store, clock=lambda: now)
        boot = new_token()

        async def happen(seq: int, at: float) -> None:
            envelope = UpEnvelope(id=new_token(), boot=boot, seq=seq, sent=at, body=Event(at=at, kind="switch"))
            await store.commit(
                [Arrival(device=CAMS[0], kind=Up.EVENT, envelope=envelope, payload=mqtt.pack(envelope), received=at)]
            )

        ask = await fleet.query("switches_h > 0")
        await happen(1, now)
        assert await fleet.counts([ask]) == (1,)
        now = NOON
        assert await fleet.counts([ask]) == (0,)
        await happen(2, now)
        assert await fleet.counts([ask]) == (1,)

    within(place, play)


def test_reading_back_that_broke_off_counts_nothing_twice(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(census, "_PAGE", 2)

    async def play(store: AnyStore) -> None:
        boot = new_token()
        batch = []
        for seq in (1, 2, 3, 4):
            envelope = UpEnvelope(id=new_token(), boot=boot, seq=seq, sent=NOON, body=Event(at=NOON, kind="switch"))
            batch.append(
                Arrival(device=CAMS[0], kind=Up.EVENT, envelope=envelope, payload=mqtt.pack(envelope), received=NOON)
            )
        await store.commit(batch)
        fleet = Census(store, clock=lambda: NOON)
        ask = await fleet.query("switches_h = 4")
        events, asked = store.events, 0

        async def breaks_off(**which: Any) -> tuple[EventRecord, ...]:
            nonlocal asked
            asked += 1
            if asked == 2:
                raise StoreError("the database is away")
            return await events(**which)

        monkeypatch.setattr(store, "events", breaks_off)
        with pytest.raises(StoreError):
            await fleet.counts([ask])
        assert await fleet.counts([ask]) == (1,)

    within(place, play)


def test_a_list_longer_than_any_honest_one_is_read_and_not_kept() -> None:
    short, long = (
        msgspec.json.encode(
            Birth(online=True, models=(ServedModel(name="digits", version="1", variants=variants[:count]),))
        )
        for variants in [[ServedVariant(id=f"v{n}", precision="int8", quality=0.9, size_bytes=1) for n in range(1000)]]
        for count in (100, 1000)
    )
    assert birth_outline(short).models is birth_outline(short).models
    read, again = birth_outline(long), birth_outline(long)
    assert read == again
    assert read.models is not again.models
    assert len(read.models[0].variants) == 1000
