"""What apps import: a model that is switched under the app's feet, and nothing that loads before it is used.

The names resolve lazily (PEP 562), so that `import edge_sdk.wire` pulls neither numpy nor a runtime.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from edge_sdk._version import __version__

if TYPE_CHECKING:
    from edge_sdk.bundle import Bundle
    from edge_sdk.engine import Engine
    from edge_sdk.errors import EdgeError
    from edge_sdk.interpreter import Interpreter
    from edge_sdk.model import EdgeModel
    from edge_sdk.opening import open_engine
    from edge_sdk.parallel.pipeline import Pipeline
    from edge_sdk.parallel.pool import ReplicaPool
    from edge_sdk.preference import Mode, Preference
    from edge_sdk.remote.engine import RemoteEngine
    from edge_sdk.remote.hedged import Hedged

_HOMES = {
    "Bundle": "edge_sdk.bundle",
    "EdgeError": "edge_sdk.errors",
    "EdgeModel": "edge_sdk.model",
    "Engine": "edge_sdk.engine",
    "Hedged": "edge_sdk.remote.hedged",
    "Interpreter": "edge_sdk.interpreter",
    "Mode": "edge_sdk.preference",
    "Pipeline": "edge_sdk.parallel.pipeline",
    "Preference": "edge_sdk.preference",
    "RemoteEngine": "edge_sdk.remote.engine",
    "ReplicaPool": "edge_sdk.parallel.pool",
    "open_engine": "edge_sdk.opening",
}

__all__ = [
    "Bundle",
    "EdgeError",
    "EdgeModel",
    "Engine",
    "Hedged",
    "Interpreter",
    "Mode",
    "Pipeline",
    "Preference",
    "RemoteEngine",
    "ReplicaPool",
    "__version__",
    "open_engine",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
