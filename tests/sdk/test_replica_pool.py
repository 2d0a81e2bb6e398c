"""A pool answers what one engine answers, bit for bit and in order, whichever replica is slow, hot or broken."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parallel_stage import LIMIT_S, Doubling, broken, in_thread, numbered, spec, until

from edge_sdk import ReplicaPool
from edge_sdk.engine import Engine
from edge_sdk.errors import (
    DelegateError,
    InputDtypeError,
    InputError,
    InputShapeError,
    InputValueError,
    ModelClosedError,
    TransportError,
    UsageError,
)
from edge_sdk.parallel import Condition, Way, best_way
from edge_sdk.parallel.dispatch import Dispatch
from edge_sdk.parallel.job import Job
from edge_sdk.parallel.replica import Replica
from edge_sdk.parallel.reports import State
from edge_sdk.parallel.sharing import Lane, finish_s, piece
from edge_sdk.parallel.ways import possible

pytestmark = pytest.mark.device

TINY = Path(__file__).parent.parent / "data" / "tiny"


# ------------------------------------------------------------------------------------------------- real models


def same_bits(path: Path, batch: Sequence[np.ndarray[Any, Any]], replicas: int = 3) -> None:
    with Engine(path) as alone, ReplicaPool([Engine(path) for _ in range(replicas)]) as pool:
        for _ in range(2):  # the second time with rates
            for got, should in zip(pool.run(batch), alone.run(batch), strict=True):
                assert got.dtype == should.dtype
                np.testing.assert_array_equal(got, should, strict=True)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 64, 257])
@pytest.mark.parametrize("name", ["dense_fp32", "dense_int8_io", "dense_free_batch"])
def test_batches_of_any_size_are_answered_as_by_one_engine(name: str, size: int) -> None:
    path = TINY / f"{name}.tflite"
    with Engine(path) as engine:
        shape = engine.inputs[0].shape[1:]
    if name == "dense_free_batch" and size == 0:
        return
    same_bits(path, [np.random.default_rng(size).random((size, *shape)).astype(np.float32)])


def test_several_inputs_and_outputs_are_divided_together() -> None:
    path = TINY / "two_by_two.tflite"
    with Engine(path) as engine:
        shapes = [each.shape[1:] for each in engine.inputs]
    random = np.random.default_rng(3)
    same_bits(path, [random.random((50, *shape)).astype(np.float32) for shape in shapes])


def test_one_sample_and_lists_are_taken_as_by_one_engine() -> None:
    path = TINY / "dense_fp32.tflite"
    with Engine(path) as alone, ReplicaPool([Engine(path), Engine(path)]) as pool:
        shape = alone.inputs[0].shape[1:]
        sample = np.random.default_rng(1).random(shape).astype(np.float32)
        assert pool.inputs == alone.inputs
        assert pool.outputs == alone.outputs
        for given_ in (sample, sample[np.newaxis], sample.tolist(), [sample.tolist()] * 3, sample.astype(np.float64)):
            np.testing.assert_array_equal(pool.run([given_])[0], alone.run([given_])[0], strict=True)


def test_what_the_model_does_not_take_is_the_callers_error_and_no_replicas() -> None:
    path = TINY / "dense_int8_io.tflite"
    with ReplicaPool([Engine(path), Engine(path)]) as pool:
        shape = pool.inputs[0].shape[1:]
        batch = np.zeros((40, *shape), np.float32)
        with pytest.raises(InputShapeError, match="3 arrays"):
            pool.run([batch] * 3)
        with pytest.raises(InputShapeError, match=r"\[40, 9, 9, 9\]"):
            pool.run([np.zeros((40, 9, 9, 9), np.float32)])
        with pytest.raises(InputDtypeError):
            pool.run([np.full((40, *shape), "a")])
        batch[33] = np.nan
        with pytest.raises(InputValueError):
            pool.run([batch])
        assert [share.failures for share in pool.shares().replicas] == [0, 0]
        assert pool.run([batch[:33]])[0].shape[0] == 33


def test_measuring_finds_a_way_and_says_what_the_others_gave() -> None:
    path = TINY / "dense_fp32.tflite"
    assert possible(1) == (Way(replicas=1, threads=1),)
    assert possible(4) == tuple(Way(replicas=r, threads=t) for r, t in ((1, 1), (1, 4), (2, 2), (4, 1)))
    with ReplicaPool.measured(path, batch=5, cores=2) as pool:
        ways = pool.ways
        assert ways is not None
        assert {each.way for each in ways.timed} == set(possible(2))
        assert ways.best.samples_per_s == max(each.samples_per_s for each in ways.timed)
        assert len(pool.shares().replicas) == ways.best.way.replicas
        shape = pool.inputs[0].shape[1:]
        assert len(pool.run([np.zeros((9, *shape), np.float32)])[0]) == 9
    tight = best_way(path, batch=2, cores=2, memory_bytes=1, rounds=1)
    assert tight.too_large == (Way(replicas=2, threads=1),)
    for wrong in ({"batch": 0}, {"cores": -1}, {"cores": 100_000}, {"rounds": 0}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            best_way(path, **wrong)


# ------------------------------------------------------------------------------------------------- sharing out


def test_a_faster_replica_computes_more() -> None:
    slow, fast = Doubling(0.02), Doubling(0.001)
    with ReplicaPool([slow, fast]) as pool:
        batch = numbered(100)
        for _ in range(2):
            np.testing.assert_array_equal(pool.run([batch])[0], batch * 2)
    assert slow.seen + fast.seen >= Counter(dict.fromkeys(range(100), 2))
    assert fast.seen.total() > slow.seen.total()


def played(*sample_s: float) -> tuple[Dispatch, list[Replica]]:
    """A dispatch whose replicas are known to be so fast; the tests play the clock, from 100 s on."""
    replicas = [Replica(str(number), Doubling(), None, 0.0) for number in range(len(sample_s))]
    for replica, each_s in zip(replicas, sample_s, strict=True):
        job = Job([numbered(1)])
        replica.begin(job.take(1), 100.0 - each_s)
        replica.answered(1, 100.0)
    return Dispatch(replicas), replicas


def batch_of(samples: int) -> Job:
    return Job([numbered(samples)], samples=samples, is_whole=False, most=samples)


def test_the_last_sample_goes_to_who_is_done_with_it_first() -> None:
    dispatch, (slow, fast) = played(0.3, 0.02)
    dispatch.add(batch_of(12), 100.0)
    assert dispatch.take(slow, 100.0) == (None, pytest.approx(0.24))  # until the other will have done all of it
    part, _ = dispatch.take(fast, 100.0)
    assert part is not None
    assert (part.start, part.stop) == (0, 6)
    assert dispatch.take(slow, 100.0) == (None, pytest.approx(0.24))
    dispatch.add(batch_of(20), 100.0)  # behind the other call; now there is enough for both
    part, _ = dispatch.take(slow, 100.0)
    assert part is not None
    assert part.job.samples == 20
    assert part.size == 1


def test_a_slow_replica_is_needed_where_the_fast_one_is_left_out() -> None:
    dispatch, (slow, fast) = played(0.3, 0.02)
    dispatch.add(batch_of(12), 100.0)
    part, _ = dispatch.take(fast, 100.0)
    assert part is not None
    assert dispatch.failed(fast, part, DelegateError("gone"), 100.01) == []
    part, _ = dispatch.take(slow, 100.01)
    assert part is not None
    assert part.start == 0
    assert dispatch.take(fast, 100.02) == (None, pytest.approx(0.24))  # until it is tried again
    part, _ = dispatch.take(fast, 100.27)
    assert part is not None
    assert part.size == 1


def test_a_replica_others_keep_busy_is_measured_anew_before_it_gets_much() -> None:
    dispatch, (cpu, shared) = played(0.01, 0.001)
    shared.told(Condition(busy=0.95), 100.5)
    for now_s, size in ((100.5, True), (101.5, False)):
        job = batch_of(100)
        dispatch.add(job, now_s)
        part, _ = dispatch.take(shared, now_s)
        assert part is not None
        assert (part.size > 1) == size
        shared.end(now_s - 0.5)
        dispatch.drop(job)
    assert cpu.share(101.0).rate == pytest.approx(100)


def test_a_fixed_batch_is_taken_in_multiples_and_never_cut() -> None:
    engines = [Doubling(0.001, shape=(8, 4)) for _ in range(2)]
    with ReplicaPool(engines) as pool:
        np.testing.assert_array_equal(pool.run([numbered(40)])[0], numbered(40) * 2)
        sizes = [size for each in engines for size in each.sizes]
        assert set(sizes) == {8}
        assert len(sizes) >= 5
        pool.run([numbered(8)])
        pool.run([numbered(7)])  # no multiple: the engine may refuse it, this one does not
        assert {size for each in engines for size in each.sizes} == {7, 8}


def test_callers_at_once_each_get_their_own_answers() -> None:
    engines = [Doubling(0.0002), Doubling(0.0005), Doubling(0.0)]
    with ReplicaPool(engines) as pool:

        def call(number: int) -> bool:
            batch = numbered(30) + number
            return all(np.array_equal(pool.run([batch])[0], batch * 2) for _ in range(5))

        calls = [in_thread(lambda n=n: call(n)) for n in range(6)]
        for thread, _ in calls:
            thread.join(LIMIT_S)
        assert [found for _, found in calls] == [[True]] * 6


def test_a_short_call_does_not_wait_for_a_long_one_that_came_before() -> None:
    with ReplicaPool([Doubling(0.002)]) as pool:
        pool.run([numbered(1)])
        thread, found = in_thread(lambda: pool.run([numbered(1500)]))
        until(lambda: pool.shares().waiting > 0)
        pool.run([numbered(1)])
        assert not found
        assert thread.is_alive()
        thread.join(LIMIT_S)


@given(
    sizes=st.lists(st.integers(0, 60), min_size=1, max_size=4),
    speeds=st.lists(st.sampled_from([0.0, 0.0001, 0.0004]), min_size=1, max_size=4),
    faults=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6)), max_size=3),
)
@settings(max_examples=40, deadline=None)
def test_every_sample_is_answered_once_and_in_order(
    sizes: list[int], speeds: list[float], faults: list[tuple[int, int]]
) -> None:
    calls = [0] * len(speeds)

    def failing(number: int) -> Callable[[Sequence[Any]], None]:
        def fails(_: Sequence[Any]) -> None:
            calls[number] += 1
            if number and (number, calls[number]) in faults:  # the first never fails
                raise DelegateError("now and then")

        return fails

    engines = [Doubling(speed, fails=failing(number)) for number, speed in enumerate(speeds)]
    with ReplicaPool(engines) as pool:
        for size in sizes:
            np.testing.assert_array_equal(pool.run([numbered(size)])[0], numbered(size) * 2, strict=True)
        shares = pool.shares()
    seen = sum((each.seen for each in engines), start=Counter[float]())
    assert seen >= Counter({number: sum(size > number for size in sizes) for number in range(max(sizes))})
    assert set(seen) == set(range(max(sizes)))
    assert shares.waiting == 0
    assert all(each.closed == 1 for each in engines)


@given(
    left=st.integers(1, 500),
    sample_s=st.floats(1e-7, 2.0),
    others=st.lists(st.builds(Lane, free_in_s=st.floats(0, 2), sample_s=st.floats(1e-7, 2.0)), max_size=4),
)
def test_a_piece_is_never_empty_and_never_more_than_is_left(left: int, sample_s: float, others: list[Lane]) -> None:
    size = piece(left, sample_s, others)
    assert 1 <= size <= left
    # Others are never kept waiting for long by more than a sample.
    assert size == 1 or size * sample_s <= 0.25 + 1e-9


@given(
    left=st.integers(1, 30),
    lanes=st.lists(st.builds(Lane, free_in_s=st.floats(0, 2), sample_s=st.floats(0.01, 2.0)), min_size=1, max_size=4),
)
def test_no_schedule_of_whole_samples_ends_before_the_estimate(left: int, lanes: list[Lane]) -> None:
    ends = [lane.free_in_s for lane in lanes]
    for _ in range(left):  # each sample to who is done with it first: optimal for equal samples
        soonest = min(range(len(lanes)), key=lambda number: ends[number] + lanes[number].sample_s)
        ends[soonest] += lanes[soonest].sample_s
    used = [end for end, lane in zip(ends, lanes, strict=True) if end > lane.free_in_s]
    assert finish_s(left, lanes) <= max(used) + 1e-6
    assert finish_s(left, [lanes[0]]) == pytest.approx(lanes[0].free_in_s + left * lanes[0].sample_s)


# ------------------------------------------------------------------------------------------------- trouble


def test_a_replica_that_fails_in_the_middle_loses_its_piece_to_the_others() -> None:
    good = Doubling(0.001)
    calls: list[int] = []

    def third(_: Sequence[Any]) -> None:
        calls.append(1)
        if len(calls) >= 3:
            raise TransportError("the host is gone")

    with ReplicaPool([good, Doubling(0.001, fails=third)], names=["cpu", "far"]) as pool:
        np.testing.assert_array_equal(pool.run([numbered(90)])[0], numbered(90) * 2)
        far = pool.shares().replicas[1]
        assert (far.failures >= 1, far.state, far.trouble) == (True, State.FAILED, "the host is gone")


def test_a_replica_that_recovers_is_tried_with_one_sample_and_works_again() -> None:
    is_broken = True

    def fails(arrays: Sequence[Any]) -> None:
        if is_broken:
            broken(arrays)

    shaky = Doubling(0.001, fails=fails)
    with ReplicaPool([Doubling(0.002), shaky], names=["cpu", "shaky"]) as pool:
        until(lambda: pool.run([numbered(20)]) and pool.shares().replicas[1].failures >= 1)  # type: ignore[arg-type]
        is_broken = False
        pool.run([numbered(20)])
        until(lambda: pool.run([numbered(20)]) and pool.shares().replicas[1].state is State.READY)  # type: ignore[arg-type]
        assert shaky.sizes[0] == 1


def test_when_all_fail_the_caller_gets_the_error_of_the_last_and_the_next_call_tries_again() -> None:
    is_broken = True

    def fails(arrays: Sequence[Any]) -> None:
        if is_broken:
            broken(arrays)

    with ReplicaPool([Doubling(fails=fails), Doubling(fails=fails)]) as pool:
        for _ in range(2):
            with pytest.raises(DelegateError, match="the accelerator is gone"):
                pool.run([numbered(30)])
        is_broken = False
        np.testing.assert_array_equal(pool.run([numbered(30)])[0], numbered(30) * 2)


@pytest.mark.parametrize("raised", [ValueError("no tensor"), SystemExit(3)])
def test_an_engine_of_others_may_raise_anything_and_the_pool_goes_on(raised: BaseException) -> None:
    """A thread that ended with it left its piece to nobody, and every later call to its deadline."""
    is_broken = True

    def fails(_: Sequence[Any]) -> None:
        if is_broken:
            raise raised

    with ReplicaPool([Doubling(fails=fails)], deadline_s=20) as pool:
        with pytest.raises(DelegateError, match=f"the last with {type(raised).__name__}") as told:
            pool.run([numbered(3)])
        assert told.value.__cause__ is raised
        is_broken = False
        np.testing.assert_array_equal(pool.run([numbered(3)])[0], numbered(3) * 2)


@pytest.mark.parametrize(
    "answer",
    [None, [], [np.zeros((1, 9), np.float32)], [np.zeros((1, 4), np.float32)] * 2, ["no array"], [np.zeros(4, "i4")]],
)
def test_a_replica_that_lies_about_its_outputs_is_left_out(answer: Any) -> None:
    class Liar(Doubling):
        def run(self, arrays: Sequence[Any]) -> Any:
            self.entered.set()
            return answer

    honest = Doubling(0.001)
    liar = Liar()
    with ReplicaPool([honest, liar]) as pool:
        pool.run([numbered(1)])
        pool.run([numbered(1)])
        np.testing.assert_array_equal(pool.run([numbered(20)])[0], numbered(20) * 2)


def test_what_a_replica_that_hangs_holds_is_computed_by_another() -> None:
    stuck = Doubling()
    stuck.gate.clear()
    with ReplicaPool([Doubling(0.001), stuck], names=["cpu", "stuck"]) as pool:
        pool.run([numbered(1)])
        until(lambda: pool.run([numbered(50)]) and stuck.entered.is_set())  # type: ignore[arg-type]
        np.testing.assert_array_equal(pool.run([numbered(50)])[0], numbered(50) * 2)
        assert pool.shares().replicas[1].state is State.LATE
        np.testing.assert_array_equal(pool.run([numbered(50)])[0], numbered(50) * 2)  # at once: nobody counts on it
        stuck.gate.set()
        until(lambda: pool.shares().replicas[1].state is State.READY)
        np.testing.assert_array_equal(pool.run([numbered(50)])[0], numbered(50) * 2)


def test_a_call_that_nobody_answers_ends_at_the_deadline() -> None:
    stuck = Doubling()
    stuck.gate.clear()
    with ReplicaPool([stuck], deadline_s=0.15) as pool:
        with pytest.raises(DelegateError, match=r"no replica answered within 0\.15 s"):
            pool.run([numbered(3)])
        stuck.gate.set()


def spares(pool: ReplicaPool, replica: Doubling) -> bool:
    """Whether calls go past it; it stands in where the others are late."""
    replica.entered.clear()
    for _ in range(5):
        np.testing.assert_array_equal(pool.run([numbered(40)])[0], numbered(40) * 2)
    return not replica.entered.is_set()


def test_a_hot_replica_gets_no_new_work_until_it_has_cooled() -> None:
    temp_c = 50.0
    hot, cpu = Doubling(0.0005), Doubling(0.001)
    watch = {"npu": lambda: Condition(temp_c=temp_c, limit_c=80.0)}
    with ReplicaPool([hot, cpu], names=["npu", "cpu"], watch=watch) as pool:
        pool.run([numbered(40)])
        until(lambda: pool.run([numbered(20)]) is not None and bool(hot.sizes))
        temp_c = 80.0
        until(lambda: pool.run([numbered(20)]) is not None and pool.shares().replicas[0].state is State.HOT)
        until(lambda: spares(pool, hot))
        temp_c = 78.0  # below its limit, but not yet cool
        time.sleep(0.25)
        until(lambda: spares(pool, hot))
        temp_c = 70.0
        until(lambda: pool.run([numbered(20)]) is not None and hot.entered.is_set())


def test_when_all_are_hot_the_least_hot_answers() -> None:
    first, second = Doubling(), Doubling()
    watch = {
        "first": lambda: Condition(temp_c=95.0, limit_c=80.0),
        "second": lambda: Condition(temp_c=91.0, limit_c=90.0),
    }
    with ReplicaPool([first, second], names=["first", "second"], watch=watch) as pool:
        pool.run([numbered(4)])
        until(lambda: all(share.condition for share in pool.shares().replicas) or bool(pool.run([numbered(4)])))
        until(lambda: spares(pool, first))


def test_a_hot_replica_whose_sensor_falls_silent_stays_hot_for_ten_minutes() -> None:
    replica = Replica("npu", Doubling(), None, 0.0)
    replica.told(Condition(temp_c=90.0, limit_c=80.0), 1.0)
    for silent in (None, Condition(busy=0.1)):
        replica.told(silent, 500.0)
        assert replica.share(500.0).state is State.HOT
    replica.told(None, 602.0)
    assert replica.share(602.0).state is State.READY


def test_calls_of_unknown_size_say_nothing_of_how_fast_a_replica_is() -> None:
    with ReplicaPool([Engine(TINY / "dense_fp32.tflite")]) as pool:
        width = pool.inputs[0].shape[1]
        pool.run([[[0.0] * width] * 9])
        pool.run([np.zeros((0, width), np.float32)])
        assert pool.shares().replicas[0].rate is None
        pool.run([np.zeros(width, np.float32)])
        assert pool.shares().replicas[0].rate is not None


def test_a_watch_that_fails_or_says_nothing_keeps_nobody_from_working() -> None:
    def fails() -> Condition:
        raise OSError("no such sensor")

    with ReplicaPool([Doubling(), Doubling()], names=["a", "b"], watch={"a": fails, "b": lambda: None}) as pool:
        until(lambda: bool(pool.run([numbered(9)])) and pool.shares().replicas[0].condition is not None)
        condition = pool.shares().replicas[0].condition
        assert condition is not None
        assert condition.reason == "its watch failed: no such sensor"


@pytest.mark.parametrize("watch", [lambda: 81.5, lambda: sys.exit(1)])
def test_a_watch_that_gives_no_condition_keeps_nobody_from_working(watch: Any) -> None:
    with ReplicaPool([Doubling()], names=["a"], watch={"a": watch}, deadline_s=20) as pool:
        np.testing.assert_array_equal(pool.run([numbered(3)])[0], numbered(3) * 2)
        condition = pool.shares().replicas[0].condition
        assert condition is not None
        assert "its watch" in condition.reason


# ------------------------------------------------------------------------------------------------- the end


def test_close_waits_for_calls_under_way_and_refuses_later_ones() -> None:
    engines = [Doubling(0.001), Doubling(0.001)]
    for each in engines:
        each.gate.clear()
    pool = ReplicaPool(engines)
    calls = [in_thread(lambda: pool.run([numbered(60)])) for _ in range(3)]
    until(lambda: all(each.entered.is_set() for each in engines))
    for each in engines:
        each.gate.set()
    pool.close()
    for thread, found in calls:
        thread.join(LIMIT_S)
        assert isinstance(found[0], (list, ModelClosedError))
    with pytest.raises(ModelClosedError):
        pool.run([numbered(1)])
    pool.close()
    assert [each.closed for each in engines] == [1, 1]
    assert {share.state for share in pool.shares().replicas} == {State.CLOSED}


def test_close_does_not_wait_for_ever_for_a_replica_that_hangs() -> None:
    stuck = Doubling()
    stuck.gate.clear()
    pool = ReplicaPool([stuck])
    thread, found = in_thread(lambda: pool.run([numbered(3)]))
    assert stuck.entered.wait(LIMIT_S)
    pool.close(deadline_s=0.1)
    thread.join(LIMIT_S)
    assert isinstance(found[0], ModelClosedError)
    assert stuck.closed == 0
    stuck.gate.set()
    until(lambda: stuck.closed == 1)


def test_a_forgotten_pool_ends_its_threads_and_closes_its_engines() -> None:
    engines = [Doubling(), Doubling()]
    pool = ReplicaPool(engines)
    pool.run([numbered(5)])
    del pool
    gc.collect()
    until(lambda: all(each.closed == 1 for each in engines))


def test_a_forked_child_is_told_and_ends() -> None:
    path = TINY / "dense_fp32.tflite"
    with ReplicaPool([Engine(path), Engine(path)]) as pool:
        shape = pool.inputs[0].shape[1:]
        batch = np.zeros((8, *shape), np.float32)
        pool.run([batch])
        child = os.fork()
        if child == 0:
            code = 1
            with contextlib.suppress(BaseException):
                try:
                    pool.run([batch])
                except ModelClosedError as error:
                    pool.close()
                    code = 0 if "forked" in str(error) else 2
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert len(pool.run([batch])[0]) == 8


@pytest.mark.parametrize(
    ("engines", "more", "reason"),
    [
        ([], {}, "without engines"),
        ([Doubling(), Doubling(shape=(1, 5))], {}, "other tensors"),
        ([Doubling(), Doubling()], {"names": ["a", "a"]}, "1 names for 2 engines"),
        ([Doubling()], {"watch": {"b": lambda: None}}, "'b', which is no replica"),
        ([Doubling()], {"deadline_s": 0}, "deadline_s is 0"),
        ([Doubling()], {"deadline_s": float("nan")}, "deadline_s is nan"),
        ([Doubling()], {"deadline_s": float("inf")}, "deadline_s is inf"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(engines: list[Any], more: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        ReplicaPool(engines, **more)


def test_a_model_without_a_batch_goes_to_one_replica_whole() -> None:
    class Fixed(Doubling):
        def __init__(self) -> None:
            super().__init__(shape=(4, 4))
            self.outputs = (spec("y", (1,)),)

    engines = [Fixed(), Fixed()]
    with ReplicaPool(engines) as pool:
        pool.run([numbered(8)])
        assert {size for each in engines for size in each.sizes} == {8}
        with pytest.raises(InputError):
            pool.run([numbered(8, width=5)])


@pytest.mark.parametrize("forgotten", ["ReplicaPool([Engine(tiny), Engine(tiny)])", "Pipeline(split)"])
def test_a_program_that_forgets_to_close_ends_at_once(forgotten: str) -> None:
    code = (
        "import sys, threading, numpy as np\n"
        "from edge_sdk import Engine, Pipeline, ReplicaPool\n"
        f"tiny, split = {str(TINY / 'dense_fp32.tflite')!r}, {str(TINY.parent / 'splits' / 'dense_int8')!r}\n"
        f"it = {forgotten}\n"
        "batch = [np.zeros((64, *it.inputs[0].shape[1:]), np.float32)]\n"
        # A traceback that a thread prints while the interpreter ends can be fatal before Python 3.12.
        "threading.excepthook = lambda told: None\n"
        "def call():\n"
        "    while True:\n"
        "        it.run(batch)\n"
        "threading.Thread(target=call, daemon=True).start()\n"
        "it.run(batch)\n"
        "print('done')\n"
    )
    told = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False, timeout=LIMIT_S
    )
    assert (told.returncode, told.stdout) == (0, "done\n"), told.stderr
