"""How far a device's clock is ahead is estimated from what is live, whatever was delayed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hub_messages import CAM, NEW, born, came, tele
from hypothesis import given
from hypothesis import strategies as st

from edge_hub.skew import WINDOW_S, Skew, heard
from edge_hub.store.records import Arrival
from edge_hub.store.sqlite import SqliteStore
from edge_sdk.mqtt import Conditions, State, Up


def told(tmp_path: Path, *arrivals: Arrival) -> float | None:
    """The estimate once these have come."""

    async def play() -> float | None:
        store = SqliteStore(tmp_path / "hub.db")
        try:
            for one in arrivals:
                await store.commit([one])
            record = await store.device(CAM)
            return None if record is None else record.skew_s
        finally:
            await store.close()

    return asyncio.run(play())


def live(sent: float, received: float, *, retained: bool = False) -> Arrival:
    return came(Up.STATE, State(at=sent, conditions=Conditions()), boot=NEW, sent=sent, at=received, retained=retained)


@given(
    lead_s=st.floats(-1e6, 1e6),
    delays_s=st.lists(st.floats(0, 500), min_size=1, max_size=50),
    every_s=st.floats(0.1, 10.0),
)
def test_the_estimate_is_the_lead_less_the_least_delay(lead_s: float, delays_s: list[float], every_s: float) -> None:
    known = Skew()
    for number, delay_s in enumerate(delays_s):
        received = 1e9 + number * every_s
        known = heard(known, sent=received - delay_s + lead_s, received=received)
    assert known.s is not None
    assert abs(known.s - (lead_s - min(delays_s))) < 1e-3


def test_a_clock_that_is_set_right_is_believed_at_once_and_one_that_drifts_within_two_windows() -> None:
    known = heard(Skew(), sent=5000.0, received=1000.0)
    assert heard(known, sent=1001.0, received=1001.0, set_back=True).s == 0.0
    now = 1000.0
    while now < 1000.0 + 2 * WINDOW_S + 10:
        now += 10.0
        known = heard(known, sent=now - 0.2, received=now)
    assert known.s is not None
    assert abs(known.s + 0.2) < 1e-6


def test_the_hubs_own_clock_may_be_set_back_too() -> None:
    known = heard(Skew(), sent=1e9, received=1e9)
    known = heard(known, sent=1e6, received=1e6)
    known = heard(known, sent=1e6 + 5, received=1e6 + 5)
    assert known.s == 0.0


def test_a_hubs_clock_that_was_wrong_for_a_while_leaves_nothing_behind() -> None:
    known = heard(Skew(), sent=1e9, received=1e9)
    known = heard(known, sent=1e9 + 5, received=1e9 + 5 - 3600.0)
    assert known.s == 3600.0
    assert heard(known, sent=1e9 + 10 - 0.1, received=1e9 + 10).s == pytest.approx(-0.1, abs=1e-6)


def test_only_what_is_composed_as_it_is_sent_shows_the_clock(tmp_path: Path) -> None:
    spooled, kept = tele(10.0, seq=1), live(50.0, 4000.0, retained=True)
    assert told(tmp_path, spooled, kept) is None
    assert told(tmp_path, born(), live(130.0, 100.0), live(120.0, 100.5)) == 30.0


def test_a_device_of_the_year_2100_shows_its_lead_until_its_clock_is_set(tmp_path: Path) -> None:
    century = 4_102_444_000.0
    assert told(tmp_path, live(century, 1000.0)) == century - 1000.0
    assert told(tmp_path, live(1010.0, 1010.25)) == -0.25
