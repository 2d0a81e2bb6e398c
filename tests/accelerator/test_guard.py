"""An accelerator with its twin behind it: every call is answered, and right, whatever the accelerator does."""

from __future__ import annotations

import gc
import logging
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from accelerator_stage import request

from edge_sdk.delegates.findings import Findings
from edge_sdk.engine import Engine
from edge_sdk.errors import InputShapeError, ModelClosedError, ModelLoadError, UsageError
from edge_sdk.guard import DelegateEvent, GuardedEngine, Happening
from edge_sdk.isolation import IsolatedEngine, _process
from edge_sdk.opening import open_engine

pytestmark = [pytest.mark.accelerator, pytest.mark.device]

X = np.array([[0.5, -1.0, 2.0, 0.25]], np.float32)
NEVER_S = 3600.0
Open = Callable[..., GuardedEngine]


class Told:
    """What was reported."""

    def __init__(self) -> None:
        self.events: list[DelegateEvent] = []
        self.came = threading.Condition()

    def __call__(self, event: DelegateEvent) -> None:
        with self.came:
            self.events.append(event)
            self.came.notify_all()

    def wait_for(self, happening: Happening) -> DelegateEvent:
        with self.came:
            assert self.came.wait_for(lambda: any(e.happening is happening for e in self.events), 60)
            return next(event for event in self.events if event.happening is happening)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def guarded(mock_library: Path, dense: Path, told: Told) -> Open:
    """Opens the mock with the CPU behind it."""

    def make(*, canary_s: float = NEVER_S, quarantine_s: float = NEVER_S, **options: object) -> GuardedEngine:
        engine = open_engine(
            dense,
            delegate=request(mock_library, **options),
            report=told,
            canary_s=canary_s,
            quarantine_s=quarantine_s,
            deadline_s=0.5 if str(options.get("fail")).startswith("hang") and "gate" not in options else 60.0,
            findings=Findings(None),
        )
        assert isinstance(engine, GuardedEngine)
        return engine

    return make


@pytest.fixture
def right(dense: Path) -> np.ndarray:
    with Engine(dense) as engine:
        return engine.run([X])[0]


def test_while_all_is_well_the_accelerator_computes(guarded: Open, told: Told, right: np.ndarray) -> None:
    with guarded() as engine:
        assert engine.computes_on.endswith("libmock_delegate.so")
        np.testing.assert_allclose(engine.run([X])[0], right, atol=1e-6)
    assert not told.events


@pytest.mark.parametrize(
    "fail",
    ["create", "silent", "prepare", "invoke", "crash-create", "crash-prepare", "crash", "hang-create", "nan", "wrong"],
)
def test_one_that_does_not_work_from_the_start_is_reported_and_the_twin_answers(
    guarded: Open, told: Told, right: np.ndarray, fail: str
) -> None:
    with guarded(fail=fail) as engine:
        assert engine.computes_on == "cpu"
        np.testing.assert_array_equal(engine.run([X])[0], right)
        (event,) = told.events
        assert event.happening is Happening.FELL_BACK
        assert event.reason == engine.reason
        assert "the CPU computes: " in str(event)


