"""What an app counts of its calls, and what it tells at once."""

from __future__ import annotations

import pytest

from edge_sdk.tally import MAX_SAMPLE, Tally

pytestmark = pytest.mark.device


def counted(*times_ms: float, tally: Tally | None = None) -> Tally:
    tally = tally or Tally()
    for ms in times_ms:
        tally.ran("a", ms)
    return tally


def test_a_sample_is_from_all_over_the_window_and_in_the_order_it_came() -> None:
    assert counted(3.0, 1.0, 2.0).take("a").sample_ms == (3.0, 1.0, 2.0)
    taken = counted(*map(float, range(1000))).take("a")
    assert len(taken.sample_ms) <= MAX_SAMPLE
    assert taken.sample_ms[0] == 0.0
    assert taken.sample_ms[-1] >= 900.0
    assert counted().take("a").sample_ms == ()
    assert counted(1.0).take("b").sample_ms == ()


def test_how_long_a_slow_call_waited_is_asked_of_slow_ones_only() -> None:
    asked: list[None] = []
    tally = Tally()
    tally.limit_ms = 20.0
    tally.waited_ms = lambda: asked.append(None) or 7.0
    counted(3.0, 4.0, tally=tally)
    assert asked == []
    counted(25.0, 22.0, tally=tally)
    taken = tally.take("a")
    assert (taken.slow_ms, taken.waited_ms) == (25.0, 7.0)
    assert tally.take("a").waited_ms is None


def test_what_stood_in_for_a_server_is_late_by_the_whole_it_took_and_told_at_once() -> None:
    told: list[None] = []
    tally = Tally(lambda: told.append(None))
    tally.limit_ms = 20.0
    tally.replied()
    tally.remote_took(8.0)
    assert told == []
    counted(5.0, tally=tally)
    tally.stood_in(15.0, 5.0)
    counted(6.0, tally=tally)
    tally.stood_in(24.0, 6.0)
    counted(30.0, tally=tally)
    tally.stood_in(44.0, 30.0)
    assert len(told) == 1
    taken = tally.take("a")
    assert (taken.calls, taken.sent, taken.replied, taken.late) == (4, 4, 1, 2)
    assert (taken.slow_ms, taken.remote_p50_ms) == (30.0, 8.0)


def test_what_stood_in_and_had_to_wait_for_its_turn_is_late_although_it_computed_in_time() -> None:
    tally = Tally()
    tally.limit_ms = 20.0
    counted(6.0, tally=tally)
    tally.stood_in(44.0, 30.0)
    taken = tally.take("a")
    assert (taken.calls, taken.late, taken.slow_ms) == (1, 1, 6.0)


def test_a_call_far_above_what_is_usual_is_told_at_once_and_once_a_window() -> None:
    told: list[None] = []
    tally = counted(10.0, 11.0, 10.0, tally=Tally(lambda: told.append(None)))
    tally.limit_ms = 33.0
    assert tally.take("a").slow_ms is None
    counted(15.0, tally=tally)
    assert told == []
    counted(17.0, 30.0, 12.0, tally=tally)
    assert len(told) == 1
    assert tally.take("a").slow_ms == 30.0
    assert tally.take("a").slow_ms is None


def test_what_is_usual_of_one_variant_says_nothing_of_another() -> None:
    told: list[None] = []
    tally = counted(1.0, 1.0, tally=Tally(lambda: told.append(None)))
    tally.limit_ms = 60.0
    tally.take("a")
    tally.ran("b", 50.0)
    assert told == []
    assert tally.take("b").slow_ms is None


def test_a_late_call_is_slow_whatever_is_usual() -> None:
    told: list[None] = []
    tally = Tally(lambda: told.append(None))
    tally.limit_ms = 20.0
    counted(25.0, 26.0, tally=tally)
    taken = tally.take("a")
    assert (len(told), taken.late, taken.slow_ms) == (1, 2, 26.0)


def test_what_is_slow_and_far_from_any_limit_can_wait_for_the_next_second() -> None:
    told: list[None] = []
    tally = counted(1.0, 1.0, tally=Tally(lambda: told.append(None)))
    tally.take("a")
    counted(9.0, tally=tally)
    tally.limit_ms = 60.0
    counted(9.0, tally=tally)
    assert told == []
    assert tally.take("a").slow_ms is None
