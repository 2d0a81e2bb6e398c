"""Until when a battery is to last: how that is written, and which moment is meant.

Two spellings: a time of day, `18:30`, is the next one to come, every day anew; a date and time, `2026-11-27T18:30`, is
that moment and none after it. A date without a zone, and every time of day, is read in the zone given (the machine's
own by default), with its summer time: the moments are worked out by `datetime`, never by adding 86400 seconds.
"""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta, timezone, tzinfo

# A clock that shows an earlier time was never set: boards without a battery-backed one begin in 1970, or at the date of
# their image. 2024-01-01T00:00Z; no version of this program is older.
CLOCK_SET_SINCE = 1_704_067_200.0

_CLOCK = re.compile(r"\A([01][0-9]|2[0-3]):([0-5][0-9])\Z")
_MOMENT = re.compile(
    r"\A((?:19[7-9]|2[0-9]{2})[0-9]-[0-9]{2}-[0-9]{2})[T ]((?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9])?)"
    r"(Z|[+-](?:0[0-9]|1[0-4]):[0-5][0-9])?\Z"
)


def check(text: str) -> None:
    """Refuse what is no time of day and no date with a time.

    Raises:
        ValueError: It is neither; the text says what would be.
    """
    if _CLOCK.match(text) is None:
        _dated(text)


def clock(text: str) -> time:
    """A time of day, `HH:MM`.

    Raises:
        ValueError: It is none.
    """
    found = _CLOCK.match(text)
    if found is None:
        raise ValueError(f"{text[:40]!r} is no time of day; give one from 00:00 to 23:59")
    return time(int(found[1]), int(found[2]))


def moment(text: str, at: float, zone: tzinfo | None = None) -> float | None:
    """The moment that is meant, in seconds since 1970; None while the clock is not set or when it is over.

    Args:
        text: One that `check` lets pass.
        at: Now, by the wall clock.
        zone: Of times without one; None is the machine's.
    """
    if not is_set(at):
        return None
    if _CLOCK.match(text) is None:
        then = _in_zone(_dated(text), zone)
        return then if then > at else None
    today = datetime.fromtimestamp(at, zone).date()
    for days in range(3):  # today's may be over, and where summer time begins, tomorrow's may not be
        then = _in_zone(datetime.combine(today + timedelta(days=days), clock(text)), zone)
        if then > at:
            return then
    raise AssertionError("a day without a later one")


def is_set(at: float) -> bool:
    """Whether a wall clock that shows this was ever set."""
    return at >= CLOCK_SET_SINCE


def spelled(at: float) -> str:
    """A moment as a date and time in UTC, to the second, for `moment`."""
    return datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _dated(text: str) -> datetime:
    found = _MOMENT.match(text)
    if found is None:
        raise ValueError(f"{text[:40]!r} is no moment; give one such as '18:30' or '2026-11-27T18:30'")
    zone = "+00:00" if found[3] == "Z" else found[3] or ""
    try:
        return datetime.fromisoformat(f"{found[1]}T{found[2]}{zone}")
    except ValueError as cause:  # the 30th of February
        raise ValueError(f"{text[:40]!r} is no moment: {cause}") from cause


def _in_zone(moment: datetime, zone: tzinfo | None) -> float:
    """Seconds since 1970. A time that summer time leaves out is taken as if it had not begun yet (PEP 495)."""
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)).timestamp()
