"""The runtimes a device may have, behind one door.

`available()` looks at all of them. `choose()` takes the first that runs TFLite files: ai-edge-litert, then
tflite-runtime, then TensorFlow. `choose_for(model)` takes ONNX Runtime for an `.onnx` file. `CompiledRuntime` is
LiteRT's way to a GPU, for child processes. What is missing is a value with a reason, not an exception.
"""

from edge_sdk.runtime._choice import RUNTIME_VARIABLE, available, choose, choose_for
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
    "choose_for",
    "compiled_reason",
    "kept_stderr",
    "load_error",
    "run_error",
]
