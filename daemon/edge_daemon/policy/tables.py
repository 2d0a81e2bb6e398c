"""The frame's numbers: what no policy may break, in pairs of thresholds, and how long things hold.

A band is entered at one threshold and left at another, so that a value resting on a threshold changes nothing. What a
band allows is a share of the energy that the best quality takes for an answer (`edge_daemon.policy.safety`).
`docs/explanation/policy.md` says why each number is what it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_sdk.mqtt import Throttle


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """One band of a value that is worse the lower it is.

    Attributes:
        enter: At or below this it is entered.
        leave: At or above this it is left.
    """

    name: str
    enter: float
    leave: float


# Degrees that are left up to the limit: a policy may ride on the limit, and a sensor's noise is a few tenths of a
# degree, so only what is clearly beyond it is taken out of its hands.
HEAT = (Band(name="critical", enter=-2.0, leave=2.0),)

CALM_C = 6.0  # so many degrees are left where there is time for what is not urgent

# Percent of charge while discharging; 3 to 4 points of hysteresis are more than a gauge's noise under load.
CHARGE = (Band(name="low", enter=20.0, leave=24.0), Band(name="critical", enter=8.0, leave=11.0))
# The same where the policy knows the energy left and how long it has to last: it spends down to a reserve of 3 %.
CHARGE_PRICED = (Band(name="low", enter=20.0, leave=24.0), Band(name="critical", enter=2.0, leave=4.0))
LOW, CRITICAL = 1, 2

THROTTLE_SHARE = {
    Throttle.NONE: 1.0,
    Throttle.SOFT: 0.5,
    Throttle.THERMAL: 0.25,
    Throttle.POWER: 0.25,
    Throttle.CRITICAL: 0.0,
}
THROTTLE_RANK = {throttle: rank for rank, throttle in enumerate(Throttle)}

DWELL_S = 2.0  # before a variant that was left is returned to: as long as `optimal` waits itself
ASK_EVERY_S = 0.95  # the policy is asked once a second, whatever the tick; ticks come a little early or late
THROTTLE_CLEAR_S = 10.0  # throttle bits flicker: a milder signal counts once the worse one is this long gone
CHARGER_CLEAR_S = 5.0  # a loose plug flickers too: charge stops counting once the charger has been there this long
STALE_S = 5.0  # a value this old is no reading any more
SENSOR_HOLD_S = 600.0  # a silent sensor is taken for the worst this long, then for one that is not there
# A bare Raspberry Pi 4 under full load heats by about a degree in 2 s at first (5.3 W into 4 J/K: facts of the
# simulator): so fast may a board have heated while its sensor was silent.
HEATING_C_PER_S = 0.5

# The round trip of a deadline is adopted when it moved by more than this, so that it does not make a new setting
# every second: a rise at once, a fall when it is clear.
TRIP_RISE, TRIP_FALL, TRIP_MS = 1.1, 0.7, 1.0
FULL_MOVES = 0.02  # so what a battery holds, in shares of it,
UNTIL_MOVES_S = 5.0  # and how long it is to last

# The server. A look each two seconds is 0.1 % of a core and some 300 bytes; three that fail to come are no news.
LOOK_EVERY_S = 2.0
WAY_STALE_S = 10.0
SENT_HOLD_S = 60.0  # how much can be sent is tried again after so long
MOST_MBPS = 1000.0  # what is taken where nothing was sent yet, and the most that is believed
HEDGES = 3  # of the variants in time, the best so many may stand by, and the fastest
CANNOT_ASK_S = 60.0  # an app that could not ask is told to again after this, doubled each time up to
CANNOT_ASK_MAX_S = 4 * 3600.0

FAILURES_TO_QUARANTINE = 2
QUARANTINE_S = 600.0
QUARANTINE_MAX_S = 4 * 3600.0
PLUGIN_AGAIN_S = 60.0  # a policy that failed is asked again after this
ADVICE_MOVES = 0.1  # advice that moved by less than a tenth is not repeated
MAX_POWER_W = 10_000.0


def follow(bands: Sequence[Band], level: int, value: float) -> int:
    """The band after `value` was seen in band `level`; 0 is none, 1 the first of `bands`."""
    while level and value >= bands[level - 1].leave:
        level -= 1
    while level < len(bands) and value <= bands[level].enter:
        level += 1
    return level
