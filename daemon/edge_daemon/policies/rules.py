"""Thresholds, as a careful engineer would write them: hysteresis in each, and ten seconds between two changes.

What is hot or nearly empty caps the ladder of variants; slowness moves one rung down, ample time one rung up; a server
is asked, with a hedge, while its reply would come well within the limit. The only change that does not wait is the one
to the smallest variant when the board is nearly at its limit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from edge_daemon.policies.contract import Action, Event, Replied, Second, Setting, Task, Verdict, Why
from edge_daemon.policies.ladder import Latch, reply_ms, rungs, sane, servers

DWELL_S: Final = 10.0
_CRITICAL_BELOW_C, _WARM_BELOW_C, _COOL_BELOW_C = 2.0, 7.0, 12.0  # the limit
_EMPTY, _LOW, _GAUGE = 0.20, 0.50, 0.01  # of the battery; the last one keeps a gauge's noise from counting
_SLOW, _QUICK = 0.9, 0.5  # of the limit: one rung down above, one up below
_REMOTE = 0.6  # of the limit: a reply within this is worth asking for; the better of the values tried
_LATE = 0.1  # of a second's requests: also slow
_FORGET = 0.3  # weight of the newest second in the mean latency


@dataclass(frozen=True, slots=True)
class Seat:
    """One task.

    Attributes:
        rung: Of its ladder.
        action: That runs; None before the first second.
        mean_ms: From request to answer here, smoothed (without waiting where only seconds are told); None until
            something was measured on this rung.
        since_s: When the action was last changed.
    """

    rung: int
    action: str | None = None
    mean_ms: float | None = None
    since_s: float = float("-inf")


@dataclass(frozen=True, slots=True)
class Felt:
    """What holds for all tasks: which thresholds are passed."""

    critical: bool = False
    warm: bool = False
    low: bool = False
    empty: bool = False


@dataclass(frozen=True, slots=True)
class RulesState:
    """All of it."""

    felt: Felt
    seats: tuple[Seat, ...]


class Rules:
    """The rules of one setting."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._ladders = tuple(rungs(task) for task in setting.tasks)
        self._servers = tuple(servers(task) for task in setting.tasks)
        limit_c = float("inf") if setting.temp_c is None else setting.temp_c
        # One latch each for the two heights: both are let go where the board is cool again.
        self._critical = Latch(limit_c - _CRITICAL_BELOW_C, limit_c - _COOL_BELOW_C)
        self._warm = Latch(limit_c - _WARM_BELOW_C, limit_c - _COOL_BELOW_C)
        self._low, self._empty = Latch(1 - _LOW, 1 - _LOW - _GAUGE), Latch(1 - _EMPTY, 1 - _EMPTY - _GAUGE)

    def initial(self) -> RulesState:
        """On the best rung that fits by its profile, with nothing felt."""
        return RulesState(
            Felt(),
            tuple(
                Seat(_fitting(task, ladder)) for task, ladder in zip(self._setting.tasks, self._ladders, strict=True)
            ),
        )

    def step(self, state: RulesState, event: Event) -> tuple[RulesState, tuple[Verdict, ...]]:
        """Look at every threshold once a second; within it, only note how long answers take."""
        if isinstance(event, Replied):
            return replace(state, seats=self._noted(state.seats, event)), ()
        felt = self._feel(state.felt, event)
        stepped = [self._seat(index, seat, event, felt) for index, seat in enumerate(state.seats)]
        return RulesState(felt, tuple(seat for seat, _ in stepped)), tuple(verdict for _, verdict in stepped)

    def dump(self, state: RulesState) -> bytes:  # noqa: ARG002
        """Rules learn nothing."""
        return b""

    def load(self, payload: bytes) -> RulesState:  # noqa: ARG002
        """As at first."""
        return self.initial()

    def _noted(self, seats: tuple[Seat, ...], reply: Replied) -> tuple[Seat, ...]:
        seat = seats[reply.task]
        newest_ms = sane(reply.latency_ms + reply.waited_ms)
        if reply.action != seat.action or newest_ms is None:
            return seats
        took_ms = _smoothed(seat.mean_ms, newest_ms)
        return (*seats[: reply.task], replace(seat, mean_ms=took_ms), *seats[reply.task + 1 :])

    def _feel(self, felt: Felt, second: Second) -> Felt:
        used = None
        left_j = sane(second.battery_j)
        if self._setting.battery_j and left_j is not None:
            used = 0.0 if second.charging else 1 - left_j / self._setting.battery_j
        return Felt(
            critical=self._critical.after(second.temp_c, is_on=felt.critical),
            warm=self._warm.after(second.temp_c, is_on=felt.warm),
            low=self._low.after(used, is_on=felt.low),
            empty=self._empty.after(used, is_on=felt.empty),
        )

    def _seat(self, index: int, seat: Seat, second: Second, felt: Felt) -> tuple[Seat, Verdict]:
        task, ladder, seen = self._setting.tasks[index], self._ladders[index], second.tasks[index]
        mean_ms = seat.mean_ms
        heard_ms = [ms for ms in seen.latencies_ms if sane(ms) is not None]
        if heard_ms and seen.action == ladder[seat.rung].id:
            mean_ms = _smoothed(mean_ms, sum(heard_ms) / len(heard_ms))
        may = second.now_s - seat.since_s >= DWELL_S
        rung, code = seat.rung, "holds"
        if may and mean_ms is not None and seat.action == ladder[rung].id:
            if (mean_ms > _SLOW * task.limit_ms or seen.late > _LATE * seen.requests) and rung > 0:
                rung, code = rung - 1, "latency"
            elif mean_ms < _QUICK * task.limit_ms and rung < len(ladder) - 1:
                rung, code = rung + 1, "accuracy"
        top, why = self._cap(felt, second, len(ladder))
        if rung > top:
            rung, code = top, why
        action = ladder[rung].id
        asked = next((s for s in self._servers[index] if reply_ms(s, second) < _REMOTE * task.limit_ms), None)
        if asked is not None and asked.quality > ladder[rung].quality:
            action, code = asked.id, "network"
        if seat.action is None:
            code = "start"
        hurries = felt.critical and rung < seat.rung
        if action != seat.action and (may or hurries):
            kept_ms = mean_ms if rung == seat.rung else None
            seat = Seat(rung=rung, action=action, mean_ms=kept_ms, since_s=second.now_s)
        else:
            seat, code = replace(seat, mean_ms=mean_ms), "holds"
        assert seat.action is not None  # noqa: S101 - the first second decides
        numbers = () if mean_ms is None else (("mean_ms", mean_ms),)
        return seat, Verdict(task=index, action=seat.action, why=Why(code=code, numbers=numbers))

    def _cap(self, felt: Felt, second: Second, count: int) -> tuple[int, str]:
        """The highest rung that is allowed, and what allows no more."""
        middle = (count - 1) // 2
        if felt.critical:
            return 0, "thermal"
        if felt.empty:
            return 0, "battery"
        over = self._setting.max_power_w is not None and (sane(second.power_w) or 0.0) > self._setting.max_power_w
        for is_on, code in ((felt.warm, "thermal"), (felt.low, "battery"), (over, "power")):
            if is_on:
                return middle, code
        return count - 1, "accuracy"


def _fitting(task: Task, ladder: tuple[Action, ...]) -> int:
    """The highest rung within the limit by its profile."""
    return max((i for i, action in enumerate(ladder) if action.latency_ms <= _SLOW * task.limit_ms), default=0)


def _smoothed(mean_ms: float | None, newest_ms: float) -> float:
    return newest_ms if mean_ms is None else mean_ms + _FORGET * (newest_ms - mean_ms)
