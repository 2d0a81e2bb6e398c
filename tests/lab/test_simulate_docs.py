"""What the pages say of the simulator is so: each key with its bounds and default, each column, the example policy."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import inspect
from simulated_stage import world

from edge_daemon.policies import registry
from edge_daemon.policies.contract import GROUP
from edge_lab.simulate import logs, scenario, trace
from edge_lab.simulate.play import play
from edge_sdk.cli import main
from edge_sdk.wire import decode_toml

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference" / "scenario.md"
HOW_TO = ROOT / "docs" / "how-to" / "simulate.md"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e\d+)?")
KINDS = (
    scenario.Scenario, scenario.Limits, scenario.Ambient, scenario.Arrivals, scenario.Network, scenario.Trace,
    scenario.BoardSection, scenario.Hidden, scenario.VariantSection,
)  # fmt: skip


def bounds(kind: Any) -> set[float]:
    """Of the numbers that a key holds."""
    found = {float(limit) for name in ("ge", "gt", "le", "lt") if (limit := getattr(kind, name, None)) is not None}
    parts = [*getattr(kind, "types", ()), *getattr(kind, "item_types", ())]
    parts += [kind.item_type] if hasattr(kind, "item_type") else []
    return found.union(*(bounds(part) for part in parts))


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_of_a_scenario_is_documented_with_bounds_and_default(kind: type[msgspec.Struct]) -> None:
    part = re.search(rf"^### {kind.__name__}$(.*?)(?=^##|\Z)", REFERENCE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert part is not None
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \| ([^|]*) \| [^|]*\|$", part[1], re.MULTILINE)
    fields = inspect.type_info(kind).fields
    assert [name for name, _, _ in rows] == [field.name for field in fields]
    for field, (name, type_, default) in zip(fields, rows, strict=True):
        if not isinstance(field.type, inspect.StructType):
            assert bounds(field.type) <= {float(number) for number in NUMBER.findall(type_)}, name
        if field.required:
            assert default == "required", name
        elif isinstance(field.default, int | float | tuple) and not isinstance(field.default, bool):
            said = [float(number) for number in NUMBER.findall(default)]
            assert said == list(field.default if isinstance(field.default, tuple) else [field.default]), name
        elif field.default is None or field.default == ():
            assert default == "none", name


def test_every_column_of_a_trace_is_documented_with_its_bounds() -> None:
    text = REFERENCE.read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \| (\S+) \|", text[text.index("## Traces") :], re.MULTILINE)
    assert {name: (float(low), float(high)) for name, low, high in rows} == trace.COLUMNS


def test_every_column_of_a_log_is_documented() -> None:
    text = HOW_TO.read_text("utf-8")
    table = text[text.index("| `time_s`") :]
    assert all(f"`{name}`" in table for name in logs.COLUMNS)


def test_the_ten_scenarios_and_the_example_of_the_how_to_can_be_played(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"```toml\n(name = .*?)```", HOW_TO.read_text("utf-8"), re.DOTALL)
    path = tmp_path / "afternoon.toml"
    path.write_text(example)
    short = ["--set", "duration_s=10", "--set", "limits.battery_until_s=10", "--jobs", "1", "--json"]
    assert main(["simulate", str(path), "--policy", "rules", *short]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == []
    files = sorted((ROOT / "benchmarks" / "scenarios").glob("*.toml"))
    if not files:
        pytest.skip("this is no checkout")
    assert len({scenario.read(file).name for file in files}) == 10


def test_every_baseline_is_on_the_page_of_the_simulator() -> None:
    text = (ROOT / "docs" / "explanation" / "simulator.md").read_text("utf-8")
    assert all(f"`{name}`" in text for name in registry.BUILT_IN)


def test_the_example_policy_is_one(tmp_path: Path) -> None:
    folder = ROOT / "examples" / "policy-plugin"
    project = decode_toml((folder / "pyproject.toml").read_bytes(), dict, where="pyproject.toml")
    ((name, value),) = project["project"]["entry-points"][GROUP].items()
    assert name == "cool-first"
    module_name, _, attribute = value.partition(":")
    spec = importlib.util.spec_from_file_location(module_name, folder / f"{module_name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = world(duration_s=300, limits={"latency_ms": 250.0, "temp_c": 66.0}, ambient={"start_c": 30.0},
                 arrivals={"quiet_per_s": 6.0, "busy_per_s": 6.0})  # fmt: skip
    run = play(made, name, getattr(module, attribute))
    assert {"small", "large"} == set(run.action)
    assert run.hot_pct(66.0) == 0
    policy = getattr(module, attribute)(made.setting)
    assert policy.load(b"nothing of ours") == policy.initial()
    assert policy.load(policy.dump(policy.initial() | {"slow": 1.5}))["slow"] == 1.5
