"""What a tick's conditions mean: which values are held, which bands they put the board in, what counts as silence.

A sensor that was never there is no reason for anything. One that falls silent is first taken at its last word, then for
the worst it may have become, and after ten minutes for one that is not there: a thermometer that broke on a hot day is
not to hold the board down until somebody looks.
"""

from __future__ import annotations

from dataclasses import replace

from edge_daemon.policy import tables
from edge_daemon.policy.state import PolicyState, sense, wall
from edge_daemon.policy.types import Tick


def sensed(state: PolicyState, tick: Tick, *, priced: bool) -> PolicyState:
    """The state after the conditions of a tick.

    Args:
        state: Before it.
        tick: The time and what was read.
        priced: The policy knows the energy that is left and how long it has to last.
    """
    passed_s = 0.0 if state.seen_s is None else tick.now_s - state.seen_s
    now_s = state.now_s + passed_s if 0 < passed_s < float("inf") else state.now_s  # NaN and steps back do not count
    new = sense(tick.conditions)
    temp_last_c, temp_seen_s = (state.temp_last_c, state.temp_seen_s) if new.temp_c is None else (new.temp_c, now_s)
    rtt_seen_s = state.rtt_seen_s if new.rtt_ms is None else now_s
    battery_seen_s = state.battery_seen_s if new.battery_pct is None and not new.charging else now_s
    if new.temp_c is None and now_s - temp_seen_s <= tables.STALE_S:
        new = replace(new, temp_c=temp_last_c)
    if new.rtt_ms is None and now_s - rtt_seen_s <= tables.SENSOR_HOLD_S:
        new = replace(new, rtt_ms=state.senses.rtt_ms)
    drained_s = state.drained_s if new.charging else now_s
    throttle, throttle_s = state.throttle, state.throttle_s
    milder = tables.THROTTLE_RANK[new.throttle] < tables.THROTTLE_RANK[throttle]
    if not milder or now_s - throttle_s > tables.THROTTLE_CLEAR_S:
        throttle, throttle_s = new.throttle, now_s
    after = replace(
        state,
        now_s=now_s,
        seen_s=tick.now_s if abs(tick.now_s) < float("inf") else state.seen_s,  # false for NaN
        at=wall(tick.at, state.at),
        senses=new,
        throttle=throttle,
        throttle_s=throttle_s,
        temp_last_c=temp_last_c,
        temp_seen_s=temp_seen_s,
        battery_seen_s=battery_seen_s,
        rtt_seen_s=rtt_seen_s,
        drained_s=drained_s,
        metered_s=_metered_s(state.metered_s, now_s, metered=tick.conditions.metered),
        trip_ms=_trip_ms(state.trip_ms, new.rtt_ms),
        full_wh=_full_wh(state.full_wh, new.full_wh),
        until_s=_until_s(state, tick, now_s),
    )
    heat, charge = warmed(after), _charged(after, priced=priced)
    return after if (heat, charge) == (after.heat, after.charge) else replace(after, heat=heat, charge=charge)


def limit_c(state: PolicyState) -> float | None:
    """What the board is kept below: the profile's limit, or a lower one that somebody wishes; one board, one limit."""
    limits = [model.preference.max_temp_c for model in state.models]
    known = [limit for limit in (state.senses.limit_c, *limits) if limit is not None]
    return min(known) if known else None


def is_silent(state: PolicyState) -> bool:
    """The temperature was there, and nobody has heard of it for too long."""
    return state.senses.temp_c is None and state.temp_last_c is not None


def assumed_c(state: PolicyState) -> float | None:
    """The temperature, or the worst it may have become since it was last read; None where that says nothing."""
    if state.senses.temp_c is not None or state.temp_last_c is None:
        return state.senses.temp_c
    silent_s = state.now_s - state.temp_seen_s
    if silent_s > tables.SENSOR_HOLD_S:
        return None
    return state.temp_last_c + tables.HEATING_C_PER_S * max(0.0, silent_s - tables.STALE_S)


def warmed(state: PolicyState) -> int:
    """The band of heat."""
    limit, temp_c = limit_c(state), assumed_c(state)
    if limit is None or temp_c is None:
        return 0
    return tables.follow(tables.HEAT, state.heat, limit - temp_c)


def _charged(state: PolicyState, *, priced: bool) -> int:
    if state.senses.charging:
        return state.charge if state.now_s - state.drained_s < tables.CHARGER_CLEAR_S else 0
    if state.senses.battery_pct is not None:
        bands = tables.CHARGE_PRICED if priced else tables.CHARGE
        return tables.follow(bands, state.charge, state.senses.battery_pct)
    return 0 if state.now_s - state.battery_seen_s > tables.SENSOR_HOLD_S else state.charge


def _metered_s(before_s: float | None, now_s: float, *, metered: bool | None) -> float | None:
    """When the network was last metered, None if it is not; a silent sensor is taken at its last word for a while."""
    if metered is not None:
        return now_s if metered else None
    return None if before_s is None or now_s - before_s > tables.SENSOR_HOLD_S else before_s


def _full_wh(before_wh: float | None, read_wh: float | None) -> float | None:
    """What the battery holds: what it was taken for, until the gauge has clearly changed its mind."""
    if read_wh is None or before_wh is None:
        return before_wh if read_wh is None else read_wh
    return read_wh if abs(read_wh - before_wh) > tables.FULL_MOVES * before_wh else before_wh


def _until_s(state: PolicyState, tick: Tick, now_s: float) -> float | None:
    """The moment on the frame's own clock; it stands while the wall clock is only followed up on."""
    if tick.until_s is None or not 0 <= tick.until_s - tick.now_s < float("inf"):
        return None
    until_s = now_s + (tick.until_s - tick.now_s)
    before_s = state.until_s
    return before_s if before_s is not None and abs(until_s - before_s) <= tables.UNTIL_MOVES_S else until_s


def _trip_ms(before_ms: float, rtt_ms: float | None) -> float:
    """The round trip to reckon with: follows a rise at once and a fall when it is clear."""
    if rtt_ms is None:
        return 0.0
    rises = rtt_ms > before_ms * tables.TRIP_RISE + tables.TRIP_MS
    falls = rtt_ms < before_ms * tables.TRIP_FALL - tables.TRIP_MS
    return rtt_ms if rises or falls else before_ms
