"""What Home Assistant is told of the fleet: topics, discovery payloads, states. Pure.

One discovery message a device (Home Assistant 2024.12 and newer): the device, where it says that it is there, and its
components by id. https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge_hub.interop.view import ModelView, View
from edge_sdk._version import __version__
from edge_sdk.errors import UsageError, WireError
from edge_sdk.mqtt import ROOT, DeviceId

DEFAULT_PREFIX = "homeassistant"
BASE = f"{ROOT}/hub/ha"
HUB_STATUS = f"{BASE}/status"
HUB_STATE = f"{BASE}/state"
ORDERS = f"{BASE}/+/+/select/+"
ONLINE, OFFLINE = b"online", b"offline"
# No variant is called so: a `Name` has no brackets.
AUTOMATIC = "(automatic)"
MAX_ORDER_BYTES = 64

_PREFIX = re.compile(r"\A[A-Za-z0-9_-]{1,64}(/[A-Za-z0-9_-]{1,64}){0,3}\Z")
_NAME = re.compile(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_ORIGIN = {"name": "adaptive-edge-sdk", "sw_version": __version__}
_HUB_AVAILABLE = {"topic": HUB_STATUS}
_MAKER = "adaptive-edge-sdk"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What somebody chose in Home Assistant; `variant` is None for automatic."""

    device: DeviceId
    model: str
    variant: str | None


def check_prefix(prefix: str) -> str:
    """The prefix, if it can be one.

    Raises:
        UsageError: It has characters that a discovery topic must not have.
    """
    if not _PREFIX.match(prefix):
        raise UsageError("no prefix of discovery topics", where=repr(prefix[:80]), hint=f"such as {DEFAULT_PREFIX}")
    return prefix


def birth_topics(prefix: str) -> tuple[str, ...]:
    """Where Home Assistant says that it has started: below its own name, or below the prefix where a user moved it."""
    return tuple(dict.fromkeys((f"{prefix}/status", f"{DEFAULT_PREFIX}/status")))


def config_topic(prefix: str, object_id: str) -> str:
    """Of a discovery message."""
    return f"{prefix}/device/{object_id}/config"


def object_id(hub: str, device: DeviceId | None) -> str:
    """Of the hub (None) or a device, in the letters that Home Assistant takes; a digest keeps any two apart."""
    name = f"edge_{hub}" if device is None else f"edge_{device.tenant}_{device.device}".replace(".", "_")
    digest = hashlib.sha256(f"{hub} {device}".encode()).hexdigest()[:8]
    return f"{name}_{digest}"


def status_topic(device: DeviceId) -> str:
    """Whether a device is there."""
    return f"{BASE}/{device}/status"


def state_topic(device: DeviceId) -> str:
    """All its values, as one JSON object."""
    return f"{BASE}/{device}/state"


def order_topic(device: DeviceId, model: str) -> str:
    """Where Home Assistant writes the variant that somebody chose."""
    return f"{BASE}/{device}/select/{model}"


def parse_order(topic: str, payload: bytes) -> Order:
    """What somebody chose.

    Raises:
        WireError: The topic or the payload is none of an order.
    """
    levels = topic.removeprefix(f"{BASE}/").split("/")
    if len(levels) != 4 or levels[2] != "select" or not _NAME.match(levels[3]):  # noqa: PLR2004 - levels of the topic
        raise WireError("not a topic of a choice", where=topic[:200])
    device = DeviceId.parse("/".join(levels[:2]))
    chosen = payload[: MAX_ORDER_BYTES + 1].decode("utf-8", "replace")
    if chosen == AUTOMATIC:
        return Order(device=device, model=levels[3], variant=None)
    if not _NAME.match(chosen):
        raise WireError(f"{chosen!a} is no variant", where=topic[:200])
    return Order(device=device, model=levels[3], variant=chosen)


# ----------------------------------------------------------------------------------------------------- payloads


def hub_config(hub: str) -> dict[str, Any]:
    """The hub itself, which the devices are connected through."""
    identifier = object_id(hub, None)
    return {
        "device": {"identifiers": [identifier], "name": "Edge hub", "manufacturer": _MAKER, "sw_version": __version__},
        "origin": _ORIGIN,
        "state_topic": HUB_STATE,
        "availability": [_HUB_AVAILABLE],
        "components": {
            which: {
                "platform": "sensor",
                "unique_id": f"{identifier}:{which}",
                "name": name,
                "icon": "mdi:chip",
                "state_class": "measurement",
                "entity_category": "diagnostic",
                "value_template": _value(which),
            }
            for which, name in (("devices", "Devices"), ("online", "Devices online"))
        },
    }


def device_config(hub: str, view: View, *, before: Mapping[str, str]) -> dict[str, Any]:
    """A device with its components.

    Args:
        hub: Its id.
        view: The device as it is now.
        before: Platform by id, of the components it was given before. One whose sensor is silent now stays; one of a
            model that it serves no more is taken away, which takes saying so (an omitted one would stay).
    """
    identifier = object_id(hub, view.device)
    made = {
        which: {**component, "unique_id": f"{identifier}:{which}"}
        for which, component in _components(view, before).items()
    }
    gone = {which: {"platform": platform} for which, platform in before.items() if which not in made}
    about = {
        "identifiers": [identifier],
        "name": view.device.device,
        "manufacturer": _MAKER,
        "model": view.board or view.profile,
        "model_id": view.profile,
        "sw_version": view.software,
        "serial_number": str(view.device),
        "via_device": object_id(hub, None),
    }
    return {
        "device": {key: value for key, value in about.items() if value},
        "origin": _ORIGIN,
        "state_topic": state_topic(view.device),
        "availability_mode": "all",
        "availability": [_HUB_AVAILABLE, {"topic": status_topic(view.device)}],
        "components": {**made, **gone},
    }


