"""How the policy `optimal` learns from a second: promises, powers, heat, the price of a joule, the way to a server."""

from __future__ import annotations

import math
from math import log
from typing import Final

import msgspec

from edge_daemon.policies import calibration, drawing, offload, price, thermal
from edge_daemon.policies.calibration import Calibration
from edge_daemon.policies.contract import Second, Setting, TaskSeen
from edge_daemon.policies.drawing import Drawn, Meter, Running
from edge_daemon.policies.price import Price
from edge_daemon.policies.remembered import State, TaskState
from edge_daemon.policies.table import LEAST_RATE, Table, Weighed
from edge_daemon.policies.tuning import Tuning
from edge_daemon.policies.values import clamped, put

_NEVER: Final = -math.inf
_NONE: Final = math.inf
_BASE_LEAST: Final = 0.5  # of idle power, and above it: what may be drawn whatever runs
_BASE_MOST_W: Final = 1.8
_SCALE_LEAST: Final = 0.25
_SCALE_MOST: Final = 4.0
_RATE_JUMP: Final = 3.0  # spreads
_RATE_GAIN: Final = 0.2
_RATE_FLOOR: Final = 1.2
_PROBE_GAIN: Final = 0.6
_PROBE_LEAST: Final = 0.05
_MOST_W: Final = 10_000.0  # what a sensor says beyond these is no reading
_MOST_C: Final = 250.0
_COOLED_C: Final = 3.0  # off what was kept over a restart: then nothing is known of the board any more
_EACH: Final = 8  # latencies of a second that are looked at; of more, as many quantiles, not in their order
_MIXED: Final = (3, 6, 1, 4, 7, 0, 5, 2)


class Power(msgspec.Struct, frozen=True):
    """What is drawn, and how it is known: of each task what each of its actions draws."""

    base_w: float
    base_var: float
    meter: Meter
    scale: float
    drew: list[Drawn]


