"""Why: the code of what bound, and one sentence with the numbers."""

from __future__ import annotations

from edge_daemon.policy import tables
from edge_daemon.policy.choose import (
    Choice,
    Yielded,
    allowed_share,
    battery_share,
    full_ms,
    headroom_c,
    thermal_share,
    throttle_share,
)
from edge_daemon.policy.estimate import expected_ms, p95_ms
from edge_daemon.policy.state import ModelRecord, PolicyState, VariantRecord
from edge_sdk.mqtt import Because
from edge_sdk.preference import Preference

_YIELDED = {
    Yielded.NOTHING: "",
    Yielded.BAND: "; nothing cheaper keeps the limits asked for",
    Yielded.ACCURACY: "; nothing that is in time is accurate enough, so it is the most accurate of those",
    Yielded.TIME: "; no variant is in time, the fastest comes closest",
}
_SHOWN_REASON = 300


def broken(state: PolicyState, model: ModelRecord, variant: VariantRecord) -> str | None:
    """The code of the worst constraint that this variant breaks, or None."""
    shares = (
        ("thermal", thermal_share(model)),
        ("throttle", throttle_share(state)),
        ("battery", battery_share(state)),
    )
    code, share = min(shares, key=lambda item: item[1])
    wish, p95 = model.preference, p95_ms(state, model, variant)
    over = variant.latency_ms > share * full_ms(model)
    if share == 0 and over:
        return code
    if wish.max_latency_ms is not None and p95 > wish.max_latency_ms:
        return "latency"
    if wish.deadline_ms is not None and p95 + (state.senses.rtt_ms or 0.0) > wish.deadline_ms:
        return "deadline"
    if wish.min_accuracy is not None and variant.quality < wish.min_accuracy:
        return "accuracy"
    return code if over and share < 1 else None


def because(
    code: str,
    state: PolicyState,
    model: ModelRecord,
    choice: Choice,
    *,
    current: VariantRecord | None,
    detail: str = "",
) -> Because:
    """The reason of a decision.

    Args:
        code: What bound.
        state: For the conditions.
        model: Whose variant it is.
        choice: What was chosen.
        current: What ran until now.
        detail: Of a failure, its reason.
    """
    new = choice.variant
    shown = f"{new.id} at {_ms(expected_ms(state, new))}, {new.quality:.4g}"
    if current is not None and current.id != new.id:
        shown += f" instead of {current.id} at {_ms(expected_ms(state, current))}, {current.quality:.4g}"
    text = f"{_cause(code, state, model, current, detail)}: {shown}{_YIELDED[choice.yielded]}"
    return Because(code=code, text=text[:1000], runner_up=choice.runner_up)


def pinned(state: PolicyState, model: ModelRecord, variant: VariantRecord, by: str) -> Because:
    """The reason of a pin, with what it overrules."""
    against = broken(state, model, variant)
    text = f"pinned by the {by}: {variant.id} at {_ms(expected_ms(state, variant))}, {variant.quality:.4g}"
    if against is not None:
        text += f", although {_cause(against, state, model, variant, '')}"
    return Because(code="pin", text=text[:1000])


def wished(preference: Preference) -> str:
    """A preference in words."""
    parts = [preference.mode.value]
    if preference.max_latency_ms is not None:
        parts.append(f"at most {_ms(preference.max_latency_ms)}")
    if preference.deadline_ms is not None:
        parts.append(f"at the hub within {_ms(preference.deadline_ms)}")
    if preference.min_accuracy is not None:
        parts.append(f"quality at least {preference.min_accuracy:.4g}")
    if preference.max_temp_c is not None:
        parts.append(f"at most {preference.max_temp_c:.4g} °C")
    if preference.max_power_w is not None:
        parts.append(f"at most {preference.max_power_w:.4g} W")
    if preference.battery_until is not None:
        parts.append(f"battery until {preference.battery_until}")
    return ", ".join(parts)


def _wished(model: ModelRecord) -> str:
    return wished(model.preference) + (f", by {model.wished_by}" if model.wished_by else "")


def _cause(code: str, state: PolicyState, model: ModelRecord, current: VariantRecord | None, detail: str) -> str:
    if code in ("latency", "deadline", "accuracy") and current is not None:
        return _over(code, state, model, current)
    if code in ("battery", "thermal", "throttle"):
        return f"{_sensed(code, state, model)} allows {_allowed(allowed_share(state, model))}"
    if code == "recovered":
        return f"what bound has eased ({model.bound})"
    if code == "failure":
        return f"could not be loaded ({detail[:_SHOWN_REASON]})" if detail else "could not be loaded"
    return {
        "start": f"first choice ({_wished(model)})",
        "preference": f"asked for is {_wished(model)}",
        "unpin": "no longer pinned",
        "measured": "measured on this machine",
    }[code]


def _over(code: str, state: PolicyState, model: ModelRecord, current: VariantRecord) -> str:
    """Which limit the user set is broken, and by how much."""
    wish, p95 = model.preference, p95_ms(state, model, current)
    if code == "accuracy":
        return f"{current.id} has {current.quality:.4g} where at least {wish.min_accuracy or 0:.4g} is asked for"
    if code == "latency":
        return f"{current.id} takes {_ms(p95)} (95 of 100 calls) where {_ms(wish.max_latency_ms or 0)} are allowed"
    rtt_ms = state.senses.rtt_ms
    trip = "an unknown round trip, counted as 0" if rtt_ms is None else f"{_ms(rtt_ms)} round trip"
    return f"{current.id} takes {_ms(p95)} plus {trip}, over the deadline of {_ms(wish.deadline_ms or 0)}"


def _sensed(code: str, state: PolicyState, model: ModelRecord) -> str:
    senses = state.senses
    if code == "throttle":
        return f"throttling ({state.throttle.value})"
    if code == "battery":
        band = tables.BATTERY[state.battery - 1]
        if senses.battery_pct is None:
            return f"battery {band.name} when last read"
        return f"battery {senses.battery_pct:.3g} % ({band.name}: entered at {band.enter:g} %)"
    band = tables.THERMAL[model.thermal - 1]
    room = headroom_c(state, model)
    if room is None:
        return f"temperature {band.name} when last read"
    return f"{room[1] - room[0]:.3g} °C ({band.name}: limit {room[1]:g} °C)"


def _allowed(share: float) -> str:
    return (
        f"at most {share * 100:.3g} % of the time the best quality takes" if share > 0 else "the cheapest variant only"
    )


def _ms(value: float) -> str:
    return f"{value:.3g} ms" if value < 1000 else f"{value:.0f} ms"  # noqa: PLR2004 - below it 3 digits suffice
