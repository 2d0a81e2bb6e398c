"""The runtimes a device may have, behind one door.

`available()` looks at all of them. `choose()` takes the first that runs TFLite files: ai-edge-litert, then
tflite-runtime, then TensorFlow. `choose_for(model)` takes ONNX Runtime for an `.onnx` file. `CompiledRuntime` is
LiteRT's way to a GPU, for child processes. What is missing is a value with a reason, not an exception.
"""

from edge_sdk.runtime._choice import RUNTIME_VARIABLE, available, choose, choose_for, described
from edge_sdk.runtime._compiled import Accelerator, CompiledRuntime, Share, compiled_reason
from edge_sdk.runtime._interface import Described, RawInterpreter, Runtime, Unavailable
from edge_sdk.runtime._module import numbers
from edge_sdk.runtime._onnxruntime import NAME as ONNX_RUNTIME
from edge_sdk.runtime._onnxruntime import is_onnx, onnx_on_accelerator, onnx_reason
from edge_sdk.runtime._refusals import load_error, run_error
from edge_sdk.runtime._stderr import kept_stderr

__all__ = [
    "ONNX_RUNTIME",
    "RUNTIME_VARIABLE",
    "Accelerator",
    "CompiledRuntime",
    "Described",
    "RawInterpreter",
    "Runtime",
    "Share",
    "Unavailable",
    "available",
    "choose",
    "choose_for",
    "compiled_reason",
    "described",
    "is_onnx",
    "kept_stderr",
    "load_error",
    "numbers",
    "onnx_on_accelerator",
    "onnx_reason",
    "run_error",
]
