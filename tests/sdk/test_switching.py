"""The newest order counts, an engine on its way can be called off, and memory decides what is loaded beside what."""

from __future__ import annotations

import itertools
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bundle_stage import manifest_of
from engine_probe import LIMIT_S, Probe
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from edge_sdk.errors import (
    MemoryShortError,
    ModelClosedError,
    ModelLoadError,
    SwitchCancelledError,
    UsageError,
)
from edge_sdk.lease import Seat
from edge_sdk.manifest import Variant
from edge_sdk.room import RESERVE_BYTES, Room
from edge_sdk.switch import Loading, Switch
from edge_sdk.switching import Memory, Switcher

pytestmark = pytest.mark.device

SMALL_BYTES, LARGE_BYTES = 20_000_000, 200_000_000
NEED = 3 * SMALL_BYTES + 3_000_000  # an estimate: the file twice, as much for the arena, and 3 MB
SIZES = {"a": SMALL_BYTES, "b": SMALL_BYTES, "c": SMALL_BYTES, "large": LARGE_BYTES}
AMPLE, SHORT, NONE = 4 * NEED + RESERVE_BYTES, NEED, 0


def variants() -> list[Variant]:
    made = manifest_of({id_: id_.encode() for id_ in SIZES}).variants
    return [replace(each, size_bytes=SIZES[each.id]) for each in made]


