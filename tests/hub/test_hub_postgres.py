"""What only PostgreSQL has to show: workers that overtake each other, days that go whole, a server that vanishes."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import asyncpg
import pytest
from postgres_stage import PostgresServer
from store_stage import AnyStore, PostgresPlace, within

from edge_hub.errors import StoreError
from edge_hub.store._postgres_pool import Database, DatabaseUrl
from edge_hub.store.postgres import PostgresStore
from edge_hub.store.records import Arrival, CommandRecord, Retention
from edge_sdk import mqtt
from edge_sdk.errors import UsageError
from edge_sdk.mqtt import Birth, Conditions, DeviceId, Event, Report, Sample, Tele, Up, UpEnvelope
from edge_sdk.wire import new_token

pytestmark = pytest.mark.postgres

CAM = DeviceId(tenant="acme", device="cam1")
DAY_S = 86_400.0
BOOT = "b" * 32


def came(
    kind: Up, body: object, *, seq: int, device: DeviceId = CAM, boot: str = BOOT, received: float = 10.0
) -> Arrival:
    envelope = UpEnvelope(id=new_token(), boot=boot, seq=seq, sent=received, body=body)
    return Arrival(device=device, kind=kind, envelope=envelope, payload=mqtt.pack(envelope), received=received)


def event(seq: int, *, received: float = 10.0) -> Arrival:
    return came(Up.EVENT, Event(at=received, kind="sensor", text=str(seq)), seq=seq, received=received)


def tele(seq: int) -> Arrival:
    sample = Sample(at=float(seq), window_s=1.0, conditions=Conditions())
    return came(Up.TELE, Tele(samples=(sample,)), seq=seq)


def test_two_workers_store_the_same_numbers_once_and_the_newest_sample_stays(database: PostgresPlace) -> None:
    """Each message comes to both, in another order: as bad as a shared subscription can be."""
    numbers = list(range(1, 401))

    async def work(store: PostgresStore, seed: int) -> int:
        shuffled = [tele(number) for number in random.Random(seed).sample(numbers, len(numbers))]
        stored = 0
        for start in range(0, len(shuffled), 20):
            stored += (await store.commit(shuffled[start : start + 20])).stored
        return stored

    async def play() -> None:
        stores = [await PostgresStore.open(database.url) for _ in range(2)]
        try:
            assert sum(await asyncio.gather(*(work(store, seed) for seed, store in enumerate(stores)))) == 400
            record = await stores[0].device(CAM)
        finally:
            for store in stores:
                await store.close()
        assert record is not None
        assert (record.messages, record.duplicates) == (400, 400)
        assert record.sample is not None
        assert record.sample.at == 400.0

    asyncio.run(play())
    assert database.count("log") == 400
    assert database.sql("SELECT first, last FROM numbers") == [(1, 400)]


def test_events_can_be_seen_in_the_order_of_their_ids(database: PostgresPlace) -> None:
    """Who reads on from the last id it saw misses none, however many write."""
    devices = [DeviceId(tenant="acme", device=f"d{number}") for number in range(4)]

    async def write(store: PostgresStore, device: DeviceId) -> None:
        for seq in range(1, 31):
            body = Event(at=1.0, kind="sensor", text=str(seq))
            await store.commit([came(Up.EVENT, body, seq=seq, device=device)])

    async def play(store: PostgresStore) -> None:
        writing = asyncio.gather(*(write(store, device) for device in devices))
        seen: list[int] = []
        while not writing.done() or len(seen) < 120:
            seen += [one.id for one in await store.events(after=seen[-1] if seen else 0)]
            await asyncio.sleep(0)
        await writing
        assert seen == list(range(1, 121))

    within(database, play)


def test_a_day_goes_whole_and_its_numbers_never_count_again(database: PostgresPlace) -> None:
    async def play(store: PostgresStore) -> None:
        await store.commit([event(1, received=0.5 * DAY_S), event(2, received=1.5 * DAY_S)])
        assert partitions(database) >= {"log_19700101", "log_19700102", "events_19700101"}
        keep = Retention(max_age_s=DAY_S, max_bytes=10**12)
        while await store.trim(keep, now=2.1 * DAY_S):
            pass
        assert "log_19700101" not in partitions(database)
        assert [one.event.text for one in await store.events()] == ["2"]
        # The same store, which thinks that the day is there, takes a message of it all the same.
        again = await store.commit([event(1, received=0.5 * DAY_S), event(3, received=0.5 * DAY_S)])
        assert (again.stored, again.duplicates) == (1, 1)

    within(database, play)


def partitions(database: PostgresPlace) -> set[str]:
    rows = database.sql("SELECT c.relname FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE c.relkind = 'r'")
    return {row["relname"] for row in rows}


def test_days_are_made_ahead(database: PostgresPlace) -> None:
    async def play(store: PostgresStore) -> None:
        await store.commit([event(1)])

    within(database, play)
    assert len([name for name in partitions(database) if name.startswith("log_")]) == 1 + 4


def test_who_came_up_is_kept_until_it_was_greeted(database: PostgresPlace) -> None:
    async def play(store: PostgresStore) -> None:
        await store.commit([came(Up.BIRTH, Birth(online=True), seq=0)])
        ((device, turn),) = await store.births()
        assert device == CAM
        await store.commit([came(Up.BIRTH, Birth(online=True), seq=0, boot="c" * 32)])
        assert not await store.greeted(CAM, turn)  # it came up again meanwhile
        ((_, turn),) = await store.births()
        assert await store.greeted(CAM, turn)
        assert await store.births() == ()

    within(database, play)


def test_text_that_postgresql_cannot_keep_is_kept_readable(database: PostgresPlace) -> None:
    from edge_hub.store.records import Malformed

    async def play(store: PostgresStore) -> None:
        await store.commit([Malformed(topic="a\0b", payload=b"\0", problem="odd \ud800", received=1.0)])
        (found,) = await store.quarantined()
        assert (found.topic, found.problem, found.payload) == ("a\\0b", "odd \\ud800", b"\0")

    within(database, play)


def test_what_is_rolled_up_stays_so_on_another_server(database: PostgresPlace) -> None:
    """A dump carries numbers of transactions that the server it is restored on has not come to."""
    from history_stage import CAM, NOON, rolled_up, sample, telemetry

    async def points(store: PostgresStore) -> int:
        return sum(point.samples for point in await store.history(CAM, since=NOON, until=NOON + 7200, step_s=3600))

    async def before(store: PostgresStore) -> None:
        await store.commit([telemetry(1, [sample(NOON + 60)])])
        assert await rolled_up(store) == 1
        await store.commit([telemetry(2, [sample(NOON + 120)])])

    async def after(store: PostgresStore) -> None:
        await store.commit([telemetry(3, [sample(NOON + 180)])])
        assert await rolled_up(store) == 2
        assert await points(store) == 3

    within(database, before)
    database.sql("UPDATE edge_hub.log SET tx = (tx::text::bigint + 1000000)::text::xid8")
    database.sql("UPDATE edge_hub.counters SET value = value + 1000000 WHERE name = 'condensed-tx'")
    within(database, after)


@pytest.mark.parametrize("how", ["expire", "publish", "remove"])
def test_commands_that_several_change_are_held_in_one_order(database: PostgresPlace, how: str) -> None:
    first, last = "a" * 32, "b" * 32

    def order(id_: str) -> CommandRecord:
        return CommandRecord(id=id_, device=CAM, command=Report(), sent=1.0, expires=2.0)

    async def play(store: AnyStore) -> None:
        assert isinstance(store, PostgresStore)
        await store.enrol(CAM, "hash", now=1.0, again=False)
        await store.add_commands([order(last)])  # it lies before the other
        await store.add_commands([order(first)])
        change: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
            "expire": lambda: store.expire_commands(now=99.0, grace_s=1.0),
            "publish": lambda: store.published(last, first),
            "remove": lambda: store.remove((CAM,), now=99.0),
        }
        other = await PostgresStore.open(database.url)
        try:
            async with other.database.transaction() as connection:
                hold = "SELECT 1 FROM commands WHERE id = $1 FOR UPDATE"  # as a batch does with what it has replies to
                await connection.execute(hold, first)
                changing = asyncio.ensure_future(change[how]())
                await asyncio.wait((changing,), timeout=0.2)
                await connection.execute(hold, last)
            await changing
        finally:
            await other.close()

    within(database, play)


@pytest.fixture
def mortal() -> Iterator[PostgresServer]:
    """A server that a test may kill."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.close()


