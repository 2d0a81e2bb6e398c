"""GPUs and Android's NNAPI."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from edge_sdk.delegates.contract import DelegateRequest
from edge_sdk.delegates.delegation import Delegation
from edge_sdk.errors import UsageError
from edge_sdk.runtime import ONNX_RUNTIME, Unavailable, compiled_reason, onnx_reason

GPU = "gpu"
# `true` computes in 32-bit floats where the GPU would in 16.
F32 = "enforce_f32"
# Names who loads the file, where that is not LiteRT: TensorRT or CUDA in ONNX Runtime.
RUNTIME = "runtime"
ON_ONNX = MappingProxyType({RUNTIME: ONNX_RUNTIME})


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU: by LiteRT's own WebGPU accelerator, or by the classic delegate's library where one is named."""

    name: str = GPU
    summary: str = "GPU by LiteRT (WebGPU on Vulkan), or by a classic delegate's library"

    def find(self, request: DelegateRequest, root: Path) -> Delegation | Unavailable:
        """See `Backend.find`. Whether there is a GPU shows only when a model is compiled.

        Raises:
            UsageError: A device or an option that LiteRT does not have.
        """
        if request.library:
            if not (root / request.library.lstrip("/")).is_file():
                return Unavailable(name=self.name, reason=f"there is no file {request.library}", hint="check the path")
            return Delegation(name=self.name, library=request.library, options=dict(request.options))
        if request.options == ON_ONNX and not request.device:
            missing = onnx_reason(accelerated=True)
            if missing is not None:
                return Unavailable(name=self.name, reason=f"{missing.name} {missing.reason}", hint=missing.hint)
            return Delegation(name=self.name, options=dict(ON_ONNX))
        unknown = set(request.options) - {F32}
        if unknown or request.device:
            raise UsageError(
                f"{min(unknown) if unknown else request.device!r}: LiteRT chooses the GPU itself",
                hint=f"the one option is {F32}",
            )
        reason = compiled_reason("gpu", root=root)
        if reason is not None:
            return Unavailable(name=self.name, reason=reason.reason, hint=reason.hint)
        return Delegation(name=self.name, options=dict(request.options))


@dataclass(frozen=True, slots=True, kw_only=True)
class NnApi:
    """Android's neural networks API, of which only the name is left on Linux."""

    name: str = "nnapi"
    summary: str = "Android NNAPI, deprecated since Android 15"

    def find(self, request: DelegateRequest, root: Path) -> Unavailable:
        """See `Backend.find`."""
        del request, root
        return Unavailable(
            name=self.name,
            reason="exists on Android alone, and is deprecated since Android 15",
            hint="take the delegate gpu, or the CPU",
        )
