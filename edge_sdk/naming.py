"""Arrays by name, brought into the order of a model's inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edge_sdk.errors import InputNameError, InputShapeError
from edge_sdk.manifest import TensorSpec


def ordered(inputs: Sequence[TensorSpec], arrays: Sequence[Any], named: Mapping[str, Any]) -> tuple[Any, ...]:
    """The arrays of a call in the order of the inputs.

    Args:
        inputs: What the model takes.
        arrays: Those given by position: none, or one mapping from names to arrays.
        named: Those given by name.

    Raises:
        InputShapeError: Some are given by position and some by name.
        InputNameError: A name is unknown, or one is missing.
    """
    names = [spec.name for spec in inputs]
    given: dict[str, Any] = dict(named)
    if len(arrays) == 1 and isinstance(arrays[0], Mapping):
        given |= arrays[0]
    elif arrays:
        raise InputShapeError("arrays by position and by name at once", hint=f"name all of {', '.join(names)}")
    unknown = [name for name in given if name not in names]
    if unknown:
        raise InputNameError(f"no input {unknown[0]!r}", hint=f"there are: {', '.join(names)}")
    missing = [name for name in names if name not in given]
    if missing:
        raise InputNameError(f"input {missing[0]!r} is not given", hint=f"there are: {', '.join(names)}")
    return tuple(given[name] for name in names)
