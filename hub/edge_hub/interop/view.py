"""What others are shown of a device: one flat look at it, whatever they call its parts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_hub.rows import estimated_w_of, newest_of
from edge_hub.store.records import DeviceRecord
from edge_sdk.conditions import Conditions
from edge_sdk.mqtt import DeviceId, ModelState, ModelStats, Sample, ServedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelView:
    """One model on a device.

    Attributes:
        variants: What it could run; empty where the device did not say.
        active: What apps confirmed to run.
        pinned: The variant it is held at, or None while the policy decides.
        why: The last decision's reason, one sentence.
        late_pct: Of the calls of the newest telemetry record; None without calls.
    """

    name: str
    version: str | None = None
    variants: tuple[str, ...] = ()
    active: str | None = None
    pinned: str | None = None
    why: str | None = None
    code: str | None = None
    calls: int | None = None
    late_pct: float | None = None
    p95_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One device.

    Attributes:
        at: When the conditions were sensed, by the device's clock; None where none are known.
        sampled: When the window of the calls and latencies ended, by the device's clock.
        power_estimated: `power_w` is the policy's model of the board, not a sensor's word.
        models: By name, in the order of the device's birth.
    """

    device: DeviceId
    online: bool
    boot: str | None = None
    board: str | None = None
    profile: str | None = None
    software: str | None = None
    at: float | None = None
    sampled: float | None = None
    temp_c: float | None = None
    battery_pct: float | None = None
    charging: bool | None = None
    power_w: float | None = None
    power_estimated: bool = False
    load_pct: float | None = None
    rtt_ms: float | None = None
    throttle: str | None = None
    models: Mapping[str, ModelView] = field(default_factory=dict)


def view_of(record: DeviceRecord) -> View:
    """The look at a stored device."""
    birth, state, sample = record.birth, record.state, record.sample
    newest = newest_of(state, sample)
    seen = Conditions() if newest is None else newest.conditions
    estimated_w = estimated_w_of(state) if seen.power_w is None and state is not None else None
    served = {} if birth is None else {model.name: model for model in birth.models}
    states = {} if state is None else state.models
    stats = {} if sample is None else sample.models
    return View(
        device=record.device,
        online=record.online,
        boot=record.boot,
        board=None if birth is None else birth.board,
        profile=None if birth is None else birth.profile,
        software=None if birth is None else birth.software,
        at=None if newest is None else newest.at,
        sampled=None if sample is None else sample.at,
        temp_c=seen.temp_c,
        battery_pct=seen.battery_pct,
        charging=seen.charging,
        power_w=seen.power_w if seen.power_w is not None else estimated_w,
        power_estimated=estimated_w is not None,
        load_pct=seen.load_pct,
        rtt_ms=seen.rtt_ms,
        throttle=None if newest is None else seen.throttle.value,
        models={
            name: _model(name, served.get(name), states.get(name), stats.get(name))
            for name in dict.fromkeys((*served, *states))
        },
    )


def past_view(device: DeviceId, sample: Sample) -> View:
    """What a telemetry record that came late says of the time it was taken at; it knows of no decisions."""
    seen: Conditions = sample.conditions
    return View(
        device=device,
        online=True,
        at=sample.at,
        sampled=sample.at,
        temp_c=seen.temp_c,
        battery_pct=seen.battery_pct,
        charging=seen.charging,
        power_w=seen.power_w,
        load_pct=seen.load_pct,
        rtt_ms=seen.rtt_ms,
        throttle=seen.throttle.value,
        models={name: _model(name, None, None, stats) for name, stats in sample.models.items()},
    )


def _model(name: str, served: ServedModel | None, state: ModelState | None, stats: ModelStats | None) -> ModelView:
    decision = None if state is None else state.decision
    return ModelView(
        name=name,
        version=None if served is None else served.version,
        variants=() if served is None else tuple(variant.id for variant in served.variants),
        active=(stats.variant if stats is not None else None) if state is None else state.active,
        pinned=None if state is None else state.pinned,
        why=None if decision is None else decision.because.text,
        code=None if decision is None else decision.because.code,
        calls=None if stats is None else stats.calls,
        late_pct=100.0 * min(stats.late / stats.calls, 1.0) if stats is not None and stats.calls else None,
        p95_ms=None if stats is None else stats.p95_ms,
    )
