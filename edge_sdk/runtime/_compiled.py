"""LiteRT's `CompiledModel`, which computes on a GPU or an NPU, as a `Runtime`.

It is for child processes alone: it kills a process whose CPU it was not built for, crashes and hangs with the driver
it loads, holds the GIL while it compiles and while it waits for an answer, and does not survive a fork. What was
measured of it is in `docs/explanation/targets.md`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from edge_sdk.errors import DelegateUnavailableError, UsageError
from edge_sdk.machine import cpu_features
from edge_sdk.runtime import _litert
from edge_sdk.runtime._compiled_words import Share, refusal, share
from edge_sdk.runtime._interface import Runtime, Unavailable
from edge_sdk.runtime._module import installed_version, numbers
from edge_sdk.runtime._stderr import kept_stderr

if TYPE_CHECKING:
    from edge_sdk.runtime._compiled_interpreter import CompiledInterpreter

Accelerator = Literal["gpu", "npu", "cpu"]

_FIRST = (2, 1)  # earlier wheels have no GPU library
_GPU_LIBRARY = "libLiteRtWebGpuAccelerator.so"

_FORCE_FP16 = 0x4  # tflite/delegates/xnnpack/xnnpack_delegate.h

# The GPU library of the aarch64 wheel is built for ARMv8.2 and ends the process by SIGILL elsewhere, whoever is asked
# to compute: measured under qemu on Cortex-A53 and A72; LiteRT#5675, LiteRT-LM#1847 and #2092.
_NEEDED_ON_AARCH64 = frozenset({"atomics", "asimddp"})

# Where GPUs show: the kernel's DRM, and the drivers of NVIDIA, Arm, Qualcomm and Microsoft. Without any, a driver that
# computes on the CPU could be found, which is slower than the CPU itself; who names one is taken at his word.
_DEVICES = ("dri/renderD*", "nvidia[0-9]*", "nvhost-gpu", "nvgpu/*", "mali[0-9]*", "kgsl-3d0", "dxg")
_NAMED_DRIVERS = ("VK_DRIVER_FILES", "VK_ADD_DRIVER_FILES", "VK_ICD_FILENAMES")


def compiled_reason(
    accelerator: Accelerator = "gpu", *, root: str | os.PathLike[str] = "/", arch: str = ""
) -> Unavailable | None:
    """Why no `CompiledModel` may be made in any process here, or None where a child process may try.

    Loads nothing: the library would end the process on a CPU it was not built for.

    Args:
        accelerator: Who is to compute.
        root: Where `/proc` and `/dev` are.
        arch: The machine's, as `platform.machine()` spells it, where it is another than this one's.
    """
    name = _name(accelerator)
    version = installed_version(_litert.NAME)
    if version is None:
        return Unavailable(name=name, reason="not installed", hint="pip install ai-edge-litert (no wheel for 32-bit)")
    if numbers(version) < _FIRST or importlib.util.find_spec("ai_edge_litert.compiled_model") is None:
        return Unavailable(name=name, reason=f"{version} has no CompiledModel", hint=f"pip install -U {_litert.NAME}")
    has_library = (_folder() / _GPU_LIBRARY).exists()
    if accelerator == "gpu" and not has_library and platform.system() == "Linux":
        return Unavailable(name=name, reason=f"{version} is without {_GPU_LIBRARY}", hint=f"reinstall {_litert.NAME}")
    if has_library and (arch or platform.machine()) == "aarch64":
        missing = _NEEDED_ON_AARCH64 - (cpu_features(root) or frozenset())
        if missing:
            reason = f"its library ends the process on a CPU without {' and '.join(sorted(missing))}"
            return Unavailable(name=name, reason=reason, hint="a Cortex-A53 or A72 has to compute without it")
    if accelerator == "gpu" and platform.system() == "Linux" and not _shows_gpu(Path(root) / "dev"):
        return Unavailable(name=name, reason="no GPU shows in /dev", hint="or name its driver in VK_DRIVER_FILES")
    return None


def _shows_gpu(devices: Path) -> bool:
    return any(map(os.environ.get, _NAMED_DRIVERS)) or any(any(devices.glob(each)) for each in _DEVICES)


class CompiledRuntime:
    """Implements `Runtime` over `CompiledModel`: `Engine(model, runtime=CompiledRuntime("gpu"))`.

    Make one in a child process alone, and only where `compiled_reason` is None.

    Args:
        accelerator: Who computes. What a GPU does not take is left to the CPU; an NPU takes all or nothing.
        enforce_f32: 32-bit floats on a GPU that else computes in 16-bit floats: slower, with the CPU's answers.
        fp16: 16-bit floats on a CPU that has them (`asimdhp`): on another ARM core no inference succeeds then.

    Attributes:
        name: `ai-edge-litert/gpu`, for one.
        version: Of ai-edge-litert.
        speaks: As the plain interpreter of the same wheel.

    Raises:
        DelegateUnavailableError: ai-edge-litert is not installed.
    """

    def __init__(self, accelerator: Accelerator = "gpu", *, enforce_f32: bool = False, fp16: bool = False) -> None:
        plain = _litert.find()
        if isinstance(plain, Unavailable):
            raise DelegateUnavailableError(plain.reason, where=plain.name, hint=plain.hint)
        self._plain: Runtime = plain
        self._accelerator = accelerator
        self._enforce_f32 = enforce_f32
        self._xnnpack_flags = _FORCE_FP16 if fp16 else None
        self.name = _name(accelerator)
        self.version = plain.version
        self.speaks = plain.speaks

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    def open(
        self,
        model: str | bytes,
        *,
        threads: int | None = None,
        delegates: Sequence[Any] = (),
        options: Mapping[str, Any] | None = None,
    ) -> CompiledInterpreter:
        """See `Runtime.open`. Compiling takes from a second to a minute, in which no other thread of Python runs.

        Raises:
            DelegateUnavailableError: There is no such accelerator, or it takes nothing of this model.
            UsageError: Delegates or options are given, which are the plain interpreter's.
            ValueError, RuntimeError: The model is refused; `load_error` translates them.
        """
        if delegates or options:
            raise UsageError(f"{self.name} takes neither delegates nor options of the plain interpreter")
        # It tells what `CompiledModel` does not, and looks at the file first: a truncated one is a crash there.
        resolver = self._plain.attribute("OpResolverType").BUILTIN_WITHOUT_DEFAULT_DELEGATES
        plain: Any = self._plain.open(model, options={"experimental_op_resolver_type": resolver})
        if self._accelerator == "cpu":
            plain.allocate_tensors()  # refuses with a reason what `CompiledModel` would refuse at its first run
        operators = plain._get_ops_details()  # noqa: SLF001 - there is no public way
        trouble, compiled = "", None
        with kept_stderr() as said:
            try:
                compiled = self._compile(model, threads)
            except RuntimeError as error:
                trouble = str(error)
        if compiled is None:
            raise refusal(said.text, trouble, where=str(self))
        taken = share(said.text, operators=len(operators))
        if taken.total and not taken.delegated:
            raise DelegateUnavailableError(
                f"takes none of the model's {taken.total} operators", where=str(self), hint="take the CPU"
            )
        from edge_sdk.runtime._compiled_interpreter import CompiledInterpreter

        return CompiledInterpreter(compiled, plain, operators=operators, share=taken)

    def load_delegate(self, library: str, options: Mapping[str, Any] | None = None) -> Any:
        """See `Runtime.load_delegate`; here it always raises, there is nothing to pass a delegate to."""
        del options
        raise UsageError(f"{self.name} takes no delegate", where=library, hint="take the plain interpreter")

    def attribute(self, name: str) -> Any:
        """See `Runtime.attribute`: the plain interpreter's."""
        return self._plain.attribute(name)

    def _compile(self, model: str | bytes, threads: int | None) -> Any:
        lib = _library()
        flag = lib.HardwareAccelerator
        wanted = {"gpu": flag.GPU | flag.CPU, "npu": flag.NPU, "cpu": flag.CPU}
        options = lib.Options(
            hardware_accelerators=wanted[self._accelerator],
            cpu_options=lib.CpuOptions(num_threads=threads or 1, xnnpack_flags=self._xnnpack_flags),
            gpu_options=lib.GpuOptions(enforce_f32=self._enforce_f32),
        )
        environment, process = _environment()
        if process != os.getpid():  # the threads of its driver stayed in the parent: it would wait for ever
            raise DelegateUnavailableError(
                "this process was forked from one that had loaded it", where=str(self), hint="start a fresh process"
            )
        make = lib.CompiledModel.from_buffer if isinstance(model, bytes) else lib.CompiledModel.from_file
        return make(model, environment=environment, options=options)


def _name(accelerator: str) -> str:
    return f"{_litert.NAME}/{accelerator}"


def _folder() -> Path:
    spec = importlib.util.find_spec("ai_edge_litert")
    return Path(next(iter((spec and spec.submodule_search_locations) or [os.curdir])))


def _library() -> ModuleType:
    return importlib.import_module("ai_edge_litert.compiled_model")


@functools.cache
def _environment() -> tuple[Any, int]:
    """One for the process, and its id: every further one would load the accelerators again."""
    return _library().Environment.create(), os.getpid()


__all__ = ["Accelerator", "CompiledRuntime", "Share", "compiled_reason"]
