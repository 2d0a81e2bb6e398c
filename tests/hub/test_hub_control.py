"""Commands end once whatever races, on both databases."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

from store_stage import AnyStore, Place, within

from edge_hub.store.records import (
    Arrival,
    CommandRecord,
    CommandState,
)
from edge_sdk import mqtt
from edge_sdk.mqtt import DeviceId, Reply, ReplyStatus, Report, Up, UpEnvelope
from edge_sdk.wire import new_token

CAM = DeviceId(tenant="acme", device="cam1")
ID = "c" * 32


SEQ = itertools.count(1)


def answer(id_: str = ID, status: ReplyStatus = ReplyStatus.DONE) -> Arrival:
    envelope = UpEnvelope(
        id=new_token(), boot="0" * 32, seq=next(SEQ), sent=100.0, reply_to=id_, body=Reply(status=status)
    )
    return Arrival(device=CAM, kind=Up.REPLY, envelope=envelope, payload=mqtt.pack(envelope), received=100.0)


def command(device: DeviceId = CAM, id_: str = ID, **more: Any) -> CommandRecord:
    return CommandRecord(id=id_, device=device, command=Report(), sent=1.0, expires=50.0, **more)


ACTIONS: dict[str, Callable[[AnyStore, str], Awaitable[object]]] = {
    "done": lambda store, id_: store.commit([answer(id_)]),
    "refused": lambda store, id_: store.commit([answer(id_, ReplyStatus.REFUSED)]),
    "expired": lambda store, _: store.expire_commands(now=100.0, grace_s=10.0),
    "cancelled": lambda store, id_: store.cancel_command(id_, now=100.0),
    "sent": lambda store, id_: store.published(id_),
}


def test_the_first_to_end_a_command_ends_it_whatever_comes_after(place: Place) -> None:
    async def play(store: AnyStore) -> None:
        await store.enrol(CAM, "hash", now=1.0, again=False)
        for order in itertools.permutations(ACTIONS):
            id_ = new_token()
            await store.add_commands([command(id_=id_)])
            ends: list[str] = []
            for action in order:
                await ACTIONS[action](store, id_)
                found = await store.command(id_)
                assert found is not None
                ends += [found.state.value] if found.state is not CommandState.PENDING else []
            first = next(action for action in order if action != "sent")
            assert set(ends) == {first}, order
            replies = [action for action in order if action in {"done", "refused"}]
            assert found is not None
            assert found.reply is not None
            assert found.reply.status.value == replies[0], order  # exactly one is kept
            assert found.late is (first not in replies), order

    within(place, play)


def test_of_those_who_end_a_command_at_once_one_wins(place: Place) -> None:
    async def play(store: AnyStore) -> None:
        await store.enrol(CAM, "hash", now=1.0, again=False)
        await store.add_commands([command()])
        second = await place.open()  # as another process has it
        try:
            results = await asyncio.gather(
                store.cancel_command(ID, now=100.0),
                second.expire_commands(now=100.0, grace_s=10.0),
                second.commit([answer()]),
                store.expire_commands(now=100.0, grace_s=10.0),
            )
        finally:
            await second.close()
        found = await store.command(ID)
        assert found is not None
        ended = [*results[1], *[one for one in results[2].finished if not one.late], *results[3]]
        cancelled = results[0] is not None and results[0].state is CommandState.CANCELLED
        assert len(ended) + cancelled == 1
        assert found.reply is not None

    within(place, play)


def test_many_devices_are_read_by_name(place: Place) -> None:
    async def play(store: AnyStore) -> None:
        names = [DeviceId(tenant="acme", device=f"d{number:04}") for number in range(901)]
        for name in names[::3]:
            await store.enrol(name, "hash", now=1.0, again=False)
        found = await store.outlines(names)
        assert [one.device for one in found] == names[::3]
        assert await store.outlines([]) == ()

    within(place, play)
