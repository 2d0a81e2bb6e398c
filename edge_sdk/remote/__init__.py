"""Engines that compute on another host, over the Open Inference Protocol v2, and one that does not wait too long."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_sdk.remote.engine import RemoteEngine
    from edge_sdk.remote.errands import HedgeCounts
    from edge_sdk.remote.hedged import Hedged

_HOMES = {
    "HedgeCounts": "edge_sdk.remote.errands",
    "Hedged": "edge_sdk.remote.hedged",
    "RemoteEngine": "edge_sdk.remote.engine",
}

__all__ = ["HedgeCounts", "Hedged", "RemoteEngine"]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
