"""GPUs and Android's NNAPI."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_sdk.delegates.contract import DelegateRequest
from edge_sdk.delegates.delegation import Delegation
from edge_sdk.runtime import Unavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU: by LiteRT's own WebGPU accelerator, or by the classic delegate's library where one is named."""

    name: str = "gpu"
    summary: str = "GPU by LiteRT (WebGPU on Vulkan), or by a classic delegate's library"

    def find(self, request: DelegateRequest, root: Path) -> Delegation | Unavailable:
        """See `Backend.find`."""
        if request.library:
            if not (root / request.library.lstrip("/")).is_file():
                return Unavailable(name=self.name, reason=f"there is no file {request.library}", hint="check the path")
            return Delegation(name=self.name, library=request.library, options=dict(request.options))
        return Unavailable(name=self.name, reason="needs LiteRT's CompiledModel", hint="pip install -U ai-edge-litert")


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
