"""Which message may replace what is known of a device. Pure.

Messages arrive late, twice, and out of order: a broker delivers the will of a connection long gone, a retained birth
is as old as it likes, a spool is replayed days later, and two hub workers overtake each other. A boot that was current
once and was followed by another never becomes current again. Where the births have not told yet which boot is the
newer one, the times of composition do, so that in the end the same is known whatever came first.
"""

from __future__ import annotations

from dataclasses import dataclass

# Two workers overtake each other by milliseconds. A time of composition that lies further back than this within one
# boot is no reordering but a clock that was set back, and then the message is news.
_REORDER_S = 60.0
# The same for births of two boots: of a daemon that ends at once, both births may wait with a worker that is killed,
# and come in any order once its session is taken up again. A clock that was set back further between two boots is not
# mistaken for that; a board without a battery for its clock begins in 1970.
_RESTART_S = 120.0

# A will is composed with the birth of its connection, or just before. One that is older than the birth that counts is
# of a connection before it, and comes late: some brokers tell the old one's will after the new one's birth. What is
# still older says only that the clock was set in between.
_CONNECTING_S = 10.0
_LATE_WILL_S = 30 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Of one kind of message, the one that counts now.

    Attributes:
        boot: The boot it came from, or None where there is none yet.
        sent: When the device composed it.
        born: A birth of its boot was seen.
    """

    boot: str | None = None
    sent: float = 0.0
    born: bool = True


def birth_applies(*, boot: str, online: bool, sent: float, known: Known, born_before: bool) -> bool:
    """A birth (or a will, `online` false) changes what is known.

    Args:
        boot: The message's.
        online: A birth, not a will.
        sent: When it was composed.
        known: The birth that counts now.
        born_before: A birth of this boot was seen at any time before.
    """
    if known.boot is None:
        return True
    if boot == known.boot and not online:
        return not _CONNECTING_S < known.sent - sent < _LATE_WILL_S
    if boot == known.boot:
        return not _overtaken(sent, known.sent, _REORDER_S)
    return online and not born_before and not _overtaken(sent, known.sent, _RESTART_S)


def state_applies(*, boot: str, sent: float, known: Known, current: str | None, born_before: bool) -> bool:
    """A reported state replaces the one known.

    Args:
        boot: The message's.
        sent: When it was composed.
        known: The state that counts now.
        current: The device's current boot.
        born_before: A birth of the message's boot was seen at any time before.
    """
    if known.boot is None:
        return True
    if known.boot == boot:
        return not _overtaken(sent, known.sent, _REORDER_S)
    follows = _follows(boot, known, current=current, born_before=born_before)
    return sent > known.sent if follows is None else follows


def sample_applies(
    *, boot: str, seq: int, at: float, known: Known, known_seq: int, current: str | None, born_before: bool
) -> bool:
    """A telemetry sample replaces the last one known: never one that a replayed spool brings after newer ones.

    Args:
        boot: The message's.
        seq: The message's.
        at: The end of the sample's window, or its arrival where that was before.
        known: The boot and time of the sample that counts now.
        known_seq: Its message's number.
        current: The device's current boot.
        born_before: A birth of the message's boot was seen at any time before.
    """
    if known.boot is None:
        return True
    if known.boot == boot:
        return seq > known_seq
    follows = _follows(boot, known, current=current, born_before=born_before)
    return at > known.sent if follows is None else follows


def _follows(boot: str, known: Known, *, current: str | None, born_before: bool) -> bool | None:
    """Whether a boot is newer than another one, the known; None where the births have not told yet.

    A boot that was born and is not current is over; one that was not born is over, or its birth is on the way.
    """
    if boot == current:
        return True if known.born else None
    if known.boot == current:
        return False if born_before else None
    return None


def _overtaken(sent: float, known: float, horizon_s: float) -> bool:
    return 0 < known - sent < horizon_s
