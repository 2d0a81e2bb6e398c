"""Until when a battery is to last: what may be written, and which moment is meant, over summer time and set clocks."""

from __future__ import annotations

import math
from datetime import datetime, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.errors import WireError
from edge_sdk.preference import Mode, Preference
from edge_sdk.until import CLOCK_SET_SINCE, check, moment, spelled
from edge_sdk.wire import Wire, decode, encode

pytestmark = pytest.mark.device

BERLIN = ZoneInfo("Europe/Berlin")
DAY_S = 86_400.0


def at(text: str, zone: ZoneInfo | timezone = BERLIN) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


@pytest.mark.parametrize(
    "text",
    [
        "18:30",
        "00:00",
        "23:59",
        "2026-11-27T18:30",
        "2026-11-27 18:30:59",
        "2026-11-27T18:30Z",
        "2028-02-29T00:00+05:30",
    ],
)
def test_times_of_day_and_dates_with_a_time_are_taken(text: str) -> None:
    check(text)
    assert decode(encode(Preference(battery_until=text)), Preference, where="test").battery_until == text


@pytest.mark.parametrize(
    "text",
    ["", "noon", "24:00", "18:60", "8:30", "18:30\n", "٠٨:٣٠", "2026-02-30T10:00", "2026-11-27",
     "2026-11-27T18:30+15:00", "1969-12-31T00:00", "9999-12-31T23:59", "18:30+01:00", "2026-11-27T18:30\n", "x" * 41],
)  # fmt: skip
def test_anything_else_is_refused_where_it_arrives(text: str) -> None:
    with pytest.raises(WireError):
        decode(encode({"battery_until": text}), Preference, where="test")


def test_a_moment_and_a_time_from_now_exclude_each_other() -> None:
    with pytest.raises(WireError, match="exclude each other"):
        decode(b'{"battery_until": "18:30", "battery_for_s": 60}', Preference, where="test")


@pytest.mark.parametrize("field", ["battery_for_s", "max_power_w"])
@pytest.mark.parametrize("wrong", ["0", "-1", "1e9", '"5"', "NaN", "true"])
def test_a_number_out_of_bounds_is_refused(field: str, wrong: str) -> None:
    with pytest.raises(WireError):
        decode(f'{{"{field}": {wrong}}}'.encode(), Preference, where="test")


class Earlier(Wire, frozen=True, kw_only=True):
    """What an earlier version takes."""

    mode: Mode = Mode.BALANCED
    max_latency_ms: float | None = None


def test_an_earlier_version_refuses_the_new_limits_by_name_and_takes_what_does_not_use_them() -> None:
    old = Preference(mode=Mode.SPEED, max_latency_ms=5.0)
    assert decode(encode(old), Earlier, where="test") == Earlier(mode=Mode.SPEED, max_latency_ms=5.0)
    for new in (Preference(battery_until="18:30"), Preference(battery_for_s=60), Preference(max_power_w=5)):
        name = next(name for name in Preference.__struct_fields__[1:] if getattr(new, name) is not None)
        with pytest.raises(WireError, match=name):
            decode(encode(new), Earlier, where="test")


def test_a_time_of_day_is_the_next_one_to_come() -> None:
    assert moment("18:30", at("2026-11-27T09:00"), BERLIN) == at("2026-11-27T18:30")
    assert moment("18:30", at("2026-11-27T18:30"), BERLIN) == at("2026-11-28T18:30")
    assert moment("18:30", at("2026-12-31T20:00"), BERLIN) == at("2027-01-01T18:30")


def test_a_day_with_summer_time_is_as_long_as_it_is() -> None:
    evening = at("2026-03-28T20:00")
    assert moment("20:00", evening, BERLIN) == evening + 23 * 3600
    evening = at("2026-10-24T20:00")
    assert moment("20:00", evening, BERLIN) == evening + 25 * 3600
    # 02:30 does not exist on that night: it is taken as if summer time had not begun, and comes once
    assert moment("02:30", at("2026-03-29T01:59"), BERLIN) == at("2026-03-29T03:30")
    assert moment("02:30", at("2026-03-29T03:30"), BERLIN) == at("2026-03-30T02:30")


def test_a_date_is_that_moment_in_its_own_zone_or_the_boards_and_then_it_is_over() -> None:
    now = at("2026-11-27T09:00")
    assert moment("2026-11-27T18:30", now, BERLIN) == at("2026-11-27T18:30")
    assert moment("2026-11-27T18:30Z", now, BERLIN) == at("2026-11-27T18:30", timezone.utc)
    assert moment("2026-11-27T18:30-08:00", now, BERLIN) == at("2026-11-28T03:30")
    assert moment("2026-11-27T09:00", now, BERLIN) is None
    assert moment("2020-01-01T00:00", now, BERLIN) is None


@pytest.mark.parametrize("clock", [0.0, 3600.0, CLOCK_SET_SINCE - 1, math.nan])
def test_while_the_clock_is_not_set_nothing_is_meant(clock: float) -> None:
    assert moment("18:30", clock, BERLIN) is None
    assert moment("2026-11-27T18:30", clock, BERLIN) is None


@given(
    st.floats(CLOCK_SET_SINCE, 4_000_000_000), st.sampled_from(["Europe/Berlin", "America/St_Johns", "Asia/Kolkata"])
)
def test_a_time_of_day_is_always_within_the_next_26_hours_and_shows_on_the_clock(now: float, name: str) -> None:
    zone = ZoneInfo(name)
    then = moment("14:45", now, zone)
    assert then is not None
    assert now < then <= now + 26 * 3600
    assert datetime.fromtimestamp(then, zone).strftime("%H:%M") == "14:45"


@given(st.floats(CLOCK_SET_SINCE + DAY_S, 4_000_000_000), st.sampled_from([-1, 1]))
def test_a_step_of_a_day_changes_a_time_of_day_by_whole_days_only(now: float, days: int) -> None:
    zone = ZoneInfo("Asia/Kolkata")  # no summer time
    before, after = moment("18:30", now, zone), moment("18:30", now + days * DAY_S, zone)
    assert before is not None
    assert after is not None
    assert after - (now + days * DAY_S) == pytest.approx(before - now, abs=1e-3)


def test_without_a_zone_the_machines_counts() -> None:
    now = at("2026-11-27T09:00")
    here = datetime.fromtimestamp(now)  # noqa: DTZ006 - the machine's is meant
    assert moment(here.strftime("%Y-%m-%dT23:59"), now) == here.replace(hour=23, minute=59).timestamp()


@given(st.floats(CLOCK_SET_SINCE, 4_000_000_000), st.floats(1, 31_536_000))
def test_a_time_from_now_becomes_the_moment_it_means(now: float, for_s: float) -> None:
    fixed = Preference(max_power_w=3.0, battery_for_s=for_s).fixed(now)
    assert fixed.battery_for_s is None
    assert fixed.max_power_w == 3.0
    assert fixed.battery_until is not None
    assert fixed.fixed(now + 100) == fixed
    then = moment(fixed.battery_until, now)
    assert abs((then if then is not None else now) - (now + for_s)) <= 1.0  # written to the second
    assert Preference(battery_for_s=for_s).fixed(100.0).battery_for_s == for_s  # the clock is not set
    assert Preference(battery_for_s=for_s).fixed(9e9).battery_until is not None  # whatever a clock was set to
    assert spelled(0.0) == "1970-01-01T00:00:00Z"
