"""What the tests of the exporters are played on: a broker that tells all, who listens to it, devices that report.

Sparkplug payloads are read here by the library `protobuf`, from a table of the specification's field numbers: another
reader than the hub's own.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from daemon_stage import PATIENCE_S, Broker, end, noticed
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hub_stage import FakeDevice

from edge_sdk.conditions import Conditions, Throttle
from edge_sdk.mqtt import Birth, ModelState, ModelStats, Sample, ServedModel, ServedVariant, State, Tele, Up
from edge_sdk.wire import new_token

T = TypeVar("T")

GROUP = "plant"
VARIANTS = ("exact", "quick")


# ---------------------------------------------------------------------------------------------------------- devices


def served(model: str = "digits", variants: tuple[str, ...] = VARIANTS) -> ServedModel:
    return ServedModel(
        name=model,
        version="1.0",
        variants=tuple(ServedVariant(id=id_, precision="int8", quality=97.0, size_bytes=1000) for id_ in variants),
    )


def born(device: FakeDevice, *models: ServedModel, online: bool = True) -> None:
    """The device's birth, as the daemon sends it."""
    body = Birth(online=online, profile="rpi4", board="Raspberry Pi 4", software="0.1.0", models=models or (served(),))
    device.retain(Up.BIRTH, body)


def reports(device: FakeDevice, *, at: float | None = None, **states: ModelState) -> None:
    """The device's state, warm and on battery."""
    seen = Conditions(temp_c=51.5, battery_pct=80.0, charging=False, throttle=Throttle.SOFT)
    models = states or {"digits": ModelState(active="exact")}
    device.retain(Up.STATE, State(at=time.time() if at is None else at, conditions=seen, models=models))


def measures(device: FakeDevice, *ats: float, temp_c: float = 50.0, seq: int | None = None) -> None:
    """Telemetry, a record for each time; `seq` is the number of a message that the spool sends late."""
    stats = ModelStats(variant="exact", calls=100, late=1, p50_ms=2.0, p95_ms=3.25)
    samples = tuple(
        Sample(at=at, window_s=10, conditions=Conditions(temp_c=temp_c), models={"digits": stats}) for at in ats
    )
    device.send(Up.TELE, Tele(samples=samples), seq=seq)


# -------------------------------------------------------------------------------------------------------- listeners


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A message as it came."""

    topic: str
    payload: bytes
    qos: int
    retained: bool


class Listener:
    """An MQTT client of somebody else's: notes what it hears, publishes what it is told to.

    Args:
        port: Of the broker.
        topics: What it listens to, with QoS 1.
        user: Who it is, and its password.
    """

    def __init__(self, port: int, *topics: str, user: tuple[str, str] | None = None) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self.heard: list[Heard] = []
        self._changed = threading.Condition()
        self._ready = False
        self._topics = topics
        client = self._client = Client(CallbackAPIVersion.VERSION2, client_id=f"listener-{new_token()[:8]}")
        if user is not None:
            client.username_pw_set(*user)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.connect("127.0.0.1", port, keepalive=10)
        client.loop_start()
        self.when(lambda: self._ready, "the subscription")

    def __enter__(self) -> Listener:  # noqa: PYI034 - nothing derives from it
        return self

    def __exit__(self, *_: object) -> None:
        end(self._client)

    def say(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        self._client.publish(topic, payload, qos=qos, retain=retain).wait_for_publish(PATIENCE_S)

    def when(self, look: Callable[[], T | None], what: str) -> T:
        return noticed(self._changed, look, what, told=lambda: f"heard: {self.heard[-3:]}")

    def last(self, topic: str) -> bytes | None:
        """The newest payload on this topic."""
        return next((each.payload for each in reversed(self.heard) if each.topic == topic), None)

    def _on_connect(self, client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        assert not reason.is_failure, reason
        client.subscribe([(topic, 1) for topic in self._topics])

    def _on_subscribe(self, *_: Any) -> None:
        with self._changed:
            self._ready = True
            self._changed.notify_all()

    def _on_message(self, _client: Any, _data: Any, message: Any) -> None:
        one = Heard(topic=message.topic, payload=message.payload, qos=message.qos, retained=message.retain)
        with self._changed:
            self.heard.append(one)
            self._changed.notify_all()


# ------------------------------------------------------------------------------------------------------ open broker


class TellingBroker(Broker):
    """A broker of somebody else's on which the hub may do all, and whose log has every packet."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        (directory / "access").write_text(
            f"user {self.HUB}\ntopic readwrite #\npattern write edge/v1/%u/up/#\npattern read edge/v1/%u/down/#\n"
        )

    @property
    def url(self) -> str:
        return f"mqtt://{self.HUB}:{self.HUB_PASSWORD.replace(' ', '%20')}@127.0.0.1:{self.port}"

    def listener(self, *topics: str) -> Listener:
        return Listener(self.port, *topics, user=(self.HUB, self.HUB_PASSWORD))

    def packets(self, of: str) -> list[str]:
        """What its log has of the clients whose id contains this, in order, without the times."""
        lines = [line.partition(": ")[2] for line in self.log.read_text("utf-8", "replace").splitlines()]
        found, ours = [], False
        for line in lines:
            # What belongs to a CONNECT or a SUBSCRIBE stands on the lines after it.
            ours = of in line or (ours and line.startswith(("\t", "Will message", "No will")))
            if ours:
                found.append(line.strip())
        return found