def platforms(config: Mapping[str, Any]) -> dict[str, str]:
    """What to remember of a discovery message: the platform of each component that is there now."""
    components: dict[str, dict[str, str]] = config["components"]
    return {which: component["platform"] for which, component in components.items() if "unique_id" in component}


def device_state(view: View) -> dict[str, Any]:
    """The values that the templates of `device_config` pick from; None is shown as unknown."""
    return {
        "online": view.online,
        "temp_c": view.temp_c,
        "battery_pct": view.battery_pct,
        "power_w": _rounded(view.power_w),
        "throttled": None if view.throttle is None else view.throttle != "none",
        "power": {"estimated": view.power_estimated},
        "throttle": {"throttle": view.throttle},
        "models": {
            name: {
                "p95_ms": _rounded(model.p95_ms),
                "late_pct": _rounded(model.late_pct),
                "chosen": model.pinned or AUTOMATIC,
                "active": model.active,
                "told": {"active": model.active, "version": model.version, "code": model.code, "why": model.why},
            }
            for name, model in view.models.items()
        },
    }


def _components(view: View, before: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Those of sensors the device has, and of models it serves."""
    there = {"temperature": view.temp_c, "battery": view.battery_pct, "power": view.power_w}
    sensors: dict[str, dict[str, Any]] = {
        which: component for which, component in _SENSORS.items() if there[which] is not None or which in before
    }
    if "power" in sensors:
        name = "Power (estimated)" if view.power_estimated else "Power"
        sensors["power"] = {**sensors["power"], **_told(view, "value_json.power"), "name": name}
    always = {
        "throttled": {**_THROTTLED, **_told(view, "value_json.throttle")},
        "connected": _CONNECTED,
    }
    models: dict[str, dict[str, Any]] = {}
    for model in view.models.values():
        models |= _of_model(view, model)
    return {**sensors, **always, **models}


def _of_model(view: View, model: ModelView) -> dict[str, dict[str, Any]]:
    here = f"value_json.models['{model.name}']"  # a `Name`: it has no quote to break out with
    made: dict[str, dict[str, Any]] = {
        f"p95:{model.name}": {
            "platform": "sensor",
            "name": f"{model.name} latency p95",
            "device_class": "duration",
            "unit_of_measurement": "ms",
            "state_class": "measurement",
            "suggested_display_precision": 1,
            "value_template": _value(f"models['{model.name}'].p95_ms"),
        },
        f"late:{model.name}": {
            "platform": "sensor",
            "name": f"{model.name} late",
            "icon": "mdi:timer-alert-outline",
            "unit_of_measurement": "%",
            "state_class": "measurement",
            "suggested_display_precision": 1,
            "value_template": _value(f"models['{model.name}'].late_pct"),
        },
        f"active:{model.name}": {
            "platform": "sensor",
            "name": f"{model.name} variant",
            "icon": "mdi:brain",
            "value_template": _value(f"models['{model.name}'].active"),
            **_told(view, f"{here}.told"),
        },
    }
    if model.variants:
        options = list(model.variants)
        if model.pinned is not None and model.pinned not in options:
            options.append(model.pinned)
        made[f"select:{model.name}"] = {
            "platform": "select",
            "name": f"{model.name} pinned variant",
            "icon": "mdi:pin-outline",
            "entity_category": "config",
            "options": [AUTOMATIC, *options],
            "value_template": _value(f"models['{model.name}'].chosen"),
            "command_topic": order_topic(view.device, model.name),
            **_told(view, f"{here}.told"),
        }
    return made


def _value(path: str) -> str:
    return f"{{{{ value_json.{path} }}}}"


def _told(view: View, path: str) -> dict[str, str]:
    """Attributes, out of the one message that has all."""
    return {"json_attributes_topic": state_topic(view.device), "json_attributes_template": f"{{{{ {path} | tojson }}}}"}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


_SENSORS: dict[str, dict[str, Any]] = {
    "temperature": {
        "platform": "sensor",
        "device_class": "temperature",
        "unit_of_measurement": "°C",
        "state_class": "measurement",
        "suggested_display_precision": 1,
        "value_template": _value("temp_c"),
    },
    "battery": {
        "platform": "sensor",
        "device_class": "battery",
        "unit_of_measurement": "%",
        "state_class": "measurement",
        "suggested_display_precision": 0,
        "value_template": _value("battery_pct"),
    },
    "power": {
        "platform": "sensor",
        "device_class": "power",
        "unit_of_measurement": "W",
        "state_class": "measurement",
        "suggested_display_precision": 1,
        "value_template": _value("power_w"),
    },
}
_THROTTLED: dict[str, Any] = {
    "platform": "binary_sensor",
    "name": "Throttled",
    "device_class": "problem",
    "entity_category": "diagnostic",
    "value_template": "{{ {true: 'ON', false: 'OFF'}.get(value_json.throttled, 'None') }}",
}
# It tells of the device's connection, so it is there while the hub is.
_CONNECTED: dict[str, Any] = {
    "platform": "binary_sensor",
    "name": "Connected",
    "device_class": "connectivity",
    "entity_category": "diagnostic",
    "availability": [_HUB_AVAILABLE],
    "value_template": "{{ 'ON' if value_json.online else 'OFF' }}",
}
