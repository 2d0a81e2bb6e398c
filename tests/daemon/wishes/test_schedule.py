"""Schedules: when and where they apply, what they change, and who wins against them."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wishes_stage import Device

from edge_daemon.config import load, site
from edge_daemon.policy.types import AppLeft
from edge_daemon.position import Whereabouts, read
from edge_daemon.wishes.schedule import (
    DAYS,
    Override,
    Position,
    Scene,
    Schedule,
    When,
    Where,
    applying,
    distance_m,
    effective,
    entered,
)
from edge_daemon.wishes.state import Site, in_force
from edge_sdk.errors import ConfigError
from edge_sdk.preference import Mode, Preference

pytestmark = pytest.mark.device

BERLIN = ZoneInfo("Europe/Berlin")
HOWTO = Path(__file__).parents[3] / "docs" / "how-to" / "schedules.md"
GATE = Position(lat=52.5163, lon=13.3777)
TOWER = Position(lat=52.5208, lon=13.4094)


def night(**fields: object) -> Schedule:
    wanted = {"preference": Override(mode=Mode.BATTERY), "when": When(begin="22:00", end="07:00"), **fields}
    return Schedule(name="night", **wanted)


def names(text: str, *schedules: Schedule, fold: int = 0) -> list[str]:
    at = datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold).timestamp()
    return [each.name for each in applying(Scene(at=at, zone=BERLIN, schedules=schedules), "digits")]


@pytest.mark.parametrize(
    ("text", "applies"),
    [("2026-11-27T21:59", False), ("2026-11-27T22:00", True), ("2026-11-28T00:00", True), ("2026-11-28T06:59", True),
     ("2026-11-28T07:00", False), ("2026-11-28T12:00", False)],
)  # fmt: skip
def test_an_interval_may_go_over_midnight(text: str, applies: bool) -> None:
    assert bool(names(text, night())) is applies


def test_an_interval_belongs_to_the_day_on_which_it_begins() -> None:
    friday = night(when=When(begin="22:00", end="07:00", days=("fri",)))
    assert names("2026-11-27T23:00", friday)  # a Friday
    assert names("2026-11-28T06:00", friday)
    assert not names("2026-11-28T23:00", friday)
    assert not names("2026-11-27T06:00", friday)
    whole = night(when=When(days=("fri",)))
    assert names("2026-11-27T00:00", whole)
    assert names("2026-11-27T23:59", whole)
    assert not names("2026-11-28T00:00", whole)
    turned = night(when=When(begin="06:00", end="06:00", days=("fri",)))
    assert names("2026-11-28T05:59", turned)
    assert not names("2026-11-27T05:59", turned)


def test_summer_time_makes_a_night_as_long_as_the_clock_says() -> None:
    def minutes(day: str) -> int:
        begin = datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=BERLIN).timestamp()
        scenes = (Scene(at=begin + 60 * minute, zone=BERLIN, schedules=(night(),)) for minute in range(24 * 60))
        return sum(bool(applying(scene, "digits")) for scene in scenes)

    assert [minutes(day) for day in ("2026-03-27", "2026-03-28", "2026-10-24")] == [540, 480, 600]


def test_a_time_of_day_that_comes_twice_counts_twice_and_one_that_is_skipped_never() -> None:
    short = night(when=When(begin="02:15", end="02:45"))
    assert names("2026-10-25T02:30", short, fold=0)
    assert names("2026-10-25T02:30", short, fold=1)
    begin = datetime(2026, 3, 29, tzinfo=BERLIN).timestamp()
    hours = [Scene(at=begin + 300 * step, zone=BERLIN, schedules=(short,)) for step in range(12 * 12)]
    assert not any(applying(scene, "digits") for scene in hours)


@given(st.integers(0, 20_000_000), st.times(), st.times(), st.sets(st.sampled_from(DAYS)))
def test_whether_an_interval_holds_is_what_counting_its_beginnings_says(minute: int, begin, end, days) -> None:
    begin, end = begin.replace(second=0, microsecond=0), end.replace(second=0, microsecond=0)
    when = When(begin=begin.strftime("%H:%M"), end=end.strftime("%H:%M"), days=tuple(days))
    now = datetime(2024, 1, 1) + timedelta(minutes=minute)  # noqa: DTZ001 - a reading of the local clock
    found = False
    for back in (0, 1):
        day = now.date() - timedelta(days=back)
        first = datetime.combine(day, begin)
        last = datetime.combine(day if end > begin else day + timedelta(days=1), end)
        found |= first <= now < last and (not days or DAYS[day.weekday()] in days)
    assert when.holds(now) is found


@pytest.mark.parametrize("clock", [0.0, 86_400.0])
def test_while_the_clock_is_not_set_only_what_needs_no_clock_applies(clock: float) -> None:
    always = Schedule(name="always", preference=Override(mode=Mode.SPEED))
    found = applying(Scene(at=clock, zone=BERLIN, schedules=(night(), always)), "digits")
    assert [each.name for each in found] == ["always"]


# ------------------------------------------------------------------------------------------------------- place


def test_distances_are_those_of_the_earth() -> None:
    assert distance_m(GATE, TOWER) == pytest.approx(2201, rel=0.01)
    assert distance_m(Position(lat=0, lon=179.999), Position(lat=0, lon=-179.999)) == pytest.approx(222.4, rel=0.01)
    assert distance_m(Position(lat=90, lon=0), Position(lat=-90, lon=77)) == pytest.approx(20_015_115, rel=0.001)
    assert distance_m(GATE, GATE) == 0


def test_a_fix_that_wanders_at_the_border_enters_once() -> None:
    depot = Schedule(name="depot", preference=Override(mode=Mode.ACCURACY), where=Where(lat=0, lon=0, radius_m=100))
    inside: frozenset[str] = frozenset()
    seen = []
    for metres in (500, 101, 99, 105, 98, 130, 134, 140, 120, 101, 99):
        inside = entered((depot,), Position(lat=metres / 111_195.08, lon=0), inside)
        seen.append(bool(inside))
    assert seen == [False, False, True, True, True, True, True, False, False, False, True]
    assert entered((depot,), None, inside) == frozenset()


def test_a_position_is_read_from_an_object_or_from_gpsd(tmp_path: Path) -> None:
    path = tmp_path / "position.json"
    assert read(path) is None
    path.write_text('{\n "lat": 52.5163,\n "lon": 13.3777\n}')
    assert read(path) == GATE
    lines = [
        {"class": "VERSION", "release": "3.25"},
        {"class": "TPV", "mode": 3, "lat": 1.0, "lon": 2.0},
        {"class": "TPV", "mode": 3, "lat": GATE.lat, "lon": GATE.lon, "alt": 34.5, "time": "2026-11-27T12:00:00.000Z"},
        {"class": "TPV", "mode": 1},
        {"class": "SKY", "lat": 7.0, "lon": 8.0},
    ]
    path.write_text("\n".join(map(json.dumps, lines)) + '\n{"class": "TPV", "mo')
    assert read(path) == GATE
    path.write_text("x" * 100_000 + "\n" + json.dumps(lines[2]))
    assert read(path) == GATE


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[1, 2]", '{"lat": 91, "lon": 0}', '{"lat": 0, "lon": "13"}', '{"lat": NaN, "lon": 0}',
     '{"lat": 1e999, "lon": 0}',
     '{"class": "TPV", "mode": 0, "lat": 1, "lon": 1}', "[" * 5000, "\x00\xff"],
)  # fmt: skip
def test_what_is_no_position_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "position.json"
    path.write_text(text)
    assert read(path) is None
    assert read(tmp_path) is None


def test_a_fix_that_is_gone_counts_for_ten_minutes_and_a_word_before_the_file(tmp_path: Path) -> None:
    path, now = tmp_path / "position.json", [0.0]
    path.write_text('{"lat": 52.5163, "lon": 13.3777}')
    board = Whereabouts(path, lambda: now[0])
    assert board.now() == GATE
    path.write_text('{"lat": ')
    for now[0], expected in ((300.0, GATE), (599.0, GATE), (601.0, None)):
        assert board.now() == expected
    path.write_text('{"lat": 52.5163, "lon": 13.3777}')
    now[0] = 700.0
    board.tell(TOWER, 50.0)
    assert board.now() == TOWER
    now[0] = 751.0
    assert board.now() == GATE
    assert Whereabouts(None, lambda: 0.0).now() is None


# -------------------------------------------------------------------------------------------------- what follows


def test_what_a_schedule_names_replaces_and_the_rest_stays_and_the_later_wins() -> None:
    word = Preference(mode=Mode.ACCURACY, max_latency_ms=50, battery_for_s=60)
    one = Schedule(name="one", preference=Override(mode=Mode.SPEED, max_power_w=3))
    two = Schedule(name="two", preference=Override(max_power_w=9, battery_until="18:30"))
    found = effective(word, (one, two))
    assert found.preference == Preference(mode=Mode.SPEED, max_latency_ms=50, max_power_w=9, battery_until="18:30")
    assert found.schedules == ("one", "two")
    assert effective(word, (one,), aside={"one"}).preference == word
    assert effective(word, (night(strict=True),), aside={"night"}).preference.mode is Mode.BATTERY


def device(*schedules: Schedule) -> Device:
    return Device("digits", "faces", site=Site(zone=ZoneInfo("UTC"), schedules=schedules))  # begins at noon


def test_a_schedule_begins_and_ends_and_the_word_is_as_it_was() -> None:
    board = device(night(when=When(begin="12:10", end="12:20"), models=("digits",)))
    board.says(mode=Mode.ACCURACY, max_latency_ms=500)
    modes, reasons = [], []
    for _ in range(25):
        board.wait(60.0)
        modes.append((board.wants().mode, board.wants("faces").mode))
        reasons.append(in_force(board.wishes, "digits", board.wishes.scene(board.site, board.now_s)).why)
    assert [index for index, (digits, _) in enumerate(modes, 1) if digits is Mode.BATTERY] == list(range(10, 20))
    assert {faces for _, faces in modes} == {Mode.ACCURACY}
    assert board.wants() == Preference(mode=Mode.ACCURACY, max_latency_ms=500)
    assert set(reasons[9:19]) == {"schedule night"}
    texts = [decision.because.text for decision in board.state.explain("digits")]
    assert any("battery, at most 500 ms, by schedule night" in text for text in texts)


def test_a_word_sets_a_schedule_aside_until_it_ends_but_not_a_strict_one() -> None:
    for strict in (False, True):
        board = device(night(when=When(begin="12:10", end="12:20"), strict=strict))
        board.wait(11 * 60.0)
        assert board.wants().mode is Mode.BATTERY
        board.says("digits", mode=Mode.SPEED)
        assert board.wants().mode is (Mode.BATTERY if strict else Mode.SPEED)
        assert board.wants("faces").mode is Mode.BATTERY
        board.wait(10 * 60.0)
        assert board.wants().mode is Mode.SPEED
        board.wait(24 * 3600.0 - 600.0)
        assert board.wants().mode is Mode.BATTERY  # the next day it is back


def test_an_app_tightens_what_a_schedule_wants_and_cannot_loosen_it() -> None:
    board = device(Schedule(name="quiet", preference=Override(max_power_w=4, max_latency_ms=100)))
    board.joins("cam", Preference(mode=Mode.SPEED, max_power_w=9, max_latency_ms=50))
    board.wait(1.0)
    assert board.wants() == Preference(mode=Mode.SPEED, max_power_w=4, max_latency_ms=50)


def test_a_clock_that_steps_a_day_and_back_starts_and_ends_nothing() -> None:
    board = device(night(when=When(days=("sat",))))  # it is a Friday
    for set_s in (86_400.0, 0.0, 86_400.0, -86_400.0, 0.0) * 3:
        board.wait(60.0, set_s)
        assert board.wants().mode is Mode.BALANCED
    assert len(board.state.explain()) == 2  # the first of each model


def test_a_place_is_entered_and_left() -> None:
    depot = Schedule(
        name="depot", preference=Override(mode=Mode.SPEED), where=Where(lat=52.5163, lon=13.3777, radius_m=200)
    )
    board = device(depot)
    for position, mode in ((None, Mode.BALANCED), (TOWER, Mode.BALANCED), (GATE, Mode.SPEED), (TOWER, Mode.BALANCED)):
        board.position = position
        board.wait(1.0)
        assert board.wants().mode is mode


places = st.sampled_from([None, TOWER, GATE])
steps = st.one_of(
    st.tuples(
        st.just("wait"),
        st.sampled_from([1.0, 300.0, 700.0, 20_000.0]),
        st.sampled_from([0.0, 0.0, 86_400.0, -86_400.0]),
    ),
    st.tuples(st.just("say"), st.sampled_from([None, "digits"]), st.sampled_from(Mode)),
    st.tuples(st.just("join"), st.sampled_from("abc"), st.sampled_from([None, 5.0, 50.0])),
    st.tuples(st.just("leave"), st.sampled_from("abc"), st.none()),
    st.tuples(st.just("move"), places, st.none()),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(steps, max_size=25))
def test_whatever_happens_the_policy_has_what_is_in_force(story: list[tuple[str, Any, Any]]) -> None:
    strict = night(when=When(begin="18:00", end="20:00"), preference=Override(max_power_w=2), strict=True)
    place = Schedule(
        name="here", where=Where(lat=52.5163, lon=13.3777, radius_m=200), preference=Override(mode=Mode.SPEED)
    )
    board, limits = device(strict, place), dict[str, float | None]()
    for what, one, other in story:
        match what:
            case "wait":
                board.wait(one, other)
            case "say":
                board.says(one, mode=other)
            case "join":
                limits[one] = other
                board.joins(one, None if other is None else Preference(max_latency_ms=other))
            case "leave":
                limits.pop(one, None)
                board.tell(AppLeft(app=one))
            case _:
                board.position = one
                board.wait(1.0)
        for model in ("digits", "faces"):
            found = in_force(board.wishes, model, board.wishes.scene(board.site, board.now_s))
            assert board.wants(model) == found.preference
            assert (found.preference.max_power_w == 2) is ("night" in found.schedules)
            if "here" in found.schedules:
                assert found.preference.mode is Mode.SPEED
        asked = [limit for limit in limits.values() if limit is not None]
        assert board.wants("digits").max_latency_ms == min(asked, default=None)
        steady = board.wishes.steady
        assert steady is not None
        clock = datetime.fromtimestamp(steady.wall(board.now_s), ZoneInfo("UTC")).hour
        assert (board.wants().max_power_w == 2) is (clock in {18, 19})


# ------------------------------------------------------------------------------------------------ the configuration


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "daemon.toml"
    path.write_text("[models]\ndigits = 'x'\nfaces = 'y'\n" + text)
    return path


@pytest.mark.skipif(not HOWTO.is_file(), reason="the documentation is not beside these tests")
def test_the_example_of_the_how_to_is_a_configuration(tmp_path: Path) -> None:
    found = re.search(r"```toml\n(.*?)```", HOWTO.read_text(), re.DOTALL)
    assert found is not None
    loaded = load(written(tmp_path, found[1]))
    assert site(loaded).zone == BERLIN
    assert [each.name for each in loaded.schedule] == ["quiet-hours", "shift", "depot"]
    assert loaded.schedule[1].when == When(begin="06:00", end="18:30", days=("mon", "tue", "wed", "thu", "fri"))
    assert loaded.site.position_file is not None


ONE = "[[schedule]]\nname = 'a'\npreference = {mode = 'speed'}\n"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (ONE + ONE, "two schedules"),
        (ONE + "models = ['letters']", "letters"),
        ("[[schedule]]\nname = 'a'\npreference = {}", "prefers nothing"),
        ("[[schedule]]\nname = 'a'\n", "preference"),
        (ONE + "when = {from = '22:00'}", "go together"),
        (ONE + "when = {from = '22:00', to = '24:00'}", "to"),
        (ONE + "when = {from = '22:00', to = '7:00'}", "to"),
        (ONE + "when = {days = ['monday']}", "monday"),
        (ONE + "when = {form = '22:00'}", "form"),
        (ONE + "where = {lat = 52.5, lon = 13.4}", "radius_m"),
        (ONE + "where = {lat = 95, lon = 13.4, radius_m = 5}", "lat"),
        (ONE + "where = {lat = 52, lon = 13.4, radius_m = nan}", "radius_m"),
        ("[[schedule]]\nname = 'a'\npreference = {battery_until = 'noon'}", "no moment"),
        ("[[schedule]]\nname = 'a'\npreference = {battery_for_s = 60}", "battery_for_s"),
        ("[site]\ntime_zone = 'Europe/Atlantis'", "Atlantis"),
        ("[site]\ntime_zone = '../../etc/passwd'", "passwd"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused_by_name(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named) as caught:
        load(written(tmp_path, text))
    assert "\n" not in str(caught.value)
