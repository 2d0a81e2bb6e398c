"""Which variant runs where no daemon decides: a small policy inside the process, from the preference and what is seen.

It knows neither battery nor heat nor network; those are the daemon's. It starts from the bundle's evidence, learns from
the calls how much faster or slower this machine is, and changes the variant only when a limit is broken or another one
is clearly worth more, and not again for a while. Pure: times and measurements come in, a variant's id comes out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from edge_sdk.manifest import Latency, Origin, Variant
from edge_sdk.preference import Candidate, Preference, merit, rank

DWELL_S = 10.0  # as long as the daemon's policy at the least: a switch costs a load and cold caches
FEWEST_CALLS = 5  # in one window, before its median says anything
LATE_WINDOWS = 2  # a single slow second is not this machine's speed
# A change must be worth this much more than what runs: half of what `balanced` pays for a doubling of the time.
_GAIN = 0.25
# Where nobody measured anything: a multiply-accumulate takes this long on a small core. Only the ratios count.
_MS_PER_MAC = 2e-7
_MEMORY = 0.7  # of the old ratio; the rest is the newest window


def common_threads(entries: Iterable[Latency]) -> int:
    """The number of threads that the most variants were timed with, so that their times can be set against each other.

    Where two numbers know as many, 1: what an app, and a measurement on command, asks for unless told otherwise.
    """
    counts = Counter(threads for threads, _ in {(entry.threads, entry.variant) for entry in entries})
    return max(counts, key=lambda threads: (counts[threads], threads == 1, -threads), default=1)


def expected_ms(variants: Sequence[Variant], evidence: Sequence[Latency], machine: str) -> dict[str, float]:
    """What one inference of each variant takes, by the best evidence there is for all of them.

    Evidence of different machines or numbers of threads is not mixed. The first of these that covers every variant is
    taken: measured on this machine, measured on any other one, predicted for one profile, and at last the number of
    operations. Evidence of another delegate than the variant's own is not taken for it.
    """
    by_id = {variant.id: variant for variant in variants}
    ids = by_id.keys()
    evidence = [e for e in evidence if e.variant in ids and e.is_of(by_id[e.variant])]
    places = {(e.machine, e.origin, e.threads) for e in evidence}
    for place in sorted(places, key=lambda p: (p[0] != machine, _TRUST[p[1]], p[0], p[2])):
        found = {e.variant: e.median_ms for e in evidence if (e.machine, e.origin, e.threads) == place}
        if ids <= found.keys():
            return {id_: max(found[id_], 1e-6) for id_ in ids}
    return {variant.id: max(variant.cost.macs * _MS_PER_MAC, 1e-6) for variant in variants}


_TRUST = {Origin.MEASURED: 0, Origin.PUBLISHED: 1, Origin.PREDICTED: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The calls of the last second or so, of the variant that ran."""

    calls: int
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Chooser:
    """What is known so far; `step` gives the next one.

    Attributes:
        expected_ms: Of each variant by evidence.
        ratio: How much longer calls take here than the evidence says.
        tail: The 95th percentile over the median.
        active: What runs.
        changed_s: When it last changed.
        late: Windows in a row in which the active variant broke a limit.
        is_taught: Any window has been seen.
        hot: Variants whose accelerator is to be spared; left at once, and not taken while there is another.
    """

    variants: tuple[Variant, ...]
    expected_ms: Mapping[str, float]
    preference: Preference
    active: str
    changed_s: float
    ratio: float = 1.0
    tail: float = 1.0
    late: int = 0
    is_taught: bool = False
    hot: frozenset[str] = frozenset()

    def step(self, now_s: float, window: Window | None, hot: frozenset[str] = frozenset()) -> Chooser:
        """Take in a window of calls, or none if there were too few; `active` may have changed."""
        known = replace(self._learned(window), hot=hot)
        best = known._best()  # noqa: SLF001 - the same class
        is_there = any(v.id == known.active for v in known.variants)
        is_spared = known.active in hot and best not in hot
        if best == known.active or (is_there and not is_spared and now_s - known.changed_s < DWELL_S):
            return known
        if not is_there or is_spared:
            pass  # it cannot be loaded here, or must rest: nothing to weigh
        elif known._fits(known.active):  # noqa: SLF001
            if known._gain(best) < _GAIN:  # noqa: SLF001
                return known
        elif known.late < LATE_WINDOWS:
            return known
        return replace(known, active=best, changed_s=now_s, late=0)

    def preferring(self, preference: Preference, now_s: float) -> Chooser:
        """The same under another preference, whose favourite it is at once; a pin is not its business."""
        wishing = replace(self, preference=preference, late=0)
        best = wishing._best()  # noqa: SLF001 - the same class
        return wishing if best == self.active else replace(wishing, active=best, changed_s=now_s)

    def without(self, id_: str) -> Chooser:
        """The same, where a variant turned out not to run here."""
        left = tuple(variant for variant in self.variants if variant.id != id_)
        return replace(self, variants=left)

    def _learned(self, window: Window | None) -> Chooser:
        if window is None or window.calls < FEWEST_CALLS:
            return self
        ratio = window.p50_ms / self.expected_ms[self.active]
        tail = max(1.0, window.p95_ms / max(window.p50_ms, 1e-6))
        old = _MEMORY if self.is_taught else 0.0
        smooth = replace(
            self,
            ratio=old * self.ratio + (1 - old) * ratio,
            tail=old * self.tail + (1 - old) * tail,
            is_taught=True,
        )
        limit = self._limit_ms()
        return replace(smooth, late=self.late + 1 if limit is not None and window.p95_ms > limit else 0)

    def _limit_ms(self) -> float | None:
        """The tightest; a deadline has no round trip here, because nobody measures one."""
        limits = [x for x in (self.preference.max_latency_ms, self.preference.deadline_ms) if x is not None]
        return min(limits, default=None)

    def _fits(self, id_: str) -> bool:
        limit, floor = self._limit_ms(), self.preference.min_accuracy
        variant = next((v for v in self.variants if v.id == id_), None)
        return (
            variant is not None
            and (limit is None or self.expected_ms[id_] * self.ratio * self.tail <= limit)
            and (floor is None or variant.quality.value >= floor)
        )

    def _candidates(self) -> tuple[Candidate, ...]:
        cool = tuple(v for v in self.variants if v.id not in self.hot)
        return tuple(
            Candidate(
                id=v.id,
                quality=v.quality.value,
                latency_ms=self.expected_ms[v.id] * self.ratio,
                size_bytes=v.size_bytes,
            )
            for v in cool or self.variants
        )

    def _best(self) -> str:
        """The most wanted within the limits; where none is, the fastest of those accurate enough, or of all."""
        everything = self._candidates()
        fitting = tuple(c for c in everything if self._fits(c.id))
        if fitting:
            return rank(fitting, self.preference.mode)[0].id
        floor = self.preference.min_accuracy
        accurate = tuple(c for c in everything if floor is None or c.quality >= floor)
        return min(accurate or everything, key=lambda c: (c.latency_ms, -c.quality, c.id)).id

    def _gain(self, id_: str) -> float:
        everything = {c.id: c for c in self._candidates()}
        best_quality = max(c.quality for c in everything.values())
        worth = {x: merit(c, self.preference.mode, best_quality) for x, c in everything.items()}
        if worth[self.active] == -math.inf:
            return math.inf
        return worth[id_] - worth[self.active]


def first(
    variants: Sequence[Variant], evidence: Sequence[Latency], machine: str, preference: Preference, now_s: float
) -> Chooser:
    """Where a process begins: what the evidence alone would choose."""
    known = Chooser(
        variants=tuple(variants),
        expected_ms=expected_ms(variants, evidence, machine),
        preference=preference,
        active=variants[0].id,
        changed_s=now_s - DWELL_S,
    )
    return replace(known, active=known._best())  # noqa: SLF001 - this module's own
