"""How hot the board is.

Thermal zones are found by `type`, never by index: the same Jetson numbers them differently under two kernels, and a
driver that reloads renumbers them while we watch. Which types count says the profile; without one (or where none of
its zones exists) those that look like a processor; then processor chips of hwmon; then any zone but the ones known
to lie. A zone that is empty, unreadable or implausible is left out; the hottest of the others counts.

A place whose value stands still while the load does not is left out, too (`edge_daemon.sensors.stuck`); what cannot be
told so is believed. The throttle signal, which comes from elsewhere, is the second line of defence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edge_daemon.sensors.files import Files
from edge_daemon.sensors.reading import Heat, Unavailable
from edge_daemon.sensors.stuck import Pace, Watch

_ZONES = "sys/class/thermal"
_CHIPS = "sys/class/hwmon"
# PMIC-Die is a constant, thermal-fan-est an average for the fan (Jetson; read in jetson_stats and L4T device trees).
_IGNORED = frozenset({"pmic-die", "thermal-fan-est"})
_PROCESSOR = re.compile(r"cpu|soc|core|gpu|x86-pkg|\Atj|package")
_CHIP_NAMES = frozenset({"coretemp", "k10temp", "zenpower", "cpu-thermal"})
_INPUT = re.compile(r"\Atemp\d{1,3}_input\Z")
_TRIP = re.compile(r"\Atrip_point_\d{1,3}_type\Z")
_RESCAN_READS = 30

# Below and above, a sensor is broken or switched off: -127 and -256 degrees are what unpowered sensors say.
_LOW_MC, _HIGH_MC = -40_000, 150_000
# Trip points below are placeholders: x86 packages come with 0.
_TRIP_LOW_MC = 40_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A file with a temperature; `type_path` says `kind` as long as it is still the same sensor."""

    path: str
    type_path: str
    kind: str
    passive_c: float | None = None
    critical_c: float | None = None


class Temperature:
    """The hottest zone that counts.

    Args:
        files: Where to look.
        zones: Types of zones that count, as the profile spells them; `-`, `_` and case do not matter.
        pace: The load against which a value that stands still is held; None believes everything.
    """

    name = "temperature"

    def __init__(self, files: Files, zones: tuple[str, ...] = (), pace: Pace | None = None) -> None:
        self._files = files
        self._pace = pace
        self._watches: dict[tuple[str, str], Watch] = {}
        self._wanted = frozenset(_plain(zone) for zone in zones)
        self._places: tuple[_Place, ...] = ()
        self._reads_left = 0

    def read(self) -> Heat | Unavailable:
        """The hottest place now."""
        self._reads_left -= 1
        if self._reads_left < 0 or any(self._files.text(place.type_path) != place.kind for place in self._places):
            self._places = self._scan()
            self._reads_left = _RESCAN_READS
        seen: list[tuple[float, _Place]] = []
        stuck: list[tuple[str, str]] = []
        why: Unavailable | None = None
        for place in self._places:
            milli = self._files.number(place.path, low=_LOW_MC, high=_HIGH_MC)
            if isinstance(milli, Unavailable):
                why = why or milli
            elif doubt := self._doubt(place, milli / 1000):
                stuck.append((place.kind, doubt))
            else:
                seen.append((milli / 1000, place))
        if not seen:
            self._reads_left = 0  # look again next time
            if stuck:
                return Unavailable(" is ".join(stuck[0]))
            return why or Unavailable("no thermal zone and no processor chip to read")
        temp_c, hottest = max(seen, key=lambda item: item[0])
        passive = [place.passive_c for _, place in seen if place.passive_c is not None]
        return Heat(
            temp_c=temp_c,
            where=hottest.kind,
            to_passive_c=min((p.passive_c - t for t, p in seen if p.passive_c is not None), default=None),
            to_critical_c=min((p.critical_c - t for t, p in seen if p.critical_c is not None), default=None),
            passive_c=min(passive, default=None),
            stuck=tuple(stuck),
            source=hottest.path,
        )

    def _doubt(self, place: _Place, temp_c: float) -> str | None:
        if self._pace is None:
            return None
        key = place.kind, place.path
        watch = self._watches.get(key)
        if watch is None:
            watch = self._watches[key] = Watch(self._pace, zero_is_odd=True)
        return watch.doubt(temp_c)

    def _scan(self) -> tuple[_Place, ...]:
        places = self._look()
        there = {(place.kind, place.path) for place in places}
        self._watches = {key: watch for key, watch in self._watches.items() if key in there}
        return places

    def _look(self) -> tuple[_Place, ...]:
        zones = [(zone, kind) for zone, kind in self._zones() if _plain(kind) not in _IGNORED]
        for counts in (self._wanted.__contains__, _PROCESSOR.search):
            chosen = [(zone, kind) for zone, kind in zones if counts(_plain(kind))]
            if any(self._readable(zone) for zone, _ in chosen):
                return tuple(self._place(zone, kind) for zone, kind in chosen)
        return self._chips() or tuple(self._place(zone, kind) for zone, kind in zones)

    def _zones(self) -> list[tuple[str, str]]:
        found = []
        for name in self._files.names(_ZONES):
            if name.startswith("thermal_zone"):
                kind = self._files.text(f"{_ZONES}/{name}/type")
                if not isinstance(kind, Unavailable):
                    found.append((f"{_ZONES}/{name}", kind))
        return found

    def _readable(self, zone: str) -> bool:
        return not isinstance(self._files.number(f"{zone}/temp", low=_LOW_MC, high=_HIGH_MC), Unavailable)

    def _place(self, zone: str, kind: str) -> _Place:
        trips: dict[str, float] = {}
        for name in self._files.names(zone):
            if _TRIP.match(name):
                trip = self._files.text(f"{zone}/{name}")
                at = self._files.number(f"{zone}/{name[:-4]}temp", low=_TRIP_LOW_MC, high=_HIGH_MC)
                if isinstance(trip, str) and isinstance(at, float):
                    trips[trip] = min(at / 1000, trips.get(trip, _HIGH_MC / 1000))
        return _Place(
            path=f"{zone}/temp",
            type_path=f"{zone}/type",
            kind=kind,
            passive_c=trips.get("passive"),
            critical_c=trips.get("critical"),
        )

    def _chips(self) -> tuple[_Place, ...]:
        found = []
        for chip in self._files.names(_CHIPS):
            folder = f"{_CHIPS}/{chip}"
            kind = self._files.text(f"{folder}/name")
            if isinstance(kind, str) and _plain(kind) in _CHIP_NAMES:
                for name in self._files.names(folder):
                    if _INPUT.match(name):
                        crit = self._files.number(f"{folder}/{name[:-5]}crit", low=_TRIP_LOW_MC, high=_HIGH_MC)
                        critical_c = None if isinstance(crit, Unavailable) else crit / 1000
                        place = _Place(
                            path=f"{folder}/{name}", type_path=f"{folder}/name", kind=kind, critical_c=critical_c
                        )
                        found.append(place)
        return tuple(found)


def _plain(kind: str) -> str:
    return kind.lower().replace("_", "-")
