"""What a sensor says: a value, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from edge_sdk.mqtt import Throttle


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
    """

    temp_c: float
    where: str
    to_passive_c: float | None = None
    to_critical_c: float | None = None
    passive_c: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """Batteries and mains.

    Attributes:
        percent: Of all batteries together, by energy; None when only the mains is known.
        charging: The mains carries the board; None when nothing tells.
    """

    percent: float | None
    charging: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """What firmware, kernel and power chips say about throttling.

    Attributes:
        worst: Of the alarms and active cooling devices.
        capped: A frequency limit lies below what the processor can do.
        fell: That limit fell while the daemon watched: it is no setting of the operator's.
    """

    worst: Throttle
    capped: bool = False
    fell: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """CPU in use, of all cores, since the last reading."""

    percent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Main memory that a new process could have."""

    available_mb: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """Electric power of the whole board."""

    watts: float


Reading = Heat | Charge | Signals | Load | Memory | Power | Unavailable


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
