"""Which few variants to put on a board: enough for the daemon to move between, few enough to download and store.

Always among them is one that every CPU of the board's kind runs; then come the ends of the front (the most accurate,
the fastest, the lightest to transfer) and, up to six, those between that gain most over all chosen so far. A gain that
no user would notice is not worth a file. Where the front alone is too short, what another dominates only if a
prediction holds comes along: the daemon measures, and then knows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edge_converter.graph import Graph
from edge_converter.selecting import fronts
from edge_converter.selecting.fronts import Front, span, told
from edge_sdk.manifest import Delegate, Latency, Objective, Origin, Recommended, Selection, Variant
from edge_sdk.profile import Profile

MOST = 6
FEWEST = 3
# Less than this apart, two variants are one step for the daemon: a tenth of latency or size, a tenth of a point.
_NOTICED = math.log(1.1)
_NOTICED_POINTS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """The front of one board, and what to ship of it."""

    front: Front
    selection: Selection


def select(
    profile: Profile,
    variants: Sequence[Variant],
    graphs: Mapping[str, Graph],
    *,
    evidence: Sequence[Latency] = (),
    max_latency_ms: float | None = None,
    objective: Objective = Objective.ACCURACY,
) -> Selected:
    """Choose for one board.

    Args:
        profile: The board.
        variants: All that are in the bundle.
        graphs: Of the variants that run on a CPU, by id.
        evidence: Latencies from elsewhere; those of this board decide before any prediction.
        max_latency_ms: What one inference may take there.
        objective: What the recommended are ordered by.
    """
    front = fronts.front(profile, variants, graphs, evidence=evidence, max_latency_ms=max_latency_ms)
    notes = [*front.notes, *_how_known(front)]
    chosen = _Choice(profile, variants, front, objective)
    chosen.make()
    if not front.ids:
        notes.insert(0, chosen.nearest(max_latency_ms))
    selection = Selection(
        objective=objective,
        max_latency_ms=max_latency_ms,
        recommended=chosen.ordered(),
        dominated=front.dominated,
        excluded=front.excluded,
        notes=tuple(note[:1000] for note in notes),
    )
    return Selected(front=front, selection=selection)


def _how_known(front: Front) -> list[str]:
    """Say so where the latencies of one board are of several origins."""
    by_origin = {
        origin: [id_ for id_, latency in sorted(front.latencies.items()) if latency.origin is origin]
        for origin in Origin
    }
    if sum(map(bool, by_origin.values())) < 2:  # noqa: PLR2004 - of one origin
        return []
    parts = [f"{origin.value} of {', '.join(ids)}" for origin, ids in by_origin.items() if ids]
    return [f"latencies are {'; '.join(parts)}: of two origins only those are compared whose spans lie apart"]


class _Choice:
    """Gathers what is recommended, with what each is for."""

    def __init__(self, profile: Profile, variants: Sequence[Variant], front: Front, objective: Objective) -> None:
        self._profile = profile
        self._by_id = {variant.id: variant for variant in variants}
        self._front = front
        self._objective = objective
        self._why: dict[str, list[str]] = {}

    def make(self) -> None:
        front = [self._by_id[id_] for id_ in self._front.ids]
        pool = front or self._nearest()
        if not pool:
            return
        timed = [v for v in pool if v.id in self._front.latencies]
        self._end(max(pool, key=lambda v: (v.quality.value, -self._ms(v), v.id)), "the most accurate")
        if timed:
            self._end(min(timed, key=lambda v: (self._ms(v), -v.quality.value, v.id)), "the fastest")
        self._end(min(pool, key=lambda v: (v.transfer_bytes, -v.quality.value, v.id)), "the lightest to transfer")
        if self._objective is Objective.SIZE:
            self._end(min(pool, key=lambda v: (v.size_bytes, -v.quality.value, v.id)), "the smallest file")
        self._everywhere(pool)
        while len(self._why) < MOST and (variant := self._furthest(front)) is not None:
            self._add(variant, "a step between the others")
        for unsure in self._unsure():
            if len(self._why) >= FEWEST:
                break
            self._add(self._by_id[unsure], "dominated only if the predictions hold: to be measured on the board")
        for id_ in tuple(self._why):
            twin = self._by_id[id_].target.fallback
            if twin is not None:
                self._add(self._by_id[twin], f"what {id_} falls back to")

    def ordered(self) -> tuple[Recommended, ...]:
        """By the objective, the best first."""
        chosen = sorted((self._by_id[id_] for id_ in sorted(self._why)), key=self._rank())
        return tuple(Recommended(id=v.id, why=self._told(v)[:1000]) for v in chosen)

    def nearest(self, bound_ms: float | None) -> str:
        """What is said where nothing in the bundle is within the bounds."""
        near = self._nearest()
        if not near:
            return f"no variant of this bundle runs on {self._profile.id}"
        known = told(self._front.latencies[near[0].id])
        return f"no variant is within {bound_ms or 0:g} ms on {self._profile.id}; the nearest is {near[0].id}: {known}"

    def _nearest(self) -> list[Variant]:
        """The fastest of what was excluded for its time, where nothing else is left."""
        slow = [self._by_id[one.id] for one in self._front.excluded if one.id in self._front.latencies]
        return sorted(slow, key=lambda v: (self._ms(v), v.id))[:1]

    def _everywhere(self, pool: Sequence[Variant]) -> None:
        """One that needs nothing but a CPU: of the front, else the most accurate that the board may run at all."""

        def plain(v: Variant) -> bool:
            return v.target.delegate is Delegate.CPU and not v.target.isa

        if any(plain(self._by_id[id_]) for id_ in self._why):
            return
        out = {one.id for one in self._front.excluded}
        others = [v for v in self._by_id.values() if v.id not in out]
        usable = [v for v in pool if plain(v)] or [v for v in others if plain(v)]
        if usable:
            self._add(max(usable, key=lambda v: (v.quality.value, -self._ms(v), v.id)), "runs on every such CPU")

    def _end(self, variant: Variant, why: str) -> None:
        """An end of the front, unless one that is chosen already is as good to any user."""
        if not self._why or variant.id in self._why or self._gain(variant) > 1:
            self._add(variant, why)

    def _furthest(self, front: Sequence[Variant]) -> Variant | None:
        """The one that gains most over all chosen, where that is enough to be noticed."""
        gains = {v.id: self._gain(v) for v in front if v.id not in self._why}
        found = max(gains, key=lambda id_: (gains[id_], self._by_id[id_].quality.value, id_), default=None)
        return self._by_id[found] if found is not None and gains[found] > 1 else None

    def _gain(self, variant: Variant) -> float:
        """What it is better in than each of those chosen, in steps that a user would notice: the least of them."""
        return min(self._better(variant, self._by_id[id_]) for id_ in self._why)

    def _better(self, one: Variant, other: Variant) -> float:
        ms, other_ms = self._ms(one), self._ms(other)
        return max(
            (one.quality.value - other.quality.value) / _NOTICED_POINTS,
            math.log(other_ms / ms) / _NOTICED if ms > 0 and other_ms > 0 else 0.0,
            math.log(max(1, other.transfer_bytes) / max(1, one.transfer_bytes)) / _NOTICED,
        )

    def _unsure(self) -> list[str]:
        """Dominated by one whose latency may turn out to be the longer of the two."""
        found = []
        for one in self._front.dominated:
            mine, its = self._front.latencies.get(one.id), self._front.latencies.get(one.by)
            slow = self._by_id[one.id].precision in self._profile.variants.accuracy_only
            if mine is not None and its is not None and span(mine)[0] < span(its)[1] and not slow:
                found.append(self._by_id[one.id])
        return [v.id for v in sorted(found, key=lambda v: (-v.quality.value, self._ms(v), v.id))]

    def _rank(self) -> Callable[[Variant], tuple[float, ...]]:
        # On one board energy is the busy board's power times latency, so both order alike.
        latency = self._objective in {Objective.LATENCY, Objective.ENERGY}

        def key(v: Variant) -> tuple[float, ...]:
            accuracy, ms = -v.quality.value, self._ms(v) if v.id in self._front.latencies else math.inf
            rest = (accuracy, ms, float(v.transfer_bytes), float(v.size_bytes))
            first = {Objective.ACCURACY: accuracy, Objective.SIZE: float(v.size_bytes)}
            return (ms if latency else first.get(self._objective, float(v.transfer_bytes)), *rest)

        return key

    def _told(self, v: Variant) -> str:
        latency, power = self._front.latencies.get(v.id), self._profile.power.active_w
        facts = [f"{v.quality.value:.2f} {v.quality.metric}", f"{v.transfer_bytes:,} bytes to transfer"]
        if latency is not None:
            facts.append(told(latency))
        if latency is not None and self._objective is Objective.ENERGY and power is not None:
            facts.append(f"about {power.value * latency.median_ms:.3g} mJ at {power.value:g} W ({power.basis.value})")
        return f"{', '.join(self._why[v.id])}: {', '.join(facts)}"

    def _ms(self, v: Variant) -> float:
        latency = self._front.latencies.get(v.id)
        return latency.median_ms if latency else 0.0

    def _add(self, variant: Variant, why: str) -> None:
        self._why.setdefault(variant.id, []).append(why)
