"""How full the batteries are, what they hold, and whether the mains carries the board.

The kernel's power_supply class (micro-volts, -amperes, -watt-hours; Documentation/ABI/testing/sysfs-class-power).
Several batteries count as one, weighted by the energy they hold when full. What belongs to a mouse, a pen or a tablet
(`scope` = Device: its battery and its charger) and batteries that are not there are left out. Where the kernel knows no
battery, other gauges are asked: PiSugar's server, chips on I2C.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from edge_daemon.sensors.files import Files
from edge_daemon.sensors.reading import Charge, Unavailable

_SUPPLIES = "sys/class/power_supply"
_STORES = ("Battery", "UPS")
_FULL = 100.0
_UWH_PER_WH = 1e6
# A gauge counts whole percents: 1 % of 100 Wh, drawn by half a watt, lasts two hours.
STUCK_S = 6 * 3600.0


class Gauge(Protocol):
    """Knows how full a battery is that the kernel does not know of."""

    def read(self) -> Charge | Unavailable:
        """Charge and mains now."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Battery:
    percent: float
    full_uwh: float | None
    status: str
    folder: str


class Battery:
    """All batteries of the board, and its mains.

    Args:
        files: Where to look.
        gauges: Asked in this order where the kernel knows of no battery.
        full_wh: What the battery holds when full, where no gauge tells; as its owner says.
        clock: Monotonic.
    """

    name = "battery"

    def __init__(
        self,
        files: Files,
        gauges: Sequence[Gauge] = (),
        *,
        full_wh: float | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._files = files
        self._gauges = tuple(gauges)
        self._full_wh = full_wh
        self._clock = clock
        self._still: tuple[float, float] | None = None

    def read(self) -> Charge | Unavailable:
        """Charge and mains now."""
        charge = self._kernels()
        if not isinstance(charge, Charge) or charge.percent is None:
            told = (gauge.read() for gauge in self._gauges)
            other = next((one for one in told if isinstance(one, Charge)), None)
            if other is not None:
                mains = charge.charging if isinstance(charge, Charge) else None
                charge = other if other.charging is not None else replace(other, charging=mains)
        if not isinstance(charge, Charge) or charge.percent is None:
            self._still = None
            return charge
        if stuck := self._stuck(charge.percent, charge.charging):
            return stuck
        return charge if charge.full_wh is not None else replace(charge, full_wh=self._full_wh)

    def _stuck(self, percent: float, charging: bool | None) -> Unavailable | None:
        """A battery that gives for hours and stays as full as it is has a gauge that is stuck."""
        if self._clock is None or charging is not False:
            self._still = None
            return None
        now_s = self._clock()
        if self._still is None or self._still[0] != percent:
            self._still = percent, now_s
        stood_s = now_s - self._still[1]
        if stood_s < STUCK_S:
            return None
        return Unavailable(f"stuck at {percent:g} % for {stood_s / 3600:.0f} h, without mains")

    def _kernels(self) -> Charge | Unavailable:
        batteries: list[_Battery] = []
        mains: list[bool] = []
        why: Unavailable | None = None
        for name in self._files.names(_SUPPLIES):
            folder = f"{_SUPPLIES}/{name}"
            if self._files.text(f"{folder}/scope") == "Device":
                continue
            if self._files.text(f"{folder}/type") in _STORES:
                found = self._battery(folder)
                if isinstance(found, _Battery):
                    batteries.append(found)
                elif found is not None:
                    why = why or found
            else:  # Mains, USB, USB_PD, Wireless; PiSugar's module has no type
                online = self._files.number(f"{folder}/online", low=0, high=2)
                if not isinstance(online, Unavailable):
                    mains.append(online > 0)
        if not batteries:
            if mains and why is None:
                return Charge(percent=None, charging=any(mains), source=_SUPPLIES)
            return why or Unavailable(f"no battery in {_SUPPLIES}")
        full = [battery.full_uwh for battery in batteries]
        known = [uwh for uwh in full if uwh is not None]
        return Charge(
            percent=_together(batteries),
            charging=_charging([b.status for b in batteries], mains),
            full_wh=sum(known) / _UWH_PER_WH if len(known) == len(full) else None,
            source=", ".join(battery.folder for battery in batteries),
        )

    def _battery(self, folder: str) -> _Battery | Unavailable | None:
        """One battery; None when its bay is empty."""
        if self._files.text(f"{folder}/present") == "0":
            return None
        status = self._files.text(f"{folder}/status")
        full_uwh = self._full_uwh(folder)
        percent = self._files.number(f"{folder}/capacity", low=0, high=_FULL)
        if isinstance(percent, Unavailable):
            for kind in ("energy", "charge"):
                now = self._files.number(f"{folder}/{kind}_now", low=0)
                full = self._files.number(f"{folder}/{kind}_full", low=1)
                if isinstance(now, float) and isinstance(full, float):
                    percent = min(now / full * _FULL, _FULL)
                    break
        if isinstance(percent, Unavailable):
            return percent
        return _Battery(
            percent=percent,
            full_uwh=full_uwh,
            status=status if isinstance(status, str) else "Unknown",
            folder=folder,
        )

    def _full_uwh(self, folder: str) -> float | None:
        energy = self._files.number(f"{folder}/energy_full", low=1)
        if isinstance(energy, float):
            return energy
        charge = self._files.number(f"{folder}/charge_full", low=1)
        for name in ("voltage_min_design", "voltage_now"):
            volts = self._files.number(f"{folder}/{name}", low=1)
            if isinstance(charge, float) and isinstance(volts, float):
                return charge * volts / 1e6
        return None


def _together(batteries: list[_Battery]) -> float:
    weights = [battery.full_uwh for battery in batteries]
    known = [weight for weight in weights if weight is not None]
    typical = sum(known) / len(known) if known else 1.0
    shares = [typical if weight is None else weight for weight in weights]
    return sum(b.percent * share for b, share in zip(batteries, shares, strict=True)) / sum(shares)


def _charging(statuses: list[str], mains: list[bool]) -> bool | None:
    """Whether the mains carries the board.

    A battery that drains although a weak supply is there is not charging. One that is full says so for a while after
    the plug was pulled, so there the mains is asked first.
    """
    if "Discharging" in statuses:
        return "Charging" in statuses and any(mains)
    if "Charging" in statuses:
        return True
    return any(mains) if mains else (True if "Full" in statuses else None)


def outflow_w(files: Files) -> float | None:
    """What flows out of the batteries in watts, negative while they are charged; None where one does not tell.

    Drivers differ in the sign they give a current, so the status has to say which way it goes.
    """
    total: float | None = None
    for name in files.names(_SUPPLIES):
        folder = f"{_SUPPLIES}/{name}"
        if files.text(f"{folder}/type") not in _STORES or files.text(f"{folder}/scope") == "Device":
            continue
        sign = {"Discharging": 1.0, "Charging": -1.0}.get(str(files.text(f"{folder}/status")), 0.0)
        micro_watts = files.number(f"{folder}/power_now")
        if isinstance(micro_watts, Unavailable):
            amperes, volts = files.number(f"{folder}/current_now"), files.number(f"{folder}/voltage_now", low=0)
            if isinstance(amperes, Unavailable) or isinstance(volts, Unavailable):
                return None
            micro_watts = amperes * volts / 1e6
        total = (total or 0.0) + sign * abs(micro_watts) / 1e6
    return total
