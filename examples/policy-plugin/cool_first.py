"""A policy of your own: the best variant that keeps up, and the fastest while the board is warm."""

from __future__ import annotations

import json
import statistics

from edge_daemon.policies.contract import Event, Second, Setting, Verdict, Why

WARM_C, COOL_C = 65.0, 60.0  # the fastest above, free again below


class CoolFirst:
    """Made for one setting; everything it remembers is in the state that it is given and gives back."""

    def __init__(self, setting: Setting) -> None:
        self._tasks = setting.tasks

    def initial(self) -> dict:
        """Nothing is known: every variant takes what was promised."""
        return {"warm": False, "slow": 1.0}

    def step(self, state: dict, event: Event) -> tuple[dict, tuple[Verdict, ...]]:
        """One verdict for each task after each second; what happens within a second is left alone."""
        if not isinstance(event, Second):
            return state, ()
        warm = state["warm"]
        if event.temp_c is not None:  # a sensor may be missing
            warm = event.temp_c > WARM_C or (warm and event.temp_c > COOL_C)
        slow, verdicts = state["slow"], []
        for index, (task, seen) in enumerate(zip(self._tasks, event.tasks, strict=True)):
            here = sorted((a for a in task.actions if not a.remote), key=lambda a: a.latency_ms)
            ran = next((a for a in here if a.id == seen.action), None)
            if ran is not None and seen.latencies_ms:
                slow += 0.3 * (statistics.median(seen.latencies_ms) / ran.latency_ms - slow)
            room_ms = min(task.limit_ms, 1000 / max(seen.requests, 1))
            fits = [a for a in here if 1.2 * slow * a.latency_ms <= room_ms] or here[:1]
            best = here[0] if warm else max(fits, key=lambda a: a.quality)
            why = Why(code="thermal" if warm else "latency", numbers=(("slow", slow),))
            verdicts.append(Verdict(task=index, action=best.id, why=why))
        return {"warm": warm, "slow": slow}, tuple(verdicts)

    def dump(self, state: dict) -> bytes:
        """What outlives a restart of the daemon."""
        return json.dumps({"slow": state["slow"]}).encode()

    def load(self, payload: bytes) -> dict:
        """The same back; whatever it is, it must not raise."""
        try:
            return self.initial() | {"slow": float(json.loads(payload)["slow"])}
        except (ValueError, TypeError, KeyError):
            return self.initial()
