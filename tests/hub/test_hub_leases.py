"""What several processes of a hub agree on: a number has one holder, and comes back when that one is gone."""

from __future__ import annotations

import asyncio

import pytest
from store_stage import AnyStore, Place, PostgresPlace, within

from edge_hub.errors import StoreError
from edge_hub.store.postgres import PostgresStore


def test_each_holder_has_a_number_of_its_own_and_keeps_it(place: Place) -> None:
    async def play(store: AnyStore) -> None:
        async def lease(holder: str, now: float) -> int | None:
            return await store.lease("worker", holder, slots=2, now=now, ttl_s=10.0)

        assert [await lease(holder, 0.0) for holder in ("a", "b", "c")] == [0, 1, None]
        assert await lease("a", 5.0) == 0
        assert await lease("c", 11.0) == 1  # the time of b is over
        assert await lease("b", 11.0) is None
        assert await lease("a", 100.0) == 0  # over, too, but nobody else has asked
        await store.release("worker", "a")
        assert await lease("b", 100.0) == 0
        assert await store.lease("scheduler", "z", slots=1, now=100.0, ttl_s=1.0) == 0  # another kind is another matter

    within(place, play)


def test_fewer_slots_take_the_higher_numbers_away(place: Place) -> None:
    async def play(store: AnyStore) -> None:
        for holder in ("a", "b"):
            await store.lease("worker", holder, slots=2, now=0.0, ttl_s=10.0)
        assert await store.lease("worker", "b", slots=1, now=1.0, ttl_s=10.0) is None
        assert await store.lease("worker", "b", slots=1, now=20.0, ttl_s=10.0) == 0

    within(place, play)


@pytest.mark.postgres
def test_processes_that_ask_at_once_get_different_numbers(database: PostgresPlace) -> None:
    async def play() -> None:
        stores = await asyncio.gather(*(PostgresStore.open(database.url) for _ in range(4)))
        try:
            got = await asyncio.gather(
                *(
                    store.lease("worker", f"{index}", slots=len(stores), now=0.0, ttl_s=10.0)
                    for index, store in enumerate(stores)
                )
            )
            assert sorted(slot for slot in got if slot is not None) == [0, 1, 2, 3]
            assert len({await store.identity() for store in stores}) == 1
        finally:
            for store in stores:
                await store.close()

    asyncio.run(play())


@pytest.mark.postgres
def test_a_newer_database_and_a_stranger_are_refused(database: PostgresPlace) -> None:
    within(database, lambda store: store.totals())
    database.sql("INSERT INTO migrations VALUES (99, now(), 'newer')")
    with pytest.raises(StoreError, match="format 99"):
        asyncio.run(PostgresStore.open(database.url))
    stranger = database.another()
    stranger.sql("CREATE SCHEMA edge_hub")
    stranger.sql("CREATE TABLE edge_hub.diary (day date)")
    with pytest.raises(StoreError, match="not a hub's"):
        asyncio.run(PostgresStore.open(stranger.url))
    assert stranger.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'edge_hub'")[0][0] == 1


@pytest.mark.postgres
def test_a_number_that_is_over_is_taken_over_once_and_forgotten(database: PostgresPlace) -> None:
    async def play(store: PostgresStore) -> None:
        await store.lease("worker", "a", slots=9, now=0.0, ttl_s=10.0)
        assert not await store.take_over("worker", "b", slot=0, now=5.0, ttl_s=10.0)
        assert await store.take_over("worker", "b", slot=0, now=11.0, ttl_s=10.0)
        assert not await store.take_over("worker", "c", slot=0, now=12.0, ttl_s=10.0)
        assert [(lease.holder, lease.until) for lease in await store.leases("worker")] == [("b", 21.0)]
        await store.release("worker", "b")
        assert [lease.until for lease in await store.leases("worker")] == [0.0]
        await store.forget("worker", "b")
        assert await store.leases("worker") == ()

    within(database, play)
