"""A policy for tests of the frame: the mode's favourite of what is in time by what was seen last, without any patience.

It has no dwell, no bars and no hysteresis, so whatever does not flap is the frame's doing.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass, replace

from edge_daemon.policies.contract import Event, Replied, Second, Setting, Task, Verdict, Why
from edge_sdk.preference import rank

HOT_C = 4.0  # left to the limit: the cheapest then


@dataclass(frozen=True, slots=True)
class Slowed:
    """By how much everything takes longer than it should."""

    factor: float = 1.0


class Climber:
    """Implements `edge_daemon.policies.contract.Policy`."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def initial(self) -> Slowed:
        """Nothing is known."""
        return Slowed()

    def step(self, state: Slowed, event: Event) -> tuple[Slowed, tuple[Verdict, ...]]:
        """The newest second explains everything."""
        if isinstance(event, Replied):
            expected = {a.id: a.latency_ms for a in self.setting.tasks[event.task].actions}[event.action]
            state = replace(state, factor=event.latency_ms / expected)
            return state, (self._verdict(event.task, state, None),)
        for task, seen in zip(self.setting.tasks, event.tasks, strict=True):
            expected_ms = {action.id: action.latency_ms for action in task.actions}.get(seen.action)
            if seen.latencies_ms and expected_ms is not None:
                state = replace(state, factor=statistics.median(seen.latencies_ms) / expected_ms)
        return state, tuple(self._verdict(index, state, event) for index in range(len(self.setting.tasks)))

    def dump(self, state: Slowed) -> bytes:
        """The factor."""
        return json.dumps(state.factor).encode()

    def load(self, payload: bytes) -> Slowed:
        """The factor, if it is one."""
        try:
            return Slowed(factor=float(json.loads(payload)))
        except (ValueError, TypeError):
            return Slowed()

    def _verdict(self, index: int, state: Slowed, second: Second | None) -> Verdict:
        task: Task = self.setting.tasks[index]
        ranked = rank(task.actions, task.mode)
        cheapest = min(task.actions, key=lambda action: (action.latency_ms, action.id))
        limit_c = self.setting.temp_c
        if second is not None and second.temp_c is not None and limit_c is not None and second.temp_c > limit_c - HOT_C:
            return Verdict(task=index, action=cheapest.id, why=Why(code="thermal", runner_up=ranked[0].id, margin=1.5))
        in_time = [action for action in ranked if action.latency_ms * state.factor <= task.limit_ms]
        good = [a for a in in_time if task.min_quality is None or a.quality >= task.min_quality]
        taken = (good or in_time or [cheapest])[0]
        code = "gain" if taken is ranked[0] else "latency"
        others = [action.id for action in ranked if action is not taken]
        numbers = (("slowdown", state.factor), ("draws_w", taken.power_w))
        why = Why(code=code, runner_up=others[0] if others else None, margin=0.5, numbers=numbers)
        return Verdict(task=index, action=taken.id, why=why)
