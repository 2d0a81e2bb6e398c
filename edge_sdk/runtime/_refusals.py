"""What a runtime says when it refuses, in this product's words.

The texts were collected from ai-edge-litert 2.3.0 and tflite-runtime 2.14.0.
"""

from __future__ import annotations

import re

from edge_sdk.errors import DelegateError, ModelLoadError
from edge_sdk.runtime._interface import Runtime

_MAX_CHARS = 300

_CUSTOM_OP = re.compile(r"unresolved custom op: ([\w.-]{1,80}?)\.?(?=\s|\Z|[A-Z])")
_NEW_OP = re.compile(r"Didn't find op for builtin opcode '(\w{1,80})' version '(\d{1,4})'")
_NO_MODEL = re.compile(r"not a valid Flatbuffer|model allocation is null|Could not open", re.IGNORECASE)

# Custom operators that a compiler for an accelerator leaves in the file, and who runs them.
_ACCELERATORS = {"edgetpu-custom-op": "an Edge TPU", "ethos-u": "an Arm Ethos-U"}


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
    if found := _NEW_OP.search(text):
        return ModelLoadError(
            f"has operator {found[1]} version {found[2]}, newer than {who} knows",
            where=where,
            hint="install a newer runtime (pip install -U ai-edge-litert) or take another variant",
        )
    if _NO_MODEL.search(text):
        return ModelLoadError(
            "not a TFLite model, or a damaged one", where=where, hint="copy or convert the file again"
        )
    return ModelLoadError(f"refused by {who}: {_shown(text)}", where=where, hint="convert the model again")


def run_error(cause: Exception, *, where: str, runtime: Runtime) -> DelegateError:
    """The error to raise from `cause`, which a runtime raised while it computed."""
    who = f"{runtime.name} {runtime.version}"
    return DelegateError(f"{who} failed to compute: {_shown(str(cause))}", where=where, hint="switch the variant")


def _shown(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_CHARS else f"{line[:_MAX_CHARS]}..."
