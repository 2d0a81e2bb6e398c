"""What the public examples of TFLite call, written anew: over a file and a bundle, with one import line changed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edge_sdk.interpreter as tflite
from edge_sdk.bundle import Bundle
from edge_sdk.errors import InputShapeError, ModelLoadError, UsageError

pytestmark = pytest.mark.device

TINY = Path(__file__).parent.parent / "data" / "tiny"
X = np.array([[0.5, -0.25, 1.0, 0.0]], np.float32)
IO = {
    "inputs": [{"name": "x", "shape": [-1, 4], "dtype": "float32"}],
    "outputs": [{"name": "scores", "shape": [-1, 3], "dtype": "float32"}],
}
PAIR = {
    "inputs": [{"name": name, "shape": [1, 2], "dtype": "float32"} for name in ("a", "b")],
    "outputs": [{"name": name, "shape": [1, 2], "dtype": "float32"} for name in ("total", "product")],
}


@pytest.fixture(autouse=True)
def _no_daemon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGE_DAEMON_SOCKET", str(tmp_path / "no.sock"))


@pytest.fixture
def opened(make_bundle: Callable[..., Bundle]) -> Callable[[str], tflite.Interpreter]:
    """Opens the dense classifier: as a `file`, or as a `bundle` of it."""

    def open_(kind: str) -> tflite.Interpreter:
        file = TINY / "dense_fp32.tflite"
        if kind == "file":
            return tflite.Interpreter(model_path=str(file))
        path = make_bundle(contents={"fp32": file.read_bytes()}, **IO).path
        return tflite.Interpreter(str(path), variant="fp32")

    return open_


both = pytest.mark.parametrize("kind", ["file", "bundle"])


def top(interpreter: Any, image: np.ndarray[Any, Any], mean: float = 127.5, std: float = 127.5) -> int:
    """A labelling script: it looks at the dtype, normalises for floats, and sorts the scores."""
    interpreter.allocate_tensors()
    put, get = interpreter.get_input_details(), interpreter.get_output_details()
    data = np.expand_dims(image, axis=0)
    if put[0]["dtype"] == np.float32:
        data = (np.float32(data) - mean) / std
    interpreter.set_tensor(put[0]["index"], data)
    interpreter.invoke()
    return int(np.squeeze(interpreter.get_tensor(get[0]["index"])).argsort()[-1])


def classified(interpreter: Any, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A camera's loop: it writes into a view, reads from a view, and dequantizes where there is a scale."""
    interpreter.tensor(interpreter.get_input_details()[0]["index"])()[0][:] = x
    interpreter.invoke()
    details = interpreter.get_output_details()[0]
    scores = np.squeeze(interpreter.tensor(details["index"])()).copy()
    scale, zero_point = details["quantization"]
    return scale * (scores - zero_point) if scale else scores


@both
def test_a_script_that_labels_an_image(opened: Callable[[str], Any], kind: str) -> None:
    with opened(kind) as interpreter:
        assert top(interpreter, np.array([200, 90, 250, 128], np.uint8)) in {0, 1, 2}


@both
def test_a_loop_over_views_of_the_tensors(opened: Callable[[str], Any], kind: str) -> None:
    with opened(kind) as interpreter:
        interpreter.allocate_tensors()
        answers = [classified(interpreter, x) for x in (X[0], X[0] * 2, X[0])]
        np.testing.assert_array_equal(answers[0], answers[2])
        assert not np.array_equal(answers[0], answers[1])
        assert answers[0].sum() == pytest.approx(1, abs=1e-5)


@both
def test_details_are_whole_and_alike(opened: Callable[[str], Any], kind: str) -> None:
    with opened(kind) as interpreter:
        for details in (*interpreter.get_input_details(), *interpreter.get_output_details()):
            assert {
                "name", "index", "shape", "shape_signature", "dtype", "quantization", "quantization_parameters",
                "sparsity_parameters",
            } == set(details)  # fmt: skip
            assert details["quantization"] == (0.0, 0)
            assert details["shape"].dtype == np.int32
            assert details["dtype"] is np.float32


