"""A hedged engine: who answers when, what is counted, and that nobody waits for a remote that stalls."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from remote_stage import ONES, Asked, Stage, good, http, says, stalls

from edge_sdk import Hedged, RemoteEngine
from edge_sdk.errors import DelegateError, InputError, InputShapeError, ModelClosedError, UsageError
from edge_sdk.manifest import TensorSpec
from edge_sdk.remote.budget import RetryBudget
from edge_sdk.remote.errands import Counts, Errands

pytestmark = pytest.mark.device

PATIENCE_S = 30


class Here:
    """The engine of this machine: three times its input, so that its answers are told from the stage's."""

    inputs = (TensorSpec(name="x", shape=(-1, 4), dtype="float32"),)
    outputs = (TensorSpec(name="y", shape=(-1, 4), dtype="float32"),)

    def __init__(self, takes_s: float = 0.0) -> None:
        self.takes_s = takes_s
        self.is_closed = False
        self.fails = False

    def run(self, arrays: Sequence[Any]) -> list[Any]:
        if arrays[0].shape[1:] != (4,):
            raise InputShapeError("another shape")
        if self.fails:
            raise DelegateError("it broke")
        time.sleep(self.takes_s)
        return [arrays[0] * 3]

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def stage() -> Iterator[Stage]:
    with Stage() as stage:
        yield stage


def hedged(stage: Stage, local: Here | None = None, **options: Any) -> Hedged:
    remote = RemoteEngine(stage.url, model="m", deadline_s=30.0, budget=RetryBudget(most=0))
    return Hedged(remote, local or Here(), **{"deadline_s": 20.0} | options)


def until(holds: Callable[[], object]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.005)


def test_the_remote_answers_while_it_is_in_time(stage: Stage) -> None:
    with hedged(stage) as engine:
        assert engine.inputs == Here.inputs
        for _ in range(3):
            assert np.array_equal(engine.run([ONES])[0], ONES * 2)
        counts = engine.counts
    assert (counts.calls, counts.remote, counts.local) == (3, 3, 0)
    assert counts.remote_p50_ms is not None
    assert counts.remote_p95_ms is not None
    assert 0 < counts.remote_p50_ms <= counts.remote_p95_ms


def test_a_remote_that_is_late_is_answered_for_and_its_answer_is_dropped(stage: Stage) -> None:
    go = threading.Event()

    def late(sock: socket.socket, asked: Asked, stopped: threading.Event) -> None:
        go.wait(PATIENCE_S)
        good(sock, asked, stopped)

    stage.script = [late]
    with hedged(stage, deadline_s=0.05) as engine:
        assert np.array_equal(engine.run([ONES])[0], ONES * 3)
        assert (engine.counts.hedged, engine.counts.local, engine.counts.late) == (1, 1, 0)
        go.set()
        until(lambda: engine.counts.late == 1)
        assert engine.counts.remote == 0
        assert engine.counts.remote_p50_ms is not None


def test_a_remote_that_fails_is_answered_for_at_once(stage: Stage) -> None:
    stage.script = [says(http(b'{"error": "no"}', status="500 Internal Server Error")), says(b""), good]
    with hedged(stage, deadline_s=1000.0) as engine:
        assert np.array_equal(engine.run([ONES])[0], ONES * 3)
        assert np.array_equal(engine.run([ONES])[0], ONES * 3)
        assert np.array_equal(engine.run([ONES])[0], ONES * 2)
        counts = engine.counts
    assert (counts.failed, counts.hedged, counts.local, counts.remote) == (2, 0, 2, 1)


def test_a_remote_that_stalls_holds_a_bounded_number_of_calls(stage: Stage) -> None:
    stage.script = [stalls]
    with hedged(stage, deadline_s=0.02, outstanding=2) as engine:
        for _ in range(6):
            assert np.array_equal(engine.run([ONES])[0], ONES * 3)
        counts = engine.counts
        assert (counts.hedged, counts.full, counts.local) == (2, 4, 6)
        until(lambda: len(stage.inferences) == 2)
        stage.script = [good]
        stage.hang_up()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_call_that_came_as_its_thread_broke_down_blocks_no_other() -> None:
    sent: list[object] = []

    def took(_: float) -> None:  # in the thread, once it is free for another call
        if not sent:
            sent.append(errands.send([ONES]))
            raise ZeroDivisionError

    errands = Errands(Here().run, Counts(took), most=1)
    errands.ask([ONES], 0.0)
    until(lambda: sent and not errands._threads)
    until(lambda: errands.ask([ONES], PATIENCE_S)[1] is not None)
    errands.end()
    errands.join()


