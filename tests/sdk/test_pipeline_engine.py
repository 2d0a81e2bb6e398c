"""A pipeline answers what the whole model answers, bit for bit and in order, and one bad sample spoils no other."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parallel_stage import LIMIT_S, in_thread, until

from edge_sdk import Engine, Pipeline
from edge_sdk.errors import (
    DelegateError,
    InputShapeError,
    InputValueError,
    ModelClosedError,
    PipelineFullError,
    SegmentsError,
    StageFailedError,
    UsageError,
)
from edge_sdk.manifest import TensorSpec
from edge_sdk.parallel import Place, ReplicaPool, cpu, measure
from edge_sdk.parallel.channel import Channel
from edge_sdk.segments import Segment, Segments

pytestmark = pytest.mark.device

DATA = Path(__file__).parent.parent / "data"
SPLITS = DATA / "splits"
WHOLES = {
    "dense_int8": DATA / "tiny" / "dense_int8.tflite",
    "dense_int8_io": DATA / "tiny" / "dense_int8_io.tflite",
    "dense_free_batch": DATA / "tiny" / "dense_free_batch.tflite",
    "residual": SPLITS / "residual.tflite",
}
RESIDUAL = SPLITS / "residual"

Array = np.ndarray[Any, Any]


def batch(specs: Sequence[TensorSpec], samples: int) -> list[Array]:
    random = np.random.default_rng(samples)
    return [random.normal(0, 1, (samples, *spec.shape[1:])).astype(spec.dtype) for spec in specs]


class Around:
    """An engine around another one, which a test can hold up or make fail."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.inputs, self.outputs = engine.inputs, engine.outputs
        self.calls = self.closed = 0
        self.entered, self.gate = threading.Event(), threading.Event()
        self.gate.set()
        self.before: Callable[[Sequence[Any]], None] = lambda _: None
        self.after: Callable[[list[Any]], list[Any]] = lambda answers: answers

    def run(self, arrays: Sequence[Any]) -> list[Any]:
        self.calls += 1
        self.entered.set()
        assert self.gate.wait(LIMIT_S)
        self.before(arrays)
        return self.after(self.engine.run(arrays))

    def close(self) -> None:
        self.closed += 1
        self.engine.close()


def around(split: Path = RESIDUAL, number: int = 2) -> Around:
    return Around(Engine(split / f"segment-{number}.tflite", stored=True))


def ones(value: float = 1.0) -> list[Array]:
    return [np.full((1, 4), value, np.float32)] * 2


@contextlib.contextmanager
def held_up(**options: Any) -> Iterator[tuple[Pipeline, Around]]:
    """A pipeline whose second stage waits for the test."""
    engine = around()
    engine.gate.clear()
    with Pipeline(RESIDUAL, {2: engine}, **options) as pipeline:
        try:
            yield pipeline, engine
        finally:
            engine.gate.set()


# ------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize("name", list(WHOLES))
@pytest.mark.parametrize("samples", [0, 1, 2, 17])
def test_every_answer_is_the_wholes_bit_for_bit(name: str, samples: int) -> None:
    if name == "dense_free_batch" and samples == 0:
        return
    with Engine(WHOLES[name]) as whole, Pipeline(SPLITS / name) as pipeline:
        assert pipeline.inputs == whole.inputs
        assert pipeline.outputs == whole.outputs
        given = batch(whole.inputs, samples)
        for got, should in zip(pipeline.run(given), whole.run(given), strict=True):
            np.testing.assert_array_equal(got, should, strict=True)


@pytest.mark.parametrize("name", ["dense_int8", "dense_int8_io", "residual"])
def test_one_sample_is_taken_with_and_without_the_batch_dimension(name: str) -> None:
    with Engine(WHOLES[name]) as whole, Pipeline(SPLITS / name) as pipeline:
        given = batch(whole.inputs, 1)
        for sample in (given, [array[0] for array in given]):
            should = whole.run(sample)
            for answers in (pipeline.run(sample), pipeline.submit(sample).result(LIMIT_S), *pipeline.map([sample])):
                assert not isinstance(answers, Exception)
                for got, want in zip(answers, should, strict=True):
                    np.testing.assert_array_equal(got, want, strict=True)


