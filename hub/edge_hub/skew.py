"""By how much a device's clock is ahead of the hub's. Pure.

A message shows `sent - received`, which is the clock's lead less the time the message was on its way. That time is
never below zero, so the greatest value seen is the nearest to the truth, and whatever was delayed (a queue in the
broker, a bad network) changes nothing. The greatest of a window, not for ever: clocks drift and are set. This is the
minimum filter of NTP (RFC 5905, section 10) and of BBR's round trip (Cardwell et al., ACM Queue 14(5), 2016).
"""

from __future__ import annotations

from dataclasses import dataclass

WINDOW_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Skew:
    """What is known.

    Attributes:
        s: The estimate; None before any message.
        next_s: What this window alone shows: the estimate when it ends.
        until: When the window ends, by the hub's clock.
    """

    s: float | None = None
    next_s: float = 0.0
    until: float = 0.0


def heard(known: Skew, *, sent: float, received: float, set_back: bool = False) -> Skew:
    """What is known after one more live message: one that was composed when it was sent.

    Args:
        known: What was known before.
        sent: By the device's clock.
        received: By the hub's.
        set_back: This message was composed earlier than the one before it, by its own clock, which has been set back.
    """
    seen = sent - received
    if known.s is None or set_back:
        return Skew(s=seen, next_s=seen, until=received + WINDOW_S)
    if not known.until - WINDOW_S <= received < known.until + WINDOW_S:
        # The hub's own clock was set, or the device was away for long: what was seen before says nothing of now.
        return Skew(s=seen, next_s=seen, until=received + WINDOW_S)
    if received >= known.until:
        return Skew(s=max(known.next_s, seen), next_s=seen, until=received + WINDOW_S)
    return Skew(s=max(known.s, seen), next_s=max(known.next_s, seen), until=known.until)
