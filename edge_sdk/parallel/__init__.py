"""Several engines at work on one model: side by side on the samples of a batch, or one after another on its segments.

Data parallel is `ReplicaPool`: every engine holds the whole model and takes a part of the batch. Model parallel is
`Pipeline`: every stage holds some segments of the model, and while the second computes one sample the first computes
the next. `plan` chooses which place computes which segments.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_sdk.parallel.condition import Condition, Watch
    from edge_sdk.parallel.pipeline import Pipeline
    from edge_sdk.parallel.places import Place, cpu
    from edge_sdk.parallel.planning import Assignment, Link, plan
    from edge_sdk.parallel.pool import ReplicaPool
    from edge_sdk.parallel.reports import Share, Shares, StageReport
    from edge_sdk.parallel.timing import measure
    from edge_sdk.parallel.ways import Way, best_way

_HOMES = {
    "Assignment": "planning",
    "Condition": "condition",
    "Link": "planning",
    "Pipeline": "pipeline",
    "Place": "places",
    "ReplicaPool": "pool",
    "Share": "reports",
    "Shares": "reports",
    "StageReport": "reports",
    "Watch": "condition",
    "Way": "ways",
    "best_way": "ways",
    "cpu": "places",
    "measure": "timing",
    "plan": "planning",
}

__all__ = [
    "Assignment",
    "Condition",
    "Link",
    "Pipeline",
    "Place",
    "ReplicaPool",
    "Share",
    "Shares",
    "StageReport",
    "Watch",
    "Way",
    "best_way",
    "cpu",
    "measure",
    "plan",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