def test_a_stream_is_answered_in_order_and_not_read_ahead_of_what_there_is_room_for() -> None:
    read = 0

    def camera() -> Iterator[list[Array]]:
        nonlocal read
        image = np.zeros((1, 4), np.float32)  # one array for all images, as cameras have it
        for number in range(200):
            read = number + 1
            image[:] = number / 100
            yield [image, image]

    with Engine(WHOLES["residual"]) as whole, Pipeline(RESIDUAL, ahead=1) as pipeline:
        for number, answers in enumerate(pipeline.map(camera())):
            assert read - number <= 3 * 2 + 1
            should = whole.run(ones(np.float32(number / 100)))
            assert not isinstance(answers, Exception)
            np.testing.assert_array_equal(answers[0], should[0], strict=True)
    assert read == 200


def test_callers_at_once_each_get_their_own_answers() -> None:
    with Engine(WHOLES["residual"]) as whole, Pipeline(RESIDUAL) as pipeline:

        def call(number: int) -> bool:
            given = batch(whole.inputs, 20 + number)
            should = whole.run(given)
            return all(np.array_equal(pipeline.run(given)[1], should[1]) for _ in range(3))

        calls = [in_thread(lambda n=n: call(n)) for n in range(5)]
        for thread, _ in calls:
            thread.join(LIMIT_S)
        assert [found for _, found in calls] == [[True]] * 5


def test_segments_of_one_place_are_one_stage_and_a_pool_may_be_one() -> None:
    here = cpu("here")
    far = ReplicaPool([Engine(RESIDUAL / "segment-3.tflite", stored=True) for _ in range(2)])
    with Engine(WHOLES["residual"]) as whole, Pipeline(RESIDUAL, {1: here, 2: here, 3: far}) as pipeline:
        given = batch(whole.inputs, 9)
        np.testing.assert_array_equal(pipeline.run(given)[0], whole.run(given)[0])
        reports = pipeline.reports()
    assert [(each.name, each.segments) for each in reports] == [("here", (1, 2)), ("segment-3", (3,))]
    assert [each.samples for each in reports] == [9, 9]
    # Three tensors that the third segment reads, `early` of them; then the two outputs: 4 floats each.
    assert [each.handed_on_bytes for each in reports] == [48, 32]
    assert all(each.compute_p50_ms is not None and each.compute_p95_ms is not None for each in reports)
    assert [each.queue for each in reports] == [0, 0]


def test_what_the_model_does_not_take_is_refused_before_it_flies() -> None:
    with Pipeline(SPLITS / "dense_int8") as pipeline, Engine(WHOLES["dense_int8"]) as whole:
        good = batch(whole.inputs, 3)
        bad = [good[0].copy()]
        bad[0][2] = np.nan
        for call in (whole.run, pipeline.run):
            with pytest.raises(InputValueError, match="NaN"):
                call(bad)
        with pytest.raises(InputShapeError, match="2 arrays"):
            pipeline.run(good * 2)
        with pytest.raises(InputShapeError, match=r"\[3, 77\]"):
            pipeline.run([np.zeros((3, 77), np.float32)])
        with pytest.raises(InputShapeError, match="a batch of 3 where one sample is taken"):
            pipeline.submit(good)
        assert [each.samples for each in pipeline.reports()] == [0] * 4
    with Pipeline(RESIDUAL) as pipeline:
        with pytest.raises(InputShapeError, match=r"unequal sizes \[2, 3\]"):
            pipeline.run([np.zeros((2, 4), np.float32), np.zeros((3, 4), np.float32)])
        with pytest.raises(InputShapeError):
            pipeline.run([np.zeros((2, 4), np.float32), np.zeros(4, np.float32)])


# ------------------------------------------------------------------------------------------------- trouble


def test_a_stage_that_fails_fails_its_sample_alone_and_says_which_it_is() -> None:
    engine = around()

    def third(_: Sequence[Any]) -> None:
        if engine.calls == 3:
            raise DelegateError("the accelerator stumbled")

    engine.before = third
    with Engine(WHOLES["residual"]) as whole, Pipeline(RESIDUAL, {2: engine}) as pipeline:
        futures = [pipeline.submit(ones(number)) for number in range(6)]
        for number, future in enumerate(futures):
            if number == 2:
                with pytest.raises(
                    StageFailedError, match="stage segment-2: failed: the accelerator stumbled"
                ) as failed:
                    future.result(LIMIT_S)
                assert failed.value.stage == "segment-2"
                assert isinstance(failed.value.__cause__, DelegateError)
            else:
                np.testing.assert_array_equal(future.result(LIMIT_S)[0], whole.run(ones(number))[0])
        assert [each.failures for each in pipeline.reports()] == [0, 1, 0]
        engine.calls = 0
        kinds = [type(each) for each in pipeline.map((ones() for _ in range(5)), return_exceptions=True)]
        assert kinds == [list, list, StageFailedError, list, list]
        engine.calls = 2
        with pytest.raises(StageFailedError):
            pipeline.run([np.ones((5, 4), np.float32)] * 2)


