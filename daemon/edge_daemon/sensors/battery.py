"""How full the batteries are, and whether the mains carries the board.

The kernel's power_supply class (micro-volts, -amperes, -watt-hours; Documentation/ABI/testing/sysfs-class-power).
Several batteries count as one, weighted by the energy they hold when full. What belongs to a mouse, a pen or a tablet
(`scope` = Device: its battery and its charger) and batteries that are not there are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_daemon.sensors.files import Files
from edge_daemon.sensors.reading import Charge, Unavailable

_SUPPLIES = "sys/class/power_supply"
_STORES = ("Battery", "UPS")
_FULL = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Battery:
    percent: float
    full_uwh: float | None
    status: str


class Battery:
    """All batteries of the board, and its mains."""

    name = "battery"

    def __init__(self, files: Files) -> None:
        self._files = files

    def read(self) -> Charge | Unavailable:
        """Charge and mains now."""
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
                return Charge(percent=None, charging=any(mains))
            return why or Unavailable(f"no battery in {_SUPPLIES}")
        return Charge(percent=_together(batteries), charging=_charging([b.status for b in batteries], mains))

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
        return _Battery(percent=percent, full_uwh=full_uwh, status=status if isinstance(status, str) else "Unknown")

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
