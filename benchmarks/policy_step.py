"""How long one step of the daemon takes, frame and policy together, on a state like a busy board's.

    python benchmarks/policy_step.py [--policy NAME] [--steps N] [--json]

Three models of eight variants, six apps, fifty decisions of history each; a working day in which charge, heat, network
and latencies move. Ticks (one a second on a device) and reports (one a second and app) are timed apart. The clock is
the process's own CPU clock, so that a neighbour's work on the machine does not count.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Iterator

from edge_daemon.policies import registry
from edge_daemon.policy.frame import Frame
from edge_daemon.policy.state import PolicyState, dump, initial
from edge_daemon.policy.types import AppJoined, AppReported, Decided, Event, ModelFacts, Preferred, Tick, VariantFacts
from edge_sdk.mqtt import Conditions
from edge_sdk.preference import Mode, Preference

MODELS, VARIANTS, APPS = 3, 8, 6
WISHES = (
    Preference(mode=Mode.ACCURACY, max_latency_ms=150.0, max_temp_c=70.0),
    Preference(mode=Mode.BALANCED, deadline_ms=200.0, min_accuracy=80.0),
    Preference(mode=Mode.BATTERY),
)


def device(frame: Frame) -> PolicyState:
    """A device whose apps run."""
    variants = tuple(
        VariantFacts(id=f"v{i}", quality=75.0 + 3 * i, latency_ms=4.0 * 1.7**i, measured=False, size_bytes=10_000 * i)
        for i in range(VARIANTS)
    )
    state = initial(tuple(ModelFacts(name=f"model{i}", variants=variants) for i in range(MODELS)))
    for i, wish in enumerate(WISHES):
        state, _ = frame.step(state, Preferred(model=f"model{i}", preference=wish))
    for i in range(APPS):
        state, _ = frame.step(state, AppJoined(app=f"app{i}", model=f"model{i % MODELS}"))
    return state


def day(steps: int) -> Iterator[tuple[float, Conditions, float]]:
    """Seconds of a day: the clock, what is sensed, and how much everything is slowed down."""
    for second in range(steps):
        turn = second / 600 * math.tau
        yield (
            float(second),
            Conditions(
                temp_c=62 + 10 * math.sin(turn),
                temp_limit_c=75.0,
                battery_pct=50 + 48 * math.sin(turn / 3),
                charging=math.sin(turn / 3) > 0.8,  # noqa: PLR2004 - a made-up day
                rtt_ms=40 + 39 * math.sin(turn * 1.7),
            ),
            1.0 + max(0.0, math.sin(turn * 2.3)),
        )


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--policy", default=registry.DEFAULT, help=f"which one (default {registry.DEFAULT})")
    parser.add_argument("--steps", type=int, default=3000, help="seconds of the day (default 3000)")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args()
    frame = Frame(use=options.policy, factory=registry.find(options.policy))
    state = device(frame)
    ticks: list[float] = []
    reports: list[float] = []
    switches = 0

    def timed(state: PolicyState, event: Event, into: list[float]) -> PolicyState:
        nonlocal switches
        begun = time.process_time_ns()
        state, instructions = frame.step(state, event)
        into.append((time.process_time_ns() - begun) / 1000)
        switches += sum(isinstance(item, Decided) for item in instructions)
        return state

    for second, conditions, slowed in day(options.steps):
        state = timed(state, Tick(now_s=second, at=1e9 + second, conditions=conditions), ticks)
        for app in state.apps:
            assigned = state.assignment(app.app)
            if assigned is not None:
                ran = assigned.decision.variant
                p50_ms = 4.0 * 1.7 ** int(ran[1:]) * slowed
                seen = AppReported(app=app.app, variant=ran, calls=30, late=0, p50_ms=p50_ms, p95_ms=1.2 * p50_ms)
                state = timed(state, seen, reports)
    found = {
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "policy": options.policy,
        "models": MODELS,
        "variants": VARIANTS,
        "apps": APPS,
        "switches": switches,
        "dump_bytes": len(dump(state)),
        "tick_us": figures(ticks),
        "report_us": figures(reports),
    }
    if options.json:
        print(json.dumps(found))
        return 0
    print(f"{found['machine']}: {MODELS} models of {VARIANTS} variants, {APPS} apps, {switches} switches")
    for name, values in (("tick", ticks), ("report", reports)):
        shown = figures(values)
        print(
            f"{name:7} median {shown['median']:7.1f} us   p99 {shown['p99']:7.1f} us   "
            f"max {shown['max']:7.1f} us   n {len(values)}"
        )
    return 0


def figures(values: list[float]) -> dict[str, float]:
    """Median, p99 and maximum."""
    ordered = sorted(values)
    return {
        "median": round(statistics.median(ordered), 1),
        "p99": round(ordered[int(0.99 * (len(ordered) - 1))], 1),
        "max": round(ordered[-1], 1),
        "samples": len(ordered),
    }


if __name__ == "__main__":
    sys.exit(main())