@both
def test_a_signature_is_called_by_name_and_knows_its_ports(opened: Callable[[str], Any], kind: str) -> None:
    with opened(kind) as interpreter:
        assert list(interpreter.get_signature_list()) == ["serving_default"]
        runner = interpreter.get_signature_runner("serving_default")
        put, get = runner.get_input_details(), runner.get_output_details()
        assert (list(put), list(get)) == (["x"], ["scores"])
        assert put["x"]["dtype"] == np.float32
        np.testing.assert_array_equal(runner(x=X)["scores"], interpreter.get_signature_runner()(x=X)["scores"])


@both
def test_detectors_ask_for_the_indexes_of_a_signature(opened: Callable[[str], Any], kind: str) -> None:
    with opened(kind) as interpreter:
        interpreter.allocate_tensors()
        signature = next(iter(interpreter._get_full_signature_list().values()))
        assert interpreter.tensor(signature["outputs"]["scores"])().shape == (1, 3)


@pytest.mark.parametrize("kind", ["bundle"])
def test_a_resized_batch_has_to_be_allocated_and_shows_in_the_outputs(opened: Callable[[str], Any], kind: str) -> None:
    with opened(kind) as interpreter:
        index = interpreter.get_input_details()[0]["index"]
        interpreter.resize_tensor_input(index, (4, 4))
        with pytest.raises(InputShapeError, match="allocate_tensors"):
            interpreter.set_tensor(index, np.repeat(X, 4, axis=0))
        interpreter.allocate_tensors()
        assert interpreter.get_output_details()[0]["shape"].tolist() == [4, 3]
        interpreter.set_tensor(index, np.repeat(X, 4, axis=0))
        interpreter.invoke()
        assert interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).shape == (4, 3)


def test_a_free_size_is_resized_strictly(tmp_path: Path) -> None:
    interpreter = tflite.Interpreter(str(TINY / "dense_free_batch.tflite"))
    put = interpreter.get_input_details()[0]
    assert put["shape_signature"][0] == -1
    interpreter.resize_tensor_input(put["index"], (2, 4), strict=True)
    interpreter.allocate_tensors()
    interpreter.set_tensor(put["index"], np.repeat(X, 2, axis=0))
    interpreter.invoke()
    assert interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).shape == (2, 3)


@both
def test_several_inputs_and_outputs_keep_their_indexes(make_bundle: Callable[..., Bundle], kind: str) -> None:
    file = TINY / "two_by_two.tflite"
    path = str(file) if kind == "file" else str(make_bundle(contents={"fp32": file.read_bytes()}, **PAIR).path)
    with tflite.Interpreter(path) as interpreter:
        interpreter.allocate_tensors()
        for details, value in zip(interpreter.get_input_details(), (2.0, 3.0), strict=True):
            interpreter.set_tensor(details["index"], np.full((1, 2), value, np.float32))
        interpreter.invoke()
        got = {interpreter.get_tensor(each["index"])[0, 0] for each in interpreter.get_output_details()}
        assert got == {5.0, 6.0}


def test_arguments_stand_where_the_runtime_has_them() -> None:
    file = str(TINY / "dense_fp32.tflite")
    resolver = tflite.OpResolverType.BUILTIN_REF
    interpreter = tflite.Interpreter(file, None, None, 2, resolver, True)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], X)
    interpreter.invoke()
    kept = [interpreter.get_tensor(each["index"]) for each in interpreter.get_tensor_details()]
    assert len(kept) > 2
    content = Path(file).read_bytes()
    other = tflite.Interpreter(model_content=content, experimental_op_resolver_type=resolver, num_threads=None)
    other.allocate_tensors()
    assert other.get_output_details()[0]["name"] == interpreter.get_output_details()[0]["name"]


