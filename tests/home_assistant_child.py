"""A Home Assistant with nothing but its MQTT integration, which does what it is told by lines of JSON.

Runs in an environment of its own, where nothing of ours is installed. `{"states": true}` answers with every entity and
device, `{"select": ENTITY, "option": OPTION}` chooses, `{"check": {TOPIC: PAYLOAD}}` answers with what Home Assistant's
own schemas have against discovery messages. The end of the input ends it.
"""

from __future__ import annotations

import asyncio
import copy
import importlib
import json
import logging
import sys
from pathlib import Path
from typing import Any

import voluptuous
from homeassistant import bootstrap, config_entries, core, loader
from homeassistant.components.mqtt import schemas
from homeassistant.helpers import device_registry, entity_registry

PORT, USER, PASSWORD, DIRECTORY = int(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4])
complaints: list[str] = []


class Complaints(logging.Handler):
    """Notes what the MQTT integration warns of."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("homeassistant.components.mqtt"):
            complaints.append(record.getMessage()[:2000])


async def started() -> core.HomeAssistant:
    """It, connected to the broker."""
    (DIRECTORY / "configuration.yaml").touch()
    hass = core.HomeAssistant(str(DIRECTORY))
    loader.async_setup(hass)
    hass.config_entries = config_entries.ConfigEntries(hass, {})
    await bootstrap.async_load_base_functionality(hass)
    hass.config.components.update({"http", "file_upload"})  # the integration's user interface, which nobody looks at
    login = {"broker": "127.0.0.1", "port": PORT, "username": USER, "password": PASSWORD}
    entry = config_entries.ConfigEntry(
        data={**login, "protocol": "3.1.1"},
        options={"discovery": True, "discovery_prefix": "homeassistant"},
        version=1,
        minor_version=2,
        domain="mqtt",
        title="MQTT",
        source="user",
        unique_id=None,
        discovery_keys={},
        **({"subentries_data": ()} if hasattr(config_entries, "ConfigSubentry") else {}),
    )
    await hass.config_entries.async_add(entry)
    return hass


def states(hass: core.HomeAssistant) -> dict[str, Any]:
    """What it shows."""
    devices = device_registry.async_get(hass).devices
    entities = entity_registry.async_get(hass).entities
    return {
        "states": {
            one.entity_id: {"state": one.state, **{key: str(value) for key, value in one.attributes.items()}}
            for one in hass.states.async_all()
        },
        "entities": sorted(entity.unique_id for entity in entities.values()),
        "devices": {
            str(device.name): {
                "model": device.model,
                "sw_version": device.sw_version,
                "via": device.via_device_id and devices[device.via_device_id].name,
            }
            for device in devices.values()
        },
        "complaints": complaints,
    }


def check(messages: dict[str, str]) -> dict[str, str]:
    """What its schemas say of discovery messages; nothing of those that are right."""
    wrong: dict[str, str] = {}
    for topic, payload in messages.items():
        config = json.loads(payload)
        try:
            schemas.DEVICE_DISCOVERY_SCHEMA(copy.deepcopy(config))
        except voluptuous.Invalid as error:
            wrong[topic] = str(error)
            continue
        shared = {key: config[key] for key in ("device", "origin", "state_topic", "availability")}
        for which, component in config["components"].items():
            platform = component.pop("platform")
            schema = importlib.import_module(f"homeassistant.components.mqtt.{platform}").DISCOVERY_SCHEMA
            try:
                schema({**copy.deepcopy(shared), **component})
            except voluptuous.Invalid as error:
                wrong[f"{topic} {which}"] = str(error)
    return wrong


async def main() -> None:
    """Obey."""
    logging.getLogger().addHandler(Complaints(level=logging.WARNING))
    hass = await started()
    print(json.dumps({"ready": True}), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        order = json.loads(line)
        answer: Any = {}
        if "states" in order:
            answer = states(hass)
        elif "check" in order:
            answer = check(order["check"])
        elif "select" in order:
            target = {"entity_id": order["select"], "option": order["option"]}
            await hass.services.async_call("select", "select_option", target, blocking=True)
        print(json.dumps(answer), flush=True)
    await hass.async_stop(force=True)


asyncio.run(main())
