"""An engine in a worker process: the same answers, and whatever breaks there costs a call, not the app."""

from __future__ import annotations

import gc
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from accelerator_stage import delegation

from edge_sdk.delegates import Delegation
from edge_sdk.engine import Engine
from edge_sdk.errors import (
    DelegateError,
    DelegateUnavailableError,
    InputShapeError,
    InputValueError,
    ModelClosedError,
    ModelLoadError,
    WorkerLostError,
)
from edge_sdk.isolation import IsolatedEngine
from edge_sdk.machine import cpu_features
from edge_sdk.manifest import TensorSpec

pytestmark = [pytest.mark.accelerator, pytest.mark.device]

TINY = Path(__file__).parent.parent / "data" / "tiny"
X = np.array([[0.5, -1.0, 2.0, 0.25]], np.float32)


def inputs_for(engine: Engine, rows: int, rng: np.random.Generator) -> list[np.ndarray]:
    def array(spec: TensorSpec) -> np.ndarray:
        shape = (rows, *(rows + 1 if size < 0 else size for size in spec.shape[1:]))
        values = rng.normal(size=shape) if spec.dtype == "float32" else rng.integers(0, 3, shape)
        return values.astype(spec.dtype)

    return [array(spec) for spec in engine.inputs]


@pytest.mark.parametrize(
    "name", ["dense_fp32", "dense_int8", "dense_int8_io", "dense_free_batch", "tokens", "two_by_two", "image"]
)
def test_a_worker_answers_bit_for_bit_as_this_process_does(name: str) -> None:
    rng = np.random.default_rng(1)
    path = TINY / f"{name}.tflite"
    with Engine(path) as here, IsolatedEngine(path) as there:
        assert (there.inputs, there.outputs) == (here.inputs, here.outputs)
        assert there.runtime == here.runtime
        for rows in (1, 3, 1, 7):
            arrays = inputs_for(here, rows, rng)
            for mine, yours in zip(there.run(arrays), here.run(arrays), strict=True):
                np.testing.assert_array_equal(mine, yours)


def test_a_model_may_have_a_hundred_inputs(tmp_path: Path) -> None:
    pytest.importorskip("flatbuffers")
    small_graphs = pytest.importorskip("small_graphs")
    names = [f"x{number}" for number in range(100)]
    path = small_graphs.write(
        tmp_path / "many.tflite",
        [small_graphs.Input(name=name, shape=(2,)) for name in names],
        [small_graphs.Output(name="y", weights={name: np.eye(2) for name in names})],
    )
    with IsolatedEngine(path) as engine:
        np.testing.assert_array_equal(engine.run([np.ones((1, 2), np.float32)] * 100)[0], [[100, 100]])


def test_tensors_can_be_handed_over_as_they_are_stored() -> None:
    path = TINY / "dense_int8_io.tflite"
    with Engine(path, stored=True) as here, IsolatedEngine(path, stored=True) as there:
        assert there.inputs[0].dtype == "int8"
        x = np.array([[1, -5, 9, 100]], np.int8)
        np.testing.assert_array_equal(there.run([x])[0], here.run([x])[0])


def test_what_an_app_may_not_pass_is_refused_before_it_reaches_the_worker() -> None:
    with IsolatedEngine(TINY / "dense_int8.tflite") as engine:
        with pytest.raises(InputShapeError):
            engine.run([np.zeros((2, 5), np.float32)])
        with pytest.raises(InputValueError):
            engine.run([np.full((1, 4), np.nan, np.float32)])
        assert np.isfinite(engine.run([X])[0]).all()


def test_the_mock_accelerator_computes(mock_library: Path, dense: Path) -> None:
    with Engine(dense) as here, IsolatedEngine(dense, delegation=delegation(mock_library)) as there:
        np.testing.assert_allclose(there.run([X])[0], here.run([X])[0], atol=1e-6)


