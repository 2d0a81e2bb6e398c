"""A device that is removed is out of the store at once, and what hung on it goes in steps; on both databases."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses

import pytest
from history_stage import CAM, NOON, OTHER, rolled_up, sample, telemetry
from store_stage import AnyStore, Place, PostgresPlace, within

from edge_hub.alerts.delivery import GIVE_UP_S, Delivery, Notice
from edge_hub.census import Census
from edge_hub.errors import EnrolledError, UnknownDeviceError
from edge_hub.store import _postgres_pool, _postgres_removal, _removal
from edge_hub.store.records import (
    HELD_OFF_S,
    KEPT_ALERTS_S,
    AlertRecord,
    Arrival,
    AuditRecord,
    CommandRecord,
    CommandState,
    Removed,
)
from edge_sdk import mqtt
from edge_sdk.mqtt import DeviceId, Event, Report, Up, UpEnvelope
from edge_sdk.preference import Preference
from edge_sdk.wire import new_token

NOBODY = DeviceId(tenant="acme", device="nobody")
BOTH = (CAM, OTHER)
HANGING = ("boots", "log", "events", "commands", "condensed", "alerts")


async def filled(store: AnyStore) -> dict[DeviceId, AlertRecord]:
    """Two devices with something of each kind, all of it rolled up; their open alerts."""
    await store.enrol_all(dict.fromkeys(BOTH, "hash"), now=NOON, again=False)
    alerts = {}
    for device in BOTH:
        await store.commit([happened(device, 1)])
        await store.commit([telemetry(seq, [sample(NOON + 60 * seq)], of=1, device=device) for seq in range(2, 6)])
        await store.set_labels(device, {"site": "roof"})
        await store.put_desired(device, preferences={"digits": Preference()}, pins={}, expected_version=None, now=NOON)
        await store.add_commands([order(device)])
        alerts[device] = await store.raise_alert(
            AlertRecord(rule="hot", device=device, severity="warning", began=NOON, text="hot")
        )
    await rolled_up(store)
    return alerts


def happened(device: DeviceId, seq: int, *, received: float = NOON, retained: bool = False) -> Arrival:
    envelope = UpEnvelope(
        id=f"{seq:032x}", boot="1".zfill(32), seq=seq, sent=received, body=Event(at=received, kind="sensor", text="x")
    )
    made = telemetry(seq, [sample(received)], device=device)
    return dataclasses.replace(
        made, kind=Up.EVENT, envelope=envelope, payload=mqtt.pack(envelope), received=received, retained=retained
    )


def order(device: DeviceId) -> CommandRecord:
    return CommandRecord(
        id=new_token(), device=device, command=Report(), sent=NOON, expires=NOON + 9, by="ann", batch="b" * 32
    )


async def swept(store: AnyStore, *, now: float = NOON) -> int:
    """Everything; in how many steps."""
    steps = 0
    while await store.sweep(now=now):
        steps += 1
    return steps


def test_what_is_removed_is_gone_and_its_neighbour_and_the_audit_log_stay(place: Place) -> None:
    async def remove(store: AnyStore) -> None:
        alerts = await filled(store)
        await store.add_audit(AuditRecord(at=NOON, who="ann", role="admin", what="enrol", target=str(CAM)))
        before = await store.totals()
        removed = await store.remove((CAM,), now=NOON)
        assert [(one.device, one.state, one.finished) for one in removed.commands] == [
            (CAM, CommandState.CANCELLED, NOON)
        ]
        assert removed.alerts == (dataclasses.replace(alerts[CAM], ended=NOON),)
        # At once, whatever still lies in the tables.
        assert [record.device for record in await store.devices()] == [OTHER]
        assert [record.device for record in await store.outlines(BOTH)] == [OTHER]
        assert set(await store.accounts()) == {str(OTHER)}
        assert (await store.device(CAM), await store.desired(CAM)) == (None, None)
        assert {one.device for one in await store.events()} == {OTHER}
        assert [one.device for one in await store.pending()] == [OTHER]
        assert [one.device for one in await store.batch("b" * 32)] == [OTHER]
        assert [one.device for one in await store.alerts()] == [OTHER]
        assert [one.device for one in await store.all_desired()] == [OTHER]
        with pytest.raises(UnknownDeviceError):
            await store.history(CAM, since=NOON, until=NOON + 600, step_s=60)
        after = await store.totals()
        assert (after.messages, after.devices) == (before.messages, 1)
        assert [one.target for one in await store.audit()] == [str(CAM)]

    async def sweep(store: AnyStore) -> None:
        await swept(store)

    async def look(store: AnyStore) -> None:
        found = await store.history(OTHER, since=NOON, until=NOON + 600, step_s=60)
        assert [point.samples for point in found] == [1, 1, 1, 1]
        assert [one.device for one in await store.removals()] == [CAM]
        await swept(store, now=NOON + KEPT_ALERTS_S + 1)
        assert await store.removals() == ()

    within(place, remove)
    assert all(place.count(table) for table in HANGING)
    whole = {table: place.count(table) for table in HANGING}
    within(place, sweep)  # by whoever comes next
    assert {table: place.count(table) for table in HANGING if table != "alerts"} == {
        table: count // 2 for table, count in whole.items() if table != "alerts"
    }
    within(place, look)
    assert place.count("alerts") == 1


def test_of_several_all_are_removed_or_none_and_nobody_twice(place: Place) -> None:
    async def play(store: AnyStore) -> None:
        await filled(store)
        with pytest.raises(UnknownDeviceError, match="nobody"):
            await store.remove((CAM, NOBODY, OTHER), now=NOON)
        assert len(await store.devices()) == len(await store.pending()) == 2
        removed = await store.remove((CAM, OTHER, CAM), now=NOON)
        assert [len(removed.commands), len(removed.alerts)] == [2, 2]
        with pytest.raises(UnknownDeviceError, match="cam1"):
            await store.remove((CAM,), now=NOON)
        assert await store.devices() == ()

    within(place, play)


def test_what_it_sent_before_is_confirmed_and_dropped_and_later_it_is_a_new_one(place: Place) -> None:
    async def play(store: AnyStore) -> None:
        await filled(store)
        await store.remove((CAM,), now=NOON)
        before = await store.totals()
        late = await store.commit([happened(CAM, 7, received=NOON + 1), happened(OTHER, 7, received=NOON + 1)])
        assert late.acks == {(device, "1".zfill(32)): ((7, 7),) for device in BOTH}
        assert (late.stored, late.touched) == (1, (OTHER,))
        kept = await store.commit([happened(CAM, 8, received=NOON + KEPT_ALERTS_S - 1, retained=True)])
        assert (kept.stored, kept.touched) == (0, ())
        assert (await store.totals()).messages == before.messages + 1
        back = await store.commit([happened(CAM, 7, received=NOON + HELD_OFF_S + 1)])
        assert (back.stored, back.touched) == (1, (CAM,))
        await swept(store)
        record = await store.device(CAM)
        assert record is not None
        assert (record.messages, record.labels, record.desired_version, record.enrolled) == (1, {}, 0, None)
        assert len(await store.events(device=CAM)) == 1

    within(place, play)


def test_who_is_enrolled_again_starts_afresh_whatever_is_still_to_be_deleted(place: Place) -> None:
    async def play(store: AnyStore) -> None:
        await filled(store)
        await store.remove((OTHER,), now=NOON)  # the last that was made
        await store.enrol(OTHER, "new", now=NOON, again=False)
        again = await store.commit([happened(OTHER, 1, received=NOON + 1)])
        assert (again.stored, again.duplicates) == (1, 0)
        await store.add_commands([order(OTHER)])
        await swept(store)
        record = await store.device(OTHER)
        assert record is not None
        assert (record.messages, record.labels, record.desired_version) == (1, {}, 0)
        assert len(await store.events(device=OTHER)) == len(await store.commands(OTHER)) == 1
        assert (await store.accounts())[str(OTHER)] == "new"
        assert await store.history(OTHER, since=NOON, until=NOON + 600, step_s=60) == ()

    within(place, play)


def test_it_goes_in_steps_and_what_comes_meanwhile_is_rolled_up(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (_removal, _postgres_removal):
        monkeypatch.setattr(module, "_STEP_ROWS", 3)

    async def play(store: AnyStore) -> None:
        await filled(store)
        await store.remove((OTHER,), now=NOON)  # whose messages are the last of the log
        steps = 0
        while await store.sweep(now=NOON):
            steps += 1
            await store.commit([telemetry(10 + steps, [sample(NOON + 60 * (10 + steps))], of=1)])
            await rolled_up(store)
        assert steps > 4
        found = await store.history(CAM, since=NOON + 600, until=NOON + 3600, step_s=60)
        assert [point.samples for point in found] == [1] * steps

    within(place, play)
    assert place.count("boots") == 1


def test_while_others_write_and_sum_up_nothing_of_it_is_left(place: Place) -> None:
    async def play(store: AnyStore) -> None:
        await filled(store)
        over = asyncio.Event()

        async def report() -> None:
            seq = 10
            while not over.is_set():
                batch = [telemetry(seq, [sample(NOON)], of=1, device=device, received=NOON + 1) for device in BOTH]
                await store.commit(batch)
                await store.roll_up(now=NOON)
                seq += 1

        async def steer() -> None:
            with contextlib.suppress(UnknownDeviceError):
                while True:
                    await store.add_commands([order(CAM)])
                    await store.raise_alert(
                        AlertRecord(rule="hot", device=CAM, severity="warning", began=NOON, text="hot")
                    )
            over.set()

        async def take() -> None:
            await asyncio.sleep(0.05)
            await store.remove((CAM,), now=NOON)

        await asyncio.wait_for(asyncio.gather(report(), report(), steer(), take()), 60)
        await swept(store)
        await rolled_up(store)
        await swept(store, now=NOON + KEPT_ALERTS_S + 1)
        assert [record.device for record in await store.devices()] == [OTHER]

    within(place, play)
    assert place.count("boots") == 1
    assert (place.count("commands"), place.count("alerts"), place.count("removed")) == (1, 1, 0)


@pytest.mark.postgres
def test_two_processes_that_sweep_at_once_leave_nothing(
    database: PostgresPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_postgres_removal, "_STEP_ROWS", 3)

    async def play(store: AnyStore) -> None:
        await filled(store)
        await store.remove((OTHER,), now=NOON)
        other = await database.open()
        try:
            async with other.database.transaction() as connection:
                await _postgres_removal._sweep(connection, now=NOON)
                second = asyncio.ensure_future(store.sweep(now=NOON))
                await asyncio.wait((second,), timeout=0.2)
            await second
        finally:
            await other.close()
        await swept(store)

    within(database, play)
    assert [database.count(table) for table in ("boots", "log", "events", "commands")] == [1, 5, 1, 1]


def test_accounts_are_given_to_all_or_to_none(place: Place) -> None:
    async def play(store: AnyStore) -> None:
        await store.enrol(OTHER, "first", now=NOON, again=False)
        with pytest.raises(EnrolledError, match="cam2"):
            await store.enrol_all({CAM: "a", OTHER: "b", NOBODY: "c"}, now=NOON, again=False)
        assert await store.accounts() == {str(OTHER): "first"}
        await store.enrol_all({CAM: "a", OTHER: "b"}, now=NOON, again=True)
        assert await store.accounts() == {str(CAM): "a", str(OTHER): "b"}

    within(place, play)


def test_who_was_told_of_an_alert_is_told_that_it_ended_with_its_device(place: Place) -> None:
    notices: list[Notice] = []

    class Ear:
        name = "ear"

        async def tell(self, notice: Notice) -> str | None:
            notices.append(notice)
            return None

    async def play(store: AnyStore) -> None:
        assert KEPT_ALERTS_S >= GIVE_UP_S
        delivery = Delivery(Ear(), store=store, census=Census(store), clock=lambda: NOON)
        await delivery.step()  # who listens from now on hears what begins from now on
        alerts = await filled(store)
        await delivery.step()
        await store.remove((CAM,), now=NOON + 5)
        await swept(store)
        await delivery.step()
        await delivery.step()
        told = [(one.what, one.alert.id, one.alert.ended) for one in notices]
        assert told == [
            ("began", alerts[CAM].id, None),
            ("began", alerts[OTHER].id, None),
            ("ended", alerts[CAM].id, NOON + 5),
        ]

    within(place, play)


@pytest.mark.postgres
def test_a_database_of_the_format_before_is_taken_over(
    database: PostgresPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(_store: AnyStore) -> None:
        """Only made."""

    async def remove(store: AnyStore) -> Removed:
        (record,) = await store.devices()
        return await store.remove((record.device,), now=NOON)

    with monkeypatch.context() as before:
        before.setattr(_postgres_pool, "MIGRATIONS", _postgres_pool.MIGRATIONS[:1])
        before.setattr(_postgres_pool, "FORMAT", 1)
        within(database, nothing)
    database.sql("INSERT INTO edge_hub.devices (tenant, name) VALUES ('acme', 'cam1')")
    database.sql("INSERT INTO edge_hub.boots (device, boot) SELECT id, 'x' FROM edge_hub.devices")
    database.sql("INSERT INTO edge_hub.condensed SELECT id, 60, 0, '' FROM edge_hub.devices")
    assert within(database, remove) == Removed()
    within(database, swept)
    assert [database.count(f"edge_hub.{table}") for table in ("devices", "boots", "condensed")] == [0, 0, 0]
    assert [row["number"] for row in database.sql("SELECT number FROM edge_hub.migrations ORDER BY number")] == [1, 2]
