"""What may replace what is known: messages that are late, doubled or out of order never turn back the clock."""

from __future__ import annotations

import asyncio

from hub_messages import CAM, NEW, OLD, born, came, state, tele, will
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_stage import Place

from edge_hub.freshness import Known, birth_applies, sample_applies, state_applies
from edge_hub.store.records import Arrival, DeviceRecord
from edge_sdk.mqtt import Birth, Conditions, Event, Sample, State, Tele, Up


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
    assert applies == (boot == current and not 10.0 < known - sent < 30 * 86_400.0)


def test_a_will_of_an_earlier_connection_of_the_same_boot_changes_nothing(place: Place) -> None:
    again = after(place, born(sent=100.0), born(sent=160.0), will(sent=100.0, at=161.0))
    assert again.online
    assert not after(place, born(sent=100.0), born(sent=160.0), will(sent=160.0, at=161.0)).online
    assert not after(place, born(sent=100.0), will(sent=170.0, at=171.0)).online  # it said goodbye


@given(boot=BOOTS, sent=TIMES, known=TIMES)
def test_nothing_of_a_boot_that_was_followed_is_news(boot: str, sent: float, known: float) -> None:
    other = NEW if boot == OLD else OLD
    assert not birth_applies(boot=boot, online=True, sent=sent, known=Known(boot=other, sent=known), born_before=True)
    assert not state_applies(boot=boot, sent=sent, known=Known(boot=other, sent=known), current=other, born_before=True)
    assert not sample_applies(
        boot=boot, seq=1, at=sent, known=Known(boot=other, sent=known), known_seq=1, current=other, born_before=True
    )


CENTURY = 4_102_444_000.0


def test_a_device_that_once_believed_in_the_year_2100_is_heard_again(place: Place) -> None:
    """Of a kind that is never born, so that only times tell; its wrong samples are of the boot before."""
    wrong = came(
        Up.TELE,
        Tele(samples=(Sample(at=CENTURY, window_s=1.0, conditions=Conditions()),)),
        boot=OLD,
        seq=1,
        sent=CENTURY,
        at=100.0,
    )
    found = after(place, wrong, tele(160.0, seq=1))
    assert found.sample is not None
    assert found.sample.at == 160.0
    late = came(Up.STATE, State(at=CENTURY, conditions=Conditions(), spooled=1), sent=CENTURY, at=100.0)
    found = after(place, born(), late, state(2, sent=101.0))
    assert found.state is not None
    assert found.state.spooled == 2
    found = after(place, came(Up.BIRTH, Birth(online=True), boot=OLD, sent=CENTURY, at=100.0), born(sent=150.0))
    assert found.boot == NEW


def life(boot: str, began: float) -> list[Arrival]:
    """What a device sends within one boot of half a minute: it connects twice, and reports all the while."""
    messages = [born(boot=boot, sent=began), born(boot=boot, sent=began + 15)]
    for step in range(1, 4):
        at = began + 8 * step
        messages += [
            state(step, boot=boot, sent=at),
            tele(at, boot=boot, seq=2 * step),
            came(Up.EVENT, Event(at=at, kind="sensor", text=f"{boot[0]}{step}"), boot=boot, seq=2 * step + 1, sent=at),
        ]
    return messages


LIVES = [*life(OLD, 1000.0), will(boot=OLD, sent=999.0), *life(NEW, 1040.0)]


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.permutations(range(len(LIVES))),
    again=st.lists(st.integers(0, len(LIVES) - 1), max_size=8),
    cut=st.integers(1, 9),
)
def test_whatever_comes_first_and_twice_the_same_is_known_in_the_end(
    place: Place, order: list[int], again: list[int], cut: int
) -> None:
    arrivals = [LIVES[index] for index in (*order, *again)]

    async def play() -> tuple[DeviceRecord | None, list[str | None]]:
        store = await place.another().open()
        try:
            for first in range(0, len(arrivals), cut):
                await store.commit(arrivals[first : first + cut])
            return await store.device(CAM), sorted(one.event.text or "" for one in await store.events(device=CAM))
        finally:
            await store.close()

    found, events = asyncio.run(play())
    assert found is not None
    assert (found.boot, found.online) == (NEW, True)
    assert found.birth is not None
    assert found.birth.board == NEW[0]
    assert found.state is not None
    assert (found.state.spooled, found.state.at) == (3, 1064.0)
    assert found.sample is not None
    assert found.sample.at == 1064.0
    assert (found.messages, len(events)) == (12, 6)
    numbered = sum(LIVES[index].envelope.seq > 0 for index in again)
    assert found.duplicates == numbered
    assert events == sorted({*events})


@given(sent=st.lists(st.floats(0, 59.0, allow_nan=False), min_size=1, max_size=20))
def test_of_states_within_a_minute_the_latest_composed_stays(sent: list[float]) -> None:
    known = Known()
    for one in sent:
        if state_applies(boot=NEW, sent=one, known=known, current=NEW, born_before=True):
            known = Known(boot=NEW, sent=one)
    assert known.sent == max(sent)
