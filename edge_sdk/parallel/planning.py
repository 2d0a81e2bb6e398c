"""Which place computes which segments, so that the slowest stage is as fast as it can be: a pure function.

Exact for the numbers it is given, by dynamic programming over how many segments are done and which places are used
(as Benoit and Robert, Algorithmica 57, 2010, map pipelines onto unlike processors): first the least bottleneck there
is, then, among the plans that keep it, the least sum of all stages, which is the latency of a sample.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from edge_sdk.errors import UsageError

# Subsets of places are enumerated: 64 segments on 8 places take some seconds on a workstation.
MOST_PLACES = 8
_SAME = 1e-9  # relative: sums of the same numbers in another order


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """How a place is reached from this process, through which every tensor goes.

    Attributes:
        mb_s: 10^6 bytes a second.
        latency_ms: Of each transfer.

    Raises:
        UsageError: That is no speed or no time.
    """

    mb_s: float
    latency_ms: float = 0.0

    def __post_init__(self) -> None:
        """Refuse at once what a plan would stumble over after minutes of measuring."""
        if not (self.mb_s > 0 and 0 <= self.latency_ms < math.inf):  # NaN fails as well
            raise UsageError(f"a link of {self.mb_s!r} MB/s and {self.latency_ms!r} ms", hint="measure again")

    def ms(self, size_bytes: float) -> float:
        """How long so many bytes take one way."""
        return self.latency_ms + size_bytes / (1e3 * self.mb_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStage:
    """Some segments in a row on one place.

    Attributes:
        place: Its name.
        first: The first segment, numbered from 1.
        last: The last of them.
        compute_ms: Of them together.
        transfer_ms: There and back over the place's link.
    """

    place: str
    first: int
    last: int
    compute_ms: float
    transfer_ms: float

    @property
    def ms(self) -> float:
        """How long the stage is occupied with a sample."""
        return self.compute_ms + self.transfer_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """The best plan.

    Attributes:
        stages: In their order.
        whole: The place on which all segments together are fastest, as one stage; None where no place runs them all.
    """

    stages: tuple[PlannedStage, ...]
    whole: PlannedStage | None

    @property
    def bottleneck_ms(self) -> float:
        """Of the slowest stage: a sample comes out every so many milliseconds."""
        return max(stage.ms for stage in self.stages)

    @property
    def latency_ms(self) -> float:
        """Of one sample through all stages."""
        return sum(stage.ms for stage in self.stages)

    @property
    def is_whole(self) -> bool:
        """The model as a whole on one place is better than any pipeline: run it there, not its segments."""
        return len(self.stages) == 1

    @property
    def gain(self) -> float | None:
        """Throughput of the plan over that of the whole on its best place; 1 where nothing takes any time."""
        if self.whole is None:
            return None
        return self.whole.ms / self.bottleneck_ms if self.bottleneck_ms else 1.0

    def place_of(self, segment: int) -> str:
        """The name of the place that computes a segment, numbered from 1."""
        return next(stage.place for stage in self.stages if stage.first <= segment <= stage.last)


def plan(
    costs: Mapping[str, Sequence[float | None]],
    boundary_bytes: Sequence[float],
    *,
    links: Mapping[str, Link] | None = None,
) -> Assignment:
    """The best way to lay segments in a row on places.

    Every place computes at most one stage. A stage is occupied while its tensors go to its place, while it computes,
    and while its answers come back: that is what the stages of a `Pipeline` do.

    Args:
        costs: Milliseconds of each segment on each place, by the place's name; None where it cannot run there.
        boundary_bytes: Before the first segment (what the app gives), between each two, and behind the last.
        links: How places that are not in this process are reached; for all others handing over costs nothing.

    Raises:
        UsageError: The numbers do not fit each other, there are too many places, or no plan runs every segment.
    """
    links = links or {}
    count = _check_arguments(costs, boundary_bytes)
    table = _Table(costs, boundary_bytes, links, count)
    bottleneck_ms = _bottleneck(table)
    if math.isinf(bottleneck_ms):
        raise UsageError("no plan runs every segment", hint="some segment runs nowhere, or places are too few")
    wholes = [table.stage(place, 0, count) for place in range(len(table.places))]
    runnable = [stage for stage in wholes if math.isfinite(stage.ms)]
    return Assignment(
        stages=_shortest(table, bottleneck_ms * (1 + _SAME)),
        whole=min(runnable, key=lambda stage: stage.ms, default=None),
    )


class _Table:
    """What each stage would take."""

    def __init__(
        self,
        costs: Mapping[str, Sequence[float | None]],
        boundary_bytes: Sequence[float],
        links: Mapping[str, Link],
        count: int,
    ) -> None:
        self.places = tuple(costs)
        self.count = count
        self._costs = [[math.inf if each is None else each for each in costs[place]] for place in self.places]
        self._bytes = boundary_bytes
        self._links = [links.get(place) for place in self.places]

    def stages_to(self, place: int, end: int) -> Iterator[tuple[int, float]]:
        """Where a stage that ends before segment `end` may begin, the nearest first, and what it takes."""
        compute_ms = 0.0
        for start in range(end - 1, -1, -1):
            compute_ms += self._costs[place][start]
            if math.isinf(compute_ms):
                return
            yield start, compute_ms + self._transfer_ms(place, start, end)

    def stage(self, place: int, start: int, end: int) -> PlannedStage:
        """It, with all that is known."""
        return PlannedStage(
            place=self.places[place],
            first=start + 1,
            last=end,
            compute_ms=sum(reversed(self._costs[place][start:end])),
            transfer_ms=self._transfer_ms(place, start, end),
        )

    def _transfer_ms(self, place: int, start: int, end: int) -> float:
        link = self._links[place]
        return 0.0 if link is None else link.ms(self._bytes[start]) + link.ms(self._bytes[end])


def _bottleneck(table: _Table) -> float:
    """The least time that the slowest stage of a plan can take."""
    all_places = 1 << len(table.places)
    best = [[math.inf] * (table.count + 1) for _ in range(all_places)]
    best[0][0] = 0.0
    for used in range(1, all_places):
        for place in (p for p in range(len(table.places)) if used >> p & 1):
            before = best[used & ~(1 << place)]
            for end in range(1, table.count + 1):
                for start, stage_ms in table.stages_to(place, end):
                    best[used][end] = min(best[used][end], max(before[start], stage_ms))
    return min(row[table.count] for row in best)


def _shortest(table: _Table, limit_ms: float) -> tuple[PlannedStage, ...]:
    """The plan of the least sum whose stages all keep the limit; of equals, the one of the fewest stages."""
    all_places = 1 << len(table.places)
    nothing = (math.inf, 0)
    best = [[nothing] * (table.count + 1) for _ in range(all_places)]
    came: dict[tuple[int, int], tuple[int, int]] = {}
    best[0][0] = (0.0, 0)
    for used in range(1, all_places):
        for place in (p for p in range(len(table.places)) if used >> p & 1):
            before = best[used & ~(1 << place)]
            for end in range(1, table.count + 1):
                for start, stage_ms in table.stages_to(place, end):
                    if stage_ms > limit_ms:
                        continue  # a link may make a longer stage cheaper
                    found = (before[start][0] + stage_ms, before[start][1] + 1)
                    if found < best[used][end]:
                        best[used][end] = found
                        came[used, end] = place, start
    used = min(range(1, all_places), key=lambda each: best[each][table.count])
    stages: list[PlannedStage] = []
    end = table.count
    while end:
        place, start = came[used, end]
        stages.append(table.stage(place, start, end))
        used, end = used & ~(1 << place), start
    return tuple(reversed(stages))


def _check_arguments(costs: Mapping[str, Sequence[float | None]], boundary_bytes: Sequence[float]) -> int:
    """The number of segments.

    Raises:
        UsageError: The numbers do not fit each other.
    """
    if not 1 <= len(costs) <= MOST_PLACES:
        raise UsageError(f"{len(costs)} places", hint=f"plan with 1 to {MOST_PLACES}")
    count = len(boundary_bytes) - 1
    for place, each in costs.items():
        if count < 1 or len(each) != count:
            raise UsageError(
                f"{len(each)} costs of {place} and {count + 1} boundaries", hint="n segments have n + 1 boundaries"
            )
    numbers = [ms for each in costs.values() for ms in each if ms is not None]
    numbers += boundary_bytes
    if not all(0 <= number < math.inf for number in numbers):
        raise UsageError("a time or size that is negative or no number", hint="measure again")
    return count