class Learner:
    """Learns for one setting.

    Args:
        setting: Board, limits and tasks.
        tables: Of its tasks.
        tuning: The numbers.
    """

    def __init__(self, setting: Setting, tables: tuple[Table, ...], tuning: Tuning) -> None:
        self._setting, self._tables, self._tuning = setting, tables, tuning
        self._observer = thermal.observer(setting.board, tuning.horizon_s, tuning.far_s)

    def seen(  # noqa: PLR0917 - by position, called each second
        self,
        table: Table,
        task: TaskState,
        seen: TaskSeen,
        event: Second,
        known: Calibration,
        log_clock: float,
        began: bool,
        drawn: Drawn,
    ) -> tuple[TaskState, Calibration]:
        """A task and the moment after a second, or at the first."""
        bias, counts, known = self._calibrated(table, task, seen, known, log_clock)
        rate, spread, least = task.rate, task.rate_spread, task.least_rate
        if not began:
            off = seen.requests - rate
            away = abs(off)
            if least == _NONE or away > _RATE_JUMP * spread + _RATE_FLOOR:
                rate = float(seen.requests)
            else:
                rate += _RATE_GAIN * off
            if least < _NONE:
                most = 2 * spread + 1
                spread += _RATE_GAIN * ((most if away > most else away) - spread)
            if rate < least:
                least = 1.0 if rate < 1.0 else rate
        links, limit_ms = [], table.task.limit_ms
        for at, link in enumerate(task.links):
            links.append(offload.looked(self._tuning, link, table.ways[at], limit_ms, event.rtt_ms, event.up_mbps))
        told = TaskState(
            task.action,
            task.local,
            task.changed_s,
            task.toggled_s,
            task.left,
            bias,
            counts,
            rate,
            spread,
            least,
            task.watts,
            0,
            tuple(links),
            drawn,
        )
        return told, known

    def _calibrated(
        self, table: Table, task: TaskState, seen: TaskSeen, known: Calibration, log_clock: float
    ) -> tuple[tuple[float, ...], tuple[int, ...], Calibration]:
        """Each action's own factor, how often it was seen, and the moment, after the latencies of a second."""
        found = table.index.get(seen.action)
        bias, counts = task.bias, task.seen
        if found is not None:
            at = table.computes[found]
            told, each = _telling(seen.latencies_ms)
            off = log_clock - table.promised[at]
            took = []
            for latency_ms in told:
                if 0 < latency_ms < _NONE:
                    took.append(log(latency_ms) + off)
            if took:
                count = counts[at]
                known, own, _ = calibration.learn(self._tuning, known, took, bias[at], count, sum(counts) - count, each)
                bias, counts = put(bias, at, own), put(counts, at, count + len(took))
        probed = seen.probed
        if probed is not None and 0 < probed.latency_ms < _NONE and probed.action in table.index:
            at = table.index[probed.action]
            surprise = math.log(probed.latency_ms) + log_clock - table.promised[at] - bias[at] - known.slow
            own = bias[at] + max(_PROBE_LEAST, _PROBE_GAIN / (counts[at] + 1)) * clamped(surprise, -1.5, 1.5)
            own = clamped(own, -calibration.BIAS_MAX, calibration.BIAS_MAX)
            bias, counts = put(bias, at, own), put(counts, at, counts[at] + 1)
        return bias, counts, known

    def powered(self, state: State, event: Second) -> tuple[Power, tuple[float, float, float]]:
        """What is drawn, and heat, a second later."""
        power_w = event.power_w if event.power_w is not None and 0 <= event.power_w <= _MOST_W else None
        temp_c = event.temp_c if event.temp_c is not None and abs(event.temp_c) <= _MOST_C else None
        if state.heat is None or (
            state.now_s == _NEVER and temp_c is not None and abs(temp_c - state.heat[0]) > _COOLED_C
        ):
            return _unmetered(state), self._observer.start(temp_c)
        if power_w is None:
            power, power_w = _unmetered(state), state.base_w + sum([task.watts for task in state.tasks])
        else:
            power = self._metered(state, event, power_w)
        die_c, board_c, air_c = self._observer.step(state.heat, power_w, temp_c)
        if not (abs(die_c) <= _MOST_C and abs(board_c) <= _MOST_C and abs(air_c) <= _MOST_C):
            return power, self._observer.start(temp_c)  # what was told was no board
        return power, (die_c, board_c, air_c)

    def _metered(self, state: State, event: Second, power_w: float) -> Power:
        """What is drawn, after a second whose power was measured."""
        tuning, idle_w, scale = self._tuning, self._setting.board.idle_w, state.power_scale
        full_w = state.clock**self._setting.board.clock_power * scale
        running: list[Running] = []
        drew: list[Drawn] = []
        loaded, off_w, ours_w = False, power_w - state.base_w, 0.0
        for number, table in enumerate(self._tables):
            task, seen = state.tasks[number], event.tasks[number]
            at, watts = table.index.get(seen.action, -1), task.watts
            if at >= 0 and not table.is_remote[at]:
                loaded = loaded or at != task.drawn.ran or seen.probed is not None
                took_s = seen.requests * table.median_ms(task, at, state.known, state.clock) / 1000
                watts = table.task.actions[at].power_w * clamped(took_s, 0.0, 1.0) * full_w
                running.append(Running(number, task.drawn, at, watts))
                watts *= task.drawn.factors[at]
            drew.append(task.drawn)
            off_w -= watts
            ours_w += watts
        if loaded:
            for each in running:
                drew[each.task] = drawing.began(each.drawn, each.at)
            return Power(state.base_w, state.base_var + tuning.base_walk, drawing.paused(state.meter), scale, drew)
        meter = drawing.followed(state.meter, power_w, ours_w)
        if not meter.is_prompt:
            running = []
        base_w, base_var, told = drawing.metered(tuning, off_w, state.base_w, state.base_var, running)
        for number, drawn in told:
            drew[number] = drawn
        base_w = clamped(base_w, _BASE_LEAST * idle_w, idle_w + _BASE_MOST_W)
        scale += tuning.scale_gain * off_w * ours_w / (1 + ours_w * ours_w)
        scale = clamped(scale, _SCALE_LEAST, _SCALE_MOST)
        return Power(base_w, base_var, meter, scale, drew)

    def worst(self, before_w: float, now_w: float) -> float:
        """The most that base and the least that can run drew of late: it may come while the board is hot."""
        return max(now_w, before_w - self._tuning.worst_gain * (before_w - now_w))

    def long_run(self, state: State, base_w: float) -> float:
        """The mean of what is drawn whatever runs, for the pace of the battery: bursts come and go."""
        passed_s = state.now_s - state.began_s if state.now_s > state.began_s > _NEVER else 0.0
        least, gain = self._tuning.mean_gain, 1 / (passed_s + self._tuning.mean_after_s)
        return state.mean_w + (gain if gain > least else least) * (base_w - state.mean_w)

    @staticmethod
    def least_w(weighed: Weighed) -> float:
        """What the cheapest that computes here draws, of all tasks together."""
        total = 0.0
        for _, _, least_w in weighed:
            total += least_w
        return total

    def cap(
        self, heat: tuple[float, float, float], base_w: float, worst_w: float, least_w: float
    ) -> tuple[float, str, float]:
        """What may be drawn above the base, by which limit, and what could be borne though nobody keeps it.

        Where little more than the least that can run here would be borne for long together with the worst of late,
        that counts: the board has to be cool before it comes. Less than that least is no cap anyone could keep.
        """
        cap_w, code, borne_w = _NONE, "", _NONE
        limit_c, most_w = self._setting.temp_c, self._setting.max_power_w
        if limit_c is not None:
            kept_c = limit_c - self._tuning.margin_c
            cap_w = borne_w = self._observer.bearable_w(heat, kept_c) - base_w
            code = "thermal"
            room_w = self._observer.bearable_far_w(heat, kept_c) - worst_w
            if room_w < self._tuning.far_room_w:
                cap_w = min(cap_w, least_w + self._tuning.far_steep * max(room_w, 0.0))
            if cap_w < least_w:
                cap_w = least_w
        if most_w is not None and most_w - base_w < cap_w:
            cap_w, code = most_w - base_w, "power"
        return cap_w, code, cap_w if cap_w < borne_w else borne_w

    def priced(self, state: State, event: Second, weighed: Weighed) -> tuple[Price, bool]:
        """The price of a joule, found anew with every context, and whether nothing but the least lasts.

        Args:
            state: Of this second, but for its price.
            event: The second.
            weighed: What each action is worth and draws.
        """
        setting, tuning, held = self._setting, self._tuning, state.price
        energy_j = event.battery_j
        if setting.until_s is None or setting.battery_j is None or energy_j is None or not 0 <= energy_j < _NONE:
            return held, False
        left_s = setting.until_s - event.now_s
        if event.charging or left_s <= 0:
            return Price(), False
        # What is drawn now is drawn for a while; near the end that is all that is left.
        ahead_w = state.mean_w + (state.base_w - state.mean_w) * clamped(tuning.burst_s / left_s, 0.0, 1.0)
        due = event.now_s - held.kept_s >= tuning.context_s and any(task.rate >= LEAST_RATE for task in state.tasks)
        if due and left_s > 1:
            total_s = max(setting.until_s - state.began_s, 1.0)
            share = tuning.reserve * math.sqrt(left_s / total_s) + tuning.reserve_least
            pace_w = (energy_j - share * setting.battery_j) / left_s - ahead_w
            context = self._context(state, weighed)
            held = price.found(tuning, held, event.now_s, context, pace_w, state.mean_w, left_s)
        needed_j = left_s * (ahead_w + held.least_w) + tuning.last_reserve * setting.battery_j
        return held, energy_j < needed_j

    def _context(self, state: State, weighed: Weighed) -> price.Context:
        """This moment as a staircase; of several tasks the sum of theirs."""
        parts = []
        for task, table, (worth, watts, _) in zip(state.tasks, self._tables, weighed, strict=True):
            each = [
                (table.task.weight * task.rate * value, drawn)
                for value, drawn in zip(worth, watts, strict=True)
                if drawn <= state.cap_w
            ]
            at = table.smallest
            each = each or [(table.task.weight * task.rate * worth[at], watts[at])]
            parts.append(price.staircase([value for value, _ in each], [drawn for _, drawn in each]))
        return parts[0] if len(parts) == 1 else price.together(parts)


def _unmetered(state: State) -> Power:
    """As it was: nothing tells of a change."""
    drew = [task.drawn for task in state.tasks]
    return Power(state.base_w, state.base_var, drawing.paused(state.meter), state.power_scale, drew)


def _telling(latencies_ms: tuple[float, ...]) -> tuple[tuple[float, ...], int]:
    """A second's latencies, or of many some that stand for all, and for how many each does."""
    count = len(latencies_ms)
    if count <= _EACH:
        return latencies_ms, 1
    ordered = sorted(latencies_ms)
    step = count / _EACH
    return tuple([ordered[int((part + 0.5) * step)] for part in _MIXED]), round(step)