@pytest.mark.parametrize(
    ("fail", "error", "says"),
    [
        ("create", DelegateUnavailableError, "refuses: mock: no device"),
        ("silent", DelegateUnavailableError, "refuses: mock: the driver is of another version"),
        ("prepare", ModelLoadError, "mock: prepare failed"),
        ("invoke", DelegateError, "mock: device lost"),
        ("crash-create", WorkerLostError, "segmentation fault.*loading the delegate's library"),
        ("crash-prepare", WorkerLostError, "segmentation fault.*preparing the model"),
        ("crash", WorkerLostError, "segmentation fault.*for the first time"),
        ("hang-create", WorkerLostError, "hung while it was loading the delegate's library"),
        ("hang-prepare", WorkerLostError, "hung while it was preparing the model"),
        ("hang", WorkerLostError, "hung while it computed for the first time"),
    ],
)
def test_a_library_that_fails_while_it_loads_is_an_error_with_its_place(
    mock_library: Path, dense: Path, fail: str, error: type[DelegateError], says: str
) -> None:
    patience_s = 2.0 if fail.startswith("hang") else 60.0
    with pytest.raises(error, match=says):
        IsolatedEngine(dense, delegation=delegation(mock_library, fail=fail), deadline_s=patience_s)


def test_an_unknown_option_is_told_in_the_librarys_words(mock_library: Path, dense: Path) -> None:
    with pytest.raises(DelegateUnavailableError, match="mock: unknown option"):
        IsolatedEngine(dense, delegation=delegation(mock_library, colour="red"))


def test_a_library_for_another_machine_is_told(mock_library: Path, dense: Path, tmp_path: Path) -> None:
    content = bytearray(mock_library.read_bytes())
    content[18:20] = b"\x08\x00"  # e_machine: MIPS
    (tmp_path / "libother.so").write_bytes(content)
    with pytest.raises(DelegateUnavailableError, match=r"cannot be loaded.*architecture"):
        IsolatedEngine(dense, delegation=Delegation(name="other", library=str(tmp_path / "libother.so")))


def test_a_library_that_is_no_delegate_is_told(dense: Path) -> None:
    with pytest.raises(DelegateUnavailableError, match="no TFLite delegate"):
        IsolatedEngine(dense, delegation=Delegation(name="libc", library="libc.so.6"))


def test_a_missing_library_is_told(dense: Path) -> None:
    with pytest.raises(DelegateUnavailableError, match="cannot open shared object file"):
        IsolatedEngine(dense, delegation=Delegation(name="nope", library="/nowhere/libnope.so"))


def test_a_truncated_model_is_told(mock_library: Path, dense: Path, tmp_path: Path) -> None:
    (tmp_path / "half.tflite").write_bytes(dense.read_bytes()[:100])
    with pytest.raises((ModelLoadError, WorkerLostError), match=re.escape(str(tmp_path / "half.tflite"))):
        IsolatedEngine(tmp_path / "half.tflite", delegation=delegation(mock_library))


def test_a_model_for_another_accelerator_is_told(mock_library: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"custom operator 'ethos-u'.*Arm Ethos-U"):
        IsolatedEngine(TINY / "custom_op.tflite", delegation=delegation(mock_library))


@pytest.mark.parametrize("fail", ["crash", "hang"])
def test_a_crash_or_a_hang_between_calls_costs_that_call_and_the_engine(
    mock_library: Path, dense: Path, fail: str
) -> None:
    mock = delegation(mock_library, fail=fail, after=2)  # two inferences warm it up
    with IsolatedEngine(dense, delegation=mock, call_deadline_s=0.5 if fail == "hang" else None) as engine:
        for _ in range(2):
            with pytest.raises(WorkerLostError, match="segmentation fault" if fail == "crash" else "no answer within"):
                engine.run([X])


