"""What the policy `optimal` remembers: values, which survive a restart as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import msgspec

from edge_daemon.policies import drawing
from edge_daemon.policies.calibration import Calibration
from edge_daemon.policies.drawing import Drawn, Meter
from edge_daemon.policies.offload import Link
from edge_daemon.policies.price import Price

_NEVER: Final = -math.inf
_MOST_LOG: Final = 10.0
_MOST_COUNT: Final = 1e15
_LEAST_SPREAD: Final = 0.01
_MOST_C: Final = 1000.0
_MOST_W: Final = 1e6


class TaskState(msgspec.Struct, frozen=True):
    """What is known of one task.

    Attributes:
        action: In force, an index; -1 before the first decision. `local` is the last one that computes here.
        changed_s: When it last changed by itself, `toggled_s` to or from a server.
        left: Variants that were left for another one, and when.
        bias, seen: Of each action, the log of its own factor and how many inferences taught it.
        rate, rate_spread: Requests a second, and their standard deviation.
        least_rate: The least that was seen.
        watts: What the action in force is taken to draw.
        failing: So many requests of this second were not answered by the server in time.
        links: The ways to its servers.
        drawn: What its actions were seen to draw.
    """

    action: int
    local: int
    changed_s: float
    toggled_s: float
    left: tuple[tuple[int, float], ...]
    bias: tuple[float, ...]
    seen: tuple[int, ...]
    rate: float
    rate_spread: float
    least_rate: float
    watts: float
    failing: int
    links: tuple[Link, ...]
    drawn: Drawn


class State(msgspec.Struct, frozen=True):
    """Everything it remembers.

    Attributes:
        now_s, began_s: The clock at the last second, and at the first.
        known: Of the moment.
        tasks: In the order of the setting.
        heat: Die, board, air; None before the first second.
        base_w: What is drawn whatever runs, now, and the variance of that; `mean_w` over a long time, `worst_w` the
            most of late.
        meter: How promptly the board's meter follows.
        power_scale: What variants draw over what is promised.
        price: Of a joule.
        cap_w: What may be drawn above the base now; infinite without a limit. `cap_by` is its code;
            `borne_w` what heat and power would bear, even if less than the least that can run.
        clock: Current over full clock.
        probed_s: When an idle moment was last used.
        saving: Nothing but the least lasts.
    """

    now_s: float
    began_s: float
    known: Calibration
    tasks: tuple[TaskState, ...]
    heat: tuple[float, float, float] | None
    base_w: float
    base_var: float
    meter: Meter
    mean_w: float
    worst_w: float
    power_scale: float
    price: Price
    cap_w: float
    cap_by: str
    borne_w: float
    clock: float
    probed_s: float
    saving: bool


with_ = msgspec.structs.replace


Names = Sequence[tuple[str, tuple[str, ...]]]  # of each task, and of its actions


class KeptTask(msgspec.Struct, frozen=True):
    """What is kept of a task, by the names of its actions.

    Attributes:
        changed_s, toggled_s: How long ago; `left` likewise.
    """

    action: str | None
    local: str | None
    changed_s: float | None
    toggled_s: float | None
    left: dict[str, float]
    bias: dict[str, float]
    seen: dict[str, int]
    rate: float
    rate_spread: float
    watts: float
    links: tuple[Link, ...]
    factors: dict[str, float] = {}

    def is_sound(self) -> bool:
        """As of `Kept`."""
        ages = (0.0 if age is None else age for age in (self.changed_s, self.toggled_s, *self.left.values()))
        return (
            all(0 <= age < math.inf for age in ages)
            and all(abs(value) <= _MOST_LOG for value in self.bias.values())
            and all(0 <= value < _MOST_COUNT for value in self.seen.values())
            and 0 <= self.rate < _MOST_COUNT
            and 0 <= self.rate_spread < _MOST_COUNT
            and 0 <= self.watts <= _MOST_W
            and all(drawing.FACTOR_LEAST <= value <= drawing.FACTOR_MOST for value in self.factors.values())
        )


class Kept(msgspec.Struct, frozen=True):
    """What outlives a setting: by names instead of indexes, with ages instead of times."""

    known: Calibration
    tasks: dict[str, KeptTask]
    heat: tuple[float, float, float] | None
    base_w: float
    mean_w: float
    power_scale: float
    price: float

    def is_sound(self) -> bool:
        """No number is out of bounds: it may come from a damaged disk."""
        known = self.known
        return (
            abs(known.slow) <= _MOST_LOG
            and abs(known.calm) <= _MOST_LOG
            and 0 <= known.suspect <= _MOST_LOG
            and 0 <= known.confirmed <= known.suspects < _MOST_COUNT
            and known.suspects > 0
            and _LEAST_SPREAD <= known.spread <= 1
            and 0 <= known.tail_rate <= 1
            and 0 <= known.tail_size <= _MOST_LOG
            and 0 <= known.onsets <= 1
            and 0 <= known.streak < _MOST_COUNT
            and 0 <= known.scatter <= 1
            and (self.heat is None or all(abs(value) <= _MOST_C for value in self.heat))
            and all(0 <= value <= _MOST_W for value in (self.base_w, self.mean_w, self.power_scale, self.price))
            and all(task.is_sound() for task in self.tasks.values())
        )

    @staticmethod
    def of(state: State, names: Names) -> Kept:
        """What is to be kept of a state."""
        tasks = {}
        for (name, ids), task in zip(names, state.tasks, strict=True):
            tasks[name] = KeptTask(
                action=ids[task.action] if task.action >= 0 else None,
                local=ids[task.local] if task.local >= 0 else None,
                changed_s=_age(state, task.changed_s),
                toggled_s=_age(state, task.toggled_s),
                left={ids[at]: max(state.now_s - when, 0.0) for at, when in task.left},
                bias={id_: task.bias[at] for at, id_ in enumerate(ids) if task.seen[at]},
                seen={id_: task.seen[at] for at, id_ in enumerate(ids) if task.seen[at]},
                rate=task.rate,
                rate_spread=task.rate_spread,
                watts=task.watts,
                links=task.links,
                factors={id_: factor for id_, factor in zip(ids, task.drawn.factors, strict=True) if factor != 1},
            )
        return Kept(
            known=state.known,
            tasks=tasks,
            heat=state.heat,
            base_w=state.base_w,
            mean_w=state.mean_w,
            power_scale=state.power_scale,
            price=state.price.value,
        )

    def into(self, state: State, names: Names) -> State:
        """An initial state with what was kept of the same tasks; times count from the first second on."""
        tasks = []
        for (name, ids), fresh in zip(names, state.tasks, strict=True):
            kept = self.tasks.get(name)
            tasks.append(fresh if kept is None else _carried(kept, fresh, ids))
        return with_(
            state,
            known=self.known,
            tasks=tuple(tasks),
            heat=self.heat,
            base_w=self.base_w,
            mean_w=self.mean_w,
            worst_w=self.base_w,
            power_scale=self.power_scale,
            price=with_(state.price, value=max(self.price, 0.0)),
        )


def begun(state: State, now_s: float) -> State:
    """The state at its first second: ages become times."""
    tasks = tuple(
        with_(
            task,
            changed_s=now_s + task.changed_s,
            toggled_s=now_s + task.toggled_s,
            left=tuple((at, now_s + when) for at, when in task.left),
        )
        for task in state.tasks
    )
    return with_(state, tasks=tasks)


def _age(state: State, when_s: float) -> float | None:
    return max(state.now_s - when_s, 0.0) if when_s > _NEVER and state.now_s > _NEVER else None


def _carried(kept: KeptTask, fresh: TaskState, ids: tuple[str, ...]) -> TaskState:
    index = {id_: at for at, id_ in enumerate(ids)}
    alike = len(kept.links) == len(fresh.links) and all(link.fits() for link in kept.links)
    return with_(
        fresh,
        action=index.get(kept.action or "", -1),
        local=index.get(kept.local or "", -1),
        changed_s=_NEVER if kept.changed_s is None else -kept.changed_s,
        toggled_s=_NEVER if kept.toggled_s is None else -kept.toggled_s,
        left=tuple((index[id_], -age) for id_, age in kept.left.items() if id_ in index),
        bias=tuple(kept.bias.get(id_, 0.0) for id_ in ids),
        seen=tuple(kept.seen.get(id_, 0) for id_ in ids),
        rate=kept.rate,
        rate_spread=kept.rate_spread,
        watts=kept.watts,
        links=kept.links if alike else fresh.links,
        drawn=with_(fresh.drawn, factors=tuple(kept.factors.get(id_, 1.0) for id_ in ids)),
    )