def test_a_local_engine_slower_than_the_deadline_leaves_all_of_it_to_the_remote(stage: Stage) -> None:
    with hedged(stage, Here(takes_s=0.06), deadline_s=0.05) as engine:
        assert engine.counts.local_ms > 50
        until(lambda: np.array_equal(engine.run([ONES])[0], ONES * 2))


def test_what_the_model_does_not_take_is_the_callers_business(stage: Stage) -> None:
    with hedged(stage) as engine:
        with pytest.raises(InputError):
            engine.run([np.ones((1, 5), np.float32)])
        assert (engine.counts.failed, engine.counts.local) == (0, 0)
    assert stage.inferences == []


def test_when_both_fail_the_local_ones_error_is_raised(stage: Stage) -> None:
    stage.script = [says(http(b"{}", status="500 Internal Server Error"))]
    here = Here()
    with hedged(stage, here) as engine:
        here.fails = True
        with pytest.raises(DelegateError, match="it broke"):
            engine.run([ONES])


def test_engines_that_do_not_take_or_give_the_same_are_refused(stage: Stage) -> None:
    class Other(Here):
        outputs = (TensorSpec(name="y", shape=(-1, 5), dtype="float32"),)

    class Flat(Here):
        outputs = (TensorSpec(name="y", shape=(4,), dtype="float32"),)

    class Scalar(Here):
        outputs = (TensorSpec(name="y", shape=(), dtype="float32"),)

    class Turned(Here):
        inputs = tuple(TensorSpec(name=name, shape=(-1, 4), dtype="float32") for name in "ab")

    class Straight(Here):
        inputs = tuple(TensorSpec(name=name, shape=(-1, 4), dtype="float32") for name in "ba")

    with RemoteEngine(stage.url, model="m") as remote, pytest.raises(InputShapeError):
        Hedged(remote, Other(), deadline_s=1)
    for remote, local in ((Turned(), Straight()), (Scalar(), Flat())):
        with pytest.raises(InputShapeError):
            Hedged(remote, local, deadline_s=1)


@pytest.mark.parametrize("options", [{"deadline_s": 0}, {"deadline_s": float("nan")}, {"outstanding": 0}])
def test_arguments_that_make_no_sense_are_refused(options: Any) -> None:
    with pytest.raises(UsageError):
        Hedged(Here(), Here(), **{"deadline_s": 1.0} | options)


def test_every_call_of_many_threads_is_answered_once_whatever_happens(stage: Stage) -> None:
    number = iter(range(10_000))

    def moody(sock: socket.socket, asked: Asked, stopped: threading.Event) -> None:
        mood = next(number) % 4
        if mood == 0:
            stopped.wait(0.03)
        if mood == 1:
            raise ConnectionAbortedError
        if mood == 2:
            sock.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
            return
        good(sock, asked, stopped)

    stage.script = [moody]
    with hedged(stage, deadline_s=0.02) as engine, ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda value: (value, engine.run([ONES * value])[0]), range(1, 121)))
        counts = engine.counts
    assert all(np.array_equal(answer, ONES * value * 2) or np.array_equal(answer, ONES * value * 3)
               for value, answer in answers)  # fmt: skip
    assert counts.calls == counts.remote + counts.local == 120
    assert counts.local == counts.hedged + counts.failed + counts.full


def test_it_closes_both_and_says_so(stage: Stage) -> None:
    here = Here()
    engine = hedged(stage, here)
    engine.run([ONES])
    engine.close()
    engine.close()
    assert here.is_closed
    with pytest.raises(ModelClosedError):
        engine.run([ONES])


def test_a_forgotten_one_leaves_nothing(stage: Stage) -> None:
    engine = hedged(stage)
    engine.run([ONES])
    before = threading.active_count()
    del engine
    until(lambda: threading.active_count() < before)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_told_to_open_its_own(stage: Stage) -> None:
    with hedged(stage) as engine:
        engine.run([ONES])
        child = os.fork()
        if child == 0:
            status = 1
            try:
                engine.run([ONES])
            except ModelClosedError as error:
                status = 0 if "fork" in str(error) else 2
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert np.array_equal(engine.run([ONES])[0], ONES * 2)
