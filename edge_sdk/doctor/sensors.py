"""Which sensors the board offers: temperature, throttling, clock, power and battery.

What the daemon makes of them is its own business (`docs/reference/sensors.md`); here it is only said what is there.
"""

from __future__ import annotations

from collections.abc import Iterator

from edge_sdk import energy
from edge_sdk.doctor.contract import Finding, Place, State, absent
from edge_sdk.runtime import Unavailable

_RPI = "sys/devices/platform/soc/soc:firmware/get_throttled"
# raspberrypi/linux#2367: the bits that hold now; those from 16 up have held since the start.
_BITS = {0: "too little voltage", 1: "the clock is capped", 2: "throttled", 3: "the soft limit of heat is reached"}
_HOT_C = 80.0  # where the first of our boards begins to throttle (Raspberry Pi, its documentation)
_PLAUSIBLE_C = range(-40, 151)


def look(place: Place) -> Iterator[Finding]:
    """See `Look`."""
    yield _temperature(place)
    yield _throttling(place)
    yield _governor(place)
    power = list(energy.found(place.root))
    for each in power:
        if isinstance(each, Unavailable):
            yield absent(each)
        else:
            yield Finding(what="power", state=State.OK, reason=f"{each.name}, which sees: {each.scope}")
    if not power:
        yield absent(energy.NOTHING)


def _temperature(place: Place) -> Finding:
    zones = {}
    for folder in sorted(place.root.glob("sys/class/thermal/thermal_zone*")):
        name = folder.relative_to(place.root).as_posix()
        millis = place.number(f"{name}/temp")
        if millis is not None and round(millis / 1e3) in _PLAUSIBLE_C:
            zones[place.text(f"{name}/type") or folder.name] = millis / 1e3
    for folder in sorted(place.root.glob("sys/class/apex/apex_*")):
        millis = place.number(f"{folder.relative_to(place.root).as_posix()}/temp")
        if millis is not None:
            zones[folder.name] = millis / 1e3
    if not zones:
        return Finding(
            what="temperature",
            state=State.MISSING,
            reason="no thermal zone can be read, so heat steers nothing here",
        )
    told = ", ".join(f"{name} {temp_c:.0f} C" for name, temp_c in zones.items())
    is_hot = max(zones.values()) >= _HOT_C
    hint = "cool it: at such heat boards throttle" if is_hot else ""
    return Finding(what="temperature", state=State.WARNING if is_hot else State.OK, reason=told, hint=hint)


def _throttling(place: Place) -> Finding:
    what = "throttling"
    told = place.text(_RPI)
    if told:
        try:
            bits = int(told, 16)
        except ValueError:
            return Finding(what=what, state=State.WARNING, reason=f"the firmware says {told[:40]!r}")
        now = [text for bit, text in _BITS.items() if bits >> bit & 1]
        before = [text for bit, text in _BITS.items() if bits >> bit + 16 & 1]
        if now or before:
            since = f"; since the start: {', '.join(before)}" if before else ""
            voltage = "take a stronger supply and a short cable" if bits & 0x10001 else "cool it"
            reason = f"{', '.join(now) or 'not now'}{since}"
            return Finding(what=what, state=State.WARNING, reason=reason, hint=voltage)
        return Finding(what=what, state=State.OK, reason="the firmware tells it: never since the start")
    if any(place.root.glob("sys/class/thermal/cooling_device*/cur_state")):
        return Finding(what=what, state=State.OK, reason="told by the kernel's cooling devices")
    if any(place.root.glob("sys/devices/system/cpu/cpu*/cpufreq/scaling_cur_freq")):
        return Finding(what=what, state=State.OK, reason="seen by the clock alone")
    return Finding(what=what, state=State.MISSING, reason="nothing tells it")


def _governor(place: Place) -> Finding:
    what = "clock"
    governor = place.text("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    most = place.number("sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")
    if not governor and most is None:
        return Finding(what=what, state=State.MISSING, reason="the kernel does not tell it")
    reason = (f"up to {most / 1e3:.0f} MHz" if most else "of unknown limit") + (
        f", governor {governor}" if governor else ""
    )
    if governor == "powersave" and "intel_pstate" not in place.text(
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_driver"
    ):
        return Finding(
            what=what,
            state=State.WARNING,
            reason=f"{reason}: the processor stays at its lowest clock",
            command="echo schedutil | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
        )
    return Finding(what=what, state=State.OK, reason=reason)
