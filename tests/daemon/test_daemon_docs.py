"""The reference says everything: each setting with default and bounds, each topic, field, command, path, event."""

from __future__ import annotations

import configparser
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from edge_daemon import api, config
from edge_daemon.config import Config, load
from edge_daemon.wishes.schedule import Schedule, Where
from edge_sdk import local, mqtt
from edge_sdk.mqtt import Down, Up, unpack_down, unpack_up
from edge_sdk.preference import Preference

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"

pytestmark = pytest.mark.skipif(not REFERENCE.is_dir(), reason="the documentation is not beside these tests")


def settings() -> dict[str, inspect.Field]:
    """Every key of the configuration, `models.NAME...` for those of a model."""
    found: dict[str, inspect.Field] = {}

    def walk(prefix: str, kind: type) -> None:
        for field in inspect.type_info(kind).fields:
            name = f"{prefix}{field.encode_name}"
            nested = {
                "models": ("models.NAME.", config.ModelSection),
                "mqtt": ("mqtt.", config.MqttSection),
                "mqtt.tls": ("mqtt.tls.", config.TlsSection),
                "models.NAME.preference": ("models.NAME.preference.", Preference),
                "models.NAME.server": ("models.NAME.server.", config.ServerSection),
                "schedule": ("schedule.", Schedule),
                "schedule.where": ("schedule.where.", Where),
            }.get(name)
            if nested is None and isinstance(field.type, inspect.StructType):
                nested = (f"{name}.", field.type.cls)
            if nested is not None:
                walk(*nested)
            tables = {"mqtt.tls", "models.NAME.preference", "models.NAME.server", "schedule", "schedule.where"}
            if nested is None or name in tables:
                found[name] = field

    walk("", Config)
    return {**found, "models.NAME": found["models.NAME.bundle"]}