@pytest.mark.parametrize(
    "lie",
    [
        lambda answers: answers[:1],
        lambda answers: [answers[0], *([answers[1].astype(np.float64)] * (len(answers) > 1))] * 2,
        lambda answers: [array[:, :3] for array in answers],
        lambda _: ["text"],
        lambda _: [],
    ],
)
def test_an_engine_that_gives_something_else_than_its_segment_fails_the_sample(
    lie: Callable[[list[Any]], list[Any]],
) -> None:
    engine = around(number=1)  # it gives two tensors
    engine.after = lie
    with Pipeline(RESIDUAL, {1: engine}) as pipeline, pytest.raises(StageFailedError, match="not what it gives"):
        pipeline.run(ones())


def test_a_full_pipeline_makes_who_gives_wait_and_then_says_so() -> None:
    with held_up(ahead=1) as (pipeline, engine):
        futures = [pipeline.submit(ones()) for _ in range(2)]
        assert engine.entered.wait(LIMIT_S)
        # In the second stage, before it, in the first that waits to hand on, and before that.
        futures += [pipeline.submit(ones(), timeout_s=LIMIT_S) for _ in range(2)]
        with pytest.raises(PipelineFullError):
            pipeline.submit(ones(), timeout_s=0.2)
        with pytest.raises(PipelineFullError, match="no room for a sample within 0 s"):
            pipeline.submit(ones(), timeout_s=0)
        engine.gate.set()
        assert all(len(future.result(LIMIT_S)) == 2 for future in futures)
        pipeline.submit(ones()).result(LIMIT_S)


def test_a_stage_that_hangs_is_named_at_the_deadline_and_later_samples_pass() -> None:
    with held_up(deadline_s=2) as (pipeline, engine):
        with pytest.raises(StageFailedError, match="stage segment-2: no answer within 2 s") as late:
            pipeline.run(ones())
        assert late.value.stage == "segment-2"
        engine.gate.set()
        until(lambda: len(pipeline.submit(ones()).result(LIMIT_S)) == 2)


def test_a_sample_that_nobody_waits_for_is_not_computed() -> None:
    with held_up() as (pipeline, engine):
        first = pipeline.submit(ones())
        assert engine.entered.wait(LIMIT_S)
        second = pipeline.submit(ones())
        assert second.cancel()
        engine.gate.set()
        first.result(LIMIT_S)
        pipeline.run(ones())
        with pytest.raises(CancelledError):
            second.result(0)
        assert engine.calls == 2


def test_a_stream_that_is_left_early_leaves_the_pipeline_ready() -> None:
    with Pipeline(RESIDUAL) as pipeline:
        for _ in pipeline.map(ones() for _ in range(1000)):
            break
        gc.collect()
        assert len(pipeline.run(ones())) == 2


# ------------------------------------------------------------------------------------------------- the end


def test_close_answers_what_is_under_way() -> None:
    with held_up() as (pipeline, engine):
        futures = [pipeline.submit(ones()) for _ in range(4)]
        thread, _ = in_thread(pipeline.close)
        until(lambda: not _accepts(pipeline))
        engine.gate.set()
        thread.join(LIMIT_S)
        assert all(len(future.result(0)) == 2 for future in futures)
        assert engine.closed == 1
        pipeline.close()
        assert engine.closed == 1


def _accepts(pipeline: Pipeline) -> bool:
    try:
        pipeline.submit(ones(), timeout_s=0)
    except ModelClosedError:
        return False
    except PipelineFullError:
        return True
    return True


def test_close_without_draining_and_with_a_stage_that_hangs_fails_what_is_under_way() -> None:
    for options in ({"drain": False, "deadline_s": 0.1}, {"deadline_s": 0.1}):
        engine = around()
        engine.gate.clear()
        pipeline = Pipeline(RESIDUAL, {2: engine}, ahead=1)
        futures = [pipeline.submit(ones()) for _ in range(3)]
        blocked, found = in_thread(lambda p=pipeline: [p.submit(ones()) for _ in range(3)])
        assert engine.entered.wait(LIMIT_S)
        pipeline.close(**options)
        blocked.join(LIMIT_S)
        assert isinstance(found[0], ModelClosedError)
        for future in futures:
            with pytest.raises(ModelClosedError):
                future.result(LIMIT_S)
        assert engine.closed == 0
        engine.gate.set()
        until(lambda e=engine: e.closed == 1)


