"""The drop-in interpreter: a script written for TFLite runs unchanged, over a file and over a bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_sdk import Engine, Interpreter
from edge_sdk.bundle import Bundle
from edge_sdk.errors import InputDtypeError, InputNameError, InputShapeError, ModelLoadError, UsageError

pytestmark = pytest.mark.device

TINY = Path(__file__).parent.parent / "data" / "tiny"
X = np.array([[0.5, -0.25, 1.0, 0.0]], np.float32)
IO = {
    "inputs": [{"name": "x", "shape": [-1, 4], "dtype": "float32"}],
    "outputs": [{"name": "scores", "shape": [-1, 3], "dtype": "float32"}],
}


@pytest.fixture(autouse=True)
def _no_daemon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGE_DAEMON_SOCKET", str(tmp_path / "no.sock"))


@pytest.fixture
def bundle(make_bundle: Callable[..., Bundle]) -> Path:
    contents = {name: (TINY / f"{name}.tflite").read_bytes() for name in ("dense_fp32", "dense_int8")}
    return make_bundle(contents=contents, **IO).path


@pytest.fixture
def over_bundle(bundle: Path) -> Iterator[Interpreter]:
    with Interpreter(str(bundle)) as interpreter:
        yield interpreter


def script(interpreter: Any, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What every TFLite example does."""
    interpreter.allocate_tensors()
    details = interpreter.get_input_details()[0]
    interpreter.set_tensor(details["index"], x.astype(details["dtype"]))
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def test_a_file_and_a_bundle_answer_alike(bundle: Path) -> None:
    file = TINY / "dense_fp32.tflite"
    direct = script(Interpreter(model_path=str(file), num_threads=1), X)
    np.testing.assert_array_equal(direct, script(Interpreter(model_content=file.read_bytes()), X))
    with Interpreter(model_path=str(bundle), variant="dense_fp32") as interpreter:
        np.testing.assert_array_equal(direct, script(interpreter, X))


def test_indexes_stay_over_a_switch(over_bundle: Interpreter) -> None:
    assert over_bundle.model is not None
    over_bundle.allocate_tensors()
    before = over_bundle.get_input_details(), over_bundle.get_output_details()
    answers = []
    for variant in over_bundle.model.variants:
        over_bundle.model.switch(variant)
        answers.append(script(over_bundle, X))
    after = over_bundle.get_input_details(), over_bundle.get_output_details()
    assert [each["index"] for side in before for each in side] == [each["index"] for side in after for each in side]
    assert after[0][0]["dtype"] is np.float32
    np.testing.assert_allclose(answers[0], answers[1], atol=0.05)


def test_the_batch_can_be_resized(over_bundle: Interpreter) -> None:
    index = over_bundle.get_input_details()[0]["index"]
    over_bundle.resize_tensor_input(index, [3, 4])
    assert script(over_bundle, np.repeat(X, 3, axis=0)).shape == (3, 3)
    with pytest.raises(InputShapeError):
        over_bundle.resize_tensor_input(index, [3, 5])


def test_a_signature_runner(over_bundle: Interpreter) -> None:
    assert over_bundle.get_signature_list() == {"serving_default": {"inputs": ["x"], "outputs": ["scores"]}}
    assert over_bundle.get_signature_runner()(x=X)["scores"].shape == (1, 3)
    with pytest.raises(InputNameError):
        over_bundle.get_signature_runner("train")


def test_a_view_is_what_set_tensor_wrote(over_bundle: Interpreter) -> None:
    over_bundle.set_tensor(0, X)
    np.testing.assert_array_equal(over_bundle.tensor(0)(), X)
    over_bundle.tensor(0)()[:] = 1.0
    np.testing.assert_array_equal(over_bundle.get_tensor(0), np.ones((1, 4), np.float32))
    over_bundle.reset_all_variables()


def test_wrong_values_are_refused_as_the_runtime_would(over_bundle: Interpreter) -> None:
    with pytest.raises(ValueError, match="shape"):
        over_bundle.set_tensor(0, np.zeros((2, 4), np.float32))
    with pytest.raises(InputDtypeError, match="float64"):
        over_bundle.set_tensor(0, X.astype(np.float64))
    with pytest.raises(InputNameError, match="index 7"):
        over_bundle.get_tensor(7)
    with pytest.raises(InputNameError, match="no input"):
        over_bundle.set_tensor(1, X)


def test_bad_arguments_are_named(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="either"):
        Interpreter()
    with pytest.raises(UsageError, match="variants"):
        Interpreter(str(TINY / "dense_fp32.tflite"), variant="int8")
    with pytest.raises(UsageError, match="experimental_op_resolver_type"):
        Interpreter(str(bundle), experimental_op_resolver_type=1)
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"not a model at all")
    with pytest.raises(ModelLoadError):
        Interpreter(str(broken)).allocate_tensors()


@pytest.mark.parametrize("kind", [ValueError, RuntimeError])
def test_a_file_that_is_refused_is_what_scripts_catch_of_the_runtime(kind: type[Exception], tmp_path: Path) -> None:
    """`except ValueError` around the interpreter is how examples fall back to another file or the CPU."""
    (tmp_path / "torn.tflite").write_bytes((TINY / "dense_fp32.tflite").read_bytes()[:300])
    with pytest.raises(kind, match="damaged"):
        Interpreter(str(tmp_path / "torn.tflite"))
    with pytest.raises(kind, match="no such file"):  # it is no daemon's model that is meant
        Interpreter(str(tmp_path / "missing.tflite"))
    with pytest.raises(kind, match="custom operator"):
        Interpreter(str(TINY / "custom_op.tflite")).allocate_tensors()


def test_the_number_of_a_subgraph_is_taken_over_a_bundle_too(over_bundle: Interpreter) -> None:
    script(over_bundle, X)
    output = over_bundle.get_output_details()[0]["index"]
    np.testing.assert_array_equal(over_bundle.get_tensor(output, 0), over_bundle.get_tensor(output))
    with pytest.raises(InputNameError, match="no subgraph 1"):
        over_bundle.get_tensor(output, 1)


@pytest.mark.parametrize("threads", [0, -1, 100_000])
def test_a_number_of_threads_that_would_bring_the_process_down_is_refused(threads: int) -> None:
    model = TINY / "dense_fp32.tflite"
    with pytest.raises(UsageError, match="up to 256"):
        Interpreter(str(model), num_threads=threads)
    with pytest.raises(UsageError, match="up to 256"):
        Engine(model, threads=threads)
