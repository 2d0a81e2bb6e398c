"""A runtime that loads every model with a delegate, and what libraries say when they refuse.

Error texts and types were collected from ai-edge-litert 2.3.0 and tflite-runtime 2.14.0. In the app's own process a
crash of the library takes the app with it: `edge_sdk.isolation` keeps it in another.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_sdk.delegates.delegation import Delegation
from edge_sdk.delegates.gpu import F32, ON_ONNX
from edge_sdk.delegates.xnnpack import FP16, XNNPACK
from edge_sdk.errors import DelegateUnavailableError
from edge_sdk.runtime import CompiledRuntime, RawInterpreter, Runtime, onnx_on_accelerator

_MAX_CHARS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class WithDelegate:
    """A `Runtime` whose interpreters compute on a delegate, what it does not take on the CPU.

    Attributes:
        told: Told what is begun, for whoever has to say during what it crashed.
    """

    inner: Runtime
    delegation: Delegation
    told: Callable[[str], None]

    @property
    def name(self) -> str:
        """Of the runtime."""
        return self.inner.name

    @property
    def version(self) -> str:
        """Of the runtime."""
        return self.inner.version

    @property
    def speaks(self) -> tuple[int, ...]:
        """Of the runtime."""
        return self.inner.speaks

    def open(
        self,
        model: str | bytes,
        *,
        threads: int | None = None,
        delegates: Sequence[Any] = (),
        options: Mapping[str, Any] | None = None,
    ) -> RawInterpreter:
        """See `Runtime.open`.

        Raises:
            DelegateUnavailableError: The library is missing, is no delegate, or has no device.
        """
        self.told("it was loading the delegate's library")
        attached = self.load_delegate(self.delegation.library, self.delegation.options)
        self.told("it was preparing the model on the delegate")
        return self.inner.open(model, threads=threads, delegates=(attached, *delegates), options=options)

    def load_delegate(self, library: str, options: Mapping[str, Any] | None = None) -> Any:
        """See `Runtime.load_delegate`.

        Raises:
            DelegateUnavailableError: As of `open`.
        """
        try:
            return self.inner.load_delegate(library, options)
        except (OSError, AttributeError, ValueError, RuntimeError) as cause:
            raise _unavailable(self.delegation, cause) from cause

    def attribute(self, name: str) -> Any:
        """See `Runtime.attribute`."""
        return self.inner.attribute(name)


def with_delegate(delegation: Delegation, runtime: Runtime, *, told: Callable[[str], None] = lambda _: None) -> Runtime:
    """The runtime, with a delegate in every interpreter it opens.

    Where no library is to be loaded it is another runtime, which brings the accelerator; LiteRT's is for child
    processes alone.

    Raises:
        DelegateUnavailableError: ai-edge-litert, or ONNX Runtime where the file is for it, is not installed.
    """
    if delegation.options == ON_ONNX:
        return onnx_on_accelerator()
    if delegation.name == XNNPACK:
        return CompiledRuntime("cpu", fp16=delegation.options.get(FP16) == "true")
    if not delegation.library:
        return CompiledRuntime("gpu", enforce_f32=delegation.options.get(F32) == "true")
    return WithDelegate(inner=runtime, delegation=delegation, told=told)


def _unavailable(delegation: Delegation, cause: Exception) -> DelegateUnavailableError:
    text = " ".join(str(cause).split())
    where = str(delegation)
    if isinstance(cause, AttributeError):
        return DelegateUnavailableError(
            f"{delegation.library} is no TFLite delegate (it does not export tflite_plugin_create_delegate)",
            where=where,
            hint="name the delegate's own library",
        )
    if isinstance(cause, OSError):
        wrong = re.search(r"wrong ELF class|invalid ELF header|cannot open shared object file: (.*)", text)
        found = wrong[0] if wrong else text
        return DelegateUnavailableError(
            f"the library {delegation.library} cannot be loaded: {found[:_MAX_CHARS]}",
            where=where,
            hint="install it for this machine's architecture, with what it depends on (see ldd)",
        )
    refused = text.removeprefix(f"Failed to load delegate from {delegation.library}").strip()
    return DelegateUnavailableError(
        f"the library {delegation.library} refuses" + (f": {refused[:_MAX_CHARS]}" if refused else ""),
        where=where,
        hint="is the device plugged in, free, and may this user open it?",
    )
