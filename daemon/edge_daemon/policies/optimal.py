"""The policy `optimal`: calibrate, look ahead, price, choose. `docs/explanation/optimal.md` derives it.

Each second: what inferences took calibrates the promises (`calibration`), the temperature moves the observer of heat,
which says how much power the next seconds bear (`thermal`), the battery's pace moves the price of a joule (`price`),
the look at the network the chance of a server (`offload`). Then each action is worth

    requests * worth - price * watts - penalty * watts over the cap

and the best is taken, if it is better by more than the dead-band and the last change by choice is a dwell ago; or at
once, if what runs breaks a constraint and the other does not. Within a second a slow inference, or one that shows that
the server is late, makes it look again for what is urgent. A variant that was left stays out for a dwell, so no input
makes it go A-B-A.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from edge_daemon.policies import calibration, drawing, offload, remembered
from edge_daemon.policies.choosing import Chooser
from edge_daemon.policies.contract import Event, Replied, Second, Setting, Verdict
from edge_daemon.policies.drawing import Meter
from edge_daemon.policies.learning import Learner
from edge_daemon.policies.price import Price
from edge_daemon.policies.remembered import Kept, State, TaskState, with_
from edge_daemon.policies.table import Table
from edge_daemon.policies.tuning import Tuning

_NEVER: Final = -math.inf
_NONE: Final = math.inf
_LEAST_CLOCK: Final = 0.05
_MAX_DUMP_BYTES: Final = 1 << 20


class Optimal:
    """The policy for one setting; what `edge_daemon.policies.contract.Policy` says.

    Args:
        setting: Board, limits and tasks.
        tuning: The numbers.
    """

    def __init__(self, setting: Setting, tuning: Tuning | None = None) -> None:
        self._setting, self._tuning = setting, tuning or Tuning()
        self._tables = tuple(Table(task, self._tuning) for task in setting.tasks)
        self._learner = Learner(setting, self._tables, self._tuning)
        self._chooser = Chooser(setting, self._tables, self._tuning)

    def initial(self) -> State:
        """Nothing seen yet."""
        return State(
            now_s=_NEVER,
            began_s=_NEVER,
            known=calibration.first(self._tuning),
            tasks=tuple(self._fresh(table) for table in self._tables),
            heat=None,
            base_w=self._setting.board.idle_w,
            base_var=self._tuning.base_var,
            meter=Meter(),
            mean_w=self._setting.board.idle_w,
            worst_w=self._setting.board.idle_w,
            power_scale=1.0,
            price=Price(),
            cap_w=_NONE,
            cap_by="",
            borne_w=_NONE,
            clock=1.0,
            probed_s=_NEVER,
            saving=False,
        )

    def step(self, state: State, event: Event) -> tuple[State, tuple[Verdict, ...]]:
        """The state after the event, and the verdicts."""
        return self._second(state, event) if isinstance(event, Second) else self._replied(state, event)

    def dump(self, state: State) -> bytes:
        """What was learned and what runs, by name."""
        return msgspec.json.encode(Kept.of(state, self._names()))

    def load(self, payload: bytes) -> State:
        """The initial state with what a dump, of this setting or another, says of the same tasks and actions."""
        state = self.initial()
        if len(payload) > _MAX_DUMP_BYTES:
            return state
        try:
            kept = msgspec.json.decode(payload, type=Kept)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return state
        return kept.into(state, self._names()) if kept.is_sound() else state

    def _second(self, state: State, event: Second) -> tuple[State, tuple[Verdict, ...]]:
        learner, chooser = self._learner, self._chooser
        began = state.now_s == _NEVER
        if began:
            state = remembered.begun(state, event.now_s)
        clock = event.clock
        clock = 1.0 if clock is None or not _LEAST_CLOCK <= clock <= 1 else clock
        log_clock, known = math.log(clock), state.known
        power, heat = learner.powered(state, event)
        base_w, tasks = power.base_w, []
        for at, table in enumerate(self._tables):
            task, drawn = state.tasks[at], power.drew[at]
            told, known = learner.seen(table, task, event.tasks[at], event, known, log_clock, began, drawn)
            tasks.append(told)
        weighed = chooser.weighed(tasks, known, clock, power.scale)
        least_w = learner.least_w(weighed)
        worst_w = learner.worst(state.worst_w, base_w + least_w)
        cap_w, cap_by, borne_w = learner.cap(heat, base_w, worst_w, least_w)
        # By position, once: by name, or changed later, it costs as much as half of all the rest.
        state = State(
            event.now_s,
            event.now_s if began else state.began_s,
            known,
            tuple(tasks),
            heat,
            base_w,
            power.base_var,
            power.meter,
            learner.long_run(state, base_w),
            worst_w,
            power.scale,
            state.price,
            cap_w,
            cap_by,
            borne_w,
            clock,
            state.probed_s,
            False,
        )
        paid, saving = learner.priced(state, event, weighed)
        if paid is not state.price or saving:
            state = with_(state, price=paid, saving=saving)
        state, verdicts = chooser.choose(state, event.now_s, weighed)
        return chooser.probe(state, event, verdicts)

    def _replied(self, state: State, event: Replied) -> tuple[State, tuple[Verdict, ...]]:
        table, task = self._tables[event.task], state.tasks[event.task]
        at = table.index.get(event.action)
        if at is None or not 0 < event.latency_ms < _NONE or task.action < 0:
            return state, ()
        took = math.log(event.latency_ms) + math.log(state.clock) - table.promised[at]
        seen = task.seen[at]
        others = sum(task.seen) - seen
        known, bias, again = calibration.learn(self._tuning, state.known, (took,), task.bias[at], seen, others)
        asked = table.is_remote[task.action]  # then a hedge computed: the server was not in time
        again = again or (asked and task.failing < task.rate / self._tuning.failing)
        task = with_(
            task,
            bias=(*task.bias[:at], bias, *task.bias[at + 1 :]),
            seen=(*task.seen[:at], seen + 1, *task.seen[at + 1 :]),
            failing=task.failing + asked,
        )
        state = with_(state, known=known, tasks=(*state.tasks[: event.task], task, *state.tasks[event.task + 1 :]))
        if not again:
            return state, ()
        return self._chooser.choose(
            state,
            event.now_s,
            self._chooser.weighed(state.tasks, state.known, state.clock, state.power_scale),
            urgent_only=True,
        )

    def _names(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(table.task.name, table.ids) for table in self._tables]

    def _fresh(self, table: Table) -> TaskState:
        count = len(table.ids)
        return TaskState(
            action=-1,
            local=-1,
            changed_s=_NEVER,
            toggled_s=_NEVER,
            left=(),
            bias=(0.0,) * count,
            seen=(0,) * count,
            rate=1.0,
            rate_spread=0.3,
            least_rate=_NONE,
            watts=0.0,
            failing=0,
            links=(offload.first(self._tuning),) * len(table.ways),
            drawn=drawing.first(self._tuning, count),
        )
