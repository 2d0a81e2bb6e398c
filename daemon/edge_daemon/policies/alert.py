"""ALERT, written after the paper (its constants as remembered: the text was not at hand).

Wan et al., "ALERT: Accurate Learning for Energy and Timeliness", USENIX ATC 2020, arXiv 1911.00119, section 3.

One global slow-down says by how much everything takes longer than its profile; a Kalman filter tracks its mean and its
variance, so that a latency is a Gaussian and "in time" a probability. An action is worth its quality times that
probability; of those within the energy that is left per second, the one worth most is taken (the paper's second goal:
accuracy under a budget of energy), or, where the mode saves, the cheapest that is good enough (its first).

What the paper lacks is added as an engineer would, so that the comparison is fair: remote actions with a hedge while
the predicted reply is within the limit, and a rule for heat. No switch costs anything, as in the paper.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace

from edge_daemon.policies.contract import Action, Event, Replied, Second, Setting, TaskSeen, Verdict, Why
from edge_daemon.policies.ladder import Latch, airtime_ms, decoded, reply_ms, rungs, sane, servers
from edge_sdk.preference import Mode

# The paper's filter of the slow-down: K(0), R, Q(0), mu(0), sigma(0)^2 and the forgetting of the process noise. Less
# noise was tried here, too: Q(0) of 0.003 to 0.03 costs 0.4 to 0.7 points over the ten scenarios.
_GAIN, _NOISE, _DRIFT, _MEAN, _VARIANCE, _KEEP = 0.5, 0.001, 0.1, 1.0, 0.1, 0.3
# And of the idle power's ratio: M(0), S, V.
_IDLE_VARIANCE, _IDLE_DRIFT, _IDLE_NOISE = 0.01, 0.0001, 0.001
_HOT_BELOW_C, _COOL_BELOW_C = 2.0, 5.0  # the limit: smallest above, free again below
_REMOTE = 1.0  # of the limit: a predicted reply within this is asked for; the better of the values tried
_SURE = 0.95  # the probability the paper's constraints are to hold with
_LIKELY = 0.5
_SQRT2 = math.sqrt(2.0)


@dataclass(frozen=True, slots=True)
class Slow:
    """The filter of one task's slow-down."""

    mean: float = _MEAN
    variance: float = _VARIANCE
    gain: float = _GAIN
    drift: float = _DRIFT

    def after(self, ratio: float) -> Slow:
        """What is believed after an inference took `ratio` times its profile's time."""
        innovation = ratio - self.mean
        drift = max(_DRIFT, _KEEP * self.drift + (1 - _KEEP) * (self.gain * innovation) ** 2)
        prior = (1 - self.gain) * self.variance + drift
        gain = prior / (prior + _NOISE)
        return Slow(self.mean + gain * innovation, prior, gain, drift)


@dataclass(frozen=True, slots=True)
class AlertState:
    """All of it; by task where it is a tuple.

    Attributes:
        idle: Of the board's promised idle power, and `idle_variance`.
        rate: Requests of the last second.
        told_j: What the inferences of this second took by their promise, as far as they were told one by one.
    """

    slow: tuple[Slow, ...]
    action: tuple[str | None, ...]
    rate: tuple[int, ...]
    idle: float = 1.0
    idle_variance: float = _IDLE_VARIANCE
    is_hot: bool = False
    told_j: float = 0.0


@dataclass(frozen=True, slots=True)
class Weighed:
    """One action's promise.

    Attributes:
        worth: Quality times the probability of being in time.
        watts: On average over the next second, above idle.
    """

    action: Action
    worth: float
    sure: float
    watts: float


