"""Run as a child process in an environment of its own: the only code of this product that imports onnx2tf.

That environment holds onnx2tf and what it needs, and nothing of this product: here is only the standard library, what
the environment has, `edge_converter._serve` and `_layout`. The messages are those of `edge_converter._import_wire`.

What had to be found out about onnx2tf 1.29: it writes over the file it reads; it loads sample images from the network
unless they lie in the working directory; it ends the process (`sys.exit`) where others raise.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

from edge_converter import _layout, _serve

_IMAGES = "calibration_image_sample_data_20x128x128x3_float32.npy"
_CONTROL = ("Loop", "Scan", "If")
_REASON_CHARS = 300
_FOREIGN = re.compile(r"[^A-Za-z0-9_.\\/>-]")


class _RefusedError(Exception):
    def __init__(self, kind: str, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.answer = {"type": "failed", "kind": kind, "what": what, "hint": hint}


def main() -> int:
    """Answer until stdin closes; returns the exit status."""
    answers = _serve.answers()

    def answer(content: dict[str, Any]) -> None:
        answers.write(json.dumps(content).encode() + b"\n")
        answers.flush()

    needed = ("onnx2tf", "onnx", "onnxruntime", "tensorflow")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        what = f"{sys.executable} has no {', '.join(missing)}"
        answer({"type": "failed", "kind": "missing", "what": what, "hint": "--onnx-python names one that has"})
        return 0
    warnings.simplefilter("ignore")
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # as `edge_sdk.runtime` does, and why is said there
    import onnx2tf

    answer({"type": "ready", "version": str(onnx2tf.__version__)})
    for line in _serve.questions():
        answer(_handle(json.loads(line)))
    return 0


def _handle(question: dict[str, Any]) -> dict[str, Any]:
    try:
        return _convert(question["path"], question["into"], Path(question["folder"]), question["shapes"])
    except _RefusedError as error:
        return error.answer


def _convert(path: str, into: str, place: Path, shapes: list[list[int]]) -> dict[str, Any]:
    import numpy as np
    import onnx
    import onnx2tf

    os.chdir(place)
    random = np.random.default_rng(0)
    np.save(_IMAGES, random.random((20, 128, 128, 3), np.float32))
    model = _load(path)
    inputs = _inputs(model, shapes)
    for number, node in enumerate(model.graph.node):  # TensorFlow refuses to build what is called `Softmax@0`
        if _FOREIGN.search(node.name):
            node.name = f"{_FOREIGN.sub('_', node.name)}_{number}"
    copy = place / "model.onnx"
    onnx.save(model, copy)
    try:
        onnx2tf.convert(
            input_onnx_file_path=str(copy),
            output_folder_path=str(place / "converted"),
            overwrite_input_shape=[f"{name}:{','.join(map(str, shape))}" for name, shape in inputs.items()],
            keep_shape_absolutely_input_names=[name for name, shape in inputs.items() if not _layout.is_turned(shape)]
            or None,
            disable_strict_mode=False,
            non_verbose=True,
        )
    except SystemExit as error:
        raise _RefusedError(
            "unsupported", "onnx2tf cannot convert it, and says why only in what it prints", "run onnx2tf -i MODEL"
        ) from error
    except Exception as error:  # every operator's own code runs here
        traceback.print_exc()
        raise _RefusedError("unsupported", f"onnx2tf cannot convert it: {_first_line(error)}") from error
    made = sorted((place / "converted").glob("*_float32.tflite"))
    if len(made) != 1:
        raise _RefusedError("unsupported", f"onnx2tf wrote {len(made)} float32 files, not one")
    try:
        difference = _difference(_reference(path, model, inputs), inputs, made[0])
    except Exception as error:  # two runtimes compute here
        traceback.print_exc()
        raise _RefusedError("unsupported", f"cannot be compared with onnxruntime: {_first_line(error)}") from error
    made[0].rename(into)
    return {
        "type": "imported",
        "difference": difference,
        "samples": _layout.SAMPLES,
        "turned": sorted(name for name, shape in inputs.items() if _layout.is_turned(shape)),
    }


def _load(path: str) -> Any:
    """The model, with its weights if they lie beside it.

    Raises:
        _RefusedError: It is damaged, or has control flow.
    """
    import onnx

    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's, the checker's and the file system's
        traceback.print_exc()
        raise _RefusedError(
            "source", f"is damaged or no ONNX model: {_first_line(error)}", "export it again"
        ) from error
    flow = next((node for node in model.graph.node if node.op_type in _CONTROL), None)
    if flow is not None:
        what = f"has control flow: {flow.op_type} {flow.name}".rstrip()
        raise _RefusedError("unsupported", what, "export it with every loop unrolled")
    foreign = next((node for node in model.graph.node if node.domain not in {"", "ai.onnx"}), None)
    if foreign is not None:
        raise _RefusedError("unsupported", f"has the operator {foreign.op_type} of {foreign.domain}, which is custom")
    return model


def _inputs(model: Any, shapes: list[list[int]]) -> dict[str, tuple[int, ...]]:
    """Its inputs with every size fixed: a free batch is 1.

    Raises:
        _RefusedError: Another size is free, or a shape given does not fit.
    """
    constant = {entry.name for entry in model.graph.initializer}
    given = [entry for entry in model.graph.input if entry.name not in constant]
    taken = {
        entry.name: [
            int(size.dim_value) if size.HasField("dim_value") else -1 for size in entry.type.tensor_type.shape.dim
        ]
        for entry in given
    }
    try:
        return _layout.fixed(taken, shapes)
    except _layout.ShapeError as error:
        raise _RefusedError("unsupported", str(error), error.hint) from error


def _reference(path: str, model: Any, inputs: dict[str, tuple[int, ...]]) -> list[tuple[dict[str, Any], list[Any]]]:
    """Random inputs, and what onnxruntime answers to the model as it was given."""
    import numpy as np
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    types = {
        entry.name: onnx.helper.tensor_dtype_to_np_dtype(entry.type.tensor_type.elem_type)
        for entry in model.graph.input
    }
    random = np.random.default_rng(0)
    pairs = []
    for _ in range(_layout.SAMPLES):
        asked = {name: random.normal(0, 1, shape).astype(types[name]) for name, shape in inputs.items()}
        pairs.append((asked, session.run(None, asked)))
    return pairs


def _difference(pairs: list[tuple[dict[str, Any], list[Any]]], inputs: dict[str, tuple[int, ...]], made: Path) -> float:
    """The largest difference of an answer from onnxruntime's, as a share of that output's largest absolute value."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(made), num_threads=1)
    interpreter.allocate_tensors()
    takes, gives = interpreter.get_input_details(), interpreter.get_output_details()
    place = _places(takes, inputs)
    worst = 0.0
    for asked, expected in pairs:
        for name, values in asked.items():
            interpreter.set_tensor(place[name], _layout.turned(values))
        interpreter.invoke()
        found = [interpreter.get_tensor(entry["index"]) for entry in gives]
        worst = max(worst, _layout.distance(found, expected))
    return worst


def _places(takes: list[dict[str, Any]], inputs: dict[str, tuple[int, ...]]) -> dict[str, int]:
    """Which of the file's inputs is which: by name, and where it was changed, by the order."""

    def plain(name: str) -> str:
        return re.sub(r"[^A-Za-z0-9]+", "", name.removeprefix("serving_default_").partition(":")[0])

    by_name = {plain(entry["name"]): entry["index"] for entry in takes}
    return {name: by_name.get(plain(name), entry["index"]) for name, entry in zip(inputs, takes, strict=True)}


def _first_line(error: BaseException) -> str:
    """The first line that gives a reason: Keras begins by saying where one was."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("Exception encountered when calling")] or lines
    return (lines[0] if lines else type(error).__name__)[:_REASON_CHARS]


if __name__ == "__main__":
    sys.exit(main())
