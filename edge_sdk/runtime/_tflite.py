"""tflite-runtime: ended with 2.14.0, yet the only one for 32-bit ARM and for old libedgetpu libraries."""

from __future__ import annotations

import importlib

from edge_sdk.runtime._interface import Runtime, Unavailable
from edge_sdk.runtime._module import ModuleRuntime, installed_version, numbers
from edge_sdk.runtime._whole import check_whole

NAME = "tflite-runtime"


def find() -> Runtime | Unavailable:
    """The runtime, or why it can't be used."""
    version = installed_version(NAME)
    if version is None:
        return Unavailable(
            name=NAME, reason="not installed", hint="pip install 'adaptive-edge-sdk[tflite]' (Python 3.11 or older)"
        )
    # Its import survives numpy 2, its constructor does not ("SystemError: ... returned a result with an exception
    # set"), and its wheel does not pin numpy, so pip never prevents the pair.
    numpy = installed_version("numpy")
    if numpy is not None and numbers(numpy) >= (2,):
        return Unavailable(
            name=NAME, reason=f"{version} breaks under numpy {numpy}", hint="pip install 'numpy<2' mends it"
        )
    try:
        module = importlib.import_module("tflite_runtime.interpreter")
    except (ImportError, OSError) as cause:
        return Unavailable(name=NAME, reason=f"{version} cannot be imported: {cause}", hint=f"reinstall {NAME}")
    return ModuleRuntime(name=NAME, version=version, speaks=numbers(version), module=lambda: module, check=check_whole)
