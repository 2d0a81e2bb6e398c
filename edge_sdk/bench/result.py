"""What a run of `edge bench` found."""

from __future__ import annotations

from dataclasses import dataclass

from edge_sdk.bench.cases import Left
from edge_sdk.manifest import Latency


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """The bare interpreter on the same file, in the same turns.

    Attributes:
        ratio: What the variant takes over this one: the median over all turns, of the quickest inference in each.
    """

    variant: str
    threads: int
    samples: int
    median_ms: float
    p95_ms: float
    p99_ms: float | None
    ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BestThreads:
    """With how many threads a variant is best: the fewest that are within 5 % of the fastest.

    Attributes:
        gain: The median with the first number that was tried, over the median with this one.
    """

    variant: str
    threads: int
    gain: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """What a process of its own costs an inference of the variant on the CPU; it is in the times of delegates.

    Attributes:
        cost_ms: The median over all turns, of the quickest inference in each.
    """

    variant: str
    cost_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """Whether energy was measured.

    Attributes:
        sensor: By what; None where there is none.
        idle_w: What the machine took when idle, the mean over all variants.
        reason: Why there is none.
    """

    sensor: str | None = None
    idle_w: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Benched:
    """The result of `edge bench --json`.

    Attributes:
        profile: The class of boards this machine belongs to, where that is known.
        threads: The numbers that were tried.
        latency: In the words of `evidence.json`, the fastest first; of each variant one for each number of threads and
            each delegate.
        raw: Of each variant that the CPU runs.
        best_threads: Where several numbers were tried.
        isolation: Where delegates were timed.
        left: What was not timed, with the reason.
        groups: The variants that took turns with each other; one group where memory holds them all.
        written: Where the latencies were written to; None without `--write`.
    """

    bundle: str
    machine: str
    profile: str | None
    threads: tuple[int, ...]
    latency: tuple[Latency, ...]
    raw: tuple[Raw, ...]
    best_threads: tuple[BestThreads, ...]
    isolation: tuple[Isolation, ...]
    energy: Energy
    left: tuple[Left, ...]
    groups: tuple[tuple[str, ...], ...]
    written: str | None