def test_a_forgotten_pipeline_answers_what_it_has_and_ends() -> None:
    engine = around()
    engine.gate.clear()
    pipeline = Pipeline(RESIDUAL, {2: engine})
    future = pipeline.submit(ones())
    assert engine.entered.wait(LIMIT_S)
    del pipeline
    gc.collect()
    engine.gate.set()
    assert len(future.result(LIMIT_S)) == 2
    del future
    gc.collect()
    until(lambda: engine.closed == 1)


def test_a_forked_child_is_told_and_ends() -> None:
    with Pipeline(RESIDUAL) as pipeline:
        pipeline.run(ones())
        child = os.fork()
        if child == 0:
            code = 1
            with contextlib.suppress(BaseException):
                try:
                    pipeline.run(ones())
                except ModelClosedError as error:
                    pipeline.close()
                    code = 0 if "forked" in str(error) else 2
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert len(pipeline.run(ones())) == 2


def test_what_makes_no_pipeline_is_refused_and_leaves_nothing_open(tmp_path: Path) -> None:
    with pytest.raises(SegmentsError, match="no split model here"):
        Pipeline(tmp_path)
    with pytest.raises(UsageError, match="a place for segment 7"):
        Pipeline(RESIDUAL, {7: cpu()})
    for options in ({"ahead": 0}, {"deadline_s": 0}, {"deadline_s": float("nan")}, {"deadline_s": float("inf")}):
        with pytest.raises(UsageError, match="both are above 0"):
            Pipeline(RESIDUAL, **options)
    split = SPLITS / "dense_int8"
    with Engine(split / "segment-2.tflite") as floats, pytest.raises(SegmentsError, match="stored=True"):
        Pipeline(split, {2: floats})
    copy = tmp_path / "copy"
    shutil.copytree(RESIDUAL, copy)
    (copy / "segment-2.tflite").write_bytes(b"no model")
    with pytest.raises(SegmentsError, match=r"is not what split\.json says"):
        Pipeline(copy)

    def refused(path: Path, segment: Segment) -> Engine:
        raise DelegateError("no such accelerator")

    with pytest.raises(DelegateError, match="no such accelerator"):
        Pipeline(RESIDUAL, {3: Place(name="npu", open=refused)})


def test_a_channel_hands_on_in_order_and_lets_all_writers_go_when_it_stops() -> None:
    channel: Channel[int] = Channel(1)
    assert channel.put(0)
    assert channel.put(9, timeout_s=0.01) is None
    writers = []
    for number in (1, 2):
        writers.append(in_thread(lambda n=number: channel.put(n, LIMIT_S)))
        until(lambda n=number: len(channel._waiting) == n)
    assert [channel.get(), channel.get(), channel.get()] == [0, 1, 2]
    for thread, found in writers:
        thread.join(LIMIT_S)
        assert found == [True]
    channel.put(3)
    thread, found = in_thread(lambda: channel.put(4, LIMIT_S))
    until(lambda: len(channel._waiting) == 1)
    channel.stop()
    thread.join(LIMIT_S)
    assert found == [False]
    assert channel.get() is None
    assert channel.put(5) is False


# ------------------------------------------------------------------------------------------------- planned


def test_a_planned_pipeline_says_where_everything_is_and_answers_the_same() -> None:
    def slow(path: Path, _: Segment) -> Around:
        engine = Around(Engine(path, stored=True))
        engine.before = lambda _: threading.Event().wait(0.002) and None
        return engine

    def picky(path: Path, segment: Segment) -> Engine:
        if segment.number < 3:
            raise DelegateError("only the last")
        return Engine(path, stored=True)

    places = [Place(name="slow", open=slow), Place(name="picky", open=picky)]
    costs = measure(Segments(RESIDUAL), places, rounds=2)
    assert [ms is None for ms in costs["picky"]] == [True, True, False]
    assert all(ms is not None and ms >= 2 for ms in costs["slow"])
    with Engine(WHOLES["residual"]) as whole, Pipeline.planned(RESIDUAL, places) as pipeline:
        assert pipeline.assignment is not None
        assert [stage.place for stage in pipeline.assignment.stages] == ["slow", "picky"]
        assert [each.segments for each in pipeline.reports()] == [(1, 2), (3,)]
        given = batch(whole.inputs, 3)
        np.testing.assert_array_equal(pipeline.run(given)[0], whole.run(given)[0])
    with pytest.raises(UsageError, match="no plan runs every segment"):
        Pipeline.planned(RESIDUAL, places[1:])
    with pytest.raises(UsageError, match="two of the same name"):
        measure(Segments(RESIDUAL), [places[0], places[0]])