# -------------------------------------------------------------------------------------------------------- sparkplug

_TYPES = descriptor_pb2.FieldDescriptorProto
_FIELDS: dict[str, dict[int, tuple[str, int]]] = {
    "Metric": {
        1: ("name", _TYPES.TYPE_STRING), 2: ("alias", _TYPES.TYPE_UINT64), 3: ("timestamp", _TYPES.TYPE_UINT64),
        4: ("datatype", _TYPES.TYPE_UINT32), 5: ("is_historical", _TYPES.TYPE_BOOL),
        6: ("is_transient", _TYPES.TYPE_BOOL), 7: ("is_null", _TYPES.TYPE_BOOL), 10: ("int_value", _TYPES.TYPE_UINT32),
        11: ("long_value", _TYPES.TYPE_UINT64), 12: ("float_value", _TYPES.TYPE_FLOAT),
        13: ("double_value", _TYPES.TYPE_DOUBLE), 14: ("boolean_value", _TYPES.TYPE_BOOL),
        15: ("string_value", _TYPES.TYPE_STRING), 16: ("bytes_value", _TYPES.TYPE_BYTES),
    },
    "Payload": {
        1: ("timestamp", _TYPES.TYPE_UINT64), 2: ("metrics", _TYPES.TYPE_MESSAGE), 3: ("seq", _TYPES.TYPE_UINT64),
        4: ("uuid", _TYPES.TYPE_STRING), 5: ("body", _TYPES.TYPE_BYTES),
    },
}  # fmt: skip
_VALUES = range(10, 20)


def _payload_type() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="tests/sparkplug.proto", package="spb", syntax="proto2")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        if name == "Metric":
            message.oneof_decl.add(name="value")
        for number, (called, kind) in fields.items():
            entry = message.field.add(name=called, number=number, type=kind, label=_TYPES.LABEL_OPTIONAL)
            if kind == _TYPES.TYPE_MESSAGE:
                entry.label, entry.type_name = _TYPES.LABEL_REPEATED, ".spb.Metric"
            elif name == "Metric" and number in _VALUES:
                entry.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("spb.Payload"))


SpbPayload = _payload_type()


@dataclass(frozen=True, slots=True, kw_only=True)
class SpbMessage:
    """A message of an edge node, read."""

    verb: str
    node: str
    qos: int
    retained: bool
    body: Any
    metrics: dict[str | int, Any] = field(repr=False)

    @property
    def seq(self) -> int | None:
        return self.body.seq if self.body.HasField("seq") else None

    def value(self, name: str | int) -> Any:
        metric = self.metrics[name]
        kind = metric.WhichOneof("value")
        return None if kind is None else getattr(metric, kind)


def spb_messages(heard: list[Heard], node: str | None = None) -> list[SpbMessage]:
    """The messages of edge nodes (or one of them), in order."""
    return [one for each in list(heard) if (one := _spb(each)) is not None and node in {None, one.node}]


def _spb(heard: Heard) -> SpbMessage | None:
    found = re.fullmatch(rf"spBv1\.0/{GROUP}/(N\w+)/([^/]+)", heard.topic)
    if found is None or found[1] == "NCMD":
        return None
    body = SpbPayload.FromString(heard.payload)
    metrics = {(each.name if each.HasField("name") else each.alias): each for each in body.metrics}
    return SpbMessage(verb=found[1], node=found[2], qos=heard.qos, retained=heard.retained, body=body, metrics=metrics)


def ncmd(*metrics: tuple[str | int, Any], **more: Any) -> bytes:
    """A host's command: each metric by name or alias."""
    body = SpbPayload(timestamp=int(time.time() * 1000), **more)
    for which, value in metrics:
        metric = body.metrics.add(timestamp=int(time.time() * 1000))
        if isinstance(which, str):
            metric.name = which
        else:
            metric.alias = which
        if value is None:
            metric.is_null = True
        else:
            setattr(metric, {bool: "boolean_value", str: "string_value", int: "int_value"}[type(value)], value)
    content: bytes = body.SerializeToString()
    return content


def verbs(messages: list[SpbMessage]) -> Iterator[str]:
    return (message.verb for message in messages)
