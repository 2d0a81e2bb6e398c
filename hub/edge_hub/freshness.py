"""Which message may replace what is known of a device. Pure.

Messages arrive late, twice, and out of order: a broker delivers the will of a connection long gone, a retained birth
is as old as it likes, a spool is replayed days later, and two hub workers overtake each other. A boot that was current
once and was followed by another never becomes current again.
"""

from __future__ import annotations

from dataclasses import dataclass

# Two workers overtake each other by milliseconds. A time of composition that lies further back than this within one
# boot is no reordering but a clock that was set back, and then the message is news.
_REORDER_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Of one kind of message, the one that counts now.

    Attributes:
        boot: The boot it came from, or None where there is none yet.
        sent: When the device composed it.
    """

    boot: str | None = None
    sent: float = 0.0


def birth_applies(*, boot: str, online: bool, sent: float, known: Known, born_before: bool) -> bool:
    """A birth (or a will, `online` false) changes what is known.

    Args:
        boot: The message's.
        online: A birth, not a will.
        sent: When it was composed; a will is composed before the birth it belongs to, so only births are compared.
        known: The birth that counts now.
        born_before: A birth of this boot was seen at any time before.
    """
    if known.boot is None:
        return True
    if boot == known.boot:
        return not online or not _overtaken(sent, known.sent)
    return online and not born_before


def state_applies(*, boot: str, sent: float, known: Known, current: str | None, born_before: bool) -> bool:
    """A reported state replaces the one known.

    Args:
        boot: The message's.
        sent: When it was composed.
        known: The state that counts now.
        current: The device's current boot.
        born_before: A birth of the message's boot was seen at any time before.
    """
    if known.boot == boot:
        return not _overtaken(sent, known.sent)
    if boot == current or known.boot is None:
        return True
    # Of a boot that is not current: either it is over, or its birth is still on the way.
    return not born_before and known.boot != current


def sample_applies(*, boot: str, seq: int, at: float, known: Known, known_seq: int, current: str | None) -> bool:
    """A telemetry sample replaces the last one known: never one that a replayed spool brings after newer ones.

    Args:
        boot: The message's.
        seq: The message's.
        at: The end of the sample's window.
        known: The boot and time of the sample that counts now.
        known_seq: Its message's number.
        current: The device's current boot.
    """
    if known.boot == boot:
        return seq > known_seq
    if known.boot is None:
        return True
    if known.boot == current:
        return False
    return boot == current or at > known.sent


def _overtaken(sent: float, known: float) -> bool:
    return 0 < known - sent < _REORDER_S
