"""The policy `optimal`: calibrate, look ahead, price, choose. `docs/explanation/optimal.md` derives it.

Each second: what inferences took calibrates the promises (`calibration`), the temperature moves the observer of heat,
which says how much power the next seconds bear (`thermal`), the battery's pace moves the price of a joule (`price`), the
look at the network the chance of a server (`offload`). Then each action is worth

    requests * worth - price * watts - penalty * watts over the cap

and the best is taken, if it is better by more than the dead-band and the last change by choice is a dwell ago; or at
once, if what runs breaks a constraint and the other does not. Within a second a slow inference, or one that shows that
the server is late, makes it look again for what is urgent. A variant left urgently stays out for a dwell, so no input
makes it go A-B-A.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from edge_daemon.policies import calibration, offload, price, thermal
from edge_daemon.policies.calibration import Calibration
from edge_daemon.policies.contract import Event, Replied, Second, Setting, TaskSeen, Verdict, Why
from edge_daemon.policies.price import Price
from edge_daemon.policies.table import Table, TaskState
from edge_daemon.policies.tuning import Tuning

_NEVER: Final = -math.inf
_NONE: Final = math.inf
_LEAST_RATE: Final = 0.05  # requests a second for which a choice is weighed though none came
_BASE_LEAST: Final = 0.5  # of idle power, and above it: what may be drawn whatever runs
_BASE_MOST_W: Final = 1.8
_SCALE_LEAST: Final = 0.25
_SCALE_MOST: Final = 4.0
_RATE_JUMP: Final = 3.0  # spreads
_RATE_GAIN: Final = 0.2
_RATE_FLOOR: Final = 0.5
_LEAST_CLOCK: Final = 0.05
_PROBE_GAIN: Final = 0.6
_PROBE_LEAST: Final = 0.05
_EACH: Final = 8  # latencies of a second that are looked at; of more, as many quantiles, not in their order
_MIXED: Final = (3, 6, 1, 4, 7, 0, 5, 2)

Weighed = tuple[tuple[list[float], list[float]], ...]


class State(msgspec.Struct, frozen=True):
    """Everything it remembers.

    Attributes:
        now_s, began_s: The clock at the last second, and at the first.
        known: Of the moment.
        tasks: In the order of the setting.
        heat: Die, board, air; None before the first second.
        base_w: What is drawn whatever runs, now; `mean_w` over a long time.
        power_scale: What variants draw over what is promised.
        price: Of a joule.
        cap_w: What may be drawn above the base now; infinite without a limit. `cap_by` is its code.
        clock: Current over full clock.
        probed_s: When an idle moment was last used.
    """

    now_s: float
    began_s: float
    known: Calibration
    tasks: tuple[TaskState, ...]
    heat: tuple[float, float, float] | None
    base_w: float
    mean_w: float
    power_scale: float
    price: Price
    cap_w: float
    cap_by: str
    clock: float
    probed_s: float


class Optimal:
    """The policy for one setting.

    Args:
        setting: Board, limits and tasks.
        tuning: The numbers.
    """

    def __init__(self, setting: Setting, tuning: Tuning | None = None) -> None:
        self._setting, self._tuning = setting, tuning or Tuning()
        self._tables = tuple(Table(task, self._tuning) for task in setting.tasks)
        self._observer = thermal.Observer(setting.board, self._tuning.horizon_s)

    # ------------------------------------------------------------------------------------------ the contract

    def initial(self) -> State:
        """Nothing seen yet."""
        return State(
            now_s=_NEVER,
            began_s=_NEVER,
            known=calibration.first(self._tuning),
            tasks=tuple(self._fresh(table) for table in self._tables),
            heat=None,
            base_w=self._setting.board.idle_w,
            mean_w=self._setting.board.idle_w,
            power_scale=1.0,
            price=Price(),
            cap_w=_NONE,
            cap_by="",
            clock=1.0,
            probed_s=_NEVER,
        )

    def step(self, state: State, event: Event) -> tuple[State, tuple[Verdict, ...]]:
        """What `edge_daemon.policies.contract.Policy` says."""
        if type(event) is Second:
            return self._second(state, event)
        return self._replied(state, event)  # type: ignore[arg-type]

    # ------------------------------------------------------------------------------------------------ events

    def _second(self, state: State, event: Second) -> tuple[State, tuple[Verdict, ...]]:
        began = state.now_s == _NEVER
        clock = max(event.clock, _LEAST_CLOCK) if event.clock is not None and event.clock <= 1 else 1.0
        known = state.known
        log_clock = math.log(clock)
        tasks = []
        for table, task, seen in zip(self._tables, state.tasks, event.tasks, strict=True):
            told, known = self._calibrated(table, task, seen, known, log_clock)
            tasks.append(self._seen(table, told, seen, event, began=began))
        base_w, scale, heat = self._powered(state, event)
        cap_w, cap_by = self._cap(heat, base_w)
        state = State(
            event.now_s,
            event.now_s if began else state.began_s,
            known,
            tuple(tasks),
            heat,
            base_w,
            self._long_run(state, base_w),
            scale,
            state.price,
            cap_w,
            cap_by,
            clock,
            state.probed_s,
        )
        weighed = self._weighed(state)
        paid = self._priced(state, event, weighed)
        if paid is not state.price:
            state = msgspec.structs.replace(state, price=paid)
        state, verdicts = self._choose(state, event.now_s, weighed)
        probe = self._probe(state, event)
        if probe is not None:
            number, at = probe
            state = msgspec.structs.replace(state, probed_s=event.now_s)
            verdicts = tuple(
                Verdict(
                    task=verdict.task,
                    action=verdict.action,
                    why=verdict.why,
                    probe=self._tables[number].ids[at] if verdict.task == number else None,
                    most_per_s=verdict.most_per_s,
                )
                for verdict in verdicts
            )
        return state, verdicts

    def _replied(self, state: State, event: Replied) -> tuple[State, tuple[Verdict, ...]]:
        table, task = self._tables[event.task], state.tasks[event.task]
        at = table.index.get(event.action)
        if at is None or not event.latency_ms > 0 or task.action < 0:
            return state, ()
        log_clock = math.log(state.clock)
        surprise = math.log(event.latency_ms) + log_clock - table.promised[at] - task.bias[at] - state.known.slow
        known, bias, again = calibration.learn(self._tuning, state.known, surprise, task.bias[at], task.seen[at])
        failing = table.is_remote[task.action]
        again = again or (failing and not task.failing)
        task = _with(
            task,
            bias=(*task.bias[:at], bias, *task.bias[at + 1 :]),
            seen=(*task.seen[:at], task.seen[at] + 1, *task.seen[at + 1 :]),
            failing=failing or task.failing,
        )
        tasks = (*state.tasks[: event.task], task, *state.tasks[event.task + 1 :])
        state = msgspec.structs.replace(state, known=known, tasks=tasks)
        if not again:
            return state, ()
        return self._choose(state, event.now_s, self._weighed(state), urgent_only=True)

    # ---------------------------------------------------------------------------------------------- learning

    def _seen(self, table: Table, task: TaskState, seen: TaskSeen, event: Second, *, began: bool) -> TaskState:
        """A task after what was seen of it, its latencies aside."""
        rate, spread, least = task.rate, task.rate_spread, task.least_rate
        if not began:
            off = seen.requests - rate
            if abs(off) > _RATE_JUMP * spread + _RATE_FLOOR:
                rate = float(seen.requests)
            else:
                rate += _RATE_GAIN * off
            spread += _RATE_GAIN * (min(abs(off), 2 * spread + 1) - spread)
            least = min(least, max(rate, 1.0))
        link = task.link
        if link is not None:
            action = table.task.actions[table.remote[0]]
            link = offload.looked(self._tuning, link, action, table.task.limit_ms, event.rtt_ms, event.up_mbps)
        return TaskState(
            task.action,
            task.changed_s,
            task.toggled_s,
            task.left,
            task.bound,
            task.bias,
            task.seen,
            rate,
            spread,
            least,
            task.watts,
            False,  # noqa: FBT003 - positional for speed
            link,
        )

    def _calibrated(
        self, table: Table, task: TaskState, seen: TaskSeen, known: Calibration, log_clock: float
    ) -> tuple[TaskState, Calibration]:
        """A task and the moment after the latencies of a second."""
        found = table.index.get(seen.action)
        bias, counts = task.bias, task.seen
        if found is not None:
            at = table.computes[found]
            own, count = bias[at], counts[at]
            latencies, each = _telling(seen.latencies_ms)
            for latency_ms in latencies:
                if latency_ms > 0:
                    surprise = math.log(latency_ms) + log_clock - table.promised[at] - own - known.slow
                    known, own, _ = calibration.learn(self._tuning, known, surprise, own, count, each)
                    count += 1
            if count != counts[at]:
                bias, counts = (*bias[:at], own, *bias[at + 1 :]), (*counts[:at], count, *counts[at + 1 :])
        probed = seen.probed
        if probed is not None and probed.latency_ms > 0 and probed.action in table.index:
            at = table.index[probed.action]
            surprise = math.log(probed.latency_ms) + log_clock - table.promised[at] - bias[at] - known.slow
            own = bias[at] + max(_PROBE_LEAST, _PROBE_GAIN / (counts[at] + 1)) * min(max(surprise, -1.5), 1.5)
            bias, counts = (*bias[:at], own, *bias[at + 1 :]), (*counts[:at], counts[at] + 1, *counts[at + 1 :])
        if counts is task.seen:
            return task, known
        return _with(task, bias=bias, seen=counts), known

    def _powered(self, state: State, event: Second) -> tuple[float, float, tuple[float, float, float]]:
        """Base power, scale of the promised watts, and heat, a second later."""
        tuning, idle_w = self._tuning, self._setting.board.idle_w
        watts = sum(task.watts for task in state.tasks)
        base_w, scale = state.base_w, state.power_scale
        power_w = event.power_w if event.power_w is not None and 0 <= event.power_w < _NONE else None
        temp_c = event.temp_c if event.temp_c is not None and abs(event.temp_c) < _NONE else None
        if state.heat is None:
            return base_w, scale, self._observer.start(temp_c)
        if power_w is not None:
            error = power_w - base_w - watts
            base_w += tuning.base_gain * error
            base_w = min(max(base_w, _BASE_LEAST * idle_w), idle_w + _BASE_MOST_W)
            scale += tuning.scale_gain * error * watts / (1 + watts * watts)
            scale = min(max(scale, _SCALE_LEAST), _SCALE_MOST)
        heat = self._observer.step(state.heat, base_w + watts if power_w is None else power_w, temp_c)
        return base_w, scale, heat

    def _long_run(self, state: State, base_w: float) -> float:
        """The mean of what is drawn whatever runs, for the pace of the battery: bursts come and go."""
        passed_s = max(state.now_s - state.began_s, 0.0) if state.began_s > _NEVER else 0.0
        gain = max(self._tuning.mean_gain, 1 / (passed_s + self._tuning.mean_after_s))
        return state.mean_w + gain * (base_w - state.mean_w)

    def _cap(self, heat: tuple[float, float, float], base_w: float) -> tuple[float, str]:
        """What may be drawn above the base, and by which limit."""
        cap_w, code = _NONE, ""
        limit_c, most_w = self._setting.temp_c, self._setting.max_power_w
        if limit_c is not None:
            cap_w, code = self._observer.bearable_w(heat, limit_c - self._tuning.margin_c) - base_w, "thermal"
        if most_w is not None and most_w - base_w < cap_w:
            cap_w, code = most_w - base_w, "power"
        return cap_w, code

    def _priced(self, state: State, event: Second, weighed: Weighed) -> Price:
        """The price of a joule, a second later."""
        setting, tuning = self._setting, self._tuning
        if setting.until_s is None or setting.battery_j is None or event.battery_j is None:
            return state.price
        left_s = setting.until_s - event.now_s
        if left_s <= 1 or event.charging:
            return state.price if left_s > 0 and not event.charging else Price()
        held = state.price
        if event.now_s - held.kept_s >= tuning.context_s and any(task.rate >= _LEAST_RATE for task in state.tasks):
            held = price.keep(tuning, held, event.now_s, self._context(state, weighed))
        total_s = max(setting.until_s - state.began_s, 1.0)
        reserve_j = tuning.reserve * setting.battery_j * math.sqrt(left_s / total_s)
        pace_w = (event.battery_j - reserve_j) / left_s - state.mean_w
        return price.solve(tuning, held, event.now_s, pace_w, state.mean_w, left_s)

    def _context(self, state: State, weighed: Weighed) -> price.Context:
        """This moment as a staircase; of several tasks the sum of theirs."""
        parts = []
        for task, table, (worth, watts) in zip(state.tasks, self._tables, weighed, strict=True):
            each = [
                (table.task.weight * task.rate * value, drawn)
                for value, drawn in zip(worth, watts, strict=True)
                if drawn <= state.cap_w
            ]
            at = table.smallest
            each = each or [(table.task.weight * task.rate * worth[at], watts[at])]
            parts.append(price.staircase([value for value, _ in each], [drawn for _, drawn in each]))
        return parts[0] if len(parts) == 1 else price.together(parts)

    # ---------------------------------------------------------------------------------------------- choosing

    def _weighed(self, state: State) -> Weighed:
        full_w = state.clock**self._setting.board.clock_power * state.power_scale
        log_clock = math.log(state.clock)
        return tuple(
            [
                table.weigh(task, state.known, log_clock, full_w)
                for table, task in zip(self._tables, state.tasks, strict=True)
            ]
        )

    def _choose(
        self, state: State, now_s: float, weighed: Weighed, *, urgent_only: bool = False
    ) -> tuple[State, tuple[Verdict, ...]]:
        """Verdicts, and the state after them."""
        scored = self._scored(state, now_s, weighed)
        tasks, verdicts, changed = [], [], False
        for number, (table, task, (worth, watts), (scores, target)) in enumerate(
            zip(self._tables, state.tasks, weighed, scored, strict=True)
        ):
            code = self._moves(state, now_s, table, task, worth, watts, scores, target, urgent_only=urgent_only)
            if code == "latency" and state.known.suspect and not self._worth_leaving(state, table, task, worth, target):
                code = None
            at = task.action if code is None else target
            if code is not None:
                task = self._moved(state, now_s, table, task, worth, at, code)
                changed = True
            if task.watts != watts[at]:
                task = _with(task, watts=watts[at])
            tasks.append(task)
            if code is not None or not urgent_only:
                verdicts.append(self._verdict(state, number, table, task, worth, watts, scores, code or "holds"))
        if changed or not urgent_only:
            state = msgspec.structs.replace(state, tasks=tuple(tasks))
        return state, tuple(verdicts)

    def _scored(self, state: State, now_s: float, weighed: Weighed) -> list[tuple[list[float], int]]:
        """Points a second of each action of each task, and the best of it."""
        joule, cap_w = state.price.value, state.cap_w
        out = []
        for table, task, (worth, watts) in zip(self._tables, state.tasks, weighed, strict=True):
            requests = table.task.weight * max(task.rate, _LEAST_RATE)
            penalty = self._tuning.over_points * requests if len(self._tables) == 1 else 0.0
            scores = [
                requests * value - joule * drawn - (penalty * (drawn - cap_w) if drawn > cap_w else 0.0)
                for value, drawn in zip(worth, watts, strict=True)
            ]
            barred = [at for at, when in task.left if now_s - when < self._tuning.dwell_s and at != task.action]
            best = -1
            for at, score in enumerate(scores):
                if (best < 0 or score > scores[best]) and at not in barred:
                    best = at
            out.append((scores, best))
        return out if len(out) == 1 else self._shared(state, weighed, out)

    def _shared(
        self, state: State, weighed: Weighed, scored: list[tuple[list[float], int]]
    ) -> list[tuple[list[float], int]]:
        """The same with one cap for all: who loses least per watt steps down first, until all fit."""
        best = [at for _, at in scored]
        total_w = sum(watts[at] for at, (_, watts) in zip(best, weighed, strict=True))
        while total_w > state.cap_w:
            found: tuple[float, int, int] | None = None
            for number, ((scores, _), (_, watts)) in enumerate(zip(scored, weighed, strict=True)):
                at = best[number]
                for to, score in enumerate(scores):
                    saved = watts[at] - watts[to]
                    if saved > 1e-9 and (found is None or (scores[at] - score) / saved < found[0]):  # noqa: PLR2004
                        found = ((scores[at] - score) / saved, number, to)
            if found is None:
                break
            _, number, to = found
            watts = weighed[number][1]
            total_w -= watts[best[number]] - watts[to]
            best[number] = to
        return [(scores, at) for (scores, _), at in zip(scored, best, strict=True)]

    def _moves(
        self,
        state: State,
        now_s: float,
        table: Table,
        task: TaskState,
        worth: list[float],
        watts: list[float],
        scores: list[float],
        target: int,
        *,
        urgent_only: bool,
    ) -> str | None:
        """The code under which the task changes to its target now; None where it stays."""
        tuning, at = self._tuning, task.action
        if at < 0:
            return "start"
        if target == at:
            return None
        others_w = sum(other.watts for other in state.tasks) - task.watts if len(self._tables) > 1 else 0.0
        remote = table.is_remote[at] or table.is_remote[target]
        if watts[at] + others_w > state.cap_w and watts[target] < watts[at] - tuning.urgent_w:
            return state.cap_by
        if worth[at] < tuning.urgent_share * table.quality[at] and worth[target] > worth[at] + tuning.urgent_points:
            return "network" if remote else "latency"
        if urgent_only:
            return None
        requests = table.task.weight * max(task.rate, _LEAST_RATE)
        if (scores[target] - scores[at]) / requests <= tuning.dead_band:
            return None
        if remote:
            return "network" if now_s - task.toggled_s >= tuning.toggle_s else None
        return "gain" if now_s - task.changed_s >= tuning.dwell_s else None

    def _worth_leaving(self, state: State, table: Table, task: TaskState, worth: list[float], target: int) -> bool:
        """Whether one slow inference is reason enough to leave, though it may have been a spike.

        What the next request gains must be more than what is lost if it was one: the target is held for a dwell.
        """
        known = state.known
        doubt = known.confirmed / known.suspects
        clear = msgspec.structs.replace(known, suspect=0.0)
        calm, _ = table.weigh(task, clear, math.log(state.clock), 1.0)
        held = task.rate * self._tuning.dwell_s * self._tuning.held
        return worth[target] - worth[task.action] > (1 - doubt) * (calm[task.action] - calm[target]) * held

    def _moved(
        self, state: State, now_s: float, table: Table, task: TaskState, worth: list[float], to: int, code: str
    ) -> TaskState:
        left, changed_s, toggled_s = task.left, task.changed_s, task.toggled_s
        if code == "start":
            pass
        elif table.is_remote[task.action] or table.is_remote[to]:
            toggled_s = now_s
        elif code == "gain":
            changed_s = now_s
        else:
            left = (*(item for item in left if now_s - item[1] < self._tuning.dwell_s), (task.action, now_s))
        return _with(task, action=to, left=left, changed_s=changed_s, toggled_s=toggled_s)

    def _verdict(
        self,
        state: State,
        number: int,
        table: Table,
        task: TaskState,
        worth: list[float],
        watts: list[float],
        scores: list[float],
        code: str,
    ) -> Verdict:
        at = task.action
        second = -1
        for other, score in enumerate(scores):
            if other != at and (second < 0 or score > scores[second]):
                second = other
        requests = table.task.weight * max(task.rate, _LEAST_RATE)
        runner_up = table.ids[second] if second >= 0 else None
        margin = (scores[at] - scores[second]) / requests if second >= 0 else None
        numbers: tuple[tuple[str, float], ...] = ()
        if code != "holds":
            numbers = (
                ("worth", worth[at]),
                ("watts", watts[at]),
                ("cap_w", state.cap_w),
                ("price", state.price.value),
                ("slowdown", math.exp(state.known.slow)),
                ("rate", task.rate),
            )
        return Verdict(
            task=number, action=table.ids[at], why=Why(code=code, runner_up=runner_up, margin=margin, numbers=numbers)
        )

    def _probe(self, state: State, event: Second) -> tuple[int, int] | None:
        """Which action of which task to try in idle time now."""
        tuning, since_s = self._tuning, event.now_s - state.began_s
        if event.now_s - state.probed_s < (1 if since_s < tuning.probe_first_s else tuning.probe_s):
            return None
        limit_c = self._setting.temp_c
        if limit_c is not None and event.temp_c is not None and event.temp_c > limit_c - tuning.probe_room_c:
            return None
        if any(task.rate > task.least_rate + 1 for task in state.tasks):
            return None
        found: tuple[int, int, int] | None = None
        for number, (table, task) in enumerate(zip(self._tables, state.tasks, strict=True)):
            reach = table.limit + math.log(tuning.probe_reach) - state.known.slow
            for at in table.local:
                if at != task.action and table.promised[at] < reach and (found is None or task.seen[at] < found[0]):
                    found = (task.seen[at], number, at)
        return None if found is None else found[1:]

    def _fresh(self, table: Table) -> TaskState:
        count = len(table.ids)
        return TaskState(
            action=-1,
            changed_s=_NEVER,
            toggled_s=_NEVER,
            left=(),
            bound="",
            bias=(0.0,) * count,
            seen=(0,) * count,
            rate=1.0,
            rate_spread=1.0,
            least_rate=_NONE,
            watts=0.0,
            failing=False,
            link=offload.first(self._tuning) if table.remote else None,
        )


_with = msgspec.structs.replace


def _telling(latencies_ms: tuple[float, ...]) -> tuple[tuple[float, ...], int]:
    """A second's latencies, or of many some that stand for all, and for how many each does."""
    count = len(latencies_ms)
    if count <= _EACH:
        return latencies_ms, 1
    ordered = sorted(latencies_ms)
    step = count / _EACH
    return tuple([ordered[int((part + 0.5) * step)] for part in _MIXED]), round(step)
