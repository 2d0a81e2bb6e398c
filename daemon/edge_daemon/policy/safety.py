"""What no policy may break: critical heat, critical charge, the firmware's throttle signal.

Each allows a share of the energy that the best quality takes for an answer; nothing at all allows the cheapest variant
only. A policy's choice within what is allowed stands; one beyond it gives way to the best that is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_daemon.policy import tables
from edge_daemon.policy.senses import assumed_c, is_silent, limit_c
from edge_daemon.policy.setting import limit_ms
from edge_daemon.policy.state import ModelRecord, PolicyState, VariantRecord
from edge_sdk.mqtt import Throttle
from edge_sdk.preference import rank

_SAME_QUALITY = 0.25  # points: what is as good as the best


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """What binds.

    Attributes:
        share: Of the energy that the best quality takes; 0 allows the cheapest only.
        code: Of the reason.
        cause: The reason in words, with its numbers.
    """

    share: float
    code: str
    cause: str


def ceiling(state: PolicyState) -> Ceiling | None:
    """The strictest of what binds now; None where the policy is free."""
    found: list[Ceiling] = []
    if state.heat:
        found.append(Ceiling(share=0.0, code="thermal", cause=_heat(state)))
    if state.throttle is not Throttle.NONE:
        share = tables.THROTTLE_SHARE[state.throttle]
        cause = f"throttling ({state.throttle.value}) allows {_allowed(share)}"
        found.append(Ceiling(share=share, code="throttle", cause=cause))
    if state.charge >= tables.CRITICAL:
        pct = state.senses.battery_pct
        left = "battery critical when last read" if pct is None else f"battery {pct:.3g} % (critical)"
        found.append(Ceiling(share=0.0, code="battery", cause=f"{left} allows {_allowed(0.0)}"))
    return min(found, key=lambda one: one.share, default=None)


def allowed(bound: Ceiling | None, model: ModelRecord, usable: Sequence[VariantRecord]) -> Sequence[VariantRecord]:
    """The variants that what binds leaves, at least one.

    Args:
        bound: What binds.
        model: Whose variants they are; all of them say what the best quality takes.
        usable: Those that may run.
    """
    if bound is None:
        return usable
    least = min(usable, key=cheapness)
    most_mj = bound.share * _full_mj(model)
    return [variant for variant in usable if variant.energy_mj <= most_mj or variant is least]


def best(state: PolicyState, model: ModelRecord, pool: Sequence[VariantRecord]) -> VariantRecord:
    """The mode's favourite of a pool by what is known beforehand, of those that keep the limits, where any does."""
    most_ms, floor = limit_ms(state, model), model.preference.min_accuracy
    in_time = [v for v in pool if v.latency_ms <= most_ms]
    good = [v for v in in_time if floor is None or v.quality >= floor]
    if good:
        return rank(good, model.preference.mode)[0]
    if in_time:
        return max(in_time, key=lambda v: (v.quality, -v.latency_ms, v.id))
    return min(pool, key=cheapness)


def cheapness(variant: VariantRecord) -> tuple[float, float, int, str]:
    """What variants are ordered by when the cheapest counts."""
    return (variant.energy_mj, variant.latency_ms, variant.size_bytes, variant.id)


def _full_mj(model: ModelRecord) -> float:
    """What the best quality takes at least: a slow variant that is no better must not make shares ample."""
    enough = max(variant.quality for variant in model.variants) - _SAME_QUALITY
    return min(variant.energy_mj for variant in model.variants if variant.quality >= enough)


def _heat(state: PolicyState) -> str:
    limit, temp_c = limit_c(state), assumed_c(state)
    if temp_c is None or limit is None:  # the band is left as soon as one is None
        return f"heat allows {_allowed(0.0)}"
    if is_silent(state):
        silent_s = state.now_s - state.temp_seen_s
        return (
            f"the temperature is silent for {silent_s:.0f} s ({state.temp_last_c:.3g} °C when last read) and is taken "
            f"for beyond the limit of {limit:g} °C, which allows {_allowed(0.0)}"
        )
    return f"{temp_c:.3g} °C (critical: limit {limit:g} °C) allows {_allowed(0.0)}"


def _allowed(share: float) -> str:
    if share > 0:
        return f"at most {share * 100:.3g} % of the energy the best quality takes (estimated)"
    return "the cheapest variant only"
