"""A swap loses no call and closes no engine that one is in; whatever fails, something sensible stays in force."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.errors import ModelClosedError, ModelLoadError
from edge_sdk.lease import Seat

pytestmark = pytest.mark.device

LIMIT_S = 20.0


class Probe:
    """An engine that can be held up, and knows when it was misused."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.inside = 0
        self.closed = 0
        self.misused = False
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def run(self, arrays: Sequence[Any]) -> list[Any]:
        self.misused |= bool(self.closed)
        self.inside += 1
        self.entered.set()
        assert self.gate.wait(LIMIT_S)
        self.inside -= 1
        return [self.name, *arrays]

    def close(self) -> None:
        self.misused |= bool(self.inside)
        self.closed += 1


def calling(seat: Seat) -> tuple[threading.Thread, list[Any]]:
    """A call under way in another thread, and where its answer will be."""
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(seat.run([1])))
    thread.start()
    return thread, answers


def held(name: str) -> Probe:
    probe = Probe(name)
    probe.gate.clear()
    return probe


def test_a_new_call_takes_the_new_engine_while_the_old_one_still_computes() -> None:
    old, new = held("old"), Probe("new")
    seat = Seat("a", old)
    thread, answers = calling(seat)
    assert old.entered.wait(LIMIT_S)
    seat.swap("b", new)
    assert seat.active == "b"
    assert seat.run([2]) == ("b", ["new", 2])
    assert old.closed == 0
    old.gate.set()
    thread.join(LIMIT_S)
    assert answers == [("a", ["old", 1])]
    assert (old.closed, new.closed) == (1, 0)
    seat.close()
    assert [old.misused, new.misused] == [False, False]


def test_the_old_engine_closes_at_once_when_nobody_is_in_it() -> None:
    old, new = Probe("old"), Probe("new")
    seat = Seat("a", old)
    seat.swap("b", new)
    assert old.closed == 1
    seat.close()
    assert new.closed == 1


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


def test_where_memory_is_tight_the_old_one_is_gone_before_the_new_one_is_loaded() -> None:
    old, new = Probe("old"), Probe("new")
    seat = Seat("a", old)
    found: list[int] = []

    def load() -> Probe:
        found.append(old.closed)
        return new

    gap_ms = seat.give_way("b", load, lambda: Probe("again"))
    assert found == [1]
    assert gap_ms >= 0
    assert seat.run([]) == ("b", ["new"])
    seat.close()


def test_a_call_that_comes_into_the_gap_is_answered_after_it() -> None:
    seat = Seat("a", Probe("old"))
    loading, go_on = threading.Event(), threading.Event()

    def load() -> Probe:
        loading.set()
        assert go_on.wait(LIMIT_S)
        return Probe("new")

    switching = threading.Thread(target=lambda: seat.give_way("b", load, lambda: Probe("again")))
    switching.start()
    assert loading.wait(LIMIT_S)
    assert seat.active == "a"
    thread, answers = calling(seat)
    go_on.set()
    for each in (switching, thread):
        each.join(LIMIT_S)
    assert answers == [("b", ["new", 1])]
    seat.close()


def failing() -> Probe:
    raise ModelLoadError("no")


def test_what_cannot_be_loaded_gives_the_place_back() -> None:
    seat = Seat("a", Probe("old"))
    with pytest.raises(ModelLoadError):
        seat.give_way("b", failing, lambda: Probe("again"))
    assert seat.run([]) == ("a", ["again"])
    seat.close()


def test_where_neither_can_be_loaded_the_seat_is_closed() -> None:
    seat = Seat("a", Probe("old"))
    with pytest.raises(ModelLoadError):
        seat.give_way("b", failing, failing)
    with pytest.raises(ModelClosedError):
        seat.run([])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(["swap", "give way", "fail"]), min_size=1, max_size=30), st.integers(1, 4))
def test_requests_in_are_answers_out_whatever_is_switched(changes: list[str], threads: int) -> None:
    made: list[Probe] = []

    def fresh() -> Probe:
        made.append(Probe(f"engine {len(made)}"))
        return made[-1]

    seat = Seat("0", fresh())
    answers: list[list[Any]] = [[] for _ in range(threads)]
    per_thread = 40

    def work(mine: list[Any]) -> None:
        mine.extend(seat.run([number])[1][1] for number in range(per_thread))

    workers = [threading.Thread(target=work, args=(mine,)) for mine in answers]
    for worker in workers:
        worker.start()
    actions: dict[str, Callable[[str], object]] = {
        "swap": lambda id_: seat.swap(id_, fresh()),
        "give way": lambda id_: seat.give_way(id_, fresh, fresh),
        "fail": lambda id_: seat.give_way(id_, failing, fresh),
    }
    for number, change in enumerate(changes):
        with pytest.raises(ModelLoadError) if change == "fail" else contextlib.nullcontext():
            actions[change](str(number))
    for worker in workers:
        worker.join(LIMIT_S)
    seat.close()
    assert answers == [list(range(per_thread))] * threads
    assert not any(probe.misused for probe in made)
    assert [probe.closed for probe in made] == [1] * len(made)
