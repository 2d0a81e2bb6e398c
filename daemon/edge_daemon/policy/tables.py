"""The policy's numbers: thresholds in pairs, what each band allows, dwells and gains.

A band is entered at one threshold and left at another, so that a value resting on a threshold changes nothing. What a
band allows is a share of the time that the best quality takes (`full_ms` in `edge_daemon.policy.choose`): at constant
power, time is energy and heat. `docs/explanation/policy.md` says why each number is what it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_sdk.mqtt import Throttle
from edge_sdk.preference import Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """One band of a value that is worse the lower it is.

    Attributes:
        enter: At or below this it is entered.
        leave: At or above this it is left.
        share: Of the time that the best quality takes; 0 allows the cheapest variant only.
    """

    name: str
    enter: float
    leave: float
    share: float


# Degrees that are left up to the limit. A Pi 4 without a fan heats by about 1 degree in 2 s under full load (facts of
# the simulator: 5.3 W, 4 J/K), so 4 degrees are two dwells.
THERMAL = (
    Band(name="warm", enter=8.0, leave=11.0, share=0.5),
    Band(name="hot", enter=4.0, leave=7.0, share=0.25),
    Band(name="critical", enter=0.0, leave=4.0, share=0.0),
)

# Percent of charge while discharging; 3 to 4 points of hysteresis are more than a gauge's noise under load.
BATTERY = (
    Band(name="saver", enter=50.0, leave=54.0, share=0.5),
    Band(name="low", enter=20.0, leave=24.0, share=0.25),
    Band(name="critical", enter=8.0, leave=11.0, share=0.0),
)

THROTTLE_SHARE = {
    Throttle.NONE: 1.0,
    Throttle.SOFT: 0.5,
    Throttle.THERMAL: 0.25,
    Throttle.POWER: 0.25,
    Throttle.CRITICAL: 0.0,
}
THROTTLE_RANK = {throttle: rank for rank, throttle in enumerate(Throttle)}

DWELL_S = 8.0  # between voluntary switches, and before a variant that was left is returned to
THROTTLE_CLEAR_S = 10.0  # throttle bits flicker: a milder signal counts once the worse one is this long gone
CHARGER_CLEAR_S = 5.0  # a loose plug flickers too: charge stops counting once the charger has been there this long
SENSOR_HOLD_S = 600.0  # a silent sensor keeps its band this long, then lets go

# A variant not running must promise a tenth less than the limit; the running one must only keep it.
LIMIT_MARGIN = 0.9
# The running variant may exceed a band's share by a tenth: estimates move, the border should not flap.
SHARE_MARGIN = 1.1

# What a voluntary switch must gain: points of quality, or halvings of the latency under `speed` (0.15 is 10 %).
DEAD_BAND = {Mode.ACCURACY: 0.25, Mode.BALANCED: 0.25, Mode.SPEED: 0.15, Mode.BATTERY: 0.25}
# Or, where merit is equal within the dead-band, this share of the latency.
FASTER_BY = 0.8

FAILURES_TO_QUARANTINE = 2
QUARANTINE_S = 600.0
QUARANTINE_MAX_S = 4 * 3600.0


def follow(bands: Sequence[Band], level: int, value: float) -> int:
    """The band after `value` was seen in band `level`; 0 is none, 1 the first of `bands`."""
    while level and value >= bands[level - 1].leave:
        level -= 1
    while level < len(bands) and value <= bands[level].enter:
        level += 1
    return level


def share(bands: Sequence[Band], level: int) -> float:
    """What band `level` allows."""
    return bands[level - 1].share if level else 1.0
