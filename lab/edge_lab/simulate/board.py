"""The board itself: two thermal nodes, the firmware's throttle, a battery, and one app that serves requests.

The die is heated by the power, passes heat to the board, the board to the air (two RC stages in a row). Above
`throttle_c[0]` the firmware takes the clock one step down each second, above `[1]` to the lowest, below `[2]` one up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from edge_daemon.policies.contract import Action
from edge_lab.simulate.world import SUBSTEPS, Floats, World

_STEPS_IN_IT: Final = 8.0  # Euler's in the shorter time constant, at least
_HEDGE_MARGIN: Final = 1.5  # of the hedge's own time, as of the second before


class Heat:
    """Die and board, from the balance at idle on.

    Attributes:
        die_c, board_c: Temperatures.
    """

    def __init__(self, world: World) -> None:
        idle_w = world.setting.board.idle_w
        (r_one, r_two), (c_one, c_two) = world.truth.r_c_per_w, world.truth.c_j_per_c
        self.board_c = float(world.ambient_c[0]) + r_two * idle_w
        self.die_c = self.board_c + r_one * idle_w
        # Euler is stable only where a step is short against the shorter of the two time constants.
        per_s = max(1 / (r_one * c_one), (1 / r_one + 1 / r_two) / c_two)
        parts = max(1, math.ceil(_STEPS_IN_IT * per_s / SUBSTEPS))
        once = _euler(1 / SUBSTEPS / parts, world.truth.r_c_per_w, world.truth.c_j_per_c)
        # Linear, so many steps are one with other numbers.
        self._die, self._board = np.linalg.matrix_power(once, parts)[:2].tolist()

    def substep(self, power_w: float, ambient_c: float) -> None:
        """Pass one substep at this power."""
        die_c, board_c = self.die_c, self.board_c
        of_die, of_board, of_power, of_air = self._die
        self.die_c = of_die * die_c + of_board * board_c + of_power * power_w + of_air * ambient_c
        of_die, of_board, of_power, of_air = self._board
        self.board_c = of_die * die_c + of_board * board_c + of_power * power_w + of_air * ambient_c


def _euler(step_s: float, r_c_per_w: tuple[float, float], c_j_per_c: tuple[float, float]) -> Floats:
    """One step of die and board, with power and air as they are; float64, shape `(4, 4)`."""
    (r_one, r_two), (c_one, c_two) = r_c_per_w, c_j_per_c
    step = np.eye(4)
    step[0] += step_s / c_one * np.array([-1 / r_one, 1 / r_one, 1, 0])
    step[1] += step_s / c_two * np.array([1 / r_one, -1 / r_one - 1 / r_two, 0, 1 / r_two])
    return step


class Clock:
    """The firmware's throttle."""

    def __init__(self, world: World) -> None:
        self._steps = world.steps
        self._down_c, self._lowest_c, self._up_c = world.throttle_c
        self._step = 0

    @property
    def ratio(self) -> float:
        """Current over full clock."""
        return self._steps[self._step]

    def second(self, die_c: float) -> None:
        """Pass a second."""
        if die_c > self._lowest_c:
            self._step = len(self._steps) - 1
        elif die_c > self._down_c:
            self._step = min(self._step + 1, len(self._steps) - 1)
        elif die_c < self._up_c:
            self._step = max(self._step - 1, 0)


@dataclass(frozen=True, slots=True)
class Served:
    """One request.

    Attributes:
        quality: What it was worth: the quality of the answer if that came in time, else 0.
        ended_s: When its inference here ended; None if nothing was computed here.
        latency_ms: Of the inference here alone, `waited_ms` before it.
        replied: The server answered in time; None if it was not asked.
    """

    quality: float
    ended_s: float | None = None
    latency_ms: float = 0.0
    waited_ms: float = 0.0
    replied: bool | None = None