def test_the_modules_other_names_are_the_runtimes_own() -> None:
    assert issubclass(tflite.InterpreterWithCustomOps, object)
    assert {"AUTO", "BUILTIN", "BUILTIN_REF"} <= set(tflite.OpResolverType.__members__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = tflite.no_such_name


def test_what_only_the_runtimes_interpreter_has_is_passed_on(opened: Callable[[str], Any]) -> None:
    assert opened("file")._get_ops_details()
    with opened("bundle") as interpreter, pytest.raises(AttributeError, match="_native_handle"):
        interpreter._native_handle()


def test_a_delegates_library_that_cannot_be_loaded_says_so_as_the_runtime_does() -> None:
    with pytest.raises(OSError, match="libedgetpu-of-no-device"):
        tflite.load_delegate("libedgetpu-of-no-device.so.1", {"device": "usb"})
    with pytest.raises(AttributeError, match="no TFLite delegate"):
        tflite.load_delegate("libc.so.6")


def test_a_bundle_takes_no_delegates(make_bundle: Callable[..., Bundle]) -> None:
    path = make_bundle(contents={"fp32": (TINY / "dense_fp32.tflite").read_bytes()}, **IO).path
    with pytest.raises(UsageError, match=r"experimental_delegates: a bundle chooses for itself"):
        tflite.Interpreter(str(path), experimental_delegates=[object()])
    with tflite.Interpreter(str(path), experimental_delegates=[]) as interpreter:
        interpreter.allocate_tensors()


@both
@pytest.mark.parametrize("threads", [0, -1])
def test_no_threads_are_refused_in_one_line(make_bundle: Callable[..., Bundle], kind: str, threads: int) -> None:
    file = TINY / "dense_fp32.tflite"
    path = file if kind == "file" else make_bundle(contents={"fp32": file.read_bytes()}, **IO).path
    with pytest.raises(UsageError, match=rf"num_threads is {threads}; give a whole number from 1 up"):
        tflite.Interpreter(str(path), num_threads=threads)


def test_operators_that_nobody_computes_are_named_when_tensors_are_allocated() -> None:
    with pytest.raises(ModelLoadError, match="ethos-u"):
        tflite.Interpreter(str(TINY / "custom_op.tflite")).allocate_tensors()


def test_a_second_thread_is_refused_while_the_first_computes(opened: Callable[[str], Any]) -> None:
    interpreter = opened("file")
    interpreter.allocate_tensors()
    with interpreter._inner._alone():
        for call in (interpreter.invoke, interpreter.allocate_tensors, lambda: interpreter.set_tensor(0, X)):
            with pytest.raises(UsageError, match="two threads"):
                call()
    interpreter.invoke()


def test_threads_may_share_a_bundles_signature(opened: Callable[[str], Any]) -> None:
    inputs = [X * (1 + step / 10) for step in range(16)]
    with opened("bundle") as interpreter:
        runner = interpreter.get_signature_runner()
        alone = [runner(x=x)["scores"] for x in inputs]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda x: runner(x=x)["scores"], inputs * 4))
    for number, scores in enumerate(together):
        np.testing.assert_array_equal(scores, alone[number % len(inputs)])


def test_threads_may_set_and_compute_at_once_over_a_bundle(opened: Callable[[str], Any]) -> None:
    """The values are the object's, so whose input it was is not told; but it is one input, whole, and one answer."""
    inputs = [np.full((1, 4), value, np.float32) for value in range(4)]
    with opened("bundle") as interpreter:
        right = {tuple(interpreter.get_signature_runner()(x=x)["scores"][0].tolist()) for x in inputs}

        def work(x: np.ndarray[Any, Any]) -> tuple[float, ...]:
            interpreter.set_tensor(0, x)
            interpreter.invoke()
            return tuple(interpreter.get_tensor(1)[0].tolist())

        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(work, inputs * 16)) <= right
