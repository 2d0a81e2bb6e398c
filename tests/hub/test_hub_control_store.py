"""What a store keeps for whoever steers: labels, tokens, rules, alerts, batches, the audit log; on both databases."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from store_stage import AnyStore, Place, within

from edge_hub.errors import UnknownDeviceError
from edge_hub.store.records import (
    AlertRecord,
    AuditRecord,
    CommandRecord,
    CommandState,
    Retention,
    RuleRecord,
    TokenRecord,
)
from edge_hub.store.sqlite import SqliteStore
from edge_sdk.mqtt import DeviceId, Report
from edge_sdk.wire import new_token

CAM = DeviceId(tenant="acme", device="cam1")
OTHER = DeviceId(tenant="acme", device="Cam2")
NOBODY = DeviceId(tenant="acme", device="nobody")


async def enrolled(store: AnyStore) -> None:
    for device in (CAM, OTHER):
        await store.enrol(device, "hash", now=1.0, again=False)


def order(device: DeviceId, *, sent: float = 1.0, batch: str | None = None) -> CommandRecord:
    return CommandRecord(
        id=new_token(), device=device, command=Report(), sent=sent, expires=sent + 9, by="ann", batch=batch
    )


def test_labels_are_replaced_and_several_devices_are_read_at_once(place: Place) -> None:
    async def play(store: AnyStore) -> None:
        await enrolled(store)
        await store.set_labels(CAM, {"site": "north"})
        await store.set_labels(CAM, {"site": "south", "floor": "2"})
        found = await store.outlines([CAM, NOBODY, OTHER])
        assert [record.device for record in found] == [OTHER, CAM]  # capital letters come first
        assert [record.device for record in await store.devices()] == [OTHER, CAM]
        assert found[1].labels == {"site": "south", "floor": "2"}
        await store.set_labels(CAM, {})
        record = await store.device(CAM)
        assert record is not None
        assert record.labels == {}
        with pytest.raises(UnknownDeviceError):
            await store.set_labels(NOBODY, {})

    within(place, play)


def test_what_was_ordered_at_once_is_found_and_cancelled_one_by_one(place: Place) -> None:
    async def play(store: AnyStore) -> None:
        await enrolled(store)
        first, second, third = order(CAM, batch="b"), order(OTHER, sent=2.0, batch="b"), order(CAM, sent=3.0)
        await store.add_commands([first, second, third])
        assert [one.id for one in await store.batch("b")] == [second.id, first.id]
        assert [one.id for one in await store.recent_commands()] == [third.id, second.id, first.id]
        assert [one.id for one in await store.recent_commands(before=3.0, limit=1)] == [second.id]
        await store.published(first.id, second.id)
        assert [one.published for one in await store.batch("b")] == [1, 1]
        gone = await store.cancel_command(first.id, now=5.0)
        assert gone is not None
        assert (gone.state, gone.finished, gone.by) == (CommandState.CANCELLED, 5.0, "ann")
        assert await store.cancel_command(first.id, now=6.0) == gone
        assert await store.cancel_command(new_token(), now=6.0) is None
        assert [one.id for one in await store.pending(device=CAM)] == [third.id]

    within(place, play)


def test_tokens_and_rules_have_one_of_each_name(place: Place) -> None:
    async def play(store: AnyStore) -> None:
        token = TokenRecord(name="ann", role="viewer", digest="1", created=1.0)
        await store.put_token(token)
        newer = dataclasses.replace(token, role="admin", digest="2", expires=9.0)
        await store.put_token(newer)
        await store.token_used("ann", now=3.0)
        await store.token_used("ben", now=3.0)
        assert await store.tokens() == (dataclasses.replace(newer, last_used=3.0),)
        assert [await store.delete_token("ann") for _ in range(2)] == [True, False]
        await store.put_rule(RuleRecord(name="hot", body=b"{}", changed=1.0))
        hot = RuleRecord(name="hot", body=b'{"over":70}', changed=2.0)
        await store.put_rule(hot)
        assert await store.rules() == (hot,)
        assert [await store.delete_rule("hot") for _ in range(2)] == [True, False]

    within(place, play)


def test_of_a_rule_and_a_device_one_alert_is_open(place: Place) -> None:
    async def play(store: AnyStore) -> None:
        await enrolled(store)
        new = AlertRecord(rule="hot", device=CAM, severity="warning", began=1.0, text="71 °C", value=71.0)
        first = await store.raise_alert(new)
        assert await store.raise_alert(dataclasses.replace(new, began=2.0)) == first
        seen = await store.acknowledge_alert(first.id, who="ann", now=3.0)
        assert seen == dataclasses.replace(first, acknowledged="ann", acknowledged_at=3.0)
        assert await store.acknowledge_alert(first.id, who="ben", now=4.0) == seen
        ended = await store.end_alert(first.id, now=5.0)
        assert ended is not None
        assert ended.ended == 5.0
        assert await store.end_alert(first.id, now=6.0) is None
        second = await store.raise_alert(dataclasses.replace(new, began=7.0))
        other = await store.raise_alert(dataclasses.replace(new, device=OTHER))
        assert await store.alerts() == (other, second, ended)
        assert await store.alerts(open_only=True, device=CAM) == (second,)
        assert await store.alerts(before=second.id, limit=5) == (ended,)
        assert await store.acknowledge_alert(99, who="ann", now=1.0) is None
        with pytest.raises(UnknownDeviceError):
            await store.raise_alert(dataclasses.replace(new, device=NOBODY))

    within(place, play)


def test_the_audit_log_is_read_backwards_and_only_age_shortens_it(place: Place) -> None:
    async def play(store: AnyStore) -> None:
        for at in (1.0, 2.0, 3.0):
            await store.add_audit(
                AuditRecord(at=at, who="ann", role="admin", what="labels", target="acme/cam1", detail=b'{"a":1}')
            )
        found = await store.audit(limit=2)
        assert [(one.at, one.detail) for one in found] == [(3.0, b'{"a":1}'), (2.0, b'{"a":1}')]
        assert [one.at for one in await store.audit(before=found[-1].id)] == [1.0]
        while await store.trim(Retention(max_age_s=1e9, max_bytes=10**12, audit_age_s=8.0), now=10.5):
            pass
        assert [one.at for one in await store.audit()] == [3.0]

    within(place, play)


def test_what_is_asked_for_often_is_found_without_going_through_the_rest(tmp_path: Path) -> None:
    """Counted in thousands of steps of SQLite's machine, which are as many on each of ours."""
    fleet = [DeviceId(tenant="acme", device=f"cam{number}") for number in range(1000)]
    ticks: list[None] = []

    async def play(store: AnyStore) -> None:
        assert isinstance(store, SqliteStore)
        await store.enrol_all(dict.fromkeys(fleet, "hash"), now=1.0, again=False)
        await store.add_commands([order(device) for device in fleet])
        ended = "INSERT INTO alerts (rule, device, severity, began, ended, text) VALUES ('x', 1, 'info', 1, 2, 'x')"
        await store._write(lambda connection: connection.executemany(ended, [()] * 20_000))
        await store.raise_alert(AlertRecord(rule="hot", device=fleet[0], severity="warning", began=3.0, text="x"))
        store._reading.set_progress_handler(lambda: ticks.append(None), 1000)
        assert [one.device for one in await store.pending(device=fleet[7])] == [fleet[7]]
        assert [one.began for one in await store.alerts(open_only=True)] == [3.0]
        store._writing.set_progress_handler(lambda: ticks.append(None), 1000)
        assert len((await store.remove((fleet[9],), now=4.0)).commands) == 1
        assert len(ticks) < 4

    within(tmp_path / "hub.db", play)
    assert len(ticks) < 40  # also at the end, when SQLite learns how much there is of what
