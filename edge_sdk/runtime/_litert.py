"""ai-edge-litert: the successor of tflite-runtime, with wheels for 64-bit boards."""

from __future__ import annotations

import importlib

from edge_sdk.runtime._interface import Runtime, Unavailable
from edge_sdk.runtime._module import ModuleRuntime, installed_version, numbers

NAME = "ai-edge-litert"

# LiteRT counts its versions apart from TensorFlow's. What each knows was asked of the wheels, operator by operator and
# version by version: 1.0.1 lacks CAST 7 of 2.17, from 1.1.2 on all of 2.18 is known that a file made here can hold. 2.x
# is beyond 2.21, the last release of TensorFlow with converters of its own.
_SPEAKS: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (((2,), (2, 21)), ((1, 1), (2, 18)), ((0,), (2, 16)))

# Like tflite-runtime's, the wheels of 1.0 break under numpy 2 when a model is opened, not when they are imported.
_FIRST_WITH_NUMPY_2 = (1, 1)


def find() -> Runtime | Unavailable:
    """The runtime, or why it can't be used."""
    version = installed_version(NAME)
    if version is None:
        return Unavailable(name=NAME, reason="not installed", hint="pip install ai-edge-litert (no wheel for 32-bit)")
    numpy = installed_version("numpy")
    if numbers(version) < _FIRST_WITH_NUMPY_2 and numpy is not None and numbers(numpy) >= (2,):
        return Unavailable(name=NAME, reason=f"{version} breaks under numpy {numpy}", hint=f"pip install -U {NAME}")
    try:
        module = importlib.import_module("ai_edge_litert.interpreter")
    except (ImportError, OSError) as cause:
        return Unavailable(name=NAME, reason=f"{version} cannot be imported: {cause}", hint=f"reinstall {NAME}")
    return ModuleRuntime(name=NAME, version=version, speaks=speaks(version), module=lambda: module)


def speaks(version: str) -> tuple[int, ...]:
    """The TensorFlow Lite version whose operator versions this release knows."""
    return next(known for since, known in _SPEAKS if numbers(version) >= since)
