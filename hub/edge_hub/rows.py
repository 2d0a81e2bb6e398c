"""A device in one light row: what a list of thousands shows, and what queries, alerts and totals are asked of. Pure.

The row is the public value (`GET /api/v1/rows`, the stream's `rows`); `Facts` is the same device as the query language
and the alert rules see it, with what only the fleet together can tell.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Protocol, TypeVar

from msgspec import Meta

from edge_hub.store.outline import (
    BirthOutline,
    ModelOutline,
    Outline,
    SampleOutline,
    ServedOutline,
    StateOutline,
    StatsOutline,
)
from edge_sdk.mqtt import DeviceId, State
from edge_sdk.wire import Celsius, Count, Millis, Name, Percent, Text, Unix, Watts, Wire

# A model's estimate of the board's draw, as a decision names it (`edge_daemon.policies`).
_ESTIMATED_WATTS = "board_w"

_T = TypeVar("_T")


class _Timed(Protocol):
    @property
    def at(self) -> float:
        """When it was taken."""


_A = TypeVar("_A", bound=_Timed)
_B = TypeVar("_B", bound=_Timed)

LabelKey = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9_-]{0,31}\Z")]
LabelValue = Annotated[str, Meta(max_length=100)]
Labels = Annotated[dict[LabelKey, LabelValue], Meta(max_length=32)]


class ModelRow(Wire, frozen=True, kw_only=True, omit_defaults=False):
    """A model on a device.

    Attributes:
        variant: What runs, as apps confirmed it; None while nothing does.
        on: Who computes it: `cpu`, or an accelerator; None where the device does not say.
        code: Why this variant: the code of the decision.
        since: When that was decided.
        calls: Within the row's window, as `late` and `p95_ms`; None without telemetry of this model.
    """

    name: Name
    version: Name | None = None
    variant: Name | None = None
    on: Text | None = None
    code: Name | None = None
    since: Unix | None = None
    pinned: bool = False
    calls: Count | None = None
    late: Count | None = None
    p95_ms: Millis | None = None


class Row(Wire, frozen=True, kw_only=True, omit_defaults=False):
    """A device. What is not known is null.

    Attributes:
        device: `tenant/device`.
        online: It was born and its will has not come; `last_seen` says how fresh that is.
        power_estimated: `power_w` is the policy's model of the board, not a sensor's word.
        window_s: Over which calls and latencies count: that of the newest telemetry record.
        in_step: It has applied the desired document, or there is none.
        alerts: Open ones.
        skew_s: How far its clock is ahead of the hub's.
    """

    device: str
    online: bool
    last_seen: Unix | None = None
    profile: Name | None = None
    board: Text | None = None
    models: tuple[ModelRow, ...] = ()
    temp_c: Celsius | None = None
    battery_pct: Percent | None = None
    charging: bool | None = None
    power_w: Watts | None = None
    power_estimated: bool = False
    throttle: Name | None = None
    rtt_ms: Millis | None = None
    window_s: float | None = None
    in_step: bool = True
    alerts: Count = 0
    labels: Labels = {}
    skew_s: float | None = None


class RowList(Wire, frozen=True, kw_only=True, omit_defaults=False):
    """Rows as they were at a moment."""

    rows: tuple[Row, ...]
    at: Unix


class Gone(Wire, frozen=True, kw_only=True):
    """Devices that are not in the fleet any more."""

    devices: tuple[str, ...]
    at: Unix


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A device as queries and rules see it. A value it does not have is an empty tuple, a comparison with it false.

    Attributes:
        record: All that is stored.
        row: The same in short.
        words: Text values by the name of the field.
        numbers: By the name of the field.
        flags: By the name of the field.
    """

    record: Outline
    row: Row
    words: Mapping[str, tuple[str, ...]]
    numbers: Mapping[str, tuple[float, ...]]
    flags: Mapping[str, bool | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What is known of the devices together, for rows and facts of any one of them.

    Attributes:
        now: By the hub's clock.
        alerts: Open ones, by device.
        switches: Within the last hour, by device.
        software: What most devices run; None in an empty fleet.
        versions: By model, the version that most devices have.
    """

    now: float
    alerts: Mapping[DeviceId, int] = field(default_factory=dict)
    switches: Mapping[DeviceId, int] = field(default_factory=dict)
    software: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        records: Iterable[Outline],
        *,
        now: float,
        alerts: Mapping[DeviceId, int],
        switches: Mapping[DeviceId, int],
    ) -> Fleet:
        """What these devices have in common; of two equally frequent versions the later in the alphabet."""
        software: Counter[str] = Counter()
        versions: dict[str, Counter[str]] = defaultdict(Counter)
        for record in records:
            if record.birth is not None:
                software.update([record.birth.software] if record.birth.software else [])
                for model in record.birth.models:
                    versions[model.name][model.version] += 1
        return cls(
            now=now,
            alerts=alerts,
            switches=switches,
            software=_most(software),
            versions={name: most for name, counts in versions.items() if (most := _most(counts)) is not None},
        )


def row_of(record: Outline, *, alerts: int = 0) -> Row:
    """The row of a stored device."""
    birth, state, sample = record.birth, record.state, record.sample
    newest = newest_of(state, sample)
    seen = None if newest is None else newest.conditions
    power_w = None if seen is None else seen.power_w
    estimated_w = None if power_w is not None or state is None else estimated_w_of(state)
    return Row(
        device=str(record.device),
        online=record.online,
        last_seen=record.last_seen,
        profile=None if birth is None else birth.profile,
        board=None if birth is None else birth.board,
        models=_models(birth, state, sample),
        temp_c=None if seen is None else seen.temp_c,
        battery_pct=None if seen is None else seen.battery_pct,
        charging=None if seen is None else seen.charging,
        power_w=power_w if power_w is not None else estimated_w,
        power_estimated=estimated_w is not None,
        throttle=None if seen is None else seen.throttle.value,
        rtt_ms=None if seen is None else seen.rtt_ms,
        window_s=None if sample is None else sample.window_s,
        in_step=(0 if state is None else state.desired_version) >= record.desired_version,
        alerts=alerts,
        labels=dict(record.labels),
        skew_s=record.skew_s,
    )


def facts_of(record: Outline, fleet: Fleet) -> Facts:
    """What can be asked of a device."""
    row = row_of(record, alerts=fleet.alerts.get(record.device, 0))
    birth = record.birth
    software = None if birth is None else birth.software
    served = {} if birth is None else {model.name: model for model in birth.models}
    calls = sum(model.calls or 0 for model in row.models)
    drops = [drop for model in row.models if (drop := _drop(served.get(model.name), model.variant)) is not None]
    odd = [fleet.versions.get(model.name, model.version) != model.version for model in served.values()]
    return Facts(
        record=record,
        row=row,
        words={
            "device": (row.device, record.device.device),
            "tenant": (record.device.tenant,),
            "profile": _there(row.profile),
            "board": _there(row.board),
            "model": tuple(model.name for model in row.models),
            "variant": tuple(model.variant for model in row.models if model.variant is not None),
            "on": tuple(model.on for model in row.models if model.on is not None),
            "throttle": _there(row.throttle),
            "software": _there(software),
        },
        numbers={
            "temp_c": _there(row.temp_c),
            "headroom_c": _headroom(record),
            "battery_pct": _there(row.battery_pct),
            "power_w": _there(row.power_w),
            "rtt_ms": _there(row.rtt_ms),
            "late_pct": (100.0 * sum(model.late or 0 for model in row.models) / calls,) if calls else (),
            "p95_ms": tuple(model.p95_ms for model in row.models if model.p95_ms is not None),
            "alerts": (float(row.alerts),),
            "age_s": () if record.last_seen is None else (max(0.0, fleet.now - record.last_seen),),
            "clock_skew_s": () if record.skew_s is None else (abs(record.skew_s),),
            "quality_drop": (max(drops),) if drops else (),
            "switches_h": (float(fleet.switches.get(record.device, 0)),),
        },
        flags={
            "online": record.online,
            "charging": row.charging,
            "pinned": any(model.pinned for model in row.models),
            "in_step": row.in_step,
            "version_skew": (software is not None and software != fleet.software) or any(odd),
        },
    )


def _models(
    birth: BirthOutline | None, state: StateOutline | None, sample: SampleOutline | None
) -> tuple[ModelRow, ...]:
    served = {} if birth is None else {model.name: model for model in birth.models}
    states = {} if state is None else state.models
    stats = {} if sample is None else sample.models
    names = dict.fromkeys((*served, *states))
    return tuple(_model(name, served.get(name), states.get(name), stats.get(name)) for name in names)


def _model(name: str, served: ServedOutline | None, state: ModelOutline | None, stats: StatsOutline | None) -> ModelRow:
    decision = None if state is None else state.decision
    return ModelRow(
        name=name,
        version=None if served is None else served.version,
        variant=None if state is None else state.active,
        on=None if state is None else state.on,
        code=None if decision is None else decision.because.code,
        since=None if decision is None else decision.at,
        pinned=state is not None and state.pinned is not None,
        calls=None if stats is None else stats.calls,
        late=None if stats is None else stats.late,
        p95_ms=None if stats is None else stats.p95_ms,
    )


def newest_of(state: _A | None, sample: _B | None) -> _A | _B | None:
    """The state or the sample, whichever was taken later."""
    if state is None or sample is None:
        return state or sample
    return state if state.at >= sample.at else sample


def _headroom(record: Outline) -> tuple[float, ...]:
    """How far the temperature is below what the policy holds it below. Only the state tells the limit."""
    limit_c = None if record.state is None else record.state.conditions.temp_limit_c
    newest = newest_of(record.state, record.sample)
    temp_c = None if newest is None else newest.conditions.temp_c
    return () if limit_c is None or temp_c is None else (limit_c - temp_c,)


def estimated_w_of(state: StateOutline | State) -> float | None:
    """The board's draw as the newest decision that says it took it to be."""
    told = [
        (model.decision.at, watts)
        for model in state.models.values()
        if model.decision is not None and (watts := model.decision.because.numbers.get(_ESTIMATED_WATTS)) is not None
    ]
    newest = max(told, default=None)
    return newest[1] if newest is not None and 0 <= newest[1] <= 10_000 else None  # noqa: PLR2004 - the bound of Watts


def _drop(served: ServedOutline | None, active: str | None) -> float | None:
    """How many points of quality the active variant is below the best that the device could run."""
    if served is None or active is None:
        return None
    qualities = {variant.id: variant.quality for variant in served.variants}
    return max(qualities.values()) - qualities[active] if active in qualities else None


def _most(counts: Counter[str]) -> str | None:
    return max(counts, key=lambda word: (counts[word], word), default=None)


def _there(value: _T | None) -> tuple[_T, ...]:
    return () if value is None else (value,)


def rows_of(records: Sequence[Outline], alerts: Mapping[DeviceId, int]) -> tuple[Row, ...]:
    """The rows of several devices."""
    return tuple(row_of(record, alerts=alerts.get(record.device, 0)) for record in records)