class App:
    """Serves requests in the order they come, one at a time; the link sends one at a time, too.

    An app that has fallen behind skips what could no longer be in time if it took as long as usual (a second ago).

    Attributes:
        joules: Per substep, above idle; inference here and radio.
        free_s, link_free_s: When processor and link are free again.
    """

    def __init__(self, world: World) -> None:
        self._limit_s = world.setting.tasks[0].limit_ms / 1000
        self._arrive: list[float] = world.arrive_s.tolist()
        self._jitter: list[float] = world.jitter.tolist()
        self._remote_jitter: list[float] = world.remote_jitter.tolist()
        self._slowdown: list[float] = world.slowdown.tolist()
        self._last = len(self._slowdown) - 1
        self._rtt: list[float] | None = None if world.rtt_ms is None else world.rtt_ms.tolist()
        self._up: list[float] | None = None if world.up_mbps is None else world.up_mbps.tolist()
        self._latency_s = {id_: ms / 1000 for id_, ms in world.truth.latency_ms.items()}
        self._watts = world.truth.power_w
        self._radio_w, self._exponent = world.radio_w, world.setting.board.clock_power
        self._hedged_quality = {action.id: action.quality for action in world.setting.tasks[0].actions}
        self.joules = [0.0] * (len(self._slowdown) + 1)
        self.free_s = self.link_free_s = 0.0

    def begins_s(self, index: int) -> float:
        """When request `index` would begin here."""
        return max(self._arrive[index], self.free_s)

    def serve(self, index: int, action: Action, clock: float) -> Served:
        """Serve one request by this action."""
        arrive_s = self._arrive[index]
        until_s = arrive_s + self._limit_s
        if not action.remote:
            begin_s = max(arrive_s, self.free_s)
            if begin_s > arrive_s and begin_s + self._usual_s(action.id, arrive_s, clock) > until_s:
                return Served(0.0)
            end_s = self._compute(index, action.id, begin_s, clock)
            quality = action.quality if end_s <= until_s else 0.0
            return Served(quality, end_s, (end_s - begin_s) * 1000, (begin_s - arrive_s) * 1000)
        reply_s = self._ask(index, action, arrive_s, until_s)
        in_time = reply_s <= until_s
        if action.hedge is None:
            return Served(action.quality if in_time else 0.0, replied=in_time)
        begin_s = max(until_s - _HEDGE_MARGIN * self._usual_s(action.id, arrive_s, clock), arrive_s)
        if reply_s <= begin_s:
            return Served(action.quality, replied=True)
        begin_s = max(begin_s, self.free_s)
        if begin_s >= until_s:
            return Served(action.quality if in_time else 0.0, replied=in_time)
        end_s = self._compute(index, action.id, begin_s, clock)
        hedged = self._hedged_quality[action.hedge] if end_s <= until_s else 0.0
        return Served(action.quality if in_time else hedged, end_s, (end_s - begin_s) * 1000, 0.0, in_time)

    def serve_all(self, begin: int, end: int, action: Action, clock: float) -> float:
        """Serve requests `begin` to `end` by one action; the sum of their qualities.

        What `serve` does, in one loop where nothing is asked: a planner passes here millions of times.
        """
        if action.remote:
            return sum(self.serve(index, action, clock).quality for index in range(begin, end))
        arrive, jitter, slowdown, joules = self._arrive, self._jitter, self._slowdown, self.joules
        own_s, watts = self._latency_s[action.id], self._watts[action.id] * clock**self._exponent
        limit_s, last, free_s, in_time = self._limit_s, self._last, self.free_s, 0
        for index in range(begin, end):
            begin_s = arrive_s = arrive[index]
            until_s = arrive_s + limit_s
            if free_s > arrive_s:
                begin_s = free_s
                before = int(arrive_s * SUBSTEPS) - SUBSTEPS
                if begin_s + own_s * slowdown[before if before > 0 else 0] / clock > until_s:  # noqa: FURB136 - a call
                    continue
            substep = int(begin_s * SUBSTEPS)
            if substep <= last:
                free_s = begin_s + own_s * slowdown[substep] * jitter[index] / clock
                if free_s <= (substep + 1) / SUBSTEPS:
                    joules[substep] += watts * (free_s - begin_s)
                else:
                    self._burn(begin_s, free_s, watts)
            else:
                free_s = begin_s + own_s * slowdown[last] * jitter[index] / clock
            if free_s <= until_s:
                in_time += 1
        self.free_s = free_s
        return in_time * action.quality

    def probe(self, action: str, from_s: float, until_s: float, clock: float, jitter: float) -> float | None:
        """Run one inference in idle time; its time in ms, or None where there is no room for it."""
        begin_s = max(from_s, self.free_s)
        substep = min(int(begin_s * SUBSTEPS), self._last)
        took_s = self._latency_s[action] * self._slowdown[substep] * jitter / clock
        if begin_s + took_s > until_s:
            return None
        self._burn(begin_s, begin_s + took_s, self._watts[action] * clock**self._exponent)
        self.free_s = begin_s + took_s
        return took_s * 1000

    def _usual_s(self, action: str, now_s: float, clock: float) -> float:
        before = max(int(now_s * SUBSTEPS) - SUBSTEPS, 0)
        return self._latency_s[action] * self._slowdown[min(before, self._last)] / clock

    def _compute(self, index: int, action: str, begin_s: float, clock: float) -> float:
        substep = min(int(begin_s * SUBSTEPS), self._last)
        took_s = self._latency_s[action] * self._slowdown[substep] * self._jitter[index] / clock
        end_s = begin_s + took_s
        self._burn(begin_s, end_s, self._watts[action] * clock**self._exponent)
        self.free_s = end_s
        return end_s

    def _ask(self, index: int, action: Action, arrive_s: float, until_s: float) -> float:
        """When the reply would come."""
        assert self._rtt is not None  # noqa: S101 - a scenario with a server has a network
        assert self._up is not None  # noqa: S101
        second = min(int(arrive_s), len(self._rtt) - 1)
        send_s = max(arrive_s, self.link_free_s)
        if send_s >= until_s:
            return math.inf
        up = self._up[second]
        sending_s = action.payload_kb * 8e-3 / up if up > 0 else math.inf
        stop_s = min(send_s + sending_s, until_s)
        self.link_free_s = stop_s
        self._burn(send_s, stop_s, self._radio_w)
        server_s = (self._rtt[second] * self._remote_jitter[index] + action.latency_ms) / 1000
        return send_s + sending_s + server_s

    def _burn(self, begin_s: float, end_s: float, watts: float) -> None:
        joules, last = self.joules, len(self.joules) - 1
        substep = int(begin_s * SUBSTEPS)
        while substep < last:
            edge_s = (substep + 1) / SUBSTEPS
            if end_s <= edge_s:
                joules[substep] += watts * (end_s - begin_s)
                return
            joules[substep] += watts * (edge_s - begin_s)
            begin_s, substep = edge_s, substep + 1
