"""Which variant the constraints and the preference ask for, were switching free.

Who yields when they contradict, the first to yield first:

1. the mode: it only ranks what the rest leaves;
2. the bands of heat, throttling and charge that are not critical: where the explicit limits leave nothing as cheap
   as the band allows, the cheapest that keeps the limits;
3. `min_accuracy`: where nothing in time is as accurate, the most accurate that is in time;
4. `max_latency_ms` and `deadline_ms`: where nothing is in time, the cheapest, which comes closest;
5. critical heat, throttling and charge yield to nothing here: the cheapest.

(A pin stands above all of this: `edge_daemon.policy.step` does not ask when a variant is pinned.)
Cooler, fuller or faster never leads to a cheaper variant by these rules: each band keeps all variants up to a cost,
the cost falls from band to band, and what remains is ranked by one order.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass

from edge_daemon.policy import tables
from edge_daemon.policy.state import ModelRecord, PolicyState, VariantRecord
from edge_sdk.preference import Mode, merit, rank


class Yielded(enum.Enum):
    """What had to give way."""

    NOTHING = "nothing"
    BAND = "band"
    ACCURACY = "accuracy"
    TIME = "time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The variant that should run.

    Attributes:
        keeps: The running variant is among those the constraints leave.
        gain: Whether it is worth a voluntary switch: above the dead-band.
    """

    variant: VariantRecord
    runner_up: str | None
    yielded: Yielded
    keeps: bool
    gain: bool


def thermal_share(model: ModelRecord) -> float:
    """What heat allows, as a share of `full_ms`."""
    return tables.share(tables.THERMAL, model.thermal)


def battery_share(state: PolicyState) -> float:
    """What the charge allows."""
    return tables.share(tables.BATTERY, state.battery)


def throttle_share(state: PolicyState) -> float:
    """What the throttle signal allows."""
    return tables.THROTTLE_SHARE[state.throttle]


def allowed_share(state: PolicyState, model: ModelRecord) -> float:
    """What all bands together allow."""
    return min(thermal_share(model), battery_share(state), throttle_share(state))


def full_ms(model: ModelRecord) -> float:
    """What shares are shares of: the time that the best quality takes at least.

    Best is what is as good as the best within the dead-band. The costliest variant would be a poor yardstick: one that
    is twenty times slower and no better (16-bit activations on the reference kernels) would make every share ample.
    """
    enough = max(variant.quality for variant in model.variants) - tables.DEAD_BAND[Mode.ACCURACY]
    return min(variant.latency_ms for variant in model.variants if variant.quality >= enough)


def headroom_c(state: PolicyState, model: ModelRecord) -> tuple[float, float] | None:
    """Degrees left and the limit they are counted to; None where no temperature or no limit is known."""
    senses, own = state.senses, model.preference.max_temp_c
    if senses.temp_c is None:
        return None
    limits = [limit_c for limit_c in (own, senses.limit_c) if limit_c is not None]
    return (min(limits) - senses.temp_c, min(limits)) if limits else None


def choose(
    state: PolicyState, model: ModelRecord, usable: Sequence[VariantRecord], current: VariantRecord | None
) -> Choice:
    """The variant that the constraints and the preference ask for.

    Args:
        state: For the conditions.
        model: Whose variants they are.
        usable: Those that may be chosen, at least one.
        current: The one that runs, which gets the benefit of the margins.
    """
    share = allowed_share(state, model)
    mode = model.preference.mode
    yielded = Yielded.NOTHING
    pool = usable
    if share > 0:
        pool, yielded = _within_limits(state, model, usable, current)
        if yielded is Yielded.ACCURACY:
            mode = Mode.ACCURACY
    if share < 1 or yielded is Yielded.TIME:
        most_ms = 0.0 if yielded is Yielded.TIME else share * full_ms(model)
        least_ms = min(variant.latency_ms for variant in pool)
        if least_ms > most_ms:
            if share > 0 and yielded is Yielded.NOTHING and len(pool) < len(usable):
                yielded = Yielded.BAND
            most_ms = least_ms
        if current is not None and current in pool and most_ms < current.latency_ms <= most_ms * tables.SHARE_MARGIN:
            most_ms = current.latency_ms
        pool = [variant for variant in pool if variant.latency_ms <= most_ms]
    ranked = rank(pool, mode)
    best = ranked[0]
    return Choice(
        variant=best,
        runner_up=_second(ranked, usable),
        yielded=yielded,
        keeps=current is not None and current in pool,
        gain=current is not None and _gains(best, current, mode, ranked),
    )


def _within_limits(
    state: PolicyState, model: ModelRecord, usable: Sequence[VariantRecord], current: VariantRecord | None
) -> tuple[Sequence[VariantRecord], Yielded]:
    wish = model.preference
    pool = usable
    if wish.max_latency_ms is not None or wish.deadline_ms is not None:
        factor = math.exp(state.log_slowdown + model.log_tail)
        most_ms = math.inf if wish.max_latency_ms is None else wish.max_latency_ms
        deadline_ms = math.inf if wish.deadline_ms is None else wish.deadline_ms
        rtt_ms = state.senses.rtt_ms or 0.0

        def in_time(variant: VariantRecord, margin: float) -> bool:
            p95 = variant.latency_ms * factor
            return p95 <= margin * most_ms and p95 <= margin * (deadline_ms - rtt_ms)

        pool = [v for v in usable if in_time(v, 1.0 if v is current else tables.LIMIT_MARGIN)]
        pool = pool or [v for v in usable if in_time(v, 1.0)]
        if not pool:
            return usable, Yielded.TIME
    if wish.min_accuracy is None:
        return pool, Yielded.NOTHING
    accurate = [v for v in pool if v.quality >= wish.min_accuracy]
    return (accurate, Yielded.NOTHING) if accurate else (pool, Yielded.ACCURACY)


def _second(ranked: Sequence[VariantRecord], usable: Sequence[VariantRecord]) -> str | None:
    """The next of the order; where the constraints leave one variant only, the cheapest of the others."""
    if len(ranked) > 1:
        return ranked[1].id
    others = [variant for variant in usable if variant is not ranked[0]]
    return min(others, key=lambda variant: (variant.latency_ms, variant.id)).id if others else None


def _gains(best: VariantRecord, current: VariantRecord, mode: Mode, ranked: Sequence[VariantRecord]) -> bool:
    if best is current:
        return False
    top = max(variant.quality for variant in ranked)
    gain = merit(best, mode, top) - merit(current, mode, top)
    if gain > tables.DEAD_BAND[mode]:
        return True
    return gain >= 0 and best.latency_ms <= current.latency_ms * tables.FASTER_BY
