"""The TFLite runtimes a device may have, behind one door.

`available()` looks at all of them and `choose()` takes the first usable: ai-edge-litert, then tflite-runtime, then
TensorFlow. What is missing is a value with a reason, not an exception.
"""

from edge_sdk.runtime._choice import RUNTIME_VARIABLE, available, choose
from edge_sdk.runtime._compiled import Accelerator, CompiledRuntime, Share, compiled_reason
from edge_sdk.runtime._interface import RawInterpreter, Runtime, Unavailable
from edge_sdk.runtime._refusals import load_error, run_error
from edge_sdk.runtime._stderr import kept_stderr

__all__ = [
    "RUNTIME_VARIABLE",
    "Accelerator",
    "CompiledRuntime",
    "RawInterpreter",
    "Runtime",
    "Share",
    "Unavailable",
    "available",
    "choose",
    "compiled_reason",
    "kept_stderr",
    "load_error",
    "run_error",
]
