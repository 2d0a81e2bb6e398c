"""What a sensor says: a value, or why there is none.

`source` is where a value comes from, for people: a path below the root, a program, a chip.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from edge_sdk.mqtt import Throttle

_ORDER = {throttle: rank for rank, throttle in enumerate(Throttle)}


def worst(*signals: Throttle) -> Throttle:
    """The worst of some signals."""
    return max(signals, key=_ORDER.__getitem__, default=Throttle.NONE)


@dataclass(frozen=True, slots=True)
class Unavailable:
    """There is no value, and this is why: one clause for people."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Heat:
    """The hottest place that counts.

    Attributes:
        temp_c: Its temperature.
        where: Its zone or chip.
        to_passive_c: Degrees left until the kernel begins to cool passively, over all places; negative beyond.
        to_critical_c: Degrees left until the kernel shuts down.
        passive_c: The lowest passive trip point.
        stuck: Places that were left out because their value does not move, each with why that is not believed.
    """

    temp_c: float
    where: str
    to_passive_c: float | None = None
    to_critical_c: float | None = None
    passive_c: float | None = None
    stuck: tuple[tuple[str, str], ...] = ()
    source: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """Batteries and mains.

    Attributes:
        percent: Of all batteries together, by energy; None when only the mains is known.
        charging: The mains carries the board; None when nothing tells.
        full_wh: What they hold when full, in watt-hours; None where no gauge tells.
    """

    percent: float | None
    charging: bool | None
    full_wh: float | None = field(default=None, compare=False)
    source: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """What firmware, kernel and power chips say about throttling.

    Attributes:
        worst: Of the alarms and active cooling devices.
        capped: A frequency limit lies below what the processor can do.
        fell: That limit fell while the daemon watched: it is no setting of the operator's.
        clock_hz: What the processor really runs at, as the firmware counts it; asked only while it holds it down.
    """

    worst: Throttle
    capped: bool = False
    fell: bool = False
    clock_hz: float | None = None
    source: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A processor in use since the last reading: the CPU over all cores, or an accelerator.

    Attributes:
        busiest_pct: Of the busiest core; None where there are no cores to tell apart.
    """

    percent: float
    busiest_pct: float | None = field(default=None, compare=False)
    source: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """The frequency of the fastest cores.

    Attributes:
        now: As a share of the highest they can do, 0 to 1.
        limit: The highest they may do, as such a share.
        held: The governor keeps them where they are, whatever there is to do.
        best_hz: The highest they can do.
    """

    now: float
    limit: float
    held: bool
    best_hz: float
    source: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Main memory that a new process could have."""

    available_mb: int
    source: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """Electric power.

    Attributes:
        scope: Of the whole board, or of the processor alone.
    """

    watts: float
    scope: Literal["board", "processor"] = field(default="board", compare=False)
    source: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metered:
    """Whether the way to the network costs by the byte."""

    metered: bool
    source: str = field(default="", compare=False)


Reading = Heat | Charge | Signals | Load | Clock | Memory | Power | Metered | Unavailable


class Sensor(Protocol):
    """One kind of thing that can be sensed.

    `read` returns what is true now, or `Unavailable`; it raises nothing and keeps no file open. It may take long
    when a driver hangs: the caller (`edge_daemon.sensors.desk`) gives it a thread that can be spared. It is never
    called twice at once.
    """

    @property
    def name(self) -> str:
        """Under which it is registered."""

    def read(self) -> Reading:
        """The value now, or why there is none."""
