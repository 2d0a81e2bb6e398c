"""A runtime made of a Python module with TFLite's interpreter in it, which is what all three are."""

from __future__ import annotations

import ctypes
import importlib.metadata
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from edge_sdk.runtime._interface import RawInterpreter

_ENTRY = "tflite_plugin_create_delegate"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleRuntime:
    """Implements `Runtime` over a module that has `Interpreter` and `load_delegate`.

    Attributes:
        module: Gives the module; called at each use, so that a heavy one is imported only then.
        check: Looks at a file before the runtime does, and raises `ValueError`; None where the runtime looks itself.
    """

    name: str
    version: str
    speaks: tuple[int, ...]
    module: Callable[[], ModuleType]
    check: Callable[[str | bytes], None] | None = None

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    def open(
        self,
        model: str | bytes,
        *,
        threads: int | None = None,
        delegates: Sequence[Any] = (),
        options: Mapping[str, Any] | None = None,
    ) -> RawInterpreter:
        """See `Runtime.open`."""
        if self.check is not None:
            self.check(model)
        keywords: dict[str, Any] = dict(options or {})
        keywords["model_content" if isinstance(model, bytes) else "model_path"] = model
        if threads is not None:
            keywords["num_threads"] = threads
        if delegates:
            keywords["experimental_delegates"] = list(delegates)
        interpreter: RawInterpreter = self.module().Interpreter(**keywords)
        return interpreter

    def load_delegate(self, library: str, options: Mapping[str, Any] | None = None) -> Any:
        """See `Runtime.load_delegate`.

        The library is looked at first: where it cannot be loaded, the runtime's own object is left half made, and
        complains on standard error when it is forgotten (google-coral/edgetpu#167).
        """
        if not hasattr(ctypes.CDLL(library), _ENTRY):
            raise AttributeError(f"{library} is no TFLite delegate: it has no {_ENTRY}")  # as the runtime's own
        return self.module().load_delegate(library, dict(options) if options else None)

    def attribute(self, name: str) -> Any:
        """See `Runtime.attribute`."""
        return getattr(self.module(), name)


def installed_version(distribution: str) -> str | None:
    """The version of an installed distribution, read without importing it."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def numbers(version: str) -> tuple[int, ...]:
    """`2.14.0rc1` as `(2, 14, 0)`."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
