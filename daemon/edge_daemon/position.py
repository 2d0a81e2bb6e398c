"""Where the board is, as the site tells it: over the local API, or in a file that something else keeps up to date.

There is no GPS code here. The file holds one JSON object with `lat` and `lon`, or what `gpspipe -w` writes: the reports
of gpsd, one a line, of which the last `TPV` with a fix counts (gpsd_json(5): mode 2 is a fix in two dimensions, 3 in
three).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from edge_daemon.wishes.schedule import Latitude, Longitude, Position

HOLD_S: Final = 600.0  # a fix that is gone still counts this long: tunnels, and a receiver that starts anew
EVERY_S: Final = 2.0  # between two looks at the file
_TAIL_BYTES: Final = 64 * 1024  # of a file that only grows
_FIX_2D: Final = 2


class _Report(msgspec.Struct, frozen=True):
    """What is read of a line; a report of gpsd has much more."""

    lat: Latitude
    lon: Longitude
    kind: Annotated[str, Meta(max_length=20)] = msgspec.field(default="TPV", name="class")
    mode: int = _FIX_2D


@dataclass(frozen=True, slots=True)
class _Told:
    position: Position
    until_s: float


class Whereabouts:
    """The position last told or read, as long as it counts.

    Args:
        file: To look at; None without one.
        clock: Monotonic.
    """

    def __init__(self, file: str | os.PathLike[str] | None, clock: Callable[[], float]) -> None:
        self._file = None if file is None else Path(file)
        self._clock = clock
        self._told: _Told | None = None
        self._read: _Told | None = None
        self._looked_s: float | None = None

    def tell(self, position: Position, for_s: float) -> None:
        """The site says where the board is; this counts before the file for `for_s`."""
        self._told = _Told(position, self._clock() + for_s)

    def now(self) -> Position | None:
        """Where the board is; None where nobody knows. Reads the file every 2 s, which may wait for a slow disk."""
        now_s = self._clock()
        if self._file is not None and (self._looked_s is None or now_s - self._looked_s >= EVERY_S):
            self._looked_s = now_s
            position = read(self._file)
            if position is not None:
                self._read = _Told(position, now_s + HOLD_S)
        for told in (self._told, self._read):
            if told is not None and now_s < told.until_s:
                return told.position
        return None


def read(path: Path) -> Position | None:
    """The position in a file; None where there is none, or no file."""
    try:
        if not path.is_file():  # a pipe or a device would make us wait
            return None
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            tail = file.read(_TAIL_BYTES)
    except OSError:
        return None
    lines = [tail, *reversed(tail.splitlines())]  # one object, over several lines perhaps, or one a line
    return next((found for found in map(_position, lines) if found is not None), None)


def _position(text: bytes) -> Position | None:
    try:
        report = msgspec.json.decode(text, type=_Report)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    has_fix = report.kind == "TPV" and report.mode >= _FIX_2D
    return Position(lat=report.lat, lon=report.lon) if has_fix else None