def rows(text: str) -> dict[str, str]:
    """The rows of all tables, by what stands in backticks in their first cell."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("| `"):
            first = line.split(" | ")[0]
            found |= dict.fromkeys(re.findall(r"`([^`]+)`", first), line)
    return found


def bounds(kind: Any) -> set[str]:
    """The numbers that bound a type."""
    if isinstance(kind, inspect.UnionType):
        return set().union(*(bounds(one) for one in kind.types))
    limits = (getattr(kind, name, None) for name in ("ge", "le", "gt", "min_length", "max_length"))
    return {f"{limit:g}" if limit < 1e6 else str(limit) for limit in limits if limit is not None}


def test_every_setting_is_described_with_its_default_and_bounds() -> None:
    described = rows((REFERENCE / "configuration.md").read_text())
    keys = settings()
    assert set(described) == set(keys)
    for key, field in keys.items():
        row = described[key]
        numbers = set(re.findall(r"-?\d+(?:\.\d+)?", row.replace("digits, ", "")))
        assert bounds(field.type) <= numbers, f"{key}: {bounds(field.type)} not in {row}"
        default = field.default
        if isinstance(default, bool):
            assert f"`{str(default).lower()}`" in row
        elif isinstance(default, (int, float)):
            assert f"| {default:g} |" in row, key
        elif isinstance(default, str):
            assert f'`"{default}"`' in row, key


def test_the_example_of_the_configuration_is_one(tmp_path: Path) -> None:
    example = re.search(r"```toml\n(.*?)```", (REFERENCE / "configuration.md").read_text(), re.DOTALL)
    assert example is not None
    path = tmp_path / "daemon.toml"
    path.write_text(example[1])
    loaded = load(path)
    assert str(loaded.device_id()) == "acme/board-1"
    assert set(loaded.bundles()) == {"digits", "faces", "birds"}


MQTT = (REFERENCE / "mqtt.md").read_text() if REFERENCE.is_dir() else ""
EXAMPLES = re.findall(r"```json (\S+)\n(.*?)```", MQTT, re.DOTALL)


def section(heading: str) -> str:
    found = re.search(rf"^#+ {re.escape(heading)}$(.*?)(?=^## |\Z)", MQTT, re.DOTALL | re.MULTILINE)
    assert found is not None, heading
    return found[1]


@pytest.mark.parametrize(("topic", "text"), EXAMPLES)
def test_each_example_of_a_message_is_one(topic: str, text: str) -> None:
    direction, _, name = topic.partition("/")
    payload = json.dumps(json.loads(text)).encode()
    if direction == "up":
        unpack_up(Up(name), payload)
    else:
        unpack_down(Down(name), payload)


def test_each_topic_has_a_row_and_an_example() -> None:
    topics = {f"up/{kind.value}" for kind in Up} | {f"down/{kind.value}" for kind in Down}
    assert topics <= set(rows(MQTT))
    assert topics == {topic for topic, _ in EXAMPLES}


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("up/birth", mqtt.Birth),
        ("up/birth", mqtt.ServedModel),
        ("up/birth", mqtt.ServedVariant),
        ("up/state", mqtt.State),
        ("up/state", mqtt.ModelState),
        ("up/state", mqtt.Decision),
        ("conditions", mqtt.Conditions),
        ("because", mqtt.Because),
        ("up/tele", mqtt.Tele),
        ("up/tele", mqtt.Sample),
        ("up/tele", mqtt.ModelStats),
        ("up/event", mqtt.Event),
        ("up/reply", mqtt.Reply),
        ("down/desired", mqtt.Desired),
        ("down/ack", mqtt.Ack),
        ("Envelopes", mqtt.UpEnvelope),
        ("Envelopes", mqtt.DownEnvelope),
        *(
            ("down/cmd", kind)
            for kind in (mqtt.Prefer, mqtt.Pin, mqtt.Unpin, mqtt.Measure, mqtt.Configure, mqtt.Explain)
        ),
    ],
)
def test_each_field_of_a_message_is_described(heading: str, kind: type[msgspec.Struct]) -> None:
    text = section(heading)
    missing = [name for name in kind.__struct_fields__ if f"`{name}`" not in text]
    assert not missing


def test_each_command_is_described() -> None:
    described = rows(section("down/cmd"))
    commands = {kind.__struct_config__.tag for kind in mqtt.Command.__args__}
    assert set(described) == commands


def test_each_kind_of_event_and_code_is_described() -> None:
    source = "".join(path.read_text() for path in Path(api.__file__).parent.glob("*.py"))
    kinds = set(re.findall(r'kind="([a-z-]+)"', source))
    assert kinds <= set(rows(section("up/event")))
    codes = set(re.findall(r'_refusal\("([a-z-]+)"', source)) | set(re.findall(r'code="(too-old)"', source))
    assert codes <= set(rows(section("up/reply")))


def test_each_path_and_field_of_the_local_api_is_described() -> None:
    text = (REFERENCE / "local-api.md").read_text()
    parts = ("catalogue", "apps", "switcher", "recorder", "journal", "clock", "whereabouts", "status", "used")
    for path in api.Api(**dict.fromkeys(parts))._paths:
        for method in path.methods:
            assert f"`{method} /{'/'.join(path.parts)}" in text
    for kind in (local.Register, local.Registered, local.Assignment, local.AppReport, local.Status, local.AppStatus):
        for name in kind.__struct_fields__:
            assert f"`{name}`" in text, f"{kind.__name__}.{name}"


def test_the_unit_of_systemd_names_what_the_daemon_does() -> None:
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment]  # as configparser's own documentation has it
    unit.read(ROOT / "examples" / "edge-daemon.service")
    service = unit["Service"]
    assert service["Type"] == "notify"
    assert service["ExecStart"].endswith(f"edge daemon run --config {config.SYSTEM_CONFIG}")
    assert service["RuntimeDirectory"] == service["StateDirectory"] == "edge"
