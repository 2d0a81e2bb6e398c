"""Names of passes and the passes, in one place."""

from __future__ import annotations

from functools import cache
from importlib import metadata
from typing import Any

import msgspec

from edge_converter.errors import RecipeError
from edge_converter.passes import _floats, _formats, _integers, _ranges
from edge_converter.passes._contract import Pass
from edge_converter.recipe import Options

GROUP = "edge.passes"

_OURS: tuple[Pass, ...] = (
    _floats.Fold(),
    _floats.Equalize(),
    _ranges.Calibrate(),
    _formats.Quantize(),
    _integers.Compensate(),
    _integers.Biases(),
    _integers.Spare(),
    _integers.Cluster(),
    _integers.Allocate(),
)


def known() -> tuple[str, ...]:
    """The names of all passes: ours, then those that are installed."""
    return (*(one.name for one in _OURS), *(entry.name for entry in _installed()))


@cache
def find(name: str) -> Pass:
    """The pass of this name.

    Raises:
        RecipeError: There is none, or the installed one cannot be imported.
    """
    ours = next((one for one in _OURS if one.name == name), None)
    if ours is not None:
        return ours
    for entry in _installed():
        if entry.name == name:
            try:
                found: Pass = entry.load()
            except (ImportError, AttributeError) as cause:
                raise RecipeError(f"the installed pass {name!r} cannot be imported: {cause}") from cause
            return found
    raise RecipeError(f"no pass {name[:80]!r}", hint=f"there are {', '.join(known())}")


def options_of(one: Pass, given: Options, *, where: str) -> Any:
    """The pass's options, those given in place of its own.

    Raises:
        RecipeError: It has no such option, or the value is out of its bounds.
    """
    try:
        return msgspec.convert(dict(given), one.options)
    except msgspec.ValidationError as cause:
        known_options = ", ".join(one.options.__struct_fields__) or "none"
        raise RecipeError(f"{cause}", where=f"{where}.{one.name}", hint=f"its options: {known_options}") from cause


def _installed() -> tuple[metadata.EntryPoint, ...]:
    return tuple(metadata.entry_points(group=GROUP))
