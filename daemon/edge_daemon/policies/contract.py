"""What a policy is: a pure step from what was seen to what should run.

A policy is made for a `Setting` (a board, its limits, and the tasks that share it) and keeps no state of its own:
`step(state, event) -> (state, verdicts)`. The daemon steps it once a second and when an app reports something at once;
the simulator steps it in the same way, so what is tried there is what runs here. Policies are found by the entry point
group `edge.policies`: a name, and a callable that takes a `Setting` and returns a `Policy`.

Around every policy stands the frame (`edge_daemon.policy`): pins, pauses, quarantine of what cannot be loaded, the
history. A policy never sees an action that may not be taken: the setting leaves it out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from edge_sdk.preference import Mode

GROUP = "edge.policies"
MAX_LATENCIES = 64
SURPRISING = 1.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One thing a task can do: run a variant here, or ask a server, or ask and have a variant stand by.

    Attributes:
        id: Of the action: the variant's id, or a name of its own for a remote one.
        quality: Of its answers, in percent or the metric's own unit, higher is better.
        latency_ms: Here: the expected median at full clock while nothing else runs. Remote: the server's time.
        power_w: Watts above idle while it computes all the time at full clock. Remote: the radio's while sending.
        measured: `latency_ms` was measured on this machine.
        remote: It asks a server.
        payload_kb: What is sent for one request, in 1000 bytes.
        hedge: The action that computes here if no reply came in time; None without one.
        size_bytes: Of the variant's file, the tie-break.
    """

    id: str
    quality: float
    latency_ms: float
    power_w: float
    measured: bool = False
    remote: bool = False
    payload_kb: float = 0.0
    hedge: str | None = None
    size_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """The physics of the board as its profile tells it; the truth differs, and a policy learns how.

    Attributes:
        idle_w: Power with nothing to do.
        r_c_per_w: Thermal resistance die to board and board to air.
        c_j_per_c: Heat capacity of die and board.
        clock_power: Dynamic power falls with this power of the clock ratio.
        estimated: No source gives these values; they are a class of board's.
    """

    idle_w: float = 2.7
    r_c_per_w: tuple[float, float] = (3.5, 7.0)
    c_j_per_c: tuple[float, float] = (4.0, 35.0)
    clock_power: float = 2.2
    estimated: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One model that an app runs.

    Attributes:
        actions: What can be done, at least one; at least one of them without a server.
        limit_ms: An answer later than this is worth nothing; `inf` where any time will do.
        min_quality: What falls below is taken only if nothing else is in time.
        mode: What to maximise where limits leave a choice.
        weight: Of this task's answers against those of the others.
        switch_j: Energy of loading another variant.
    """

    name: str
    actions: tuple[Action, ...]
    limit_ms: float = float("inf")
    min_quality: float | None = None
    mode: Mode = Mode.ACCURACY
    weight: float = 1.0
    switch_j: float = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a policy is made for.

    Attributes:
        temp_c: The die is to stay below; None without a limit.
        until_s: On the clock of `Second.now_s`: the battery is to last until then; None without a target.
        battery_j: The battery's capacity; None without one.
        max_power_w: The board may not draw more on average.
    """

    board: Board
    tasks: tuple[Task, ...]
    temp_c: float | None = None
    until_s: float | None = None
    battery_j: float | None = None
    max_power_w: float | None = None


# ------------------------------------------------------------------------------------------------------- events


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """An inference of another variant than the running one, made in idle time because a verdict asked for it."""

    action: str
    latency_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSeen:
    """What one task did in the second that ended.

    Attributes:
        action: What ran at its end.
        requests: That arrived.
        late: That were answered after the limit, or not at all.
        latencies_ms: Times of inferences of `action` alone (of a hedged one, of its hedge), here, without waiting, in
            their order; at most `MAX_LATENCIES`. What a `Replied` told is not told again.
        sent: Requests sent to the server while `action` was in force, and `replied` of them in time.
        probed: What was tried in idle time.
    """

    action: str
    requests: int
    late: int = 0
    latencies_ms: tuple[float, ...] = ()
    sent: int = 0
    replied: int = 0
    probed: Probed | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Second:
    """A second has passed; what was sensed at its end. None is a sensor that is not there or does not answer.

    Attributes:
        now_s: A clock that never goes back.
        temp_c: The hottest zone that counts.
        power_w: Of the whole board, mean over the second.
        battery_j: Energy left.
        charging: Mains is there: then the battery does not bind.
        clock: Current over full clock.
        rtt_ms: Round trip to the server; `inf` where it does not answer.
        up_mbps: What can be sent.
        tasks: In the order of the setting.
    """

    now_s: float
    tasks: tuple[TaskSeen, ...]
    temp_c: float | None = None
    power_w: float | None = None
    battery_j: float | None = None
    charging: bool = False
    clock: float | None = None
    rtt_ms: float | None = None
    up_mbps: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Replied:
    """An inference here has just ended and is no usual one; told at once, so that a policy need not wait.

    Told is what took `SURPRISING` times as long as usual or that much less, the first ones of a variant, what follows
    upon one that was told, and each that a hedge computed.

    Attributes:
        now_s: On the clock of `Second`, with its fraction.
        task: Index in the setting's tasks.
        action: What computed.
        latency_ms: Of the inference alone.
        waited_ms: Before it began.
    """

    now_s: float
    task: int
    action: str
    latency_ms: float
    waited_ms: float = 0.0


Event = Second | Replied

# ----------------------------------------------------------------------------------------------------- verdicts
# Structs, though nothing arrives here: one is made each second, and a frozen dataclass takes ten times as long.


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """The reason of a verdict, in data; `edge_daemon.policies.explain` makes the sentence.

    Attributes:
        code: What bound: `start`, `latency`, `thermal`, `battery`, `power`, `network`, `accuracy`, `gain`, `holds`.
        runner_up: The best of the others, and `margin`: by how much the choice is better, in points per request.
        numbers: What was weighed: name and value, e.g. ("cap_w", 1.42).
    """

    code: str
    runner_up: str | None = None
    margin: float | None = None
    numbers: tuple[tuple[str, float], ...] = ()


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a task is to do from now on.

    Attributes:
        task: Index in the setting's tasks.
        probe: An action to try once in idle time, its time to come back as `Probed`.
        most_per_s: Advice where nothing fits: the highest rate of requests that would.
    """

    task: int
    action: str
    why: Why
    probe: str | None = None
    most_per_s: float | None = None


class Policy(Protocol):
    """One policy, made for one setting. Its state is of its own type, immutable, and survives as bytes."""

    def initial(self) -> Any:
        """The state before the first event."""

    def step(self, state: Any, event: Event) -> tuple[Any, tuple[Verdict, ...]]:
        """The state after the event, and verdicts: after a `Second` one for each task; after a `Replied` any."""

    def dump(self, state: Any) -> bytes:
        """What was learned, for `load`, at most a megabyte."""

    def load(self, payload: bytes) -> Any:
        """The initial state with what is known from a dump of another setting, as far as it fits; never raises."""


Factory = Callable[[Setting], Policy]
