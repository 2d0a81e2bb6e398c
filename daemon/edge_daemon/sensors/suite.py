"""All that is sensed, as one `Conditions`.

The registry of sensors is `SENSORS`; a new one is a class with the contract of `edge_daemon.sensors.reading.Sensor`
and a line here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_daemon.sensors.battery import Battery
from edge_daemon.sensors.desk import Desk
from edge_daemon.sensors.files import Files
from edge_daemon.sensors.load import CpuLoad, MainMemory
from edge_daemon.sensors.network import RoundTrip, Trips
from edge_daemon.sensors.power import BoardPower
from edge_daemon.sensors.reading import Charge, Heat, Load, Memory, Power, Reading, Sensor, Signals, Unavailable
from edge_daemon.sensors.temperature import Temperature
from edge_daemon.sensors.throttle import Runner, Throttling, fold, vcgencmd
from edge_sdk.mqtt import Conditions
from edge_sdk.profile import Profile

if TYPE_CHECKING:
    from typing_extensions import Self

_FIRST_WAIT_S = 0.5
_WAIT_S = 0.02
_MAX_REASON = 1000  # of `edge_sdk.wire.Text`


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What a sensor is made from."""

    files: Files
    profile: Profile | None
    firmware: Runner | None


SENSORS: Mapping[str, Callable[[Site], Sensor]] = {
    Temperature.name: lambda site: Temperature(site.files, site.profile.thermal.zones if site.profile else ()),
    Throttling.name: lambda site: Throttling(site.files, site.firmware),
    CpuLoad.name: lambda site: CpuLoad(site.files),
    MainMemory.name: lambda site: MainMemory(site.files),
    BoardPower.name: lambda site: BoardPower(site.files),
    Battery.name: lambda site: Battery(site.files),
}


class SensorSuite:
    """Reads every sensor.

    Args:
        root: Below which the files are: "/", or a recorded or played tree.
        profile: Says which zones count and what the board is kept below.
        clock: Monotonic.
        round_trip: Fed by the uplink.
        firmware: Asks a Raspberry Pi's firmware; found by itself below "/".
        sensors: The registry.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] = "/",
        profile: Profile | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        round_trip: RoundTrip | None = None,
        firmware: Runner | None = None,
        sensors: Mapping[str, Callable[[Site], Sensor]] = SENSORS,
    ) -> None:
        if firmware is None and os.fspath(root) == "/":
            firmware = vcgencmd()
        site = Site(files=Files(root), profile=profile, firmware=firmware)
        self.round_trip = round_trip if round_trip is not None else RoundTrip(clock)
        self._profile = profile
        self._desk = Desk([make(site) for make in sensors.values()], clock)
        self._wait_s = _FIRST_WAIT_S

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the thread that reads."""
        self._desk.close()

    def read(self) -> Conditions:
        """The conditions now. Takes about a millisecond; 20 when a driver dawdles (half a second the first time)."""
        answers = self._desk.answers(self._wait_s)
        self._wait_s = _WAIT_S
        heat, signals, charge, load, memory, power = (
            answers.get(name, Unavailable("no such sensor is registered"))
            for name in ("temperature", "throttle", "battery", "load", "memory", "power")
        )
        trips = self.round_trip.read()
        temp_c = heat.temp_c if isinstance(heat, Heat) else None
        temp_limit_c = self._limit_c(heat)
        battery_pct = charge.percent if isinstance(charge, Charge) else None
        charging = charge.charging if isinstance(charge, Charge) else None
        power_w = power.watts if isinstance(power, Power) else None
        load_pct = load.percent if isinstance(load, Load) else None
        available_mb = memory.available_mb if isinstance(memory, Memory) else None
        rtt_ms = trips.smoothed_ms if isinstance(trips, Trips) else None
        no_battery = Unavailable("no battery, only mains") if isinstance(charge, Charge) else charge
        told = (
            ("temp_c", temp_c, heat),
            ("temp_limit_c", temp_limit_c, Unavailable("no profile, and no passive trip point to read")),
            ("throttle", signals if isinstance(signals, Signals) else None, signals),
            ("battery_pct", battery_pct, no_battery),
            ("charging", charging, charge),
            ("power_w", power_w, power),
            ("load_pct", load_pct, load),
            ("memory_available_mb", available_mb, memory),
            ("rtt_ms", rtt_ms, trips),
        )
        return Conditions(
            temp_c=temp_c,
            temp_limit_c=temp_limit_c,
            throttle=fold(signals if isinstance(signals, Signals) else None, heat if isinstance(heat, Heat) else None),
            battery_pct=battery_pct,
            charging=charging,
            power_w=power_w,
            load_pct=load_pct,
            memory_available_mb=available_mb,
            rtt_ms=rtt_ms,
            missing={field: _why(reading) for field, value, reading in told if value is None},
        )

    def _limit_c(self, heat: Reading) -> float | None:
        if self._profile is not None:
            return self._profile.thermal.max_temp_c.value
        return heat.passive_c if isinstance(heat, Heat) else None


def _why(reading: object) -> str:
    if not isinstance(reading, Unavailable):
        return "the board does not tell"
    return reading.reason.encode("utf-8", "replace")[:_MAX_REASON].decode("utf-8", "replace")  # names may be no UTF-8