class Load:
    """A load that is under way until it is let go, well or not."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self.error: BaseException | None = None
        self.go = threading.Event()

    def run(self) -> Probe:
        assert self.go.wait(LIMIT_S)
        if self.error is not None:
            raise self.error
        self.probe.opened = True
        return self.probe

    def cancel(self) -> None:
        self.error = ModelLoadError("was killed")
        self.go.set()


class Opened(Probe):
    opened = False


class Stage:
    """A switcher over probes, on a machine whose free memory is written down."""

    def __init__(self, root: Path, *, memory: Memory = "auto", standby: int = 0, killable: bool = False) -> None:
        self.root = root
        (root / "proc").mkdir()
        self.free(AMPLE)
        self.probes: list[Probe] = [Opened("a 0")]
        self.loads: queue.Queue[Load] = queue.Queue()
        self.told: list[Switch] = []
        self.is_held = False
        self._killable = killable
        self._count = itertools.count(1)
        self.probes[0].opened = True  # type: ignore[attr-defined]
        self.seat = Seat("a", self.probes[0])
        self.switcher = Switcher(
            self.seat,
            self._load,
            Room(variants(), root=root),
            memory=memory,
            standby=standby,
            told=self.told.append,
        )

    def free(self, size_bytes: int) -> None:
        (self.root / "proc/meminfo").write_text(f"MemAvailable: {size_bytes // 1024} kB\n")

    def _load(self, id_: str) -> Loading:
        load = Load(Opened(f"{id_} {next(self._count)}"))
        self.probes.append(load.probe)

        def run() -> Probe:
            if not self.is_held:
                load.go.set()
            self.loads.put(load)
            return load.run()

        return Loading(run=run, cancel=load.cancel) if self._killable else Loading(run=run)

    def under_way(self) -> Load:
        return self.loads.get(timeout=LIMIT_S)

    def names(self) -> list[str]:
        """Of the engines that are open."""
        return [each.name for each in self.probes if each.opened and not each.closed]  # type: ignore[attr-defined]

    def idle(self) -> None:
        until(lambda: not self.switcher.is_busy)

    def close(self) -> None:
        self.switcher.close()
        assert not any(each.misused for each in self.probes)
        assert all(each.closed == int(each.opened) for each in self.probes)  # type: ignore[attr-defined]


def until(holds: Callable[[], object]) -> None:
    end_s = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.0005)


Make = Callable[..., Stage]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Stage] = []

    def one(**options: Any) -> Stage:
        made.append(Stage(tmp_path, **options))
        return made[-1]

    yield one
    for each in made:
        each.close()


def test_an_order_returns_at_once_and_its_handle_tells_when_it_answers(make: Make) -> None:
    stage = make()
    stage.is_held = True
    switch = stage.switcher.begin("b")
    load = stage.under_way()
    assert not switch.done
    assert not switch.wait(0.0)
    assert stage.seat.run([])[0] == "a"
    load.go.set()
    assert switch.wait(LIMIT_S)
    assert switch.error is None
    assert switch.replaced == "a"
    assert switch.took_ms is not None
    assert stage.seat.run([])[0] == "b"
    assert stage.names() == ["b 1"]
    assert stage.told == [switch]
    assert not switch.cancel()


def test_a_newer_order_takes_the_place_of_one_whose_load_is_under_way(make: Make) -> None:
    stage = make()
    stage.is_held = True
    old = stage.switcher.begin("b")
    load = stage.under_way()
    new = stage.switcher.begin("c")
    assert old.done
    assert isinstance(old.error, SwitchCancelledError)
    load.go.set()
    stage.under_way().go.set()
    assert new.wait(LIMIT_S)
    assert stage.seat.run([]) == ("c", ["c 2"])
    assert load.probe.closed == 1
    assert not load.probe.entered.is_set()


def test_an_order_for_what_is_on_its_way_is_the_same_order(make: Make) -> None:
    stage = make()
    stage.is_held = True
    switch = stage.switcher.begin("b")
    assert stage.switcher.begin("b") is switch
    stage.under_way().go.set()
    assert switch.wait(LIMIT_S)
    assert len(stage.probes) == 2


def test_an_order_for_what_runs_calls_off_what_is_on_its_way(make: Make) -> None:
    stage = make()
    stage.is_held = True
    away = stage.switcher.begin("b")
    load = stage.under_way()
    back = stage.switcher.begin("a")
    assert back.done
    assert back.error is None
    assert isinstance(away.error, SwitchCancelledError)
    load.go.set()
    stage.idle()
    assert stage.names() == ["a 0"]


def test_a_load_that_can_be_ended_is_ended_with_its_order(make: Make) -> None:
    stage = make(killable=True)
    stage.is_held = True
    switch = stage.switcher.begin("b")
    stage.under_way()
    assert switch.cancel()
    stage.idle()  # though nobody let the load go
    assert isinstance(switch.error, SwitchCancelledError)
    assert stage.names() == ["a 0"]


def test_closing_calls_off_what_is_on_its_way(make: Make) -> None:
    stage = make(killable=True)
    stage.is_held = True
    switch = stage.switcher.begin("b")
    stage.under_way()
    stage.switcher.close()
    assert isinstance(switch.error, ModelClosedError)
    with pytest.raises(ModelClosedError):
        stage.switcher.begin("b")
    with pytest.raises(ModelClosedError):
        stage.seat.run([])


def test_what_cannot_be_loaded_leaves_the_old_one(make: Make) -> None:
    stage = make()
    stage.is_held = True
    switch = stage.switcher.begin("b")
    load = stage.under_way()
    load.error = ModelLoadError("no")
    load.go.set()
    assert switch.wait(LIMIT_S)
    assert switch.error is load.error
    assert stage.seat.run([])[0] == "a"


@pytest.mark.parametrize(("memory", "free"), [("tight", AMPLE), ("auto", SHORT)])
def test_where_memory_does_not_hold_two_the_old_one_is_gone_before_the_new_one_is_loaded(
    make: Make, memory: Memory, free: int
) -> None:
    stage = make(memory=memory)
    stage.free(free)
    stage.is_held = True
    switch = stage.switcher.begin("b")
    load = stage.under_way()
    assert stage.names() == []
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(stage.seat.run([1])))
    thread.start()
    load.go.set()
    assert switch.wait(LIMIT_S)
    thread.join(LIMIT_S)
    assert answers == [("b", ["b 1", 1])]
    assert stage.switcher.gap_ms is not None


def test_where_memory_holds_two_or_says_nothing_there_is_no_gap(make: Make) -> None:
    stage = make()
    assert stage.switcher.begin("b").wait(LIMIT_S)
    (stage.root / "proc/meminfo").unlink()
    assert stage.switcher.begin("large").wait(LIMIT_S)
    assert stage.seat.active == "large"
    assert stage.switcher.gap_ms is None


def test_what_does_not_even_fit_in_the_place_of_the_old_one_is_not_tried(make: Make) -> None:
    stage = make()
    stage.free(SHORT)
    switch = stage.switcher.begin("large")
    assert switch.wait(LIMIT_S)
    assert isinstance(switch.error, MemoryShortError)
    assert "603 MB" in str(switch.error)
    assert stage.names() == ["a 0"]


def test_one_that_gave_way_comes_back_where_the_next_cannot_be_loaded_or_is_called_off(make: Make) -> None:
    stage = make(memory="tight")
    stage.is_held = True
    switch = stage.switcher.begin("b")
    load = stage.under_way()
    load.error = ModelLoadError("no")
    load.go.set()
    stage.under_way().go.set()
    assert switch.wait(LIMIT_S)
    assert isinstance(switch.error, ModelLoadError)
    stage.idle()
    assert stage.names() == ["a 2"]
    called_off = stage.switcher.begin("b")
    load = stage.under_way()
    assert called_off.cancel()
    load.go.set()
    stage.under_way().go.set()
    stage.idle()
    assert stage.seat.run([]) == ("a", ["a 4"])
    assert [each for each in stage.told if each.error is not None] == [switch, called_off]


def test_an_order_for_one_that_is_on_its_way_back_ends_when_it_is_there(make: Make) -> None:
    stage = make(memory="tight")
    stage.is_held = True
    away = stage.switcher.begin("b")
    load = stage.under_way()
    away.cancel()
    load.go.set()
    load = stage.under_way()
    back = stage.switcher.begin("a")
    load.go.set()
    assert back.wait(LIMIT_S)
    assert back.error is None
    assert stage.names() == ["a 2"]


def test_a_newer_order_fills_the_gap_that_an_older_one_made(make: Make) -> None:
    stage = make(memory="tight")
    stage.is_held = True
    stage.switcher.begin("b")
    load = stage.under_way()
    newer = stage.switcher.begin("c")
    load.go.set()
    stage.under_way().go.set()
    assert newer.wait(LIMIT_S)
    assert newer.replaced == "a"
    assert stage.names() == ["c 2"]


def test_where_neither_can_be_loaded_the_model_is_closed(make: Make) -> None:
    stage = make(memory="tight")
    stage.is_held = True
    switch = stage.switcher.begin("b")
    for _ in range(2):
        load = stage.under_way()
        load.error = ModelLoadError("no")
        load.go.set()
    assert switch.wait(LIMIT_S)
    stage.idle()
    with pytest.raises(ModelClosedError):
        stage.seat.run([])
    with pytest.raises(ModelClosedError):
        stage.switcher.begin("b")


def test_whoever_waits_may_carry_out_the_order_and_be_interrupted_in_it(make: Make) -> None:
    stage = make(memory="tight")
    switch = stage.switcher.begin("b", start=False)
    assert stage.switcher.is_busy
    stage.switcher.carry_out()
    assert switch.done
    stage.switcher.carry_out()
    assert stage.under_way().probe.name == "b 1"
    interrupted = stage.switcher.begin("c", start=False)
    stage.is_held = True
    letting = threading.Thread(target=lambda: interrupt(stage.under_way()))
    letting.start()
    with pytest.raises(KeyboardInterrupt):
        stage.switcher.carry_out()
    letting.join(LIMIT_S)
    assert isinstance(interrupted.error, SwitchCancelledError)
    stage.under_way().go.set()
    stage.idle()
    assert stage.names() == ["b 3"]  # what gave way came back


def interrupt(load: Load) -> None:
    load.error = KeyboardInterrupt()
    load.go.set()


def test_what_ran_before_stands_by_and_comes_back_without_a_load(make: Make) -> None:
    stage = make(standby=1)
    assert stage.switcher.begin("b").wait(LIMIT_S)
    assert stage.switcher.standby == ("a",)
    back = stage.switcher.begin("a")
    assert back.done
    assert back.replaced == "b"
    assert stage.seat.run([]) == ("a", ["a 0"])
    assert stage.switcher.standby == ("b",)
    assert stage.switcher.begin("c").wait(LIMIT_S)
    assert stage.switcher.standby == ("a",)  # only one: `b` went, which was used before it
    assert stage.names() == ["a 0", "c 2"]


def test_one_that_still_has_calls_in_it_comes_back_without_a_load(make: Make) -> None:
    stage = make(standby=1)
    stage.probes[0].gate.clear()
    thread = threading.Thread(target=stage.seat.run, args=([],))
    thread.start()
    assert stage.probes[0].entered.wait(LIMIT_S)
    assert stage.switcher.begin("b").wait(LIMIT_S)
    assert stage.switcher.standby == ()
    assert stage.switcher.begin("a").done
    stage.probes[0].gate.set()
    thread.join(LIMIT_S)
    assert stage.switcher.standby == ("b",)
    assert stage.seat.active == "a"


def test_a_variant_can_be_loaded_ahead(make: Make) -> None:
    stage = make(standby=1)
    stage.switcher.stand_by("b")
    stage.switcher.stand_by("b")
    stage.switcher.stand_by("a")
    assert stage.switcher.standby == ("b",)
    assert stage.seat.active == "a"
    stage.switcher.stand_by("c")
    assert stage.switcher.standby == ("c",)
    assert stage.switcher.begin("c").done
    stage.free(SHORT)
    with pytest.raises(MemoryShortError):
        stage.switcher.stand_by("large")


def test_what_stands_by_is_closed_first_when_memory_gets_short(make: Make) -> None:
    stage = make(standby=2)
    stage.switcher.stand_by("b")
    stage.switcher.stand_by("c")
    stage.free(RESERVE_BYTES)
    stage.switcher.tidy()
    assert len(stage.switcher.standby) == 2
    stage.free(NEED)
    assert stage.switcher.begin("large").wait(LIMIT_S)  # not even with both closed
    assert stage.names() == ["a 0"]
    stage.free(AMPLE)
    stage.switcher.stand_by("b")
    stage.free(NONE)
    stage.switcher.tidy()
    assert stage.names() == ["a 0"]


def test_arguments_that_make_no_sense_are_named(make: Make) -> None:
    stage = make()
    with pytest.raises(UsageError, match="standby=1"):
        stage.switcher.stand_by("b")
    for options, said in (
        ({"memory": "little"}, "memory"),
        ({"standby": -1}, "standby"),
        ({"standby": True}, "standby"),
        ({"memory": "tight", "standby": 1}, "tight"),
    ):
        with pytest.raises(UsageError, match=said):
            Switcher(stage.seat, stage._load, Room(variants()), **options)  # type: ignore[arg-type]


class Switching(RuleBasedStateMachine):
    """Any order of calls, orders, loads that end or fail, and memory that comes and goes."""

    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.TemporaryDirectory()
        self.stage = Stage(Path(self.place.name), standby=1)
        self.stage.is_held = True
        self.load: Load | None = None
        self.calls: list[tuple[threading.Thread, threading.Event, threading.Event]] = []
        self.threads: list[threading.Thread] = []
        self.ending: list[threading.Thread] = []
        self.answers: list[list[Any]] = []
        self.orders: list[Switch] = []

    def settle(self) -> None:
        """Until nothing moves: the thread that loads has no order, or waits for a load or for a call to end."""
        stage = self.stage

        def is_still() -> bool:
            if self.load is None and not stage.loads.empty():
                self.load = stage.loads.get()
            if not stage.seat.is_vacant:
                if not all(begun.is_set() for *_, begun in self.calls) or any(each.is_alive() for each in self.ending):
                    return False
            elif stage.switcher._away is None:  # it waits for the calls in the one that is to give way
                drained = sum(lease.calls for lease in stage.seat._draining)
                return sum(each.inside for each in stage.probes) > drained
            return self.load is not None or not stage.switcher.is_busy

        until(is_still)

    @rule()
    @precondition(lambda self: len(self.calls) < 3)
    def a_call_comes(self) -> None:
        number, gate, begun = len(self.answers), threading.Event(), threading.Event()

        def held() -> int:
            begun.set()
            assert gate.wait(LIMIT_S)
            return number

        answer: list[Any] = []
        self.answers.append(answer)
        thread = threading.Thread(target=lambda: answer.append(self.stage.seat.run([held])[1][1]))
        self.threads.append(thread)
        self.calls.append((thread, gate, begun))
        thread.start()
        self.settle()

    @rule()
    @precondition(lambda self: self.calls)
    def the_oldest_call_ends(self) -> None:
        thread, gate, begun = self.calls.pop(0)
        gate.set()
        if begun.is_set():
            thread.join(LIMIT_S)
        else:
            self.ending.append(thread)  # it waits for an engine, and ends when there is one
        self.settle()

    @rule(id_=st.sampled_from(sorted(SIZES)))
    def an_order_comes(self, id_: str) -> None:
        self.orders.append(self.stage.switcher.begin(id_))
        self.settle()

    @rule()
    @precondition(lambda self: self.orders)
    def the_newest_order_is_called_off(self) -> None:
        switch = self.orders[-1]
        if switch.cancel():
            assert isinstance(switch.error, SwitchCancelledError)
        self.settle()

    @rule(fails=st.sampled_from([False, False, True]))
    @precondition(lambda self: self.load is not None and not self.stage.seat.is_vacant)
    def a_load_ends(self, fails: bool) -> None:
        self._end_load(fails=fails)

    @rule()
    @precondition(lambda self: self.load is not None and self.stage.seat.is_vacant)
    def a_load_ends_in_the_gap(self) -> None:
        self._end_load(fails=False)

    @rule(free=st.sampled_from([AMPLE, SHORT, NONE]))
    def memory_changes(self, free: int) -> None:
        self.stage.free(free)
        self.stage.switcher.tidy()

    @invariant()
    def no_more_is_open_than_is_used(self) -> None:
        inside = sum(1 for each in self.stage.probes if each.inside)
        assert len(self.stage.names()) <= 1 + 1 + inside  # in force, standing by, with calls in them
        assert not any(each.misused for each in self.stage.probes)

    @invariant()
    def what_was_carried_out_last_is_in_force(self) -> None:
        carried_out = [each.variant for each in self.stage.told if each.error is None]
        assert self.stage.seat.active == (["a", *carried_out])[-1]

    def _end_load(self, *, fails: bool) -> None:
        assert self.load is not None
        load, self.load = self.load, None
        load.error = ModelLoadError("no") if fails else None
        load.go.set()
        self.settle()

    def teardown(self) -> None:
        self.stage.is_held = False
        for _, gate, _ in self.calls:
            gate.set()
        if self.load is not None:
            self.load.go.set()
        while not self.stage.loads.empty():
            self.stage.loads.get().go.set()
        until(lambda: not self.stage.switcher.is_busy)
        for thread in self.threads:
            thread.join(LIMIT_S)
        assert all(each.wait(LIMIT_S) for each in self.orders)
        if self.orders and self.orders[-1].error is None:
            assert self.stage.seat.active == self.orders[-1].variant
        assert self.answers == [[number] for number in range(len(self.answers))]
        self.stage.close()
        self.place.cleanup()


TestSwitching = Switching.TestCase
TestSwitching.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
