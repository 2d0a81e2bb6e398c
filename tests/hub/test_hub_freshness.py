"""What may replace what is known: messages that are late, doubled or out of order never turn back the clock."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st
from store_stage import Place

from edge_hub.freshness import Known, birth_applies, sample_applies, state_applies
from edge_hub.store.records import Arrival, DeviceRecord
from edge_sdk import mqtt
from edge_sdk.mqtt import Birth, Conditions, DeviceId, Sample, State, Tele, Up, UpEnvelope
from edge_sdk.wire import new_token

CAM = DeviceId(tenant="acme", device="cam1")
OLD, NEW = "a" * 32, "b" * 32


def after(place: Place, *arrivals: Arrival, batched: bool = False) -> DeviceRecord:
    """The device once these have come, each in a batch of its own or all in one."""

    async def play() -> DeviceRecord:
        store = await place.another().open()
        try:
            for batch in [arrivals] if batched else [[one] for one in arrivals]:
                await store.commit(batch)
            record = await store.device(CAM)
            assert record is not None
            return record
        finally:
            await store.close()

    return asyncio.run(play())


def came(
    kind: Up,
    body: object,
    *,
    boot: str = NEW,
    seq: int = 0,
    sent: float = 10.0,
    at: float | None = None,
    retained: bool = False,
) -> Arrival:
    envelope = UpEnvelope(id=new_token(), boot=boot, seq=seq, sent=sent, body=body)
    received = sent if at is None else at
    return Arrival(
        device=CAM, kind=kind, envelope=envelope, payload=mqtt.pack(envelope), received=received, retained=retained
    )


def born(*, boot: str = NEW, sent: float = 10.0) -> Arrival:
    return came(Up.BIRTH, Birth(online=True, board=boot[0]), boot=boot, sent=sent)


def will(*, boot: str = NEW, sent: float = 9.9, at: float = 50.0) -> Arrival:
    return came(Up.BIRTH, Birth(online=False), boot=boot, sent=sent, at=at)


def state(spooled: int, *, boot: str = NEW, sent: float = 10.0) -> Arrival:
    return came(Up.STATE, State(at=sent, conditions=Conditions(), spooled=spooled), boot=boot, sent=sent)


def tele(at: float, *, boot: str = NEW, seq: int) -> Arrival:
    sample = Sample(at=at, window_s=1.0, conditions=Conditions())
    return came(Up.TELE, Tele(samples=(sample,)), boot=boot, seq=seq, sent=at)


def test_a_will_of_the_current_boot_ends_its_presence(place: Place) -> None:
    assert after(place, born()).online
    gone = after(place, born(), will())
    assert not gone.online
    assert gone.birth is not None
    assert gone.birth.online  # what it said of itself is still of interest


def test_a_will_of_an_old_boot_changes_nothing_in_one_batch_or_several(place: Place) -> None:
    for batched in (False, True):
        found = after(place, born(boot=OLD), born(sent=20.0), will(boot=OLD), batched=batched)
        assert (found.online, found.boot) == (True, NEW)


def test_a_boot_that_is_over_does_not_come_back(place: Place) -> None:
    found = after(place, born(boot=OLD), born(sent=20.0), born(boot=OLD))
    assert found.boot == NEW
    assert found.birth is not None
    assert found.birth.board == NEW[0]


def test_a_device_whose_clock_was_set_back_is_believed(place: Place) -> None:
    found = after(place, born(boot=OLD, sent=1e9), born(sent=1.0), state(1, sent=1e9), state(2, sent=5.0))
    assert found.boot == NEW
    assert found.state is not None
    assert found.state.spooled == 2


def test_a_state_that_was_overtaken_changes_nothing(place: Place) -> None:
    found = after(place, born(), state(2, sent=12.0), state(1, sent=11.0))
    assert found.state is not None
    assert found.state.spooled == 2


def test_a_state_of_a_boot_that_is_over_changes_nothing(place: Place) -> None:
    found = after(place, born(boot=OLD), born(sent=20.0), state(2, sent=21.0), state(1, boot=OLD, sent=30.0))
    assert found.state is not None
    assert found.state.spooled == 2


def test_a_replayed_spool_does_not_become_the_newest_sample(place: Place) -> None:
    found = after(place, born(), tele(100.0, seq=5), tele(40.0, seq=2), tele(30.0, boot=OLD, seq=9))
    assert found.sample is not None
    assert found.sample.at == 100.0
    assert found.messages == 3


def test_what_the_broker_kept_says_nothing_of_being_seen(place: Place) -> None:
    kept = came(Up.STATE, State(at=5.0, conditions=Conditions()), sent=5.0, at=1000.0, retained=True)
    assert after(place, kept).last_seen == 5.0
    assert after(place, born(), will(sent=9.0, at=1000.0)).last_seen == 10.0


BOOTS = st.sampled_from([OLD, NEW])
TIMES = st.floats(0, 4e9, allow_nan=False)


@given(boot=BOOTS, current=BOOTS, sent=TIMES, known=TIMES)
def test_a_will_applies_to_its_own_boot_alone(boot: str, current: str, sent: float, known: float) -> None:
    applies = birth_applies(boot=boot, online=False, sent=sent, known=Known(boot=current, sent=known), born_before=True)
    assert applies == (boot == current)


@given(boot=BOOTS, sent=TIMES, known=TIMES)
def test_nothing_of_a_boot_that_was_followed_is_news(boot: str, sent: float, known: float) -> None:
    other = NEW if boot == OLD else OLD
    assert not birth_applies(boot=boot, online=True, sent=sent, known=Known(boot=other, sent=known), born_before=True)
    assert not state_applies(boot=boot, sent=sent, known=Known(boot=other, sent=known), current=other, born_before=True)
    assert not sample_applies(
        boot=boot, seq=1, at=sent, known=Known(boot=other, sent=known), known_seq=1, current=other
    )


@given(sent=st.lists(st.floats(0, 59.0, allow_nan=False), min_size=1, max_size=20))
def test_of_states_within_a_minute_the_latest_composed_stays(sent: list[float]) -> None:
    known = Known()
    for one in sent:
        if state_applies(boot=NEW, sent=one, known=known, current=NEW, born_before=True):
            known = Known(boot=NEW, sent=one)
    assert known.sent == max(sent)
