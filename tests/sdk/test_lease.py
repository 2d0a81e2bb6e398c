"""A swap loses no call and closes no engine that one is in."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from engine_probe import LIMIT_S, Probe, Turning
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.errors import ModelClosedError, SwitchTimeoutError
from edge_sdk.lease import Seat

pytestmark = pytest.mark.device


def calling(seat: Seat) -> tuple[threading.Thread, list[Any]]:
    """A call under way in another thread, and where its answer will be."""
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(seat.run([1])))
    thread.start()
    return thread, answers


def held(name: str) -> Probe:
    return Probe(name, held=True)


def test_a_new_call_takes_the_new_engine_while_the_old_one_still_computes() -> None:
    old, new = held("old"), Probe("new")
    seat = Seat("a", old)
    thread, answers = calling(seat)
    assert old.entered.wait(LIMIT_S)
    assert seat.swap("b", new) is None
    assert seat.active == "b"
    assert seat.run([2]) == ("b", ["new", 2])
    assert old.closed == 0
    old.gate.set()
    thread.join(LIMIT_S)
    assert answers == [("a", ["old", 1])]
    assert (old.closed, new.closed) == (1, 0)
    seat.close()
    assert [old.misused, new.misused] == [False, False]


def test_an_old_engine_that_nobody_is_in_is_handed_back() -> None:
    old, new = Probe("old"), Probe("new")
    seat = Seat("a", old)
    assert seat.swap("b", new) == ("a", old)
    seat.close()
    assert (old.closed, new.closed) == (0, 1)


def test_close_waits_for_the_call_under_way_and_refuses_later_ones() -> None:
    probe = held("only")
    seat = Seat("a", probe)
    thread, answers = calling(seat)
    assert probe.entered.wait(LIMIT_S)
    closing = threading.Thread(target=seat.close)
    closing.start()
    probe.gate.set()
    closing.join(LIMIT_S)
    thread.join(LIMIT_S)
    assert answers == [("a", ["only", 1])]
    assert probe.closed == 1
    assert not probe.misused
    with pytest.raises(ModelClosedError):
        seat.run([1])
    seat.close()
    assert probe.closed == 1


def test_an_engine_that_comes_after_close_is_freed() -> None:
    late = Probe("late")
    seat = Seat("a", Probe("only"))
    seat.close()
    with pytest.raises(ModelClosedError):
        seat.swap("b", late)
    assert late.closed == 1


def test_a_call_that_comes_while_the_seat_is_vacant_is_answered_by_the_next_engine() -> None:
    old = Probe("old")
    seat = Seat("a", old)
    assert seat.vacate(LIMIT_S) == ("a", old)
    assert seat.is_vacant
    assert seat.active == "a"
    thread, answers = calling(seat)
    assert seat.swap("b", Probe("new")) is None
    thread.join(LIMIT_S)
    assert answers == [("b", ["new", 1])]
    seat.close()


def test_a_seat_is_vacated_once_the_call_under_way_has_ended() -> None:
    probe = held("old")
    seat = Seat("a", probe)
    thread, answers = calling(seat)
    assert probe.entered.wait(LIMIT_S)
    opening = threading.Timer(0.01, probe.gate.set)
    opening.start()
    assert seat.vacate(LIMIT_S) == ("a", probe)
    for each in (thread, opening):
        each.join(LIMIT_S)
    assert answers == [("a", ["old", 1])]
    seat.close()


def test_a_call_that_does_not_end_keeps_its_engine_in_force() -> None:
    probe = held("old")
    seat = Seat("a", probe)
    thread, _ = calling(seat)
    assert probe.entered.wait(LIMIT_S)
    with pytest.raises(SwitchTimeoutError, match="did not end within"):
        seat.vacate(0.001)
    assert not seat.is_vacant
    probe.gate.set()
    assert seat.run([2]) == ("a", ["old", 2])
    thread.join(LIMIT_S)
    seat.close()
    assert (probe.closed, probe.misused) == (1, False)


def test_an_engine_with_calls_in_it_can_be_recalled() -> None:
    old, new = held("old"), Probe("new")
    seat = Seat("a", old)
    thread, _ = calling(seat)
    assert old.entered.wait(LIMIT_S)
    seat.swap("b", new)
    assert seat.recall("c") == (False, None)
    assert seat.recall("a") == (True, ("b", new))
    assert seat.active == "a"
    old.gate.set()
    thread.join(LIMIT_S)
    assert old.closed == 0
    seat.close()
    assert (old.closed, new.closed) == (1, 0)


def test_those_who_wait_for_the_old_engine_and_those_who_come_for_the_new_one_take_turns() -> None:
    old, new = Turning("old", held=True), Turning("new")
    seat = Seat("a", old)
    calls = []
    for number in range(3):
        calls.append(calling(seat))
        while len(seat._turn._waiting) < number or not old.entered.is_set():
            calls[0][0].join(0.0005)
    assert seat.swap("b", new) is None
    calls.append(calling(seat))
    while len(seat._turn._waiting) < 3:
        calls[0][0].join(0.0005)
    assert not new.entered.is_set()
    old.gate.set()
    for thread, _ in calls:
        thread.join(LIMIT_S)
    assert [answer for _, answer in calls] == [[("a", ["old", 1])]] * 3 + [[("b", ["new", 1])]]
    seat.close()
    assert [old.closed, new.closed, old.misused, new.misused] == [1, 1, False, False]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(["swap", "vacate", "recall"]), min_size=1, max_size=30), st.integers(1, 4))
def test_requests_in_are_answers_out_whatever_is_switched(changes: list[str], threads: int) -> None:
    made: list[Probe] = [Turning("0")]
    seat = Seat("0", made[0])
    answers: list[list[Any]] = [[] for _ in range(threads)]
    per_thread = 40

    def work(mine: list[Any]) -> None:
        mine.extend(seat.run([number])[1][1] for number in range(per_thread))

    workers = [threading.Thread(target=work, args=(mine,)) for mine in answers]
    for worker in workers:
        worker.start()
    for number, change in enumerate(changes, start=1):
        old = seat.recall(str(number - 1))[1] if change == "recall" else None
        if change == "vacate":
            old = seat.vacate(LIMIT_S)
        if change != "recall":
            made.append((Turning if number % 3 else Probe)(str(number)))
            old = seat.swap(str(number), made[-1]) or old
        if old is not None:
            old[1].close()
    for worker in workers:
        worker.join(LIMIT_S)
    seat.close()
    assert answers == [list(range(per_thread))] * threads
    assert not any(probe.misused for probe in made)
    assert [probe.closed for probe in made] == [1] * len(made)
