"""What the baselines share: a task's variants in order, what a server would take, two-threshold latches.

`optimal` does without: it weighs every action with what it has learned.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from edge_daemon.policies.contract import Action, Second, Task
from edge_sdk.preference import rank


@dataclass(frozen=True, slots=True)
class Latch:
    """On above one threshold, off below another, as it was in between."""

    on_above: float
    off_below: float

    def after(self, value: float | None, *, is_on: bool) -> bool:
        """Its state after this value; what is not known changes nothing."""
        if value is None or math.isnan(value):
            return is_on
        return value > self.on_above or (is_on and value >= self.off_below)


def rungs(task: Task) -> tuple[Action, ...]:
    """The variants that run here and are worth it, the fastest first.

    One that is slower than another and no better is left out; so is one below the task's lowest quality, unless all
    are, or whatever the mode wants less than the one that it wants most and that is faster.
    """
    here = sorted((a for a in task.actions if not a.remote), key=lambda a: (a.latency_ms, -a.quality, a.id))
    kept: list[Action] = []
    for action in here:
        if not kept or action.quality > kept[-1].quality:
            kept.append(action)
    worthy = [a for a in kept if task.min_quality is None or a.quality >= task.min_quality] or kept[-1:]
    most_wanted = rank(worthy, task.mode)[0]
    return tuple(a for a in worthy if a.latency_ms <= most_wanted.latency_ms)


def servers(task: Task) -> tuple[Action, ...]:
    """One remote action for each way to ask a server, the best answers first; with a hedge where there is one."""
    remote = [a for a in task.actions if a.remote]
    hedged = {(a.quality, a.payload_kb, a.latency_ms) for a in remote if a.hedge is not None}
    kept = [a for a in remote if a.hedge is not None or (a.quality, a.payload_kb, a.latency_ms) not in hedged]
    return tuple(sorted(kept, key=lambda a: (-a.quality, a.id)))


def reply_ms(action: Action, second: Second) -> float:
    """When a server's reply would come, by what the network was in the last second; `inf` where nothing is known."""
    if second.rtt_ms is None or second.up_mbps is None or not second.up_mbps > 0 or math.isnan(second.rtt_ms):
        return math.inf
    return second.rtt_ms + airtime_ms(action, second.up_mbps) + action.latency_ms


def airtime_ms(action: Action, up_mbps: float) -> float:
    """How long a request is on the air: 1 kB is 8 kbit, and 1 Mbit/s one kbit a millisecond."""
    return action.payload_kb * 8 / up_mbps


def sane(value: float | None, least: float = 0.0) -> float | None:
    """What a sensor said, or None where that is no number, infinite, or less than can be."""
    return value if value is not None and least <= value < math.inf else None


def decoded(payload: bytes) -> dict[str, Any]:
    """What a dump held: an object of JSON, or an empty one."""
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
