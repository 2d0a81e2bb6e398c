"""ONNX Runtime, which runs `.onnx` files: on a Jetson by TensorRT or CUDA where its build has them, else on the CPU.

**TensorRT and CUDA were not yet run on hardware.** What a session may use is told by the library; a provider it lists
and then does not start is left out, and why is a value.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from edge_sdk.errors import DelegateUnavailableError, UsageError
from edge_sdk.runtime._interface import Unavailable
from edge_sdk.runtime._module import installed_version

if TYPE_CHECKING:
    from edge_sdk.runtime._onnx_session import SessionInterpreter

_log = logging.getLogger(__name__)

NAME = "onnxruntime"
DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-jetson")
CPU_PROVIDER = "CPUExecutionProvider"
# The faster first: TensorRT compiles the whole model for the device, which takes minutes once.
PROVIDERS = ("TensorrtExecutionProvider", "CUDAExecutionProvider", CPU_PROVIDER)

_SHORT = {"TensorrtExecutionProvider": "tensorrt", "CUDAExecutionProvider": "cuda", CPU_PROVIDER: "cpu"}
_NOT_INSTALLED = Unavailable(name=NAME, reason="not installed", hint="pip install 'adaptive-edge-sdk[ort]'")
_BUILD = "on a Jetson, install NVIDIA's build of onnxruntime for its JetPack; elsewhere onnxruntime-gpu"

# The files of its accelerators, beside the module: a build without them has the CPU alone.
_LIBRARIES = ("libonnxruntime_providers_tensorrt.so", "libonnxruntime_providers_cuda.so")

# From 1.29 on its import makes an id of the device in the user's cache and sends events to its maker, unless this is
# set before (microsoft/onnxruntime pull request 27379). Whoever wants that sets it to 0.
_NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"

_MAX_HEAD = 16
_TFLITE = b"TFL3"  # at offset 4: the identifier of its flatbuffers
# A serialized ModelProto begins with field 1, `ir_version`, a small number.
_ONNX_HEAD = re.compile(rb"\x08[\x01-\x3f][\x12\x1a\x22\x2a\x32\x3a\x42]", re.DOTALL)
_SOURCE_PLACE = re.compile(r"/\S+\.(?:cc|h):\d+ [^\n]{0,1000}\) (?=[A-Z])|\[ONNXRuntimeError\] : \d+ : ")


class OnnxRuntime:
    """Implements `Runtime` over `onnxruntime.InferenceSession`.

    Args:
        providers: Names of execution providers, the preferred first; None takes those of `PROVIDERS` this build has.
        accelerated: The CPU alone will not do: `open` raises where no accelerator starts.

    Attributes:
        providers: What a session is made with. One that did not start is taken out.
        missing: Of `PROVIDERS`, those that are not, each with its reason.
        speaks: Nothing: it runs no `.tflite`.
    """

    speaks: tuple[int, ...] = ()

    def __init__(
        self, module: ModuleType, version: str, providers: Sequence[str] | None = None, *, accelerated: bool = False
    ) -> None:
        self._module = module
        self._accelerated = accelerated
        self.version = version
        built = module.get_available_providers()
        self.providers = [each for each in (providers or PROVIDERS) if each in built]
        self.missing = [
            Unavailable(name=_SHORT[each], reason=f"not in this build of onnxruntime {version}", hint=_BUILD)
            for each in PROVIDERS
            if each not in built
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def name(self) -> str:
        """`onnxruntime`, or with who computes, such as `onnxruntime/cuda`."""
        first = _SHORT.get(self.providers[0], self.providers[0])
        return NAME if first == "cpu" else f"{NAME}/{first}"

    def open(
        self,
        model: str | bytes,
        *,
        threads: int | None = None,
        delegates: Sequence[Any] = (),
        options: Mapping[str, Any] | None = None,
    ) -> SessionInterpreter:
        """See `Runtime.open`; there are neither delegates nor options.

        Raises:
            DelegateUnavailableError: An accelerator is asked for, and none starts.
            UsageError, RuntimeError: As there.
        """
        if delegates or options:
            raise UsageError("an .onnx file takes neither delegates nor a TFLite interpreter's options")
        settings = self._module.SessionOptions()
        settings.intra_op_num_threads = threads or 0
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 4  # what matters is raised
        session = self._translated(
            lambda: self._module.InferenceSession(model, settings, providers=list(self.providers))
        )
        self._note(session.get_providers())
        if self._accelerated and self.providers[0] == CPU_PROVIDER:
            why = "; ".join(f"{each.name} {each.reason}" for each in self.missing)
            raise DelegateUnavailableError(f"no accelerator: {why}", where=str(self), hint="take the CPU")
        from edge_sdk.runtime._onnx_session import SessionInterpreter

        return SessionInterpreter(session, self._translated)

    def load_delegate(self, library: str, options: Mapping[str, Any] | None = None) -> Any:
        """See `Runtime.load_delegate`; here it always raises."""
        del options
        raise UsageError("an .onnx file takes no TFLite delegate", where=library, hint="give the model as .tflite")

    def attribute(self, name: str) -> Any:
        """See `Runtime.attribute`: a name of the module `onnxruntime`."""
        return getattr(self._module, name)

    def _note(self, started: Sequence[str]) -> None:
        """Leave out what the library was to use and does not; it says so on standard error alone."""
        for each in [each for each in self.providers if each not in started]:
            lost = Unavailable(
                name=_SHORT.get(each, each),
                reason="did not start: its libraries are missing, or of another version",
                hint="compare the versions of CUDA, cuDNN and TensorRT with those onnxruntime asks for",
            )
            _log.warning("%s", lost)
            self.providers.remove(each)
            self.missing.append(lost)

    def _translated(self, call: Callable[[], Any]) -> Any:
        """What `call` gives; its errors, which derive from `Exception` alone, as a `RuntimeError`."""
        try:
            return call()
        except _errors() as cause:
            raise RuntimeError(_SOURCE_PLACE.sub("", str(cause))) from cause


def find(*, accelerated: bool = False) -> OnnxRuntime | Unavailable:
    """The runtime, or why it can't be used.

    Args:
        accelerated: As of `OnnxRuntime`.
    """
    version = _version()
    if version is None:
        return _NOT_INSTALLED
    os.environ.setdefault(_NO_TELEMETRY, "1")
    try:
        module = importlib.import_module("onnxruntime")
    except (ImportError, OSError) as cause:
        return Unavailable(name=NAME, reason=f"{version} cannot be imported: {cause}", hint=f"reinstall {NAME}")
    return OnnxRuntime(module, version, accelerated=accelerated)


def onnx_on_accelerator() -> OnnxRuntime:
    """The runtime, for TensorRT or CUDA alone.

    Raises:
        DelegateUnavailableError: It is not installed.
    """
    found = find(accelerated=True)
    if isinstance(found, Unavailable):
        raise DelegateUnavailableError(found.reason, where=found.name, hint=found.hint)
    return found


def onnx_reason(*, accelerated: bool = False) -> Unavailable | None:
    """Why ONNX Runtime, or an accelerator in it, cannot be had here; None where it can be tried. Loads nothing."""
    version = _version()
    if version is None:
        return _NOT_INSTALLED
    spec = importlib.util.find_spec("onnxruntime")
    folders = [Path(place) / "capi" for place in (spec and spec.submodule_search_locations) or ()]
    if accelerated and not any((folder / name).exists() for folder in folders for name in _LIBRARIES):
        return Unavailable(name=NAME, reason=f"{version} is built without TensorRT and CUDA", hint=_BUILD)
    return None


def is_onnx(model: str | os.PathLike[str] | bytes) -> bool:
    """Whether a file, or its bytes, is for ONNX Runtime: by its first bytes, and where they don't tell, by its name."""
    if isinstance(model, bytes):
        return _is_onnx_head(model[:_MAX_HEAD])
    try:
        with Path(model).open("rb") as file:
            head = file.read(_MAX_HEAD)
    except OSError:
        head = b""  # whoever opens it says why it can't be
    if head[4:8] == _TFLITE:
        return False
    return _is_onnx_head(head) or Path(model).suffix.lower() == ".onnx"


def _version() -> str | None:
    return next(filter(None, map(installed_version, DISTRIBUTIONS)), None)


def _is_onnx_head(head: bytes) -> bool:
    return head[4:8] != _TFLITE and _ONNX_HEAD.match(head) is not None


@functools.cache
def _errors() -> tuple[type[Exception], ...]:
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    kinds = [each for each in vars(state).values() if isinstance(each, type) and issubclass(each, Exception)]
    return (*kinds, ValueError)
