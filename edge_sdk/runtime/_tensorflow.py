"""TensorFlow's own interpreter, the last resort: the only module on a device's side that may import TensorFlow."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import warnings
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, cast

from edge_sdk.runtime._interface import Runtime, Unavailable
from edge_sdk.runtime._module import ModuleRuntime, installed_version, numbers

if TYPE_CHECKING:
    from edge_sdk.runtime._interface import RawInterpreter

NAME = "tensorflow"


def find() -> Runtime | Unavailable:
    """The runtime, or why it can't be used; TensorFlow itself is imported at the first model, not here."""
    version = installed_version(NAME) or installed_version("tensorflow-cpu")
    if version is None or importlib.util.find_spec("tensorflow") is None:
        return Unavailable(name=NAME, reason="not installed", hint="pip install tensorflow")
    return ModuleRuntime(name=NAME, version=version, speaks=numbers(version), module=_module)


@functools.cache
def _module() -> ModuleType:
    import tensorflow as tf

    def interpreter(**keywords: object) -> RawInterpreter:
        with warnings.catch_warnings():
            # "tf.lite.Interpreter is deprecated ... use LiteRT": which is what is tried first here.
            warnings.simplefilter("ignore")
            return cast("RawInterpreter", tf.lite.Interpreter(**keywords))

    module = importlib.import_module("tensorflow.lite.python.interpreter")
    return cast("ModuleType", SimpleNamespace(**vars(module) | {"Interpreter": interpreter}))
