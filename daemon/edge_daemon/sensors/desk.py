"""Asks sensors on a thread that can be spared.

Reading a file of the kernel's can hang for as long as a driver pleases (an I2C gauge that holds its bus, a firmware
mailbox), and nothing can interrupt it. So sensors are read on a thread; one that hangs there is left alone with it,
its reading becomes unavailable, and another thread goes on with the others.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence

from edge_daemon.logs import Seldom
from edge_daemon.sensors.reading import Reading, Sensor, Unavailable

_log = logging.getLogger(__name__)

PATIENCE_S = 2.0  # before a sensor that is being read counts as hanging
STALE_S = 5.0  # answers older than this are none
_CLOSE_S = 1.0
_LOG_EVERY_S = 3600.0  # of one sensor: one that hangs or fails may do so at each reading


class Desk:
    """The newest answer of each sensor.

    Args:
        sensors: Asked in this order, one after the other.
        clock: Monotonic.
    """

    def __init__(self, sensors: Sequence[Sensor], clock: Callable[[], float]) -> None:
        self._sensors = tuple(sensors)
        self._clock = clock
        self._answers: dict[str, tuple[float, Reading]] = {}
        self._hanging: dict[str, _Clerk] = {}
        self._said: dict[str, Seldom] = {}
        self._clerk: _Clerk | None = None

    def answers(self, wait_s: float) -> dict[str, Reading]:
        """Ask all sensors, wait so long at most, and return the newest answers, each at most 5 s old."""
        clerk = self._on_duty()
        if clerk.done.is_set():
            clerk.ask(tuple(sensor for sensor in self._sensors if sensor.name not in self._hanging))
        clerk.done.wait(wait_s)
        now_s = self._clock()
        found: dict[str, Reading] = {}
        for sensor in self._sensors:
            at_s, reading = self._answers.get(sensor.name, (now_s, Unavailable("has not answered yet")))
            if now_s - at_s > STALE_S:
                reading = Unavailable(f"does not answer for {now_s - at_s:.0f} s")
            found[sensor.name] = reading
        return found

    def close(self) -> None:
        """End the thread; one that hangs ends when its driver lets go."""
        if self._clerk is not None:
            self._clerk.dismiss()
            self._clerk.join(_CLOSE_S)
            self._clerk = None

    def _on_duty(self) -> _Clerk:
        self._hanging = {name: clerk for name, clerk in self._hanging.items() if clerk.is_alive()}
        clerk = self._clerk
        if clerk is not None:
            at = clerk.at
            if at is not None and self._clock() - at[1] > PATIENCE_S:
                more = self._more(f"{at[0]} hangs")
                if more is not None:
                    _log.warning("sensor %s hangs; the others go on without it%s", at[0], more)
                clerk.dismiss()
                self._hanging[at[0]] = clerk
                clerk = None
        if clerk is None or not clerk.is_alive():
            clerk = self._clerk = _Clerk(self._answers, self._clock, self._more)
            clerk.start()
        return clerk

    def _more(self, line: str) -> str | None:
        """What such a line of the log ends with, if it is time for one."""
        return self._said.setdefault(line, Seldom(_LOG_EVERY_S)).ending(self._clock())


class _Clerk(threading.Thread):
    """Reads sensors one after the other.

    Attributes:
        at: The sensor being read, and since when.
        done: Nothing is asked of it.
    """

    def __init__(
        self,
        answers: dict[str, tuple[float, Reading]],
        clock: Callable[[], float],
        more: Callable[[str], str | None],
    ) -> None:
        super().__init__(name="edge-sensors", daemon=True)
        self._answers = answers
        self._clock = clock
        self._more = more
        self._inbox: queue.SimpleQueue[tuple[Sensor, ...] | None] = queue.SimpleQueue()
        self._dismissed = False
        self.at: tuple[str, float] | None = None
        self.done = threading.Event()
        self.done.set()

    def ask(self, sensors: tuple[Sensor, ...]) -> None:
        self.done.clear()
        self._inbox.put(sensors)

    def dismiss(self) -> None:
        self._dismissed = True
        self._inbox.put(None)

    def run(self) -> None:
        for sensors in iter(self._inbox.get, None):
            for sensor in sensors:
                self.at = (sensor.name, self._clock())
                reading = self._read(sensor)
                self._answers[sensor.name] = (self._clock(), reading)
                self.at = None
                if self._dismissed:
                    return
            self.done.set()

    def _read(self, sensor: Sensor) -> Reading:
        try:
            return sensor.read()
        except Exception as cause:  # noqa: BLE001 - the sensors' task runner: one broken plug-in shall not blind the daemon
            more = self._more(f"{sensor.name} failed")
            if more is not None:
                _log.exception("sensor %s failed%s", sensor.name, more)
            return Unavailable(f"failed: {type(cause).__name__}")
