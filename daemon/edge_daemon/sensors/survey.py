"""What becomes of the sensors' readings: the values of the conditions, each with its source or its reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from edge_daemon.sensors.clock import met_by_work
from edge_daemon.sensors.network import Trips
from edge_daemon.sensors.reading import (
    Charge,
    Clock,
    Heat,
    Load,
    Memory,
    Metered,
    Power,
    Reading,
    Signals,
    Unavailable,
)
from edge_daemon.sensors.throttle import fold
from edge_sdk.mqtt import Conditions, Throttle
from edge_sdk.profile import Profile

R = TypeVar("R")

Value = float | int | bool | str | Throttle
_MAX_REASON = 1000  # of `edge_sdk.wire.Text`
_ABSENT = Unavailable("no such sensor is registered")
_SILENT = Unavailable("the board does not tell")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensed:
    """One value.

    Attributes:
        field: Of `Conditions`; or the name of a place that is not believed, which is only ever missing.
        value: None where there is none.
        reason: Why not.
        source: Where it comes from.
        unit: For people.
        remark: What else is to be known of it: a zone, a scope.
    """

    field: str
    value: Value | None
    reason: str = ""
    source: str = ""
    unit: str = ""
    remark: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fed:
    """What is not read but brought by those who see it."""

    trips: Trips | Unavailable
    up: float | Unavailable
    down: float | Unavailable
    busy: Mapping[str, Load | Unavailable]


def survey(answers: Mapping[str, Reading], fed: Fed, profile: Profile | None) -> tuple[Sensed, ...]:
    """Every value of the conditions, in the order in which people want them.

    Args:
        answers: Of the sensors, by name.
        fed: What others brought.
        profile: Of the board.
    """
    return tuple(_all(answers, fed, profile))


def conditions(found: Iterable[Sensed]) -> Conditions:
    """The values as the policy and the hub get them."""
    values: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for one in found:
        if one.value is not None:
            values[one.field] = one.value
        if one.reason:
            missing[one.field] = one.reason
    return Conditions(**values, missing=missing)


def _all(answers: Mapping[str, Reading], fed: Fed, profile: Profile | None) -> Iterator[Sensed]:
    heat, signals = answers.get("temperature", _ABSENT), answers.get("throttle", _ABSENT)
    yield from _heat(heat, profile)
    yield _throttle(signals, heat)
    yield from _battery(answers.get("battery", _ABSENT))
    yield from _power(answers.get("power", _ABSENT))
    load = answers.get("load", _ABSENT)
    yield _load("load_pct", load)
    yield _clock(answers.get("clock", _ABSENT), load, signals)
    memory = answers.get("memory", _ABSENT)
    mb = memory.available_mb if isinstance(memory, Memory) else None
    yield _sensed("memory_available_mb", mb, memory, unit="MB")
    for kind in ("gpu", "npu", "edgetpu"):  # what a driver counts wins, for it counts everybody's work
        counted, by_apps = answers.get(kind, _ABSENT), fed.busy.get(kind, _ABSENT)
        nobody = kind == "edgetpu" or isinstance(by_apps, Load)
        yield _load(f"{kind}_pct", by_apps if nobody and not isinstance(counted, Load) else counted)
    yield from _network(fed)
    metered = answers.get("metered", _ABSENT)
    yield _sensed("metered", metered.metered if isinstance(metered, Metered) else None, metered)


def _heat(heat: Reading, profile: Profile | None) -> Iterator[Sensed]:
    found = _of(Heat, heat)
    yield _sensed(
        "temp_c",
        None if found is None else found.temp_c,
        heat,
        unit="C",
        remark="" if found is None else _place(found),
    )
    for place, why in () if found is None else found.stuck:  # the others go on, but somebody should know
        yield Sensed(field=place, value=None, reason=why)
    none = Unavailable("no profile, and no passive trip point to read")
    if profile is not None:
        yield Sensed(
            field="temp_limit_c", value=profile.thermal.max_temp_c.value, source=f"profile {profile.id}", unit="C"
        )
    elif found is None or found.passive_c is None:
        yield _sensed("temp_limit_c", None, none)
    else:
        yield Sensed(field="temp_limit_c", value=found.passive_c, source="the lowest passive trip point", unit="C")


def _place(heat: Heat) -> str:
    """Where it is, and how far the kernel is from acting."""
    passive = [] if heat.passive_c is None else [f"passive cooling from {heat.passive_c:.0f} C"]
    critical = [] if heat.to_critical_c is None else [f"{heat.to_critical_c:.0f} degrees below shutdown"]
    return "; ".join([heat.where, *passive, *critical])


def _throttle(signals: Reading, heat: Reading) -> Sensed:
    """There is always a signal: what nobody can tell is none, and says so."""
    found = _of(Signals, signals)
    return Sensed(
        field="throttle",
        value=fold(found, _of(Heat, heat)),
        source="" if found is None else found.source,
        reason="" if found is not None else _why(signals),
    )


def _battery(charge: Reading) -> Iterator[Sensed]:
    found = _of(Charge, charge)
    percent, full_wh = (None, None) if found is None else (found.percent, found.full_wh)
    no_battery = charge if found is None else Unavailable("no battery, only mains")
    yield _sensed("battery_pct", percent, no_battery if percent is None else charge, unit="%")
    unknown = no_battery if percent is None else Unavailable("no gauge tells what it holds; [sensors] battery_wh can")
    known = percent is not None and full_wh is not None
    left_wh = percent * full_wh / 100 if percent is not None and full_wh is not None else None
    yield _sensed("battery_wh", left_wh, charge if known else unknown, unit="Wh")
    yield _sensed("battery_full_wh", full_wh if known else None, charge if known else unknown, unit="Wh")
    yield _sensed("charging", None if found is None else found.charging, charge)


def _power(power: Reading) -> Iterator[Sensed]:
    found = _of(Power, power)
    remark = "of the processor alone" if found is not None and found.scope == "processor" else ""
    yield _sensed("power_w", None if found is None else found.watts, power, unit="W", remark=remark)
    yield Sensed(field="power_scope", value=None if found is None else found.scope)  # goes with the value before


def _load(field: str, load: Reading) -> Sensed:
    return _sensed(field, load.percent if isinstance(load, Load) else None, load, unit="%")


def _clock(clock: Reading, load: Reading, signals: Reading) -> Sensed:
    found = _of(Clock, clock)
    share = None if found is None else met_by_work(found, _of(Load, load), _of(Signals, signals))
    remark = "" if found is None else f"of {found.best_hz / 1e6:.0f} MHz"
    return _sensed("clock", share, clock, remark=remark)


def _network(fed: Fed) -> Iterator[Sensed]:
    trips = fed.trips
    trip_ms = trips.smoothed_ms if isinstance(trips, Trips) else None
    yield _sensed("rtt_ms", trip_ms, trips, unit="ms", source="the connection to the hub")
    for field, mbps in (("up_mbps", fed.up), ("down_mbps", fed.down)):
        value = None if isinstance(mbps, Unavailable) else mbps
        yield _sensed(field, value, mbps, unit="Mbit/s", source="transfers")


def _of(kind: type[R], reading: object) -> R | None:
    return reading if isinstance(reading, kind) else None


def _sensed(
    field: str, value: Value | None, reading: object, *, unit: str = "", remark: str = "", source: str = ""
) -> Sensed:
    if value is None:
        return Sensed(field=field, value=None, reason=_why(reading))
    return Sensed(field=field, value=value, source=getattr(reading, "source", "") or source, unit=unit, remark=remark)


def _why(reading: object) -> str:
    why = reading if isinstance(reading, Unavailable) else _SILENT
    return why.reason.encode("utf-8", "replace")[:_MAX_REASON].decode("utf-8", "replace")  # names may be no UTF-8