@pytest.mark.parametrize("fail", ["invoke", "crash", "nan"])
def test_one_that_fails_later_loses_no_call_and_is_quarantined(
    guarded: Open, told: Told, right: np.ndarray, fail: str, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    with guarded(fail=fail, gate=gate) as engine:
        np.testing.assert_allclose(engine.run([X])[0], right, atol=1e-6)
        gate.touch()
        for _ in range(3):
            np.testing.assert_array_equal(engine.run([X])[0], right)
        assert engine.computes_on == "cpu"
        assert [event.happening for event in told.events] == [Happening.QUARANTINED]


def test_one_that_computes_wrong_is_found_out_by_the_canary(
    guarded: Open, told: Told, right: np.ndarray, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    with guarded(fail="wrong", gate=gate, canary_s=0) as engine:
        np.testing.assert_allclose(engine.run([X])[0], right, atol=1e-6)
        gate.touch()
        np.testing.assert_array_equal(engine.run([X])[0], right)
    assert "computes wrong" in told.events[0].reason


def test_after_its_quarantine_one_that_works_again_computes_again(
    guarded: Open, told: Told, right: np.ndarray, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    with guarded(fail="crash", gate=gate, quarantine_s=0.05) as engine:
        assert engine.computes_on == "cpu"
        gate.unlink()
        told.wait_for(Happening.RESTORED)
        assert engine.computes_on != "cpu"
        assert engine.reason == ""
        np.testing.assert_allclose(engine.run([X])[0], right, atol=1e-6)


def test_many_threads_lose_no_call_to_a_crash(guarded: Open, told: Told, right: np.ndarray, tmp_path: Path) -> None:
    gate, wrong = tmp_path / "gate", []
    with guarded(fail="crash", gate=gate) as engine:

        def call() -> None:
            for count in range(40):
                if count == 10:
                    gate.touch()
                if not np.allclose(engine.run([X])[0], right, atol=1e-6):
                    wrong.append(count)

        threads = [threading.Thread(target=call) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert engine.computes_on == "cpu"
    assert not wrong
    assert [event.happening for event in told.events] == [Happening.QUARANTINED]


def test_what_is_no_number_because_the_input_was_none_is_not_the_accelerators_fault(guarded: Open, told: Told) -> None:
    with guarded() as engine:
        assert np.isnan(engine.run([np.full((1, 4), np.nan, np.float32)])[0]).any()
        assert engine.computes_on != "cpu"
    assert not told.events


def test_a_wrong_input_is_the_apps_error(guarded: Open, told: Told) -> None:
    with guarded() as engine, pytest.raises(InputShapeError):
        engine.run([np.zeros((1, 9), np.float32)])
    assert not told.events


def test_what_the_accelerator_does_not_take_and_the_twin_does_is_the_twins(
    mock_library: Path, dense: Path, told: Told
) -> None:
    with open_engine(
        dense.with_name("dense_int8.tflite"),
        delegate=request(mock_library),
        twin=dense,
        report=told,
        findings=Findings(None),
    ) as engine:
        assert isinstance(engine, GuardedEngine)
        assert engine.computes_on != "cpu", engine.reason
        assert np.isnan(engine.run([np.full((1, 4), np.nan, np.float32)])[0]).any()
        assert engine.computes_on != "cpu"


def test_closing_ends_a_load_that_hangs(
    guarded: Open, told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_process, "_END_S", 0.1)
    gate, device = tmp_path / "gate", tmp_path / "device"
    engine = guarded(fail="hang-create", gate=gate, hold=device, quarantine_s=0.01)
    assert isinstance(engine.accelerator, IsolatedEngine)
    gate.touch()
    device.unlink()
    engine.accelerator.kill()
    engine.run([X])
    told.wait_for(Happening.QUARANTINED)
    end_s = time.monotonic() + 30
    while not device.exists():  # the library is being loaded again
        assert time.monotonic() < end_s
        time.sleep(0.01)
    engine.close()
    assert not any(thread.name.startswith("edge-restore") for thread in threading.enumerate())


def test_where_there_are_no_more_threads_the_twin_goes_on(
    guarded: Open, told: Told, right: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with guarded() as engine:
        assert isinstance(engine.accelerator, IsolatedEngine)
        engine.accelerator.kill()
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", none_left)
            np.testing.assert_array_equal(engine.run([X])[0], right)
    assert told.events[0].again_s is None


def test_every_call_is_observed_once_whoever_answers(mock_library: Path, dense: Path) -> None:
    seen: list[float] = []
    with open_engine(
        dense,
        delegate=request(mock_library, fail="invoke", after=4),
        observe=seen.append,
        report=lambda _: None,
        findings=Findings(None),
    ) as engine:
        for _ in range(5):
            engine.run([X])
    assert len(seen) == 5


def test_after_close_everything_says_so(guarded: Open) -> None:
    engine = guarded(fail="create", quarantine_s=0.01)
    engine.close()
    engine.close()
    with pytest.raises(ModelClosedError):
        engine.run([X])


def test_a_forgotten_guard_ends_its_thread_and_its_worker(guarded: Open) -> None:
    engine = guarded(fail="create", quarantine_s=0.2)
    alive = weakref.ref(engine)
    del engine
    gc.collect()
    assert alive() is None
    end_s = time.monotonic() + 30
    while any(thread.name.startswith("edge-restore") for thread in threading.enumerate()):
        assert time.monotonic() < end_s
        time.sleep(0.01)


def test_a_report_is_logged_where_nobody_asks_for_it(
    mock_library: Path, dense: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.WARNING),
        open_engine(dense, delegate=request(mock_library, fail="create"), findings=Findings(None)),
    ):
        pass
    assert "mock: no device; it is tried again in 60 s" in caplog.text


def test_without_a_process_of_its_own_it_is_tried_in_one_first(
    mock_library: Path, dense: Path, right: np.ndarray, told: Told
) -> None:
    for fail, answers_on in (("crash", "cpu"), ("never", "libmock_delegate.so")):
        with open_engine(
            dense,
            delegate=request(mock_library, fail=fail),
            isolated=False,
            report=told,
            findings=Findings(None),
        ) as engine:
            assert isinstance(engine, GuardedEngine)
            assert engine.computes_on.endswith(answers_on)
            np.testing.assert_allclose(engine.run([X])[0], right, atol=1e-6)
    assert "segmentation fault" in told.events[0].reason


def test_a_file_for_an_accelerator_needs_a_twin_that_the_cpu_can_run(mock_library: Path) -> None:
    custom = Path(__file__).parent.parent / "data" / "tiny" / "custom_op.tflite"
    with pytest.raises(ModelLoadError, match=r"custom operator.*CPU twin"):
        open_engine(custom, delegate=request(mock_library), findings=Findings(None))


def test_bad_arguments_are_named(dense: Path) -> None:
    with pytest.raises(UsageError, match=r"no delegate 'abacus'.*edgetpu"):
        open_engine(dense, delegate="abacus")
    with pytest.raises(UsageError, match="threads"):
        open_engine(dense, threads=0)


def test_of_several_delegates_the_first_that_works_computes(
    mock_library: Path, dense: Path, right: np.ndarray, told: Told, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    chain = (request(mock_library, gate=gate), "nnapi", request(mock_library))
    with open_engine(dense, delegate=chain, report=told, findings=Findings(None)) as engine:
        assert isinstance(engine, GuardedEngine)
        assert engine.computes_on.endswith("libmock_delegate.so")
        assert [event.delegate for event in told.events] == ["nnapi"]
        np.testing.assert_allclose(engine.run([X])[0], right, atol=1e-6)
    broken = (request(mock_library, fail="crash", gate=gate), "nnapi", request(mock_library, fail="create"))
    with open_engine(dense, delegate=broken, report=told, findings=Findings(None)) as engine:
        assert isinstance(engine, GuardedEngine)
        assert engine.computes_on.endswith("libmock_delegate.so")
        gate.touch()
        np.testing.assert_array_equal(engine.run([X])[0], right)
        assert engine.computes_on == "cpu"
    with pytest.raises(UsageError, match="no delegate is named"):
        open_engine(dense, delegate=())


def test_a_segment_on_an_accelerator_hands_on_its_tensors_as_they_are_stored(
    mock_library: Path, dense: Path, told: Told
) -> None:
    segment = dense.with_name("dense_int8_io.tflite")  # its softmax is of integers, which the mock leaves to the CPU
    with (
        Engine(segment, stored=True) as right,
        open_engine(
            segment, delegate=request(mock_library), stored=True, report=told, findings=Findings(None), canary_s=0
        ) as engine,
    ):
        assert isinstance(engine, GuardedEngine)
        assert engine.inputs == right.inputs
        for value in (-128, 0, 127):
            x = np.full((1, 4), value, np.int8)
            np.testing.assert_array_equal(engine.run([x])[0], right.run([x])[0])
        assert engine.computes_on != "cpu"
