"""What a device senses, as it travels to its hub and into its policy.

Where each value comes from says `docs/reference/sensors.md`; how it travels, `edge_sdk.mqtt`.
"""

from __future__ import annotations

import enum
from typing import Literal

from edge_sdk.wire import Celsius, Count, Mbps, Millis, Percent, Share, Text, WattHours, Watts, Wire


class Throttle(enum.Enum):
    """The one throttle signal, from the mildest to the worst."""

    NONE = "none"
    SOFT = "soft"
    THERMAL = "thermal"
    POWER = "power"
    CRITICAL = "critical"


class Conditions(Wire, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """What the daemon senses; `None` is a sensor that is not there or does not answer.

    A newer device may sense more than a hub knows of: what it does not know, it ignores.

    Attributes:
        temp_c: The hottest zone that counts.
        temp_limit_c: What the policy holds it below.
        battery_pct: Charge, and whether mains is there.
        battery_wh: What is left in it.
        battery_full_wh: What it holds when full.
        power_w: Measured, never a model's estimate.
        power_scope: What `power_w` is of; None is the whole board.
        load_pct: CPU in use, of all cores.
        clock: What work meets: the CPU's frequency as a share of the highest it can do.
        gpu_pct: In use, as `npu_pct` and `edgetpu_pct`.
        rtt_ms: Network round trip to the broker.
        up_mbps: Megabits a second towards the network, as seen in transfers; `down_mbps` from it.
        metered: The network costs by the byte.
        missing: Why a value is None, by name.
        played: A demonstration or test invents these values.
    """

    temp_c: Celsius | None = None
    temp_limit_c: Celsius | None = None
    throttle: Throttle = Throttle.NONE
    battery_pct: Percent | None = None
    charging: bool | None = None
    power_w: Watts | None = None
    load_pct: Percent | None = None
    memory_available_mb: Count | None = None
    rtt_ms: Millis | None = None
    missing: dict[str, Text] = {}
    played: bool = False
    battery_wh: WattHours | None = None
    battery_full_wh: WattHours | None = None
    power_scope: Literal["board", "processor"] | None = None
    clock: Share | None = None
    gpu_pct: Percent | None = None
    npu_pct: Percent | None = None
    edgetpu_pct: Percent | None = None
    up_mbps: Mbps | None = None
    down_mbps: Mbps | None = None
    metered: bool | None = None
