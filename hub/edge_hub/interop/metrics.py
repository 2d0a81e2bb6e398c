"""A device as the metrics of a Sparkplug edge node, and what a host wants to write. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edge_hub.interop.payload import DataType, Metric, Payload, Value
from edge_hub.interop.view import ModelView, View
from edge_sdk.errors import UsageError, WireError
from edge_sdk.mqtt import DeviceId

NAMESPACE = "spBv1.0"
REBIRTH = "Node Control/Rebirth"
BDSEQ = "bdSeq"
MAX_NUMBER = 255  # of seq and bdSeq, which go on at 0
_FORBIDDEN = frozenset("+#/\0\n\r")
_MOST_CHARS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A metric's value now; `at` in seconds since 1970, None where the device gave no time."""

    name: str
    datatype: DataType
    value: Value
    at: float | None = None


def check_id(text: str, what: str) -> str:
    """A group or host id, if it can be one.

    Raises:
        UsageError: It has a character that is not allowed in a level of a topic.
    """
    if not text or len(text) > _MOST_CHARS or text.strip() != text or _FORBIDDEN & set(text) or not text.isprintable():
        raise UsageError(f"no {what} of Sparkplug", where=repr(text[:80]), hint="letters, digits, '-', '_', ' '")
    return text


def node_id(device: DeviceId) -> str:
    """The edge node that stands for a device. No name has a colon, so no two devices share one."""
    return f"{device.tenant}:{device.device}"


def topic(group: str, verb: str, node: str) -> str:
    """Of an edge node's messages: `NBIRTH`, `NDATA`, `NDEATH`, `NCMD`."""
    return f"{NAMESPACE}/{group}/{verb}/{node}"


def state_topic(host: str) -> str:
    """Where a primary host says that it is there."""
    return f"{NAMESPACE}/STATE/{host}"


def pin_metric(model: str) -> str:
    """The metric by which a host pins a model's variant."""
    return f"Models/{model}/pinned"


def pin_of(name: str) -> str | None:
    """The model whose variant is written by this metric, or None where it is not for writing."""
    folder, _, rest = name.partition("/")
    model, _, what = rest.rpartition("/")
    return model if (folder, what) == ("Models", "pinned") and model else None


def readings(view: View) -> tuple[Reading, ...]:
    """Everything an edge node reports, always in the same order. `pinned` is empty while the policy decides."""
    found = [
        Reading(name="Device/board", datatype=DataType.STRING, value=view.board),
        Reading(name="Device/profile", datatype=DataType.STRING, value=view.profile),
        Reading(name="Device/software", datatype=DataType.STRING, value=view.software),
        *_conditions(view),
    ]
    for model in view.models.values():
        here = f"Models/{model.name}"
        found += [
            Reading(name=f"{here}/version", datatype=DataType.STRING, value=model.version),
            Reading(name=f"{here}/active", datatype=DataType.STRING, value=model.active, at=view.at),
            Reading(name=f"{here}/pinned", datatype=DataType.STRING, value=model.pinned or "", at=view.at),
            Reading(name=f"{here}/why", datatype=DataType.STRING, value=model.why, at=view.at),
            *_work(model, view.sampled),
        ]
    return tuple(found)


def past_readings(view: View) -> tuple[Reading, ...]:
    """What a telemetry record of the past tells: what was sensed and how models did."""
    found = [each for each in _conditions(view) if each.value is not None]
    for model in view.models.values():
        here = f"Models/{model.name}"
        found.append(Reading(name=f"{here}/active", datatype=DataType.STRING, value=model.active, at=view.at))
        found += [each for each in _work(model, view.sampled) if each.value is not None]
    return tuple(found)