def test_an_error_of_the_device_leaves_the_worker_alive(mock_library: Path, dense: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with IsolatedEngine(dense, delegation=delegation(mock_library, fail="invoke", gate=gate)) as engine:
        before = engine.run([X])[0]
        gate.touch()
        with pytest.raises(DelegateError, match="device lost"):
            engine.run([X])
        gate.unlink()
        np.testing.assert_array_equal(engine.run([X])[0], before)


def test_a_killed_worker_is_told(dense: Path) -> None:
    with IsolatedEngine(dense) as engine:
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        with pytest.raises(WorkerLostError, match="was killed"):
            engine.run([X])


class Interrupted(Exception):  # noqa: N818 - what it is like, not what it is
    """As an app's own alarm or Ctrl-C would."""


def test_the_answer_to_a_call_that_was_interrupted_is_not_taken_for_the_next_ones(
    mock_library: Path, dense: Path
) -> None:
    def interrupt(*_: object) -> None:
        raise Interrupted

    with Engine(dense) as engine:
        right = engine.run([-X])[0]
    slow = delegation(mock_library, sleep_us=200_000)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with IsolatedEngine(dense, delegation=slow) as engine:
            with pytest.raises(Interrupted):  # noqa: PT012 - also where the alarm comes first
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                engine.run([X])
            np.testing.assert_allclose(engine.run([-X])[0], right, atol=1e-6)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_killing_it_from_another_thread_ends_the_call_that_waits(mock_library: Path, dense: Path) -> None:
    engine = IsolatedEngine(dense, delegation=delegation(mock_library, fail="hang", after=2), call_deadline_s=120)
    timer = threading.Timer(0.3, engine.kill)
    timer.start()
    with engine, pytest.raises(WorkerLostError):
        engine.run([X])
    timer.join()


def test_a_load_that_is_cancelled_ends_at_once(mock_library: Path, dense: Path) -> None:
    begun_s = time.monotonic()
    with pytest.raises(ModelClosedError, match="cancelled"):
        IsolatedEngine(
            dense,
            delegation=delegation(mock_library, fail="hang-create"),
            cancelled=lambda: time.monotonic() - begun_s > 0.2,
        )


def test_after_close_everything_says_so(dense: Path) -> None:
    engine = IsolatedEngine(dense)
    engine.close()
    engine.close()
    assert engine.pid is None
    with pytest.raises(ModelClosedError):
        engine.run([X])


def test_a_forgotten_engine_ends_its_worker(dense: Path) -> None:
    engine = IsolatedEngine(dense)
    pid = engine.pid
    del engine
    gc.collect()
    assert not Path(f"/proc/{pid}").exists()


def test_the_worker_ends_when_its_app_is_killed(mock_library: Path, dense: Path) -> None:
    program = (
        "import sys, time\n"
        "from edge_sdk.delegates import Delegation\n"
        "from edge_sdk.isolation import IsolatedEngine\n"
        "engine = IsolatedEngine(sys.argv[1], delegation=Delegation(name='mock', library=sys.argv[2]))\n"
        "print(engine.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    app = subprocess.Popen(
        [sys.executable, "-c", program, dense, mock_library], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert app.stdin is not None
    assert app.stdout is not None
    with app.stdin, app.stdout:
        worker = Path("/proc") / app.stdout.readline().strip()
        assert worker.exists()
        app.kill()
        app.wait(30)
        end_s = time.monotonic() + 30
        while worker.exists() and "Z" not in (worker / "stat").read_text().rpartition(")")[2].split()[:1]:
            assert time.monotonic() < end_s, "the worker outlived its app"
            time.sleep(0.02)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_cannot_use_it_and_the_parent_can(dense: Path) -> None:
    with IsolatedEngine(dense) as engine:
        before = engine.run([X])[0]
        child = os.fork()
        if child == 0:
            try:
                engine.run([X])
            except ModelClosedError:
                os._exit(7)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        np.testing.assert_array_equal(engine.run([X])[0], before)


def test_a_device_that_only_one_process_may_use_is_shared_by_one_worker(
    mock_library: Path, dense: Path, tmp_path: Path
) -> None:
    alone = delegation(mock_library, hold=tmp_path / "device")
    with IsolatedEngine(dense, delegation=alone), pytest.raises(DelegateUnavailableError, match="in use by another"):
        IsolatedEngine(dense, delegation=alone)
    shared = delegation(mock_library, exclusive=True)
    with IsolatedEngine(dense, delegation=shared) as one:
        with IsolatedEngine(TINY / "dense_int8.tflite", delegation=shared) as two:
            assert one.pid == two.pid
            two.run([X])
        one.run([X])  # the other's end was not the worker's
    with IsolatedEngine(dense, delegation=shared) as again:
        again.run([X])


def test_a_worker_that_is_about_to_end_is_given_no_further_model(mock_library: Path, dense: Path) -> None:
    shared = delegation(mock_library, exclusive=True)
    with IsolatedEngine(dense, delegation=shared) as one:
        first = one.pid
        one.kill()
        with IsolatedEngine(dense, delegation=shared) as two:
            assert two.pid != first
            two.run([X])


def test_many_threads_each_get_their_own_answer(mock_library: Path, dense: Path) -> None:
    rng = np.random.default_rng(3)
    batches = [rng.normal(size=(1, 4)).astype(np.float32) for _ in range(4)]
    wrong: list[int] = []
    with IsolatedEngine(dense, delegation=delegation(mock_library)) as engine:
        right = [engine.run([x])[0] for x in batches]

        def call(number: int) -> None:
            answers = [engine.run([batches[number]])[0] for _ in range(50)]
            wrong.extend(number for answer in answers if not np.array_equal(answer, right[number]))

        threads = [threading.Thread(target=call, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_a_file_in_the_apps_directory_does_not_stand_in_for_a_module(
    dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json.py", "socket.py"):
        (tmp_path / name).write_text("raise SystemExit('the wrong one')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, tmp_path / "a-path-and-no-text"])  # what imports pass over
    with IsolatedEngine(dense) as engine:
        engine.run([X])


@pytest.mark.parametrize("named", [None, "", "frozen"])
def test_an_app_that_is_no_python_starts_no_second_app(
    dense: Path, monkeypatch: pytest.MonkeyPatch, named: str | None
) -> None:
    if named == "frozen":
        monkeypatch.setattr(sys, "frozen", True, raising=False)
    else:
        monkeypatch.setattr(sys, "executable", named)
    with pytest.raises(WorkerLostError, match="no Python interpreter"):
        IsolatedEngine(dense)


def test_where_no_more_files_may_be_opened_that_is_the_error_and_nothing_is_left_open(dense: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for more in range(6):
        free = os.open(os.devnull, os.O_RDONLY)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + more, hard))
        try:
            with pytest.raises(WorkerLostError, match="Too many open files"):
                IsolatedEngine(dense)
            gc.collect()
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            again = os.open(os.devnull, os.O_RDONLY)
            os.close(again)
            assert again == free
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_an_app_without_standard_input_and_output_can_compute(dense: Path) -> None:
    program = (
        "import sys, numpy\n"
        "from edge_sdk.isolation import IsolatedEngine\n"
        "with IsolatedEngine(sys.argv[1]) as engine:\n"
        "    engine.run([numpy.zeros((1, 4), numpy.float32)])\n"
    )
    closed = subprocess.run(
        ["sh", "-c", 'exec "$0" "$@" <&- >&-', sys.executable, "-c", program, dense],
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    assert closed.returncode == 0, closed.stderr


@pytest.mark.skipif(not {"avx2", "f16c"} <= (cpu_features() or frozenset()), reason="this CPU fails in 16-bit floats")
def test_the_cpu_in_16_bit_floats_answers_nearly_as_in_32(dense: Path) -> None:
    pytest.importorskip("ai_edge_litert.compiled_model")
    half = Delegation(name="xnnpack", options={"fp16": "true"})
    with Engine(dense) as here, IsolatedEngine(dense, delegation=half) as there:
        mine, yours = there.run([X])[0], here.run([X])[0]
        np.testing.assert_allclose(mine, yours, atol=2e-3)
        assert not np.array_equal(mine, yours)


def test_what_a_library_logs_is_bounded(mock_library: Path, dense: Path) -> None:
    with IsolatedEngine(dense, delegation=delegation(mock_library, noise=4000)) as engine:
        for _ in range(300):
            engine.run([X])
        noise = Path(f"/proc/{engine.pid}/fd/2")
        assert noise.stat().st_size < 256 * 1024 + 256 * 4000


def test_no_memory_to_share_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    held = Path("/dev/shm")  # noqa: S108 - only looked at
    shared = sorted(held.iterdir())
    with IsolatedEngine(TINY / "image.tflite") as engine:
        assert sorted(held.iterdir()) == shared  # a full one is no trouble
        with monkeypatch.context() as patch:
            patch.setattr(os, "posix_fallocate", full)
            with pytest.raises(WorkerLostError, match="no memory for"):
                engine.run([np.zeros((1, 300, 300, 1), np.float32)])
