"""What is in force: words and apps laid over each other, the strictest of each limit, and clocks that are set."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wishes_stage import NOON, UTC, Device

from edge_daemon.policy.types import AppLeft
from edge_daemon.wishes import state as wishing
from edge_daemon.wishes.hear import carried, hear
from edge_daemon.wishes.schedule import Position
from edge_daemon.wishes.state import AppWish, Wishes, in_force, latest_ms
from edge_daemon.wishes.steady import HOLD_S, Steady, followed
from edge_daemon.wishes.strictest import BoardLimits, shared, tightened
from edge_sdk.preference import Mode, Preference
from edge_sdk.until import CLOCK_SET_SINCE

pytestmark = pytest.mark.device

DAY_S = 86_400.0

limits = st.none() | st.floats(1, 100)
preferences = st.builds(
    Preference,
    mode=st.sampled_from(Mode),
    max_latency_ms=limits,
    deadline_ms=limits,
    min_accuracy=limits,
    max_temp_c=limits,
    max_power_w=limits,
    battery_until=st.sampled_from(
        [None, "13:00", "11:00", "2026-11-27T12:30Z", "2026-11-26T12:30Z", "2026-12-01T00:00Z"]
    ),
)


# --------------------------------------------------------------------------------------------------- the strictest


@given(preferences, preferences)
def test_what_is_tightened_keeps_the_limits_of_both(base: Preference, by: Preference) -> None:
    both, names = tightened(base, by, NOON, UTC)
    assert both.mode is base.mode
    for name in ("max_latency_ms", "deadline_ms", "max_temp_c", "max_power_w"):
        given_ = [limit for limit in (getattr(base, name), getattr(by, name)) if limit is not None]
        assert getattr(both, name) == min(given_, default=None)
    accuracies = [limit for limit in (base.min_accuracy, by.min_accuracy) if limit is not None]
    assert both.min_accuracy == max(accuracies, default=None)
    alone = [shared([each], now_s=0, at=NOON, zone=UTC).until_s for each in (base, by, both)]
    assert alone[2] == max((end for end in alone[:2] if end is not None), default=None)
    assert all(getattr(both, name) != getattr(base, name) for name in names)


@given(preferences, preferences, preferences)
def test_the_order_of_apps_does_not_matter(one: Preference, two: Preference, three: Preference) -> None:
    def of(*order: Preference) -> BoardLimits:
        found = Preference()
        for each in order:
            found, _ = tightened(found, each, NOON, UTC)
        return shared([found], now_s=0, at=NOON, zone=UTC)

    assert of(one, two, three) == of(three, one, two) == shared([one, two, three], now_s=0, at=NOON, zone=UTC)


def test_all_models_together_ask_for_the_coolest_the_leanest_and_the_longest() -> None:
    asked = [Preference(max_temp_c=70, battery_until="18:00"), Preference(max_power_w=4), Preference(max_temp_c=65)]
    found = shared(asked, now_s=1000.0, at=NOON, zone=UTC)
    assert found == BoardLimits(temp_c=65, max_power_w=4, until_s=1000.0 + 6 * 3600)
    assert shared([], now_s=0, at=NOON) == shared([Preference()], now_s=0, at=NOON) == BoardLimits()


# ------------------------------------------------------------------------------------------------------- the hands


def test_an_apps_wish_counts_alone_beside_others_and_is_gone_with_it() -> None:
    device = Device()
    device.joins("cam", Preference(mode=Mode.ACCURACY, max_latency_ms=50))
    assert device.wants() == Preference(mode=Mode.ACCURACY, max_latency_ms=50)
    device.joins("door", Preference(mode=Mode.ACCURACY, max_latency_ms=10, min_accuracy=80))
    assert device.wants() == Preference(mode=Mode.ACCURACY, max_latency_ms=10, min_accuracy=80)
    device.joins("log", None)
    device.joins("wall", Preference(mode=Mode.SPEED))
    assert device.wants().mode is Mode.BALANCED  # they do not agree
    device.tell(AppLeft(app="door"), AppLeft(app="wall"))
    assert device.wants() == Preference(mode=Mode.ACCURACY, max_latency_ms=50)
    device.tell(AppLeft(app="cam"))
    assert device.wants() == Preference()


def test_somebodys_word_sets_the_mode_and_apps_tighten_its_limits() -> None:
    device = Device()
    device.joins("cam", Preference(mode=Mode.ACCURACY, max_latency_ms=50, max_power_w=9))
    device.says(mode=Mode.SPEED, max_power_w=5)
    assert device.wants() == Preference(mode=Mode.SPEED, max_latency_ms=50, max_power_w=5)
    found = in_force(device.wishes, "digits", device.wishes.scene(device.site, 0))
    assert found.apps == (("max_latency_ms", "cam"),)
    assert found.why == "max_latency_ms of app cam"
    decision = device.state.explain()[0]
    assert decision.because.code == "preference"
    assert "speed, at most 50 ms, at most 5 W, by max_latency_ms of app cam" in decision.because.text


def test_an_app_is_late_by_its_own_limit_and_by_what_is_said_but_not_by_anothers() -> None:
    device = Device()
    device.joins("slow", Preference(max_latency_ms=500))
    device.joins("fast", Preference(max_latency_ms=5))
    scene = device.wishes.scene(device.site, 0)
    assert (latest_ms(device.wishes, "slow", scene), latest_ms(device.wishes, "fast", scene)) == (500, 5)
    device.says(max_latency_ms=100)
    assert (latest_ms(device.wishes, "slow", scene), latest_ms(device.wishes, "fast", scene)) == (100, 5)
    assert latest_ms(device.wishes, "nobody", scene) is None


def test_one_models_apps_do_not_touch_another_model() -> None:
    device = Device("digits", "faces")
    device.joins("cam", Preference(mode=Mode.SPEED), "digits")
    device.says("faces", mode=Mode.ACCURACY)
    assert (device.wants("digits").mode, device.wants("faces").mode) == (Mode.SPEED, Mode.ACCURACY)
    assert (device.runs("digits"), device.runs("faces")) == ("s", "l")


def test_an_app_that_comes_alone_is_served_at_once_and_one_that_joins_others_waits_for_the_dwell() -> None:
    device = Device()
    device.joins("cam", Preference(mode=Mode.SPEED))
    assert device.runs() == "s"
    device.joins("door", Preference(mode=Mode.ACCURACY))
    device.tell(AppLeft(app="cam"))
    assert device.wants().mode is Mode.ACCURACY
    assert device.runs() == "s"
    for _ in range(20):
        device.wait(1.0)
    assert device.runs() == "l"


def test_apps_that_come_and_go_all_the_time_do_not_make_it_flap() -> None:
    device = Device()
    device.joins("cam", Preference(mode=Mode.ACCURACY))
    before = len(device.state.explain())
    for turn in range(60):
        device.joins(f"door{turn}", Preference(mode=Mode.ACCURACY, max_latency_ms=5.0))
        device.wait(0.5)
        device.tell(AppLeft(app=f"door{turn}"))
        device.wait(0.5)
    assert len(device.state.explain()) - before <= 2 * 60 / 8 + 2


def test_an_app_that_comes_again_and_again_with_the_same_wish_is_no_word() -> None:
    device = Device()
    device.joins("cam", Preference(mode=Mode.ACCURACY))
    for wish in (Preference(mode=Mode.ACCURACY), None):
        device.tell(AppLeft(app="cam"))
        device.wait(1.0)
        device.joins("cam", wish)
        told = hear(
            device.wishes, AppWish(app="cam", model="digits", name="cam", preference=wish), device.state, device.site,
            now_s=device.now_s, at=NOON, position=None,
        )  # fmt: skip
        assert told == (device.wishes, ())


def test_words_outlive_a_restart_and_apps_do_not() -> None:
    device = Device()
    device.says(mode=Mode.BATTERY, battery_for_s=3600)
    device.joins("cam", Preference(max_latency_ms=5))
    kept = wishing.load(wishing.dump(device.wishes))
    assert kept is not None
    assert kept.words == device.wishes.words
    assert kept.words[0].preference.battery_until == "2026-11-27T13:00:00Z"
    assert kept.apps == ()
    for damaged in (b"", b"{}", b"[1]", b'[{"model": "digits"}]', b"\xff", b"[" * 2000, b" " * (1024 * 1024 + 1)):
        assert wishing.load(damaged) is None


def test_what_an_earlier_version_kept_in_the_policy_becomes_a_word() -> None:
    device = Device("digits", "faces")
    device.says("faces", mode=Mode.SPEED)
    found = carried(device.state)
    assert [(word.model, word.preference.mode) for word in found.words] == [("faces", Mode.SPEED)]
    assert carried(None) == Wishes()


# ------------------------------------------------------------------------------------------------------ the clock


def test_a_target_over_a_clock_that_steps_a_day_and_back_stands_still() -> None:
    device = Device()
    device.says(battery_until="2026-11-27T18:00Z")
    until_s = limits_of(device).until_s
    assert until_s == pytest.approx(6 * 3600)
    for set_s in (DAY_S, -DAY_S, DAY_S, 0.0):
        device.wait(HOLD_S / 3, set_s)
        assert limits_of(device).until_s == until_s
    device.wait(60.0)
    assert device.wishes.steady == Steady(offset_s=NOON)


def limits_of(device: Device) -> BoardLimits:
    return wishing.board_limits(device.wishes, ("digits",), device.site, device.now_s)


def test_a_clock_that_stays_where_it_was_set_is_believed() -> None:
    device = Device()
    device.says(battery_until="2026-11-28T18:00Z")
    device.wait(1.0, DAY_S)
    assert limits_of(device).until_s == pytest.approx(30 * 3600)
    device.wait(HOLD_S - 1)
    assert limits_of(device).until_s == pytest.approx(30 * 3600)
    device.wait(2.0)
    assert limits_of(device).until_s == pytest.approx(6 * 3600, abs=5)
    device.wait(6 * 3600.0)
    assert limits_of(device).until_s is None  # over


def test_a_clock_that_was_never_set_is_followed_at_once_when_it_is() -> None:
    early = followed(None, 5.0, 5.0)
    assert early.wall(10.0) == 10.0
    assert followed(early, 20.0, NOON).wall(20.0) == NOON


@given(
    st.lists(
        st.tuples(st.floats(0, 2000), st.sampled_from([0.0, 0.2, 5.0, 59.0, DAY_S, -DAY_S, 3600.0, math.pi * 1e6]))
    )
)
def test_the_steady_clock_moves_by_a_step_only_after_that_step_stood_still(story: list[tuple[float, float]]) -> None:
    now_s, steady, since = 0.0, followed(None, 0.0, NOON), {0.0: 0.0}
    for passed, set_s in story:
        now_s += passed
        since = {set_s: since.get(set_s, now_s)}
        after = followed(steady, now_s, NOON + now_s + set_s)
        if abs(after.offset_s - steady.offset_s) > 60 and steady.wall(now_s) >= CLOCK_SET_SINCE:
            assert after.doubted_s is None
            assert steady.doubted_s is not None
            assert now_s - steady.since_s >= HOLD_S
        steady = after


def test_the_noise_of_two_clocks_read_one_after_the_other_moves_nothing() -> None:
    steady = followed(None, 0.0, NOON)
    for step_ms in range(50):
        assert followed(steady, step_ms, NOON + step_ms + 0.01 * (step_ms % 7)) is steady


def test_where_the_board_is_does_not_matter_without_schedules() -> None:
    device = Device()
    device.position = Position(lat=52.5, lon=13.4)
    device.wait(1.0)
    assert device.wishes.inside == frozenset()