def _conditions(view: View) -> tuple[Reading, ...]:
    def sensed(name: str, value: Value, datatype: DataType = DataType.DOUBLE) -> Reading:
        return Reading(name=f"Conditions/{name}", datatype=datatype, value=value, at=view.at)

    return (
        sensed("temp_c", view.temp_c),
        sensed("battery_pct", view.battery_pct),
        sensed("charging", view.charging, DataType.BOOLEAN),
        sensed("power_w", view.power_w),
        sensed("power_estimated", view.power_estimated, DataType.BOOLEAN),
        sensed("load_pct", view.load_pct),
        sensed("rtt_ms", view.rtt_ms),
        sensed("throttle", view.throttle, DataType.STRING),
    )


def _work(model: ModelView, at: float | None) -> tuple[Reading, ...]:
    here = f"Models/{model.name}"
    return (
        Reading(name=f"{here}/calls", datatype=DataType.INT64, value=model.calls, at=at),
        Reading(name=f"{here}/late_pct", datatype=DataType.DOUBLE, value=model.late_pct, at=at),
        Reading(name=f"{here}/p95_ms", datatype=DataType.DOUBLE, value=model.p95_ms, at=at),
    )


# ----------------------------------------------------------------------------------------------------- messages


def following(number: int) -> int:
    """The number after this one, of seq and bdSeq alike."""
    return 0 if number >= MAX_NUMBER else number + 1


def death(bdseq: int, *, at: float) -> Payload:
    """NDEATH: one metric, no sequence number. Its time is that of the connection and means little; some ask for one."""
    return Payload(at_ms=int(at * 1000), metrics=(Metric(name=BDSEQ, datatype=DataType.INT64, value=bdseq),))


def birth(now: Sequence[Reading], *, bdseq: int, aliases: Mapping[str, int], at: float) -> Payload:
    """NBIRTH, which every count begins at: sequence number 0, each metric with name, alias, type and value."""
    at_ms = int(at * 1000)
    control = (
        Metric(name=BDSEQ, datatype=DataType.INT64, value=bdseq, at_ms=at_ms),
        Metric(name=REBIRTH, datatype=DataType.BOOLEAN, value=False, at_ms=at_ms),
    )
    told = _in_order(now, at)
    return Payload(
        at_ms=at_ms,
        seq=0,
        metrics=control
        + tuple(
            Metric(name=each.name, alias=aliases[each.name], at_ms=when, datatype=each.datatype, value=each.value)
            for each, when in told
        ),
    )


def data(
    changed: Iterable[Reading], *, seq: int, aliases: Mapping[str, int], at: float, historical: bool = False
) -> Payload:
    """NDATA: by alias alone, in the order of time."""
    return Payload(
        at_ms=int(at * 1000),
        seq=seq,
        metrics=tuple(
            Metric(
                alias=aliases[each.name], at_ms=when, datatype=each.datatype, value=each.value, historical=historical
            )
            for each, when in _in_order(changed, at)
        ),
    )


def _in_order(readings_: Iterable[Reading], at: float) -> list[tuple[Reading, int]]:
    """With their times in milliseconds, the oldest first; those of one time stay as they stand."""
    timed = [(each, int((at if each.at is None else each.at) * 1000)) for each in readings_]
    return sorted(timed, key=lambda pair: pair[1])


def wanted(payload: Payload, names: Mapping[int, str]) -> tuple[bool, dict[str, str | None]]:
    """What an NCMD asks for: a rebirth, and by model the variant to pin (None: let the policy decide).

    Args:
        payload: The command.
        names: Of the last birth's metrics, by alias.

    Raises:
        WireError: A value is not of the metric's type. Metrics that are not for writing are passed over.
    """
    rebirth, pins = False, {}
    for metric in payload.metrics:
        name = metric.name if metric.name is not None else names.get(metric.alias or 0)
        if name == REBIRTH:
            rebirth = rebirth or metric.value is True
            continue
        model = None if name is None else pin_of(name)
        if model is None:
            continue
        if metric.value is not None and not isinstance(metric.value, str):
            raise WireError("a variant is written as a string", where=str(name))
        pins[model] = metric.value or None
    return rebirth, pins
