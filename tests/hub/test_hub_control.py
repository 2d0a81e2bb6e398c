"""What the store keeps for those who steer: commands end once whatever races, labels, tokens, audit, alerts."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from edge_hub.errors import UnknownDeviceError
from edge_hub.store.records import (
    AlertRecord,
    Arrival,
    AuditRecord,
    CommandRecord,
    CommandState,
    RuleRecord,
    TokenRecord,
)
from edge_hub.store.sqlite import SqliteStore
from edge_sdk import mqtt
from edge_sdk.mqtt import DeviceId, Reply, ReplyStatus, Report, Up, UpEnvelope
from edge_sdk.wire import new_token

CAM = DeviceId(tenant="acme", device="cam1")
ID = "c" * 32


SEQ = itertools.count(1)


def within(path: Path, work: Callable[[SqliteStore], Awaitable[None]]) -> None:
    """Run with a store that is closed in the end."""

    async def run() -> None:
        store = SqliteStore(path)
        try:
            await work(store)
        finally:
            await store.close()

    asyncio.run(run())


def answer(id_: str = ID, status: ReplyStatus = ReplyStatus.DONE) -> Arrival:
    envelope = UpEnvelope(
        id=new_token(), boot="0" * 32, seq=next(SEQ), sent=100.0, reply_to=id_, body=Reply(status=status)
    )
    return Arrival(device=CAM, kind=Up.REPLY, envelope=envelope, payload=mqtt.pack(envelope), received=100.0)


def command(device: DeviceId = CAM, id_: str = ID, **more: Any) -> CommandRecord:
    return CommandRecord(id=id_, device=device, command=Report(), sent=1.0, expires=50.0, **more)


ACTIONS: dict[str, Callable[[SqliteStore, str], Awaitable[object]]] = {
    "done": lambda store, id_: store.commit([answer(id_)]),
    "refused": lambda store, id_: store.commit([answer(id_, ReplyStatus.REFUSED)]),
    "expired": lambda store, _: store.expire_commands(now=100.0, grace_s=10.0),
    "cancelled": lambda store, id_: store.cancel_command(id_, now=100.0),
    "sent": lambda store, id_: store.published(id_),
}


def test_the_first_to_end_a_command_ends_it_whatever_comes_after(tmp_path: Path) -> None:
    async def play(store: SqliteStore) -> None:
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

    within(tmp_path / "hub.db", play)


def test_of_those_who_end_a_command_at_once_one_wins(tmp_path: Path) -> None:
    async def play(store: SqliteStore) -> None:
        await store.enrol(CAM, "hash", now=1.0, again=False)
        await store.add_commands([command()])
        second = SqliteStore(tmp_path / "hub.db")  # as another process has it
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

    within(tmp_path / "hub.db", play)


def test_what_was_ordered_at_once_is_found_by_its_batch_and_in_order_of_time(tmp_path: Path) -> None:
    async def play(store: SqliteStore) -> None:
        for name in ("b", "a", "c"):
            who = DeviceId(tenant="acme", device=name)
            await store.enrol(who, "hash", now=1.0, again=False)
            await store.add_commands([command(who, id_=name * 32, by="ann", batch="b" * 32)])
        await store.add_commands([command(who, id_="d" * 32)])
        batch = await store.batch("b" * 32)
        assert [one.device.device for one in batch] == ["a", "b", "c"]
        assert {one.by for one in batch} == {"ann"}
        assert len(await store.recent_commands()) == 4
        assert await store.recent_commands(before=1.0) == ()
        await store.published("a" * 32, "b" * 32)
        assert sorted(one.published for one in await store.batch("b" * 32)) == [0, 1, 1]
        assert await store.cancel_command("e" * 32, now=1.0) is None

    within(tmp_path / "hub.db", play)


def test_labels_stay_with_a_device(tmp_path: Path) -> None:
    async def play(store: SqliteStore) -> None:
        await store.enrol(CAM, "hash", now=1.0, again=False)
        await store.set_labels(CAM, {"site": "roof"})
        (found,) = await store.some_devices([CAM, DeviceId(tenant="acme", device="nobody")])
        assert found.labels == {"site": "roof"}
        await store.set_labels(CAM, {})
        (found,) = await store.devices()
        assert found.labels == {}
        with pytest.raises(UnknownDeviceError):
            await store.set_labels(DeviceId(tenant="acme", device="nobody"), {})

    within(tmp_path / "hub.db", play)


def test_many_devices_are_read_by_name(tmp_path: Path) -> None:
    async def play(store: SqliteStore) -> None:
        names = [DeviceId(tenant="acme", device=f"d{number:04}") for number in range(901)]
        for name in names[::3]:
            await store.enrol(name, "hash", now=1.0, again=False)
        found = await store.some_devices(names)
        assert [one.device for one in found] == names[::3]
        assert await store.some_devices([]) == ()

    within(tmp_path / "hub.db", play)


def test_of_a_rule_and_a_device_one_alert_is_open(tmp_path: Path) -> None:
    async def play(store: SqliteStore) -> None:
        await store.enrol(CAM, "hash", now=1.0, again=False)
        alert = AlertRecord(rule="hot", device=CAM, severity="warning", began=5.0, text="hot", value=80.0)
        first = await store.raise_alert(alert)
        again = await store.raise_alert(alert)
        assert (first.id, again) == (1, first)
        assert await store.alerts(open_only=True) == (first,)
        seen = await store.acknowledge_alert(first.id, who="ann", now=6.0)
        assert seen is not None
        assert (seen.acknowledged, seen.acknowledged_at) == ("ann", 6.0)
        late = await store.acknowledge_alert(first.id, who="bob", now=7.0)
        assert late == seen
        ended = await store.end_alert(first.id, now=8.0)
        assert ended is not None
        assert ended.ended == 8.0
        assert await store.end_alert(first.id, now=9.0) is None
        second = await store.raise_alert(alert)
        assert second.id > first.id
        assert [one.id for one in await store.alerts(device=CAM)] == [second.id, first.id]
        assert [one.id for one in await store.alerts(before=second.id)] == [first.id]
        assert await store.acknowledge_alert(99, who="ann", now=6.0) is None

    within(tmp_path / "hub.db", play)


def test_tokens_rules_and_the_audit_log_are_kept(tmp_path: Path) -> None:
    async def play(store: SqliteStore) -> None:
        token = TokenRecord(name="ci", role="viewer", digest="d", created=1.0)
        await store.put_token(token)
        await store.token_used("ci", now=2.0)
        await store.token_used("gone", now=2.0)
        (found,) = await store.tokens()
        assert (found.name, found.last_used) == ("ci", 2.0)
        assert await store.delete_token("ci")
        assert not await store.delete_token("ci")
        await store.put_rule(RuleRecord(name="hot", body=b"1", changed=1.0))
        await store.put_rule(RuleRecord(name="hot", body=b"2", changed=2.0))
        assert await store.rules() == (RuleRecord(name="hot", body=b"2", changed=2.0),)
        assert await store.delete_rule("hot")
        assert not await store.delete_rule("hot")
        for number in range(3):
            await store.add_audit(AuditRecord(at=float(number), who="ann", role="admin", what="x", target="t"))
        assert [one.id for one in await store.audit(limit=2)] == [3, 2]
        assert [one.id for one in await store.audit(before=2)] == [1]

    within(tmp_path / "hub.db", play)
