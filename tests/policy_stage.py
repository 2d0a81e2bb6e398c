"""Settings and seconds for tests of policies, as short as a situation can be told."""

from __future__ import annotations

from typing import Any

from edge_daemon.policies.contract import Action, Board, Second, Setting, Task, TaskSeen

SMALL = Action(id="small", quality=70.0, latency_ms=30.0, power_w=3.0, size_bytes=1)
MIDDLE = Action(id="middle", quality=76.0, latency_ms=60.0, power_w=3.1, size_bytes=2)
LARGE = Action(id="large", quality=80.0, latency_ms=150.0, power_w=3.3, size_bytes=3)
SERVER = Action(id="server", quality=84.0, latency_ms=25.0, power_w=1.1, remote=True, payload_kb=30.0)
HEDGED = Action(
    id="server+hedge", quality=84.0, latency_ms=25.0, power_w=1.1, remote=True, payload_kb=30.0, hedge="small"
)
LOCAL = (SMALL, MIDDLE, LARGE)


def task(*actions: Action, **fields: Any) -> Task:
    return Task(**{"name": "made", "actions": actions or LOCAL, "limit_ms": 250.0} | fields)


def setting(*tasks: Task, **fields: Any) -> Setting:
    return Setting(board=Board(), tasks=tasks or (task(),), **fields)


def second(now_s: float, action: str = "", requests: int = 2, **fields: Any) -> Second:
    """A second of one task; what belongs to the task is told apart by its name."""
    own = {name: fields.pop(name) for name in ("late", "latencies_ms", "sent", "replied", "probed") if name in fields}
    return Second(now_s=now_s, tasks=(TaskSeen(action=action, requests=requests, **own),), **fields)
