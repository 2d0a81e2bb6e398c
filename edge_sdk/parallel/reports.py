"""What a pool and a pipeline tell of their work."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from edge_sdk.parallel.condition import Condition


class State(enum.Enum):
    """How a replica fares."""

    READY = "ready"
    HOT = "hot"
    FAILED = "failed"  # left out for a while, then tried with one sample
    LATE = "late"  # it has not answered for much longer than it should take
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one replica did.

    Attributes:
        name: Of the replica.
        samples: It answered.
        rate: Samples a second while it computes, by its last pieces; None before the first.
        failures: Pieces it failed.
        state: Whether it gets work.
        busy: The share of the last seconds it computed for this pool, 0 to 1.
        condition: What its watch said last; None without one.
        trouble: Its last error, where it is left out.
    """

    name: str
    samples: int
    rate: float | None
    failures: int
    state: State
    busy: float
    condition: Condition | None
    trouble: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """What a pool did.

    Attributes:
        replicas: In the order they were given.
        waiting: Samples that no replica has taken yet.
    """

    replicas: tuple[Share, ...]
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StageReport:
    """What one stage of a pipeline did, the times over its last thousand samples.

    Attributes:
        name: Of the stage.
        segments: Their numbers.
        samples: That passed it, failed ones included.
        failures: Samples it failed.
        compute_p50_ms: Median of what it computes for a sample; None before the first.
        compute_p95_ms: 95th percentile.
        starved_p50_ms: Median of what it waited for a sample to come.
        blocked_p50_ms: Median of what it waited for the next stage to take one.
        queue: Samples that wait before it now.
        processor_s: Processor time of its thread so far, handing on included; interpreters' own threads are not in it.
        handed_on_bytes: Of a sample, to later stages and the app, on the average.
    """

    name: str
    segments: tuple[int, ...]
    samples: int
    failures: int
    compute_p50_ms: float | None
    compute_p95_ms: float | None
    starved_p50_ms: float | None
    blocked_p50_ms: float | None
    queue: int
    processor_s: float
    handed_on_bytes: float
