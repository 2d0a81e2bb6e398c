"""Scenarios to test on: short, and with only that hidden or random which a test is about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from edge_daemon.policies.contract import Board, Event, Second, Setting, Verdict, Why
from edge_lab.simulate.scenario import Scenario
from edge_lab.simulate.world import World, draw

# Nothing is drawn: what is promised is so.
PLAIN: dict[str, float] = {
    "latency_scale": 1.0, "latency_sigma": 0.0, "power_sigma": 0.0, "thermal_sigma": 0.0, "jitter_sigma": 0.0,
    "spike_rate": 0.0, "burst_rate": 0.0, "remote_jitter_sigma": 0.0, "temp_noise_c": 0.0, "power_noise": 0.0,
    "gauge_pct": 0.0,
}  # fmt: skip
VARIANTS = (
    {"id": "small", "accuracy": 70.0, "latency_ms": 30.0, "power_w": 3.0},
    {"id": "large", "accuracy": 80.0, "latency_ms": 120.0, "power_w": 3.3},
)
REMOTE = {"id": "server", "accuracy": 84.0, "remote": True, "payload_kb": 30.0, "server_ms": 25.0}

FILE = """
name = "{name}"
duration_s = {seconds}
seed = 1
limits = {{ latency_ms = 250, temp_c = 75 }}
arrivals = {{ quiet_per_s = 2, busy_per_s = 4, quiet_s = 10, busy_s = 10 }}
network = {{ rtt_ms = [69, 89], up_mbps = [1.15, 5.65] }}
variant = [
  {{ id = "small", accuracy = 70, latency_ms = 30, power_w = 3.0 }},
  {{ id = "large", accuracy = 80, latency_ms = 120, power_w = 3.3 }},
  {{ id = "server", accuracy = 84, remote = true, payload_kb = 30, server_ms = 25 }},
]
{more}
"""


def scenario(**fields: Any) -> Scenario:
    """A minute in still air at 25 degrees, two requests a second, nothing hidden."""
    plain = {
        "name": "made",
        "duration_s": 60,
        "ambient": {"start_c": 25.0, "drift_c": 0.0},
        "arrivals": {"quiet_per_s": 2.0, "busy_per_s": 2.0},
        "hidden": PLAIN,
        "variant": VARIANTS,
    }
    return msgspec.convert(plain | fields, Scenario)


def world(seed: int = 1, **fields: Any) -> World:
    return draw(scenario(**fields), seed, base=Board())


def write_scenario(folder: Path, name: str = "made", seconds: int = 30, more: str = "") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(FILE.format(name=name, seconds=seconds, more=more))
    return path


class Always:
    """A policy, and its factory, that takes one action for ever."""

    def __init__(self, action: str) -> None:
        self._action = action

    def __call__(self, setting: Setting) -> Always:
        return self

    def initial(self) -> None:
        return None

    def step(self, state: None, event: Event) -> tuple[None, tuple[Verdict, ...]]:
        verdict = Verdict(task=0, action=self._action, why=Why(code="start"))
        return None, (verdict,) if isinstance(event, Second) else ()

    def dump(self, state: None) -> bytes:
        return b""

    def load(self, payload: bytes) -> None:
        return None
