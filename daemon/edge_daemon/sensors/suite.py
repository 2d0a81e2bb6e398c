"""All that is sensed, as one `Conditions`.

The registry of sensors is `SENSORS`; a new one is a class with the contract of `edge_daemon.sensors.reading.Sensor`
and a line here. What becomes of their readings is in `edge_daemon.sensors.survey`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from edge_daemon.sensors.accelerators import GpuLoad, NpuLoad
from edge_daemon.sensors.battery import Battery, Gauge
from edge_daemon.sensors.busy import Busy
from edge_daemon.sensors.clock import CpuClock
from edge_daemon.sensors.desk import Desk
from edge_daemon.sensors.files import Files
from edge_daemon.sensors.firmware import Runner, vcgencmd
from edge_daemon.sensors.i2c import I2cGauge
from edge_daemon.sensors.load import CpuLoad, MainMemory
from edge_daemon.sensors.metered import MeteredNetwork
from edge_daemon.sensors.network import RoundTrip, Throughput
from edge_daemon.sensors.pisugar import PiSugar
from edge_daemon.sensors.power import BoardPower
from edge_daemon.sensors.reading import Sensor
from edge_daemon.sensors.stuck import Pace
from edge_daemon.sensors.survey import Fed, Sensed, conditions, survey
from edge_daemon.sensors.tcpinfo import TcpInfo
from edge_daemon.sensors.temperature import Temperature
from edge_daemon.sensors.throttle import Throttling
from edge_sdk.mqtt import Conditions
from edge_sdk.profile import Profile

if TYPE_CHECKING:
    from typing_extensions import Self

_FIRST_WAIT_S = 0.5
_WAIT_S = 0.02


class Owned(Protocol):
    """What only the owner of a board knows: the configuration's `[sensors]`."""

    @property
    def battery_wh(self) -> float | None:
        """What its battery holds when full, where no gauge tells."""
        ...

    @property
    def gauges(self) -> tuple[str, ...]:
        """Chips on I2C that know the battery, such as `ina219@1:0x43`."""
        ...

    @property
    def metered(self) -> bool | None:
        """Whether its network costs by the byte; None finds out."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Nothing:
    """Nobody says anything."""

    battery_wh: float | None = None
    gauges: tuple[str, ...] = ()
    metered: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What a sensor is made from.

    Attributes:
        is_real: The root is the machine's own: programs and servers of it may be asked.
        pace: The load that values which stand still are held against.
    """

    files: Files
    profile: Profile | None
    firmware: Runner | None
    owned: Owned
    clock: Callable[[], float]
    pace: Pace
    is_real: bool


def _battery(site: Site) -> Battery:
    gauges: list[Gauge] = [PiSugar(site.files, has_network=site.is_real)]
    gauges += [I2cGauge(spec) for spec in site.owned.gauges]
    return Battery(site.files, gauges, full_wh=site.owned.battery_wh, clock=site.clock)


SENSORS: Mapping[str, Callable[[Site], Sensor]] = {
    CpuLoad.name: lambda site: CpuLoad(site.files, site.pace),
    Temperature.name: lambda site: Temperature(
        site.files, site.profile.thermal.zones if site.profile else (), site.pace
    ),
    Throttling.name: lambda site: Throttling(site.files, site.firmware),
    CpuClock.name: lambda site: CpuClock(site.files),
    MainMemory.name: lambda site: MainMemory(site.files),
    BoardPower.name: lambda site: BoardPower(site.files, site.clock, site.pace),
    Battery.name: _battery,
    GpuLoad.name: lambda site: GpuLoad(site.files),
    NpuLoad.name: lambda site: NpuLoad(site.files),
    MeteredNetwork.name: lambda site: MeteredNetwork(site.files, site.owned.metered),
}


class SensorSuite:
    """Reads every sensor.

    Args:
        root: Below which the files are: "/", or a recorded or played tree.
        profile: Says which zones count and what the board is kept below.
        clock: Monotonic.
        owned: What only the board's owner knows.
        round_trip: Fed by the uplink, as `throughput`.
        busy: Told the time that apps' calls take on accelerators.
        firmware: Asks a Raspberry Pi's firmware; found by itself below "/".
        sensors: The registry.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] = "/",
        profile: Profile | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        owned: Owned | None = None,
        round_trip: RoundTrip | None = None,
        throughput: Throughput | None = None,
        busy: Busy | None = None,
        firmware: Runner | None = None,
        sensors: Mapping[str, Callable[[Site], Sensor]] = SENSORS,
    ) -> None:
        is_real = os.fspath(root) == "/"
        if firmware is None and is_real:
            firmware = vcgencmd()
        site = Site(
            files=Files(root),
            profile=profile,
            firmware=firmware,
            owned=owned or _Nothing(),
            clock=clock,
            pace=Pace(clock),
            is_real=is_real,
        )
        self.round_trip = round_trip if round_trip is not None else RoundTrip(clock)
        self.throughput = throughput if throughput is not None else Throughput(clock)
        self.busy = busy if busy is not None else Busy(clock)
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

    def look(self, info: TcpInfo) -> None:
        """What the kernel says of the connection to the hub."""
        self.round_trip.look(info)
        self.throughput.look(info)

    def read(self) -> Conditions:
        """The conditions now. Takes about a millisecond; 20 when a driver dawdles (half a second the first time)."""
        return conditions(self.survey())

    def survey(self) -> tuple[Sensed, ...]:
        """Each value of the conditions, with where it comes from or why there is none."""
        answers = self._desk.answers(self._wait_s)
        self._wait_s = _WAIT_S
        fed = Fed(
            trips=self.round_trip.read(),
            up=self.throughput.read("up"),
            down=self.throughput.read("down"),
            busy={kind: self.busy.read(kind) for kind in ("gpu", "npu", "edgetpu")},
        )
        return survey(answers, fed, self._profile)
