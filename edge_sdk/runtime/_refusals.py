"""What a runtime says when it refuses, in this product's words.

The texts were collected from ai-edge-litert 2.3.0, tflite-runtime 2.14.0 and onnxruntime 1.32.0.
"""

from __future__ import annotations

import re

from edge_sdk.errors import DelegateError, ModelLoadError
from edge_sdk.runtime._interface import Runtime

_MAX_CHARS = 300

_CUSTOM_OP = re.compile(r"unresolved custom op: ([\w.-]{1,80}?)\.?(?=\s|\Z|[A-Z])")

# Custom operators that a compiler for an accelerator leaves in the file, and who runs them.
_ACCELERATORS = {"edgetpu-custom-op": "an Edge TPU", "ethos-u": "an Arm Ethos-U"}

# A pattern, what was found, and what to try; the first that matches counts. `{who}` is the runtime.
_OTHER_RUNTIME = "install a newer runtime (pip install -U ai-edge-litert) or take another variant"
_OTHER_OPERATOR = "export it without that operator, or install a newer onnxruntime"
_TABLE: tuple[tuple[re.Pattern[str], str, str], ...] = (
    (
        re.compile(r"Didn't find op for builtin opcode '(\w{1,80})' version '(\d{1,4})'"),
        "has operator {0} version {1}, newer than {who} knows",
        _OTHER_RUNTIME,
    ),
    (
        re.compile(r"not a valid Flatbuffer|model allocation is null|Could not open", re.IGNORECASE),
        "not a TFLite model, or a damaged one",
        "copy or convert the file again",
    ),
    (
        re.compile(r"INVALID_PROTOBUF|protobuf parsing failed|No graph was found in the protobuf"),
        "not an ONNX model, or a damaged one",
        "copy or export the file again",
    ),
    (re.compile(r"No Op registered for (\w{1,80})"), "has operator {0}, which {who} does not know", _OTHER_OPERATOR),
    (
        re.compile(r"[\w.]{1,80}:(\w{1,80})\(-?\d{1,9}\) is not a registered function/op"),
        "has the custom operator {0!r}, which {who} does not know",
        _OTHER_OPERATOR,
    ),
    (
        re.compile(r"Opset (\d{1,9}) is under development"),
        "has operators of opset {0}, newer than {who} knows",
        "install a newer onnxruntime, or export it with a lower opset",
    ),
)


def load_error(cause: Exception, *, where: str, runtime: Runtime) -> ModelLoadError:
    """The error to raise from `cause`, which a runtime raised while a model was loaded."""
    text = str(cause)
    who = f"{runtime.name} {runtime.version}"
    if found := _CUSTOM_OP.search(text):
        op = found[1]
        device = _ACCELERATORS.get(op, "an accelerator or a library that brings it")
        return ModelLoadError(
            f"has the custom operator {op!r}, which no CPU runs",
            where=where,
            hint=f"it needs {device}; without it, take the variant's CPU twin",
        )
    for pattern, what, hint in _TABLE:
        if found := pattern.search(text):
            return ModelLoadError(what.format(*found.groups(), who=who), where=where, hint=hint)
    return ModelLoadError(f"refused by {who}: {_shown(text)}", where=where, hint="convert the model again")


def run_error(cause: Exception, *, where: str, runtime: Runtime) -> DelegateError:
    """The error to raise from `cause`, which a runtime raised while it computed."""
    who = f"{runtime.name} {runtime.version}"
    return DelegateError(f"{who} failed to compute: {_shown(str(cause))}", where=where, hint="switch the variant")


def _shown(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_CHARS else f"{line[:_MAX_CHARS]}..."
