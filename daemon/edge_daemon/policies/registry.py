"""Which policies there are, by name: ours in the table below, and what other packages bring.

A package joins with an entry point of the group `edge.policies`: its name, and a callable that takes a `Setting` and
returns a `Policy`. The names below stay ours. Nothing is imported before it is asked for by name, so a broken plug-in
harms nobody who does not use it.
"""

from __future__ import annotations

import importlib
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from edge_daemon.errors import PolicyImportError, UnknownPolicyError
from edge_daemon.policies.contract import GROUP, Factory

BUILT_IN: Final = {
    "optimal": "edge_daemon.policies.optimal:Optimal",
    "rules": "edge_daemon.policies.rules:Rules",
    "alert": "edge_daemon.policies.alert:Alert",
    "static": "edge_daemon.policies.static:Static",
    "static-fast": "edge_daemon.policies.static:StaticFast",
}
DEFAULT: Final = "optimal"


def names() -> tuple[str, ...]:
    """All names: ours first, then those of other packages in the order of the alphabet."""
    return (*BUILT_IN, *sorted({point.name for point in _plugged()}))


def find(name: str) -> Factory:
    """What makes the policy of this name.

    Raises:
        UnknownPolicyError: There is none.
        PolicyImportError: There is one, and it cannot be imported or is nothing that can be called.
    """
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        factory: Factory = getattr(importlib.import_module(module), attribute)
        return factory
    for point in _plugged():
        if point.name == name:
            return _loaded(point)
    raise UnknownPolicyError(f"no policy {name[:80]!r}", hint=f"there are {', '.join(names())}")


def _plugged() -> tuple[EntryPoint, ...]:
    return tuple(point for point in entry_points(group=GROUP) if point.name not in BUILT_IN)


def _loaded(point: EntryPoint) -> Factory:
    where, hint = f"policy {point.name!r} of {point.value!r}", "ask whoever made it, or take another policy"
    try:
        factory = point.load()
    except Exception as cause:  # whatever a stranger's module raises
        raise PolicyImportError(
            f"cannot be imported: {type(cause).__name__}: {str(cause)[:200]}", where=where, hint=hint
        ) from cause
    if not callable(factory):
        raise PolicyImportError("is nothing that can be called with a setting", where=where, hint=hint)
    made: Factory = factory
    return made
