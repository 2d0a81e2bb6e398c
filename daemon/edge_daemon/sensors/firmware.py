"""Asks a Raspberry Pi's firmware whether it throttles, and how fast the clock really is while it does."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from edge_daemon.sensors.reading import Unavailable, worst
from edge_sdk.mqtt import Throttle

T = TypeVar("T")
Runner = Callable[[str], str | Unavailable]
ASK_BITS = "get_throttled"
ASK_CLOCK = "measure_clock arm"

_BITS = re.compile(r"\Athrottled=0x([0-9a-fA-F]{1,8})\Z")
_HERTZ = re.compile(r"\Afrequency\(\d{1,3}\)=(\d{1,12})\Z", re.ASCII)
_FIRMWARE_READS = 5  # a process each time: about 10 ms of CPU on a Pi Zero
_FIRMWARE_REST_READS = 60  # after it failed
_FIRMWARE_DEADLINE_S = 1.0

# Bits of `vcgencmd get_throttled` (raspberrypi/documentation, os.adoc).
_FIRMWARE = (
    (1 << 0, Throttle.POWER),
    (1 << 1 | 1 << 2, Throttle.THERMAL),
    (1 << 3, Throttle.SOFT),
)


def vcgencmd() -> Runner | None:
    """Asks a Raspberry Pi's firmware, where the program is there; it takes group `video`."""
    # Not `shutil.which`: the module brings three decompressors along, a megabyte of a small daemon.
    places = (Path(folder, "vcgencmd") for folder in os.get_exec_path())
    program = next((place for place in places if place.is_file() and os.access(place, os.X_OK)), None)
    if program is None:
        return None

    def run(question: str) -> str | Unavailable:
        try:
            done = subprocess.run(
                [program, *question.split()],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_FIRMWARE_DEADLINE_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as cause:
            return Unavailable(f"vcgencmd: {cause}")
        return done.stdout[:100].decode("ascii", "replace").strip()

    return run


def signal_of(text: str) -> Throttle | Unavailable:
    """What `throttled=0x50005` says of now."""
    match = _BITS.match(text)
    if match is None:
        return Unavailable(f"vcgencmd: {text[:40]!r} is no answer to get_throttled")
    bits = int(match[1], 16)
    return worst(*(signal for mask, signal in _FIRMWARE if bits & mask))


def clock_of(text: str) -> float | Unavailable:
    """What `frequency(48)=600000000` says: the true clock, where the kernel only knows what it asked for."""
    match = _HERTZ.match(text)
    if match is None or not int(match[1]):
        return Unavailable(f"vcgencmd: {text[:40]!r} is no answer to {ASK_CLOCK}")
    return float(match[1])


class Firmware:
    """Asks now and then, for each question is a process.

    Args:
        run: Puts one question.

    Attributes:
        clock_hz: What the processor really runs at, while the firmware says that it holds it down.
    """

    def __init__(self, run: Runner) -> None:
        self._run = run
        self._rest = 0
        self._said: Throttle | None = None
        self.clock_hz: float | None = None

    def read(self) -> Throttle | None:
        """The signal now, at most some seconds old; None while it does not answer."""
        self._rest -= 1
        if self._rest < 0:
            self._said = _answer(self._run(ASK_BITS), signal_of)
            held_down = self._said not in {None, Throttle.NONE}
            self.clock_hz = _answer(self._run(ASK_CLOCK), clock_of) if held_down else None
            self._rest = (_FIRMWARE_REST_READS if self._said is None else _FIRMWARE_READS) - 1
        return self._said


def _answer(text: str | Unavailable, parse: Callable[[str], T | Unavailable]) -> T | None:
    said = text if isinstance(text, Unavailable) else parse(text)
    return None if isinstance(said, Unavailable) else said
