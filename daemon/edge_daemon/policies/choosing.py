"""How the policy `optimal` chooses: scores under a price and a cap, and when a task may move."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from edge_daemon.policies.calibration import Calibration
from edge_daemon.policies.contract import Second, Setting, Verdict, Why
from edge_daemon.policies.remembered import State, TaskState, with_
from edge_daemon.policies.table import LOW_POINTS, Table, Weighed
from edge_daemon.policies.tuning import Tuning
from edge_sdk.preference import Mode

VOLUNTARY: Final = frozenset({"gain", "battery"})  # codes of changes that nothing forced
_SAVED_W: Final = 1e-9  # less is no saving
_ANY_PRICE: Final = 1e5  # points a joule: more than any answer is worth
_NONE: Final = math.inf


class Chooser:
    """Chooses for one setting.

    Args:
        setting: Board, limits and tasks.
        tables: Of its tasks.
        tuning: The numbers.
    """

    def __init__(self, setting: Setting, tables: tuple[Table, ...], tuning: Tuning) -> None:
        self._setting, self._tables, self._tuning = setting, tables, tuning

    def weighed(self, tasks: Sequence[TaskState], known: Calibration, clock: float, power_scale: float) -> Weighed:
        """Of each task, what each action is worth now in points a request, and the watts it draws.

        Args:
            tasks: As they are now.
            known: Of the moment.
            clock: Current over full.
            power_scale: What variants draw over what is promised.
        """
        full_w = clock**self._setting.board.clock_power * power_scale
        log_clock = math.log(clock)
        weighed = []
        for at, table in enumerate(self._tables):
            weighed.append(table.weigh(tasks[at], known, log_clock, full_w))
        return weighed

    def choose(
        self, state: State, now_s: float, weighed: Weighed, *, urgent_only: bool = False
    ) -> tuple[State, tuple[Verdict, ...]]:
        """Verdicts, and the state after them."""
        scored = self._scored(state, now_s, weighed)
        tasks, verdicts, changed = [], [], not urgent_only
        for number, table in enumerate(self._tables):
            task, (worth, watts, _), (scores, target) = state.tasks[number], weighed[number], scored[number]
            at, code, new = task.action, None, task
            if target != at:
                code = self._moves(state, now_s, table, task, worth, watts, scores, target, urgent_only=urgent_only)
            if code == "latency" and state.known.suspect and not self._worth_leaving(state, table, task, worth, target):
                code = None
            if code is not None:
                at, new, changed = target, self._moved(now_s, table, task, target, code), True
            if new.watts != watts[at]:
                new = with_(new, watts=watts[at])
            tasks.append(new)
            if code is not None or not urgent_only:
                verdicts.append(self._verdict(state, number, new, worth, watts, scores, code or "holds"))
        if changed:
            state = with_(state, tasks=tuple(tasks))
        return state, tuple(verdicts)

    def _scored(self, state: State, now_s: float, weighed: Weighed) -> list[tuple[list[float], int]]:
        """Points a second of each action of each task, and the best of it."""
        joule, cap_w = state.price.value, state.cap_w
        out = []
        for number, table in enumerate(self._tables):
            task, (worth, watts, least_w) = state.tasks[number], weighed[number]
            requests = table.requests(task)
            penalty = self._tuning.over_points * requests if len(self._tables) == 1 else 0.0
            if state.saving:  # no joule more than the least that computes here, but what is best for that
                joule, penalty, cap_w = 0.0, _ANY_PRICE, least_w
            scores = []
            for value, drawn in zip(worth, watts):  # noqa: B905 - columns of one table; `strict` costs a fifth
                score = requests * value - joule * drawn
                scores.append(score - penalty * (drawn - cap_w) if drawn > cap_w else score)
            if table.has_low and cap_w < _NONE:
                self._waive(table, scores, watts, cap_w, requests)
            best = scores.index(max(scores))
            if task.left and best != task.action:
                best = self._unbarred(task, now_s, scores, best)
            out.append((scores, best))
        return out if len(out) == 1 else self._shared(state, weighed, out)

    def _unbarred(self, task: TaskState, now_s: float, scores: list[float], best: int) -> int:
        """The best of what was not left within a dwell."""
        barred = [at for at, when in task.left if now_s - when < self._tuning.dwell_s and at != task.action]
        if best not in barred:
            return best
        others = (at for at in range(len(scores)) if at not in barred)
        return max(others, key=scores.__getitem__, default=best)  # all, where one was pinned, freed and pinned again

    @staticmethod
    def _waive(table: Table, scores: list[float], watts: list[float], cap_w: float, requests: float) -> None:
        """Quality yields to heat: where nothing good enough is below the cap, the rest costs nothing more."""
        if any(drawn <= cap_w for low, drawn in zip(table.low, watts, strict=True) if not low):
            return
        for at, low in enumerate(table.low):
            scores[at] += LOW_POINTS * requests if low else -LOW_POINTS * requests

    def _shared(
        self, state: State, weighed: Weighed, scored: list[tuple[list[float], int]]
    ) -> list[tuple[list[float], int]]:
        """The same with one cap for all: who loses least per watt steps down first, until all fit."""
        best = [at for _, at in scored]
        total_w = sum(watts[at] for at, (_, watts, _) in zip(best, weighed, strict=True))
        while total_w > state.cap_w:
            found: tuple[float, int, int] | None = None
            for number, ((scores, _), (_, watts, _)) in enumerate(zip(scored, weighed, strict=True)):
                at = best[number]
                for to, score in enumerate(scores):
                    saved = watts[at] - watts[to]
                    if saved > _SAVED_W and (found is None or (scores[at] - score) / saved < found[0]):
                        found = ((scores[at] - score) / saved, number, to)
            if found is None:
                break
            _, number, to = found
            watts = weighed[number][1]
            total_w -= watts[best[number]] - watts[to]
            best[number] = to
        return [(scores, at) for (scores, _), at in zip(scored, best, strict=True)]

    def _moves(  # noqa: PLR0911, PLR0917 - one return a rule; by position, called each second
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
        """The code under which the task changes to its target, another action, now; None where it stays."""
        tuning, at = self._tuning, task.action
        if at < 0:
            return "start"
        others_w = sum([other.watts for other in state.tasks]) - task.watts if len(self._tables) > 1 else 0.0
        remote = table.is_remote[at] or table.is_remote[target]
        if watts[at] + others_w > state.cap_w and watts[target] < watts[at] - tuning.urgent_w:
            return state.cap_by
        # To load another variant costs energy, which has to come in again while that stays.
        load_j = table.task.switch_j if table.computes[at] != table.computes[target] else 0.0
        stays_s = tuning.toggled_s if remote else tuning.stays_s
        if (scores[target] - scores[at]) * stays_s <= state.price.value * load_j:
            return None
        lost = table.whole(task, at) - worth[at]
        if lost > (1 - tuning.urgent_share) * table.quality[at] and worth[target] > worth[at] + tuning.urgent_points:
            return "network" if remote else "latency"
        if urgent_only:
            return None
        requests = table.requests(task)
        if (scores[target] - scores[at]) / requests <= tuning.dead_band:
            return None
        if remote:
            return "network" if now_s - task.toggled_s >= tuning.toggle_s else None
        if now_s - task.changed_s < tuning.dwell_s:
            return None
        saves = state.saving or state.price.value > 0 or table.task.mode is Mode.BATTERY
        return (
            "battery" if saves and watts[target] < watts[at] and table.quality[target] < table.quality[at] else "gain"
        )

    def _worth_leaving(self, state: State, table: Table, task: TaskState, worth: list[float], target: int) -> bool:
        """Whether one slow inference is reason enough to leave, though it may have been a spike.

        What the next request gains must be more than what is lost if it was one: the target is held for a dwell.
        """
        known = state.known
        doubt = known.confirmed / known.suspects
        clear = with_(known, suspect=0.0)
        calm, _, _ = table.weigh(task, clear, math.log(state.clock), 1.0)
        held = task.rate * self._tuning.dwell_s * self._tuning.held
        return worth[target] - worth[task.action] > (1 - doubt) * (calm[task.action] - calm[target]) * held

    def _moved(self, now_s: float, table: Table, task: TaskState, to: int, code: str) -> TaskState:
        left, changed_s, toggled_s, local = task.left, task.changed_s, task.toggled_s, task.local
        if code != "start" and (table.is_remote[task.action] or table.is_remote[to]):
            toggled_s = now_s
        elif code in VOLUNTARY:
            changed_s = now_s
        if not table.is_remote[to]:
            if local not in (-1, to):
                kept = [item for item in left if now_s - item[1] < self._tuning.dwell_s and item[0] != local]
                left = (*kept, (local, now_s))
            local = to
        return with_(task, action=to, local=local, left=left, changed_s=changed_s, toggled_s=toggled_s)

    def _verdict(  # noqa: PLR0917 - by position, called each second
        self,
        state: State,
        number: int,
        task: TaskState,
        worth: list[float],
        watts: list[float],
        scores: list[float],
        code: str,
    ) -> Verdict:
        table, at, runner_up, margin = self._tables[number], task.action, None, None
        others = scores[:at] + scores[at + 1 :]
        if others:
            best = max(others)
            second = others.index(best)
            runner_up = table.ids[second if second < at else second + 1]
            margin = (scores[at] - best) / table.requests(task)
        numbers: tuple[tuple[str, float], ...] = ()
        if code != "holds":
            capped = (("cap_w", state.cap_w),) if state.cap_w < _NONE else ()
            others_w = sum(other.watts for position, other in enumerate(state.tasks) if position != number)
            priced = (("price_per_j", state.price.value),) if state.price.value > 0 else ()
            numbers = (
                ("worth_points", worth[at]),
                ("draws_w", watts[at]),
                *capped,
                *priced,
                ("slowdown_x", math.exp(state.known.slow)),
                ("rate_per_s", task.rate),
                ("board_w", state.base_w + watts[at] + others_w),
            )
        return Verdict(
            task=number,
            action=table.ids[at],
            why=Why(code=code, runner_up=runner_up, margin=margin, numbers=numbers),
            most_per_s=self._advised(state, table, task, watts[at]),
        )

    def _advised(self, state: State, table: Table, task: TaskState, watts: float) -> float | None:
        """How many requests a second would fit, where what is chosen as the best does not."""
        busy = task.rate * table.median_ms(task, task.action, state.known, state.clock) / 1000
        if watts <= state.borne_w + self._tuning.urgent_w and busy <= 1:
            return None
        share = min(
            1.0, max(state.borne_w, 0.0) / watts if watts > 0 else 1.0, self._tuning.overload / busy if busy else 1.0
        )
        return share * task.rate if share < 1 else None

    def probe(self, state: State, event: Second, verdicts: tuple[Verdict, ...]) -> tuple[State, tuple[Verdict, ...]]:
        """The same, with what is to be tried in idle time, if this is a time for it."""
        wanted = self._wanted(state, event)
        if wanted is None:
            return state, verdicts
        number, at = wanted
        asked = with_(verdicts[number], probe=self._tables[number].ids[at])
        return with_(state, probed_s=event.now_s), (*verdicts[:number], asked, *verdicts[number + 1 :])

    def _wanted(self, state: State, event: Second) -> tuple[int, int] | None:
        """Which action of which task to try in idle time now."""
        tuning, since_s = self._tuning, event.now_s - state.began_s
        if state.saving:
            return None
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
