"""A second on a simulated board, told in a daemon's own terms: conditions, and the report of its one app."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Final

from edge_lab.fleet.cast import Part
from edge_lab.simulate import profiled
from edge_lab.simulate.board import App, Clock, Heat
from edge_lab.simulate.world import SUBSTEPS, World, draw
from edge_sdk.local import AppReport
from edge_sdk.mqtt import Conditions, Throttle

_PROBE_ROOM_S: Final = 0.05  # a probe begins this long after the last request of its second
_TOLD: Final = 20  # of `AppReport.latencies_ms`
_RTT_MS: Final = (8.0, 0.5)  # median and sigma of a log-normal: a Wi-Fi network in the house
_MEMORY_MB: Final = 700
_NOWHERE: Final = Path()  # its scenarios name no files


class Scene:
    """One board in one world.

    Args:
        part: The board and what it meets.
        seed: Of everything random.
    """

    def __init__(self, part: Part, seed: int) -> None:
        known = profiled.whole(part.scenario, folder=_NOWHERE)
        self.world: World = draw(known.scenario, seed, base=known.board)
        self._part = part
        self._app, self._heat, self._clock = App(self.world), Heat(self.world), Clock(self.world)
        self._actions = {action.id: action for action in self.world.setting.tasks[0].actions}
        self._first, self._arrive = self.world.first.tolist(), self.world.arrive_s.tolist()
        self._random = random.Random(seed)  # noqa: S311 - a played network
        self._full_j = None if part.fate.battery_wh is None else part.fate.battery_wh * 3600
        self._drawn_j = 0.0
        self._busy = 0.0
        self._loaded: str | None = None
        self._second = 0

    def conditions(self) -> Conditions:
        """As they are now."""
        world, second, full_j = self.world, min(self._second, self.world.seconds - 1), self._full_j
        left_wh = None if full_j is None else max(0.0, full_j - self._drawn_j) / 3600
        clock = self._clock.ratio
        return Conditions(
            temp_c=round(self._heat.die_c + float(world.temp_noise_c[second]), 1),
            temp_limit_c=self._part.temp_limit_c,
            throttle=Throttle.THERMAL if clock < 1 else Throttle.NONE,
            battery_pct=None if left_wh is None or full_j is None else round(100 * left_wh * 3600 / full_j, 1),
            charging=None if full_j is None else False,
            battery_wh=None if left_wh is None else round(left_wh, 3),
            battery_full_wh=self._part.fate.battery_wh,
            load_pct=round(min(100.0, 5 + 95 * self._busy), 1),
            memory_available_mb=_MEMORY_MB,
            rtt_ms=round(_RTT_MS[0] * math.exp(_RTT_MS[1] * self._random.gauss(0, 1)), 1),
            clock=clock,
            missing={"power_w": "no sensor of power on this board"},
            played=True,
        )

    def serve(self, variant: str) -> AppReport:
        """Pass a second in which this variant runs."""
        world, app, second = self.world, self._app, self._second
        begin, end = self._first[second], self._first[second + 1]
        clock, action = self._clock.ratio, self._actions[variant]
        took: list[float] = []
        late = 0
        for index in range(begin, end):
            served = app.serve(index, action, clock)
            late += served.quality <= 0
            if served.ended_s is not None:
                took.append(served.latency_ms)
        switched_ms, joules = None, 0.0
        if self._loaded not in {None, variant}:
            switched_ms = round(3 * action.latency_ms, 1)  # load and warm; the second of it nobody waits for
            joules = world.switch_j
        self._loaded = variant
        self._pass(joules)
        ordered = sorted(took)
        self._busy = min(1.0, sum(took) / 1000)
        self._second += 1
        return AppReport(
            active=variant,
            computes_on="cpu",
            calls=len(took),
            late=late,
            p50_ms=round(ordered[len(ordered) // 2], 2) if ordered else None,
            p95_ms=round(ordered[int(0.95 * len(ordered))], 2) if ordered else None,
            switched_ms=switched_ms,
            arrived=end - begin,
            latencies_ms=tuple(round(ms, 2) for ms in took[:_TOLD]),
        )

    def probe(self, variant: str) -> float | None:
        """Time a variant once in the idle time of the second that just passed; None where there was no room."""
        second = self._second - 1
        end = self._first[second + 1]
        from_s = max(second + _PROBE_ROOM_S, self._arrive[end - 1] + _PROBE_ROOM_S if end else 0.0)
        return self._app.probe(variant, from_s, second + 1.5, self._clock.ratio, 1.0)

    def _pass(self, joules: float) -> None:
        world = self.world
        idle_w, ambient_c = world.setting.board.idle_w, float(world.ambient_c[self._second])
        for substep in range(self._second * SUBSTEPS, (self._second + 1) * SUBSTEPS):
            spent = idle_w / SUBSTEPS + self._app.joules[substep] + float(world.extra_w[substep]) / SUBSTEPS + joules
            joules = 0.0
            self._heat.substep(spent * SUBSTEPS, ambient_c)
            self._drawn_j += spent
        self._clock.second(self._heat.die_c)
