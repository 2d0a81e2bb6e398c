"""An `.onnx` file runs as any other model does, where ONNX Runtime is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_made
import pytest
from msgspec import to_builtins

from edge_sdk import EdgeModel, Interpreter
from edge_sdk.bundle import Bundle
from edge_sdk.delegates import DelegateRequest
from edge_sdk.delegates.findings import Findings
from edge_sdk.delegates.gpu import ON_ONNX
from edge_sdk.engine import Engine
from edge_sdk.errors import (
    DelegateUnavailableError,
    InputShapeError,
    ModelLoadError,
    RuntimeUnavailableError,
    UsageError,
)
from edge_sdk.guard import DelegateEvent, Happening
from edge_sdk.opening import open_engine
from edge_sdk.runtime import Unavailable, _onnxruntime, available, choose_for

X = np.array([[0.5, -0.25, 1.0, 0.0]], np.float32)
TINY = Path(__file__).parent.parent / "data" / "tiny"

needs_ort = pytest.mark.skipif(isinstance(_onnxruntime.find(), Unavailable), reason="onnxruntime is not installed")


@needs_ort
def test_onnx_runtime_reports_to_nobody_and_leaves_nothing_in_the_users_home(tmp_path: Path) -> None:
    """From 1.29 on its import made an id of the device, and a database of events that are sent to its maker."""
    code = "from edge_sdk.runtime import available; print([each.name for each in available()])"
    env = {name: value for name, value in os.environ.items() if name not in {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}}
    told = subprocess.run(
        [sys.executable, "-c", code], env=env | {"HOME": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    assert "onnxruntime" in told.stdout
    assert not list(tmp_path.rglob("*onnxruntime*"))


def expected(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    powers = np.exp(x @ onnx_made.WEIGHTS)
    return powers / powers.sum(-1, keepdims=True)


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    path = tmp_path / "scores.onnx"
    path.write_bytes(onnx_made.scores())
    return path


def file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@needs_ort
def test_a_file_and_its_bytes_run_without_being_told_what_they_are(scores: Path) -> None:
    for model in (scores, str(scores), scores.read_bytes()):
        with Engine(model) as engine:
            np.testing.assert_allclose(engine.run([X])[0], expected(X), rtol=1e-5)
            assert engine.runtime.startswith("onnxruntime ")
            assert [(spec.name, spec.shape, spec.dtype) for spec in engine.inputs] == [("x", (1, 4), "float32")]


@needs_ort
def test_a_batch_is_split_or_taken_as_the_model_has_it(scores: Path, tmp_path: Path) -> None:
    batch = np.repeat(X, 5, axis=0) * np.arange(5, dtype=np.float32)[:, None]
    free = file(tmp_path / "free.onnx", onnx_made.scores(batch="n"))
    for path in (scores, free):
        with Engine(path, threads=2) as engine:
            np.testing.assert_allclose(engine.run([batch])[0], expected(batch), rtol=1e-5)
            np.testing.assert_allclose(engine.run([X[0]])[0], expected(X)[0], rtol=1e-5)
    with Engine(free) as engine:
        assert engine.inputs[0].shape == (-1, 4)
        with pytest.raises(InputShapeError):
            engine.run([np.zeros((2, 5), np.float32)])


@needs_ort
def test_several_inputs_of_any_size_and_kind(tmp_path: Path) -> None:
    content = onnx_made.model(
        [onnx_made.node("Add", ["a", "b"], ["sum"]), onnx_made.node("Shape", ["sum"], ["sizes"])],
        {"a": ([2, "n"], "int64"), "b": ([1, "n"], "int64")},
        {"sum": ([2, "n"], "int64"), "sizes": ([2], "int64")},
    )
    with Engine(file(tmp_path / "sum.onnx", content)) as engine:
        for size in (3, 1, 7):
            a, b = np.arange(2 * size).reshape(2, size), np.ones((1, size), np.int64)
            total, sizes = engine.run([a, b])
            np.testing.assert_array_equal(total, a + b)
            assert sizes.tolist() == [2, size]


@needs_ort
def test_an_interpreters_script_runs_over_it(scores: Path) -> None:
    interpreter = Interpreter(model_path=str(scores))
    interpreter.allocate_tensors()
    put, get = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.set_tensor(put["index"], X.astype(put["dtype"]))
    interpreter.invoke()
    np.testing.assert_allclose(interpreter.get_tensor(get["index"]), expected(X), rtol=1e-5)
    np.testing.assert_array_equal(interpreter.tensor(put["index"])(), X)
    runner = interpreter.get_signature_runner()
    assert list(runner.get_output_details()) == ["scores"]
    np.testing.assert_allclose(runner(x=X)["scores"], expected(X), rtol=1e-5)
    with pytest.raises(ValueError, match="float64"):
        interpreter.set_tensor(put["index"], X.astype(np.float64))
    with pytest.raises(ValueError, match="shape"):
        interpreter.set_tensor(put["index"], X[0])
    with pytest.raises(ValueError, match="cannot resize"):
        interpreter.resize_tensor_input(put["index"], [1, 5], strict=True)


CUSTOM = {"x": ([1, 4], "float32")}, {"y": ([1, 4], "float32")}


@needs_ort
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (onnx_made.scores()[:-30], "damaged"),
        (b"\x08\x08", "damaged"),
        (onnx_made.scores(opset=99), "opset 99"),
        (onnx_made.model([onnx_made.node("Foo", ["x"], ["y"])], *CUSTOM), "operator Foo"),
        (
            onnx_made.model([onnx_made.node("Foo", ["x"], ["y"], domain="mine")], *CUSTOM, domains=["mine"]),
            "custom operator 'Foo'",
        ),
        (
            onnx_made.model([onnx_made.node("Identity", ["x"], ["y"])], {"x": ([1], "str")}, {"y": ([1], "str")}),
            "string",
        ),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(ModelLoadError, match=words) as caught:
        Engine(file(tmp_path / "model.onnx", content))
    assert "\n" not in str(caught.value)
    assert "/onnxruntime_src" not in str(caught.value)


@needs_ort
def test_an_error_while_it_computes_is_one_line(tmp_path: Path) -> None:
    content = onnx_made.model(
        [onnx_made.node("Reshape", ["x", "s"], ["y"])],
        {"x": (["n"], "float32")},
        {"y": ([2, 2], "float32")},
        {"s": np.array([2, 2], np.int64)},
    )
    with pytest.raises(ModelLoadError, match="Reshape") as caught:
        Engine(file(tmp_path / "model.onnx", content))  # one number does not make four
    assert "\n" not in str(caught.value)


@needs_ort
def test_accelerators_that_this_build_has_not_are_values_with_a_reason(scores: Path) -> None:
    runtime = choose_for(scores)
    assert isinstance(runtime, _onnxruntime.OnnxRuntime)
    assert runtime.providers[-1] == "CPUExecutionProvider"
    named = {each.name for each in runtime.missing} | {_onnxruntime._SHORT[each] for each in runtime.providers}
    assert named == {"tensorrt", "cuda", "cpu"}
    assert all("onnxruntime" in each.reason for each in runtime.missing)
    with pytest.raises(UsageError):
        runtime.open(str(scores), delegates=[object()])
    with pytest.raises(UsageError):
        runtime.load_delegate("libedgetpu.so.1")


class Library:
    """What the library offers on a board whose CUDA is of another version: it lists the provider and leaves it out."""

    class SessionOptions:
        pass

    @staticmethod
    def get_available_providers() -> list[str]:
        return ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]

    class InferenceSession:
        def __init__(self, _model: object, _settings: object, *, providers: list[str]) -> None:
            self.asked = providers

        def get_providers(self) -> list[str]:
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]

        def get_inputs(self) -> list[object]:
            return []

        get_outputs = get_inputs


@needs_ort
def test_a_provider_that_does_not_start_is_left_out_and_named() -> None:
    runtime = _onnxruntime.OnnxRuntime(Library, "1.99")  # type: ignore[arg-type]
    assert str(runtime) == "onnxruntime/tensorrt 1.99"
    runtime.open(b"")
    assert runtime.name == "onnxruntime/cuda"
    assert [each.name for each in runtime.missing] == ["tensorrt"]
    assert "did not start" in runtime.missing[0].reason


@needs_ort
def test_an_accelerator_that_is_asked_for_and_not_there_is_an_error_not_the_cpu(scores: Path) -> None:
    runtime = _onnxruntime.onnx_on_accelerator()
    with pytest.raises(DelegateUnavailableError, match="tensorrt not in this build"):
        runtime.open(str(scores))


@needs_ort
def test_a_gpu_variant_falls_back_to_its_twin_where_the_build_has_no_gpu(scores: Path) -> None:
    told: list[DelegateEvent] = []
    request = DelegateRequest(name="gpu", options=ON_ONNX)
    twin = TINY / "dense_fp32.tflite"
    with (
        Engine(twin) as right,
        open_engine(scores, delegate=request, twin=twin, report=told.append, findings=Findings(None)) as engine,
    ):
        np.testing.assert_array_equal(engine.run([X])[0], right.run([X])[0])
    assert [event.happening for event in told] == [Happening.FELL_BACK]
    assert "without TensorRT and CUDA" in told[0].reason


@needs_ort
def test_a_bundle_may_hold_an_onnx_file_for_the_cpu(
    make_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGE_DAEMON_SOCKET", str(tmp_path / "no.sock"))
    contents = {"onnx": onnx_made.scores(), "tflite": (TINY / "dense_fp32.tflite").read_bytes()}
    ports = {
        "inputs": [{"name": "x", "shape": [1, 4], "dtype": "float32"}],
        "outputs": [{"name": "scores", "shape": [1, 3], "dtype": "float32"}],
    }
    variants = to_builtins(make_bundle("plain.edge", contents=contents, **ports).manifest.variants)
    variants[0]["target"]["runtime"] = "onnxruntime"
    bundle = make_bundle(contents=contents, variants=variants, **ports)
    with EdgeModel(bundle.path) as model:
        assert model.variants == ("onnx", "tflite")
        model.switch("onnx")
        np.testing.assert_allclose(model(X), expected(X), rtol=1e-5)
        model.switch("tflite")
        assert model(X).shape == (1, 3)


def test_a_file_is_known_by_its_content_before_its_name(tmp_path: Path) -> None:
    assert _onnxruntime.is_onnx(file(tmp_path / "blob", onnx_made.scores()))
    assert not _onnxruntime.is_onnx(file(tmp_path / "a.onnx", (TINY / "dense_fp32.tflite").read_bytes()))
    assert _onnxruntime.is_onnx(file(tmp_path / "empty.onnx", b""))
    assert not _onnxruntime.is_onnx(tmp_path / "missing.tflite")
    assert not any(_onnxruntime.is_onnx(path) or _onnxruntime.is_onnx(path.read_bytes()) for path in TINY.glob("*"))


@pytest.mark.device
@pytest.mark.skipif(not isinstance(_onnxruntime.find(), Unavailable), reason="onnxruntime is installed")
def test_without_onnx_runtime_the_file_is_refused_with_what_to_install(scores: Path) -> None:
    with pytest.raises(RuntimeUnavailableError, match=r"adaptive-edge-sdk\[ort\]"):
        Engine(scores)


@pytest.mark.device
def test_it_is_listed_among_the_runtimes() -> None:
    assert any("onnxruntime" in str(each) for each in available())
