"""ai-edge-litert: the successor of tflite-runtime, with wheels for 64-bit boards."""

from __future__ import annotations

import importlib

from edge_sdk.runtime._interface import Runtime, Unavailable
from edge_sdk.runtime._module import ModuleRuntime, installed_version, numbers

NAME = "ai-edge-litert"

# LiteRT counts its versions apart from TensorFlow's. Its 1.0 was cut from TensorFlow 2.17, 2.x is beyond 2.21, the
# last release of TensorFlow with converters of its own.
_FIRST = (2, 17)
_SINCE_2 = (2, 21)


def find() -> Runtime | Unavailable:
    """The runtime, or why it can't be used."""
    version = installed_version(NAME)
    if version is None:
        return Unavailable(name=NAME, reason="not installed", hint="pip install ai-edge-litert (no wheel for 32-bit)")
    try:
        module = importlib.import_module("ai_edge_litert.interpreter")
    except (ImportError, OSError) as cause:
        return Unavailable(name=NAME, reason=f"{version} cannot be imported: {cause}", hint=f"reinstall {NAME}")
    speaks = _SINCE_2 if numbers(version) >= (2,) else _FIRST
    return ModuleRuntime(name=NAME, version=version, speaks=speaks, module=lambda: module)
