"""Values of a scenario set from the command line: `limits.temp_c=70`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from edge_lab.simulate.scenario import Scenario, check
from edge_sdk.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover - the other branch runs on the other Python
    import tomli as tomllib


def overridden(scenario: Scenario, settings: Sequence[str]) -> Scenario:
    """The scenario with these values in place of its own.

    Args:
        scenario: As it was read.
        settings: Each a key with dots, `=`, and a value as TOML spells it; what is no TOML is a text.

    Raises:
        UsageError: A setting is malformed, names no key, or breaks a bound.
        ScenarioError: What comes of it cannot be played.
    """
    for setting in settings:
        scenario = _with(scenario, setting)
    if settings:
        check(scenario, f"{scenario.name} with {', '.join(settings)}"[:300])
    return scenario


def _with(scenario: Scenario, setting: str) -> Scenario:
    name, equals, text = setting.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise UsageError(
            f"{setting[:80]!r} is no setting", where="--set", hint="write KEY=VALUE, such as limits.temp_c=70"
        )
    plain = msgspec.to_builtins(scenario)
    table = plain
    for key in keys[:-1]:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise UsageError(f"{name[:80]!r} is no key of a scenario", where="--set", hint="lists are set whole")
    table[keys[-1]] = _value(text.strip())
    try:
        return msgspec.convert(plain, Scenario)
    except msgspec.ValidationError as cause:
        raise UsageError(str(cause)[:300], where=f"--set {setting[:80]}") from cause


def _value(text: str) -> Any:
    with contextlib.suppress(tomllib.TOMLDecodeError, RecursionError, ValueError):
        return tomllib.loads(f"value = {text}")["value"]
    return text