class Alert:
    """ALERT for one setting; several tasks share the energy by equal parts."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._rungs = tuple(rungs(replace(task, mode=Mode.ACCURACY)) for task in setting.tasks)
        self._servers = tuple(servers(task) for task in setting.tasks)
        self._here = tuple({a.id: a for a in task.actions if not a.remote} for task in setting.tasks)
        self._computes = tuple({a.id: a.hedge or a.id for a in task.actions} for task in setting.tasks)
        limit_c = math.inf if setting.temp_c is None else setting.temp_c
        self._hot = Latch(limit_c - _HOT_BELOW_C, limit_c - _COOL_BELOW_C)

    def initial(self) -> AlertState:
        """The paper's."""
        count = len(self._setting.tasks)
        return AlertState((Slow(),) * count, (None,) * count, (0,) * count)

    def step(self, state: AlertState, event: Event) -> tuple[AlertState, tuple[Verdict, ...]]:
        """Learn from every inference; decide once a second."""
        if isinstance(event, Replied):
            return self._learn(state, event.task, event.action, event.latency_ms), ()
        state = self._idle(state, event)
        for index, seen in enumerate(event.tasks):
            for latency_ms in seen.latencies_ms:
                state = self._learn(state, index, self._computes[index].get(seen.action, ""), latency_ms)
            if seen.probed is not None:
                state = self._learn(state, index, seen.probed.action, seen.probed.latency_ms)
        state = replace(
            state,
            is_hot=self._hot.after(event.temp_c, is_on=state.is_hot),
            rate=tuple(seen.requests for seen in event.tasks),
            told_j=0.0,
        )
        budget_w = self._budget_w(state, event) / len(self._setting.tasks)
        verdicts = tuple(self._decide(state, event, index, budget_w) for index in range(len(event.tasks)))
        return replace(state, action=tuple(verdict.action for verdict in verdicts)), verdicts

    def dump(self, state: AlertState) -> bytes:
        """The slow-down by task."""
        known = zip(self._setting.tasks, state.slow, strict=True)
        return json.dumps({task.name: [slow.mean, slow.variance] for task, slow in known}).encode()

    def load(self, payload: bytes) -> AlertState:
        """The slow-down of tasks of the same name."""
        known, state = decoded(payload), self.initial()
        return replace(state, slow=tuple(_known(known.get(task.name)) for task in self._setting.tasks))

    def _learn(self, state: AlertState, index: int, action: str, latency_ms: float) -> AlertState:
        promised = self._here[index].get(action)
        if promised is None or not 0 < latency_ms < math.inf:
            return state
        slow = state.slow[index].after(latency_ms / max(promised.latency_ms, 1e-3))
        slows = (*state.slow[:index], slow, *state.slow[index + 1 :])
        return replace(state, slow=slows, told_j=state.told_j + promised.power_w * latency_ms / 1000)

    def _idle(self, state: AlertState, second: Second) -> AlertState:
        """The filter of the idle power, from what the board drew beyond what inference explains."""
        promised_w = self._setting.board.idle_w
        power_w = sane(second.power_w)
        if power_w is None or promised_w <= 0:
            return state
        explained_j = state.told_j + sum(self._explained_j(index, seen) for index, seen in enumerate(second.tasks))
        ratio = max(power_w - explained_j * self._clocked(second), 0.0) / promised_w
        prior = state.idle_variance + _IDLE_DRIFT
        gain = prior / (prior + _IDLE_NOISE)
        return replace(state, idle=state.idle + gain * (ratio - state.idle), idle_variance=(1 - gain) * prior)

    def _explained_j(self, index: int, seen: TaskSeen) -> float:
        action = self._here[index].get(self._computes[index].get(seen.action, ""))
        return 0.0 if action is None else action.power_w * sum(sane(ms) or 0.0 for ms in seen.latencies_ms) / 1000

    def _budget_w(self, state: AlertState, second: Second) -> float:
        """What may be drawn above idle from now on, on average."""
        setting, idle_w = self._setting, state.idle * self._setting.board.idle_w
        budget_w = math.inf if setting.max_power_w is None else setting.max_power_w - idle_w
        left_j = sane(second.battery_j)
        if setting.until_s is not None and left_j is not None and not second.charging:
            left_s = setting.until_s - second.now_s
            if left_s > 0:
                budget_w = min(budget_w, left_j / left_s - idle_w)
        return budget_w

    def _decide(self, state: AlertState, second: Second, index: int, budget_w: float) -> Verdict:
        task, before = self._setting.tasks[index], state.action[index]
        weighed = self._weighed(state, second, index)
        if state.is_hot:
            weighed = [w for w in weighed if w.action.remote] or weighed[:1]
            why = "thermal"
        else:
            why = "latency"
        least = -math.inf if task.min_quality is None else task.min_quality
        good = [w for w in weighed if w.sure >= _LIKELY and w.action.quality >= least]
        fitting = [w for w in good or weighed if w.watts <= budget_w]
        if not fitting:
            chosen, why = min(good or weighed, key=lambda w: w.watts), "battery"
        elif task.mode in {Mode.BATTERY, Mode.SPEED}:
            chosen = min(fitting, key=lambda w: (w.sure < _SURE, w.watts))
        else:
            chosen = max(fitting, key=lambda w: (w.worth, -w.watts))
        if chosen.action.remote:
            why = "network"
        if before is None or before == chosen.action.id:
            why = "start" if before is None else "holds"
        slow = state.slow[index]
        numbers: tuple[tuple[str, float], ...] = (("slow_x", slow.mean), ("slow_sd_x", math.sqrt(slow.variance)))
        if budget_w < math.inf:
            numbers = (*numbers, ("budget_w", budget_w))
        return Verdict(task=index, action=chosen.action.id, why=Why(code=why, numbers=numbers))

    def _weighed(self, state: AlertState, second: Second, index: int) -> list[Weighed]:
        task, slow, rate = self._setting.tasks[index], state.slow[index], state.rate[index]
        deviation, clocked = math.sqrt(slow.variance), self._clocked(second)
        # An input is to be done before the next one comes, or all that follow wait.
        goal_ms = min(task.limit_ms, 1000 / rate) if rate else task.limit_ms
        found = []
        for action in self._rungs[index]:
            mean_ms = slow.mean * action.latency_ms
            sure = _in_time(goal_ms, mean_ms, deviation * action.latency_ms)
            watts = action.power_w * clocked * min(rate * mean_ms / 1000, 1.0)
            found.append(Weighed(action, action.quality * sure, sure, watts))
        for action in self._servers[index]:
            if reply_ms(action, second) <= _REMOTE * task.limit_ms:
                assert second.up_mbps is not None  # noqa: S101 - else the reply would take for ever
                busy = min(rate * airtime_ms(action, second.up_mbps) / 1000, 1.0)
                found.append(Weighed(action, action.quality, 1.0, action.power_w * busy))
        return found

    def _clocked(self, second: Second) -> float:
        """What the power of computing is multiplied with."""
        clock = second.clock
        return 1.0 if clock is None or not 0 < clock < 1 else clock**self._setting.board.clock_power


def _in_time(limit_ms: float, mean_ms: float, deviation_ms: float) -> float:
    """P(latency <= limit) of a Gaussian."""
    if limit_ms == math.inf:
        return 1.0
    return 0.5 * math.erfc((mean_ms - limit_ms) / max(deviation_ms, 1e-9) / _SQRT2)


def _known(value: object) -> Slow:
    if isinstance(value, list) and len(value) == 2 and all(isinstance(v, float) and 0 < v < 1e6 for v in value):  # noqa: PLR2004
        return Slow(value[0], value[1])
    return Slow()
