"""One policy in one world: what it saw, what it did, what came of it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from edge_daemon.policies.contract import (
    MAX_LATENCIES,
    SURPRISING,
    Action,
    Event,
    Factory,
    Policy,
    Probed,
    Replied,
    Second,
    TaskSeen,
    Verdict,
)
from edge_lab.simulate.board import App, Clock, Heat
from edge_lab.simulate.world import SUBSTEPS, World

_SURPRISE: Final = math.log(SURPRISING)
_USUAL_GAIN: Final = 0.3  # of an app's notion of how long its variant usually takes
_PROBE_ROOM_S: Final = 0.05  # a probe begins this long after the last request of its second


@dataclass(slots=True)
class Run:
    """What came of it, per second.

    Attributes:
        action: In force at the end of each second; "" once the battery is empty.
        temp_c: Of the die, at the end.
        energy_wh: Drawn so far.
        requests, in_time, late: Counts; a request after the battery's end is in neither of the last two.
        quality: Sum of the qualities of answers in time.
        reasons: Second, old, new action and the verdict's reason, for each change.
        decision_us: Of each step with a `Second`; `reply_us` with a `Replied`.
        switches: From one variant to another (or from one way to ask a server to another); `toggles` between server and
            board, counted apart.
        dead_s: When the battery was empty; None if it never was.
    """

    policy: str
    seed: int
    action: list[str] = field(default_factory=list)
    temp_c: list[float] = field(default_factory=list)
    energy_wh: list[float] = field(default_factory=list)
    clock: list[float] = field(default_factory=list)
    requests: list[int] = field(default_factory=list)
    in_time: list[int] = field(default_factory=list)
    late: list[int] = field(default_factory=list)
    quality: list[float] = field(default_factory=list)
    reasons: list[tuple[float, str, str, Verdict]] = field(default_factory=list)
    decision_us: list[float] = field(default_factory=list)
    reply_us: list[float] = field(default_factory=list)
    switches: int = 0
    toggles: int = 0
    dead_s: float | None = None

    @property
    def effective_accuracy(self) -> float:
        """Quality of answers in time, over all requests."""
        return sum(self.quality) / max(sum(self.requests), 1)

    @property
    def late_pct(self) -> float:
        """Of all requests."""
        return 100 * sum(self.late) / max(sum(self.requests), 1)

    def hot_pct(self, limit_c: float | None) -> float:
        """Share of seconds at whose end the die was above the limit."""
        if limit_c is None:
            return 0.0
        return 100 * float(np.mean(np.asarray(self.temp_c) > limit_c))

    def alive_pct(self, until_s: float) -> float:
        """Share of the time up to the target in which the battery was not empty."""
        return 100.0 if self.dead_s is None else 100 * min(self.dead_s / until_s, 1.0)


def play(world: World, policy: str, factory: Factory, *, replies: bool = True) -> Run:
    """Play one policy; what it decides depends on nothing but what it is told.

    Args:
        world: The drawn run.
        policy: Its name.
        factory: Makes it.
        replies: Tell it of each inference as it ends, too.
    """
    return _Player(world, policy, factory(world.setting), replies=replies).run()


class _Player:
    def __init__(self, world: World, name: str, policy: Policy, *, replies: bool) -> None:
        self._world, self._policy, self._replies = world, policy, replies
        self._state: Any = policy.initial()
        self._app, self._heat, self._clock = App(world), Heat(world), Clock(world)
        self._actions = {action.id: action for action in world.setting.tasks[0].actions}
        self._smallest = min(
            (action for action in world.setting.tasks[0].actions if not action.remote), key=lambda a: a.latency_ms
        ).id
        self._action: Action | None = None
        self._loaded: str | None = None
        self._probe: str | None = None
        self._switched_j = 0.0
        self._pending: list[Replied] = []
        self._latencies: list[float] = []
        self._usual: dict[str, float] = {}
        self._told = False
        self._battery_j = world.setting.battery_j
        self._drained_j = 0.0
        self.out = Run(policy=name, seed=world.seed)

    def run(self) -> Run:
        world, app, out = self._world, self._app, self.out
        first, arrive = world.first.tolist(), world.arrive_s.tolist()
        drawn_j, power_w = 0.0, world.setting.board.idle_w
        seen = TaskSeen(action="", requests=0)
        extra, ambient, drain = world.extra_w.tolist(), world.ambient_c.tolist(), world.battery_w.tolist()
        idle_w = world.setting.board.idle_w
        for second in range(world.seconds):
            if out.dead_s is not None:
                self._lie_dead(second, first, drawn_j, ambient[second])
                continue
            self._switched_j = 0.0
            self._decide(self._second(second, seen, power_w, drawn_j))
            seen = self._serve(second, first[second], first[second + 1], arrive)
            clock = self._clock.ratio
            total_j = 0.0
            for substep in range(second * SUBSTEPS, (second + 1) * SUBSTEPS):
                joules = idle_w / SUBSTEPS + app.joules[substep] + extra[substep] / SUBSTEPS
                if substep == second * SUBSTEPS:
                    joules += self._switched_j
                self._heat.substep(joules * SUBSTEPS, ambient[second])
                total_j += joules
            power_w = total_j
            drawn_j += total_j
            self._drained_j += drain[second]
            if self._battery_j is not None and drawn_j + self._drained_j >= self._battery_j:
                out.dead_s = float(second + 1)
            self._clock.second(self._heat.die_c)
            self._row(clock, drawn_j)
        return out

    def _serve(self, second: int, begin: int, end: int, arrive: list[float]) -> TaskSeen:
        app, clock = self._app, self._clock.ratio
        quality, in_time, sent, replied = 0.0, 0, 0, 0
        told = self._latencies = []
        at_start = self._pending
        self._pending = []
        for reply in at_start:
            self._tell(reply)
        for index in range(begin, end):
            while self._pending and self._pending[0].now_s <= app.begins_s(index):
                self._tell(self._pending.pop(0))
            assert self._action is not None  # noqa: S101 - the first second decides
            action = self._action
            served = app.serve(index, action, clock)
            quality += served.quality
            in_time += served.quality > 0
            if served.replied is not None:
                sent += 1
                replied += served.replied
            if served.ended_s is not None:
                computed = action.hedge or action.id
                self._pending.append(
                    Replied(
                        now_s=served.ended_s,
                        task=0,
                        action=computed,
                        latency_ms=served.latency_ms,
                        waited_ms=served.waited_ms,
                    )
                )
        until = second + 1.0
        while self._pending and self._pending[0].now_s <= until:
            self._tell(self._pending.pop(0))
        probed = self._try_probe(second, end, arrive, until)
        out = self.out
        out.requests.append(end - begin)
        out.in_time.append(in_time)
        out.late.append(end - begin - in_time)
        out.quality.append(quality)
        assert self._action is not None  # noqa: S101
        return TaskSeen(
            action=self._action.id,
            requests=end - begin,
            late=end - begin - in_time,
            latencies_ms=tuple(told[:MAX_LATENCIES]),
            sent=sent,
            replied=replied,
            probed=probed,
        )

    def _tell(self, reply: Replied) -> None:
        """An inference has ended: the policy hears of it at once if it is no usual one, else with the second."""
        action = self._action
        usual = self._usual.get(reply.action)
        took = math.log(reply.latency_ms)
        told = usual is None or self._told or abs(took - usual) > _SURPRISE
        self._told = usual is None or abs(took - usual) > _SURPRISE
        self._usual[reply.action] = took if usual is None else usual + _USUAL_GAIN * (took - usual)
        if self._replies and (told or (action is not None and action.remote)):
            self._decide(reply)
        elif action is not None and reply.action == (action.hedge or action.id):
            self._latencies.append(reply.latency_ms)

    def _try_probe(self, second: int, end: int, arrive: list[float], until: float) -> Probed | None:
        wanted, self._probe = self._probe, None
        if wanted is None:
            return None
        from_s = max(second + _PROBE_ROOM_S, arrive[end - 1] + _PROBE_ROOM_S if end else 0.0)
        jitter = float(self._world.jitter[(second * 7919) % len(self._world.jitter)]) if end else 1.0
        took_ms = self._app.probe(wanted, from_s, until + 0.5, self._clock.ratio, jitter)
        return None if took_ms is None else Probed(action=wanted, latency_ms=took_ms)

    def _decide(self, event: Event) -> None:
        began = time.thread_time_ns()  # a neighbour's work on the machine does not count
        self._state, verdicts = self._policy.step(self._state, event)
        took_us = (time.thread_time_ns() - began) / 1000
        (self.out.decision_us if isinstance(event, Second) else self.out.reply_us).append(took_us)
        for verdict in verdicts:
            self._follow(event.now_s, verdict)

    def _follow(self, now_s: float, verdict: Verdict) -> None:
        if verdict.probe is not None:
            self._probe = verdict.probe
        old, new = self._action, self._actions[verdict.action]
        if old is not None and old.id == new.id:
            return
        loaded = (new.hedge or self._loaded or self._smallest) if new.remote else new.id
        if old is not None:
            if loaded != self._loaded:
                self._switched_j += self._world.switch_j
            if old.remote != new.remote:
                self.out.toggles += 1
            else:
                self.out.switches += 1
        self.out.reasons.append((now_s, "" if old is None else old.id, new.id, verdict))
        self._action, self._loaded = new, loaded

    def _second(self, second: int, seen: TaskSeen, power_w: float, drawn_j: float) -> Second:
        world, before = self._world, max(second - 1, 0)
        battery_j = None
        if self._battery_j is not None:
            left = self._battery_j - drawn_j - self._drained_j
            step_j = world.scenario.hidden.gauge_pct / 100 * self._battery_j
            battery_j = math.floor(left / step_j) * step_j if step_j else left
        return Second(
            now_s=float(second),
            tasks=(seen,),
            temp_c=self._heat.die_c + float(world.temp_noise_c[second]),
            power_w=power_w * float(world.power_noise[second]),
            battery_j=battery_j,
            clock=self._clock.ratio,
            rtt_ms=None if world.rtt_ms is None else float(world.rtt_ms[before]),
            up_mbps=None if world.up_mbps is None else float(world.up_mbps[before]),
        )

    def _row(self, clock: float, drawn_j: float) -> None:
        out = self.out
        out.action.append("" if self._action is None else self._action.id)
        out.temp_c.append(self._heat.die_c)
        out.energy_wh.append(drawn_j / 3600)
        out.clock.append(clock)

    def _lie_dead(self, second: int, first: list[int], drawn_j: float, ambient_c: float) -> None:
        for _ in range(SUBSTEPS):
            self._heat.substep(0.0, ambient_c)
        self._action = None
        out = self.out
        out.requests.append(first[second + 1] - first[second])
        out.in_time.append(0)
        out.late.append(0)
        out.quality.append(0.0)
        self._row(0.0, drawn_j)
