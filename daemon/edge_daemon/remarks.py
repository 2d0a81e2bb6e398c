"""Which changes of the conditions are worth an event: throttling begins or ends, a sensor falls silent or comes back.

Pure: conditions and times in, events out. A sensor that comes and goes is told of once a minute at most, and then as
it is at that moment.
"""

from __future__ import annotations

from typing import Final

from edge_sdk.mqtt import Conditions, Event, Throttle

SENSOR_EVERY_S: Final = 60.0
# The round trip is there exactly while there is a hub to tell of it; what transfers and apps show comes and goes with
# them; what a battery holds goes with its charge; limits are not sensors.
_NOT_SENSORS: Final = frozenset(
    {
        *("rtt_ms", "up_mbps", "down_mbps", "metered", "edgetpu_pct"),
        *("battery_wh", "battery_full_wh", "temp_limit_c", "throttle"),
    }
)


class Remarks:
    """Remembers what the hub was told."""

    def __init__(self) -> None:
        self._throttle = Throttle.NONE
        self._silent: frozenset[str] | None = None
        self._told_s: dict[str, float] = {}

    def of(self, conditions: Conditions, now_s: float, at: float) -> list[Event]:
        """What to tell.

        Args:
            conditions: As they are now.
            now_s: Monotonic clock.
            at: Wall clock.
        """
        events = []
        if conditions.throttle is not self._throttle:
            text = f"{conditions.throttle.value} (before: {self._throttle.value})"
            events.append(Event(at=at, kind="throttle", text=text))
            self._throttle = conditions.throttle
        silent = frozenset(conditions.missing) - _NOT_SENSORS
        if self._silent is None:  # what a board does not have from the start is in its state, and no event
            self._silent = silent
        for name in sorted(silent ^ self._silent):
            if now_s - self._told_s.get(name, -SENSOR_EVERY_S) < SENSOR_EVERY_S:
                continue
            self._told_s[name] = now_s
            self._silent ^= {name}
            text = f"{name} is gone: {conditions.missing[name]}" if name in silent else f"{name} is back"
            events.append(Event(at=at, kind="sensor", text=text[:1000]))
        return events
