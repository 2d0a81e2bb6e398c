"""Writes docs/reference/mqtt-schema.json from the message types; `--check` fails where it is out of date.

One JSON Schema (draft 2020-12) for each topic below `$defs`, and what they have in common beside them. What a field
means comes from the docstrings of `edge_sdk.mqtt`.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import msgspec

from edge_sdk import mqtt
from edge_sdk.mqtt import Down, Up

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "mqtt-schema.json"


def document() -> dict[str, Any]:
    """All schemas."""
    topics = {f"up-{kind.value}": mqtt.envelope_type(kind) for kind in Up}
    topics |= {f"down-{kind.value}": mqtt.envelope_type(kind) for kind in Down}
    whole, parts = msgspec.json.schema_components(topics.values(), ref_template="#/$defs/{name}")
    envelopes = dict(zip(topics, whole, strict=True))
    # An envelope is generic: its name in `parts` says of what, and the topic says it better.
    definitions = {topic: parts.pop(schema["$ref"].rpartition("/")[2]) for topic, schema in envelopes.items()}
    for topic, schema in definitions.items():
        schema["title"] = topic
    for schema in (*definitions.values(), *parts.values()):
        _describe(schema)
    everything: dict[str, Any] = _portable(
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": f"Messages between a device and its hub, format {mqtt.VERSION}",
            "description": "What a sender may write, by topic: `$defs/up-birth` below `edge/v1/TENANT/DEVICE/up/birth`."
            " A hub ignores fields of `up/` that it does not know; a device refuses those of `down/`.",
            "$defs": {**definitions, **parts},
        }
    )
    return everything


def _describe(schema: dict[str, Any]) -> None:
    """Give each property what the docstring says of it."""
    summary, _, attributes = schema.get("description", "").partition("\n\n    Attributes:\n")
    if summary:
        schema["description"] = " ".join(summary.split())
    for line in re.split(r"\n {8}(?! )", "\n" + attributes.partition("\n\n")[0])[1:]:
        names, _, text = line.partition(": ")
        for name in names.split(", "):
            schema["properties"][name]["description"] = " ".join(text.split())


def _portable(value: Any) -> Any:
    """Without what only Python's regular expressions know."""
    if isinstance(value, dict):
        return {
            key: one.replace(r"\A", "^").replace(r"\Z", "$") if key == "pattern" else _portable(one)
            for key, one in value.items()
        }
    return [_portable(one) for one in value] if isinstance(value, list) else value


def main() -> int:
    """Write or check the file; returns the exit status."""
    text = json.dumps(document(), indent=1, ensure_ascii=False) + "\n"
    if "--check" in sys.argv[1:]:
        if PAGE.read_text(encoding="utf-8") != text:
            print(f"{PAGE.name} is out of date: run python tools/mqtt_schema.py")
            return 1
        return 0
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