def test_a_server_that_vanishes_and_returns_loses_nothing_that_was_said_to_be_stored(mortal: PostgresServer) -> None:
    async def play() -> None:
        store = await PostgresStore.open(mortal.url())
        try:
            confirmed = [seq for seq in range(1, 51) if (await store.commit([event(seq)])).stored]
            mortal.stop(signal.SIGQUIT)
            for _ in range(3):
                with pytest.raises(StoreError) as caught:
                    await store.commit([event(51)])
                assert "\n" not in str(caught.value)
            with pytest.raises(StoreError):
                await store.totals()
            mortal.start()
            assert (await store.commit([event(51)])).stored == 1
            assert (await store.commit([event(seq) for seq in confirmed])).duplicates == 50
            assert (await store.totals()).messages == 51
        finally:
            await store.close()

    asyncio.run(play())


@pytest.mark.parametrize("url", ["mysql://x/y", "postgresql://host", "postgresql://u:secret@h:x/db", "hub.db"])
def test_a_bad_url_is_refused_without_repeating_its_password(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        asyncio.run(PostgresStore.open(url))
    assert "secret" not in str(caught.value)


def test_a_database_that_is_not_there_is_named_without_the_password(postgres: PostgresServer) -> None:
    url = f"postgresql://edge:secret@/nowhere?host={postgres.directory}"
    with pytest.raises(StoreError, match="nowhere") as caught:
        asyncio.run(PostgresStore.open(url))
    assert "secret" not in str(caught.value)


def test_what_the_driver_says_of_itself_is_told_in_words() -> None:
    async def mend(_connection: object) -> None: ...

    database = Database(DatabaseUrl.parse("postgresql://db.example/edge"), connections=1, mend=mend)
    with pytest.raises(StoreError, match="the connection broke while it was asked"), database.refusals():
        raise asyncpg.InternalClientError("cannot switch to state 15; another operation (2) is in progress")
