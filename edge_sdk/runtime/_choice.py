"""Which runtime is used: by the file's format, then the first usable of a fixed order, or what `EDGE_RUNTIME` names."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from types import MappingProxyType

from edge_sdk.errors import RuntimeUnavailableError
from edge_sdk.runtime import _litert, _onnxruntime, _tensorflow, _tflite
from edge_sdk.runtime._interface import Described, Runtime, Unavailable
from edge_sdk.runtime._module import installed_version, numbers

RUNTIME_VARIABLE = "EDGE_RUNTIME"

_FINDERS: Mapping[str, Callable[[], Runtime | Unavailable]] = MappingProxyType(
    {"litert": _litert.find, "tflite": _tflite.find, "tensorflow": _tensorflow.find}
)

_DESCRIBED: Mapping[str, tuple[str, Callable[[str], tuple[int, ...]]]] = MappingProxyType(
    {
        "litert": (_litert.NAME, _litert.speaks),
        "tflite": (_tflite.NAME, numbers),
        "tensorflow": (_tensorflow.NAME, numbers),
    }
)


def available() -> tuple[Runtime | Unavailable, ...]:
    """Every runtime this product knows, the preferred first, the missing ones with their reason.

    ONNX Runtime is the last: it is no alternative to the others, but for files of its own.
    """
    return (*(find() for find in _FINDERS.values()), _onnxruntime.find())


def choose() -> Runtime:
    """The first usable TFLite runtime, or the one named by `EDGE_RUNTIME` (`litert`, `tflite`, `tensorflow`).

    Raises:
        RuntimeUnavailableError: There is none, or not the one that is named.
    """
    return _choose(os.environ.get(RUNTIME_VARIABLE, ""))


def described() -> Described | None:
    """The runtime that `choose` would most likely take, told by what is installed; imports none. None without one."""
    wanted = os.environ.get(RUNTIME_VARIABLE, "")
    named = [wanted] if wanted in _DESCRIBED else list(_DESCRIBED)
    for distribution, speaks in (_DESCRIBED[name] for name in named):
        version = installed_version(distribution)
        if version is not None:
            return Described(name=distribution, version=version, speaks=speaks(version))
    return None


def choose_for(model: str | os.PathLike[str] | bytes) -> Runtime:
    """The runtime for a file, by its format: ONNX Runtime for ONNX, else as `choose`.

    Args:
        model: The file's path, or its bytes.

    Raises:
        RuntimeUnavailableError: It is not installed.
    """
    return _choose_onnx() if _onnxruntime.is_onnx(model) else choose()


@functools.cache
def _choose_onnx() -> Runtime:
    found = _onnxruntime.find()
    if isinstance(found, Unavailable):
        raise RuntimeUnavailableError("an .onnx file needs ONNX Runtime", hint=str(found))
    return found


@functools.cache
def _choose(wanted: str) -> Runtime:
    if wanted and wanted not in _FINDERS:
        raise RuntimeUnavailableError(
            f"{wanted[:80]!r} is no runtime", where=RUNTIME_VARIABLE, hint=f"it takes {', '.join(_FINDERS)}"
        )
    missing: list[Unavailable] = []
    for find in [_FINDERS[wanted]] if wanted else _FINDERS.values():
        found = find()
        if not isinstance(found, Unavailable):
            return found
        missing.append(found)
    raise RuntimeUnavailableError("no TFLite runtime can be used here", hint=" | ".join(str(each) for each in missing))
