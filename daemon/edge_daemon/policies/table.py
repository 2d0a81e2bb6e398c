"""A task's actions as columns, and what each is worth now: points a request, and watts."""

from __future__ import annotations

import math
from typing import Final

import msgspec

from edge_daemon.policies.calibration import Calibration
from edge_daemon.policies.contract import Task
from edge_daemon.policies.offload import Link
from edge_daemon.policies.tuning import Tuning
from edge_sdk.preference import Mode

_SQRT2: Final = math.sqrt(2.0)
_LN2: Final = math.log(2.0)
_ALLOWED_CHANCE: Final = 0.5

# Points that a halving of the latency is worth under each mode, as in `edge_sdk.preference`; under `speed` it is what
# counts, so long as the quality is at most `_SPEED_FLOOR` points below the best.
_POINTS_PER_HALVING: Final = {Mode.ACCURACY: 0.0, Mode.BALANCED: 0.5, Mode.BATTERY: 2.0, Mode.SPEED: 20.0}
_SPEED_FLOOR: Final = 10.0


class TaskState(msgspec.Struct, frozen=True):
    """What is known of one task.

    Attributes:
        action: In force, an index; -1 before the first decision.
        changed_s: When it last changed by itself, `toggled_s` to or from a server.
        left: Variants that were left urgently, and when.
        bound: The code of what kept the last decision from more.
        bias, seen: Of each action, the log of its own factor and how many inferences taught it.
        rate, rate_spread: Requests a second, and their standard deviation.
        least_rate: The least that was seen.
        watts: What the action in force is taken to draw.
        failing: A request of this second was not answered by the server in time.
        link: The way to the server.
    """

    action: int
    changed_s: float
    toggled_s: float
    left: tuple[tuple[int, float], ...]
    bound: str
    bias: tuple[float, ...]
    seen: tuple[int, ...]
    rate: float
    rate_spread: float
    least_rate: float
    watts: float
    failing: bool
    link: Link | None


class Table:
    """A task's columns.

    Args:
        task: The task.
        tuning: The numbers.

    Attributes:
        ids: Of the actions.
        local, remote: Indexes of those that compute here, and of those that ask.
        smallest: The one here that is promised to be the fastest.
    """

    def __init__(self, task: Task, tuning: Tuning) -> None:
        self.task, self._tuning = task, tuning
        actions = task.actions
        self.ids = tuple(action.id for action in actions)
        self.index = {id_: at for at, id_ in enumerate(self.ids)}
        self.local = tuple(at for at, action in enumerate(actions) if not action.remote)
        self.remote = tuple(at for at, action in enumerate(actions) if action.remote)
        self.is_remote = tuple(action.remote for action in actions)
        self.quality = tuple(action.quality for action in actions)
        self.promised = tuple(math.log(max(action.latency_ms, 1e-6)) for action in actions)
        self.smallest = min(self.local, key=lambda at: (actions[at].latency_ms, self.ids[at]))
        self.computes = tuple(self.index[action.hedge] if action.hedge else at for at, action in enumerate(actions))
        self.limit = math.log(task.limit_ms)
        self._watts = tuple(action.power_w for action in actions)
        self._points = _POINTS_PER_HALVING[task.mode] / _LN2
        best = max(self.quality)
        slow = [task.mode is Mode.SPEED and quality < best - _SPEED_FLOOR for quality in self.quality]
        least = -math.inf if task.min_quality is None else task.min_quality
        self._low = tuple(out or quality < least for out, quality in zip(slow, self.quality, strict=True))
        self._has_low = any(self._low)

    def chance(self, at: int, known: Calibration, bias: float, log_clock: float) -> float:
        """That an answer computed here is in time, waiting aside."""
        room = self.limit - (self.promised[at] + bias + known.slow - log_clock)
        erf, tail = math.erf, known.tail_rate
        usual = 0.5 + 0.5 * erf(room / known.spread / _SQRT2)
        spike = 0.5 + 0.5 * erf((room - known.tail_size) / self._tuning.tail_spread / _SQRT2)
        return usual + tail * (spike - usual)

    def weigh(
        self, state: TaskState, known: Calibration, log_clock: float, full_w: float
    ) -> tuple[list[float], list[float]]:
        """What each action is worth, in points a request, and the watts it draws above the base.

        Args:
            state: Of the task.
            known: Of the moment.
            log_clock: Log of current over full clock.
            full_w: What a promised watt draws now: the clock's power and the learned scale.
        """
        tuning, rate = self._tuning, state.rate
        erf, exp, bias = math.erf, math.exp, state.bias
        slow, spread, tail, size = known.slow - log_clock, known.spread, known.tail_rate, known.tail_size
        scale, tail_scale = 1 / (spread * _SQRT2), 1 / (tuning.tail_spread * _SQRT2)
        suspect = known.suspect
        doubt = tuning.doubt * known.confirmed / known.suspects if suspect else 0.0
        hazard = known.hazard * tuning.hazard_on * (1 + tuning.hazard_on * 0.5)
        hazard_scale = 1 / (tuning.hazard_spread * _SQRT2)
        late, overload, points = tuning.late_points, tuning.overload, self._points
        fastest = self.promised[self.smallest] + bias[self.smallest]
        worth, watts = [0.0] * len(self.ids), [0.0] * len(self.ids)
        for at in self.local:
            own = self.promised[at] + bias[at]
            room = self.limit - own - slow
            usual = 0.5 + 0.5 * erf(room * scale)
            chance = usual + tail * (0.5 + 0.5 * erf((room - size) * tail_scale) - usual)
            if hazard:
                chance -= hazard * (chance - 0.5 - 0.5 * erf((room - tuning.hazard_size) * hazard_scale))
            busy = rate * exp(own + slow) / 1000
            if doubt:
                room -= suspect
                usual = 0.5 + 0.5 * erf(room * scale)
                usual += tail * (0.5 + 0.5 * erf((room - size) * tail_scale) - usual)
                chance += doubt * (usual - chance)
                busy *= 1 + doubt * (exp(suspect) - 1)
            if busy > overload:
                chance *= overload / busy
                busy = min(busy, 1.0)
            worth[at] = (self.quality[at] - points * (own - fastest)) * chance - late * (1 - chance)
            watts[at] = self._watts[at] * busy * full_w
        if self.remote:
            self._weigh_remote(state, worth, watts)
        if self._has_low:
            self._lower(worth)
        return worth, watts

    def _weigh_remote(self, state: TaskState, worth: list[float], watts: list[float]) -> None:
        tuning, link = self._tuning, state.link
        chance = 0.0 if link is None else link.chance()
        if state.failing:
            chance *= tuning.failed
        for at in self.remote:
            action = self.task.actions[at]
            sending_s = min(math.inf if link is None else link.sending_s, self.task.limit_ms / 1000)
            sent_w = self._watts[at] * min(sending_s * state.rate, 1.0)
            other = self.computes[at]
            if other == at:
                worth[at] = action.quality * chance - tuning.late_points * (1 - chance)
                watts[at] = sent_w
            else:
                worth[at] = action.quality * chance + worth[other] * (1 - chance)
                watts[at] = sent_w + watts[other] * (1 - chance)

    def _lower(self, worth: list[float]) -> None:
        """What is not good enough counts only if nothing that is comes in time."""
        in_time = any(
            not low and value > self.quality[at] * _ALLOWED_CHANCE - self._tuning.late_points * (1 - _ALLOWED_CHANCE)
            for at, (low, value) in enumerate(zip(self._low, worth, strict=True))
        )
        if in_time:
            for at, low in enumerate(self._low):
                if low:
                    worth[at] -= 1000.0
