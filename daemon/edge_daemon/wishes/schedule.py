"""Schedules: what is wanted at some times and in some places, as data of the site.

A schedule applies while its `when` and its `where` do; one that has neither always does. What it names replaces what
somebody's word asks for; of several that apply, each is laid over those before it in the file. An interval that ends
earlier than it begins goes over midnight and belongs to the day on which it begins. Clock readings are local, so an
interval is as long as the clock says: where summer time begins, one at night is an hour shorter; a time of day that is
skipped or comes twice applies never or twice.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable
from dataclasses import dataclass
from datetime import datetime, time, timedelta, tzinfo
from typing import Annotated, Final, Literal

from msgspec import Meta, field, structs

from edge_sdk.preference import Limit, Mode, Moment, PowerLimit, Preference
from edge_sdk.until import CLOCK_SET_SINCE, check, clock
from edge_sdk.wire import Celsius, Name, Percent, Wire

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: Final[tuple[Day, ...]] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
TimeOfDay = Annotated[str, Meta(pattern=r"\A([01][0-9]|2[0-3]):[0-5][0-9]\Z")]
Latitude = Annotated[float, Meta(ge=-90, le=90)]
Longitude = Annotated[float, Meta(ge=-180, le=180)]
# A board that was inside stays inside up to here: a fix wanders by some metres, by tens between houses.
_LEAVE: Final = 1.1
_LEAVE_M: Final = 25.0
_EARTH_M: Final = 6_371_008.8  # mean radius, IUGG 1980; the earth's flattening moves a distance by at most 0.6 %


class When(Wire, frozen=True, kw_only=True):
    """`when`: between two readings of the local clock, on some days; `from` and `to` go together.

    Attributes:
        begin: The first minute in it.
        end: The first minute after it; the same as `begin` is a whole day.
        days: On which it begins; none named are all.
    """

    begin: TimeOfDay | None = field(default=None, name="from")
    end: TimeOfDay | None = field(default=None, name="to")
    days: Annotated[tuple[Day, ...], Meta(max_length=7)] = ()

    def __post_init__(self) -> None:
        if (self.begin is None) != (self.end is None):
            raise ValueError("'from' and 'to' go together")

    def holds(self, now: datetime) -> bool:
        """Whether a reading of the local clock lies in it."""
        begin = time.min if self.begin is None else clock(self.begin)
        end = time.min if self.end is None else clock(self.end)
        reading, day = now.time(), now.date()
        if begin < end:
            inside = begin <= reading < end
        elif reading >= begin:
            inside = True
        else:
            inside, day = reading < end, day - timedelta(days=1)
        return inside and (not self.days or DAYS[day.weekday()] in self.days)


class Where(Wire, frozen=True, kw_only=True):
    """`where`: within a distance of a point. It applies nowhere while no position is known."""

    lat: Latitude
    lon: Longitude
    radius_m: Annotated[float, Meta(gt=0, le=20_037_508)]

    def holds(self, position: Position, *, was: bool) -> bool:
        """Whether a position lies in it.

        Args:
            position: The board's.
            was: It lay in it when last looked at: then it must be clearly outside to have left.
        """
        most_m = self.radius_m * _LEAVE + _LEAVE_M if was else self.radius_m
        return distance_m(position, Position(lat=self.lat, lon=self.lon)) <= most_m


class Override(Wire, frozen=True, kw_only=True):
    """`preference` of a schedule: what it names counts instead, what it leaves out stays as it is."""

    mode: Mode | None = None
    max_latency_ms: Limit | None = None
    deadline_ms: Limit | None = None
    min_accuracy: Percent | None = None
    max_temp_c: Celsius | None = None
    battery_until: Moment | None = None
    max_power_w: PowerLimit | None = None

    def __post_init__(self) -> None:
        if self.battery_until is not None:
            check(self.battery_until)

    def over(self, preference: Preference) -> Preference:
        """`preference` with what this names."""
        named = {name: value for name, value in structs.asdict(self).items() if value is not None}
        if "battery_until" in named:
            named["battery_for_s"] = None
        return structs.replace(preference, **named)


class Schedule(Wire, frozen=True, kw_only=True):
    """One `[[schedule]]`.

    Attributes:
        name: For explanations.
        models: Those it is about; none named are all.
        strict: Nobody's word sets it aside.
    """

    name: Name
    preference: Override
    when: When = When()
    where: Where | None = None
    models: Annotated[tuple[Name, ...], Meta(max_length=100)] = ()
    strict: bool = False


class Position(Wire, frozen=True, kw_only=True):
    """Where the board is, in degrees of WGS 84."""

    lat: Latitude
    lon: Longitude


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """In what light wishes are looked at.

    Attributes:
        at: The wall clock.
        zone: Of its readings; None is the machine's.
        schedules: As the configuration orders them.
        inside: The names of those in whose place the board is, see `entered`.
    """

    at: float
    zone: tzinfo | None = None
    schedules: tuple[Schedule, ...] = ()
    inside: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Effective:
    """A preference, and which schedules made it what it is."""

    preference: Preference
    schedules: tuple[str, ...] = ()


def applying(scene: Scene, model: str) -> tuple[Schedule, ...]:
    """The schedules about a model that apply now; none by the clock while that is not set."""
    if not scene.schedules:
        return ()
    now = datetime.fromtimestamp(scene.at, scene.zone) if scene.at >= CLOCK_SET_SINCE else None
    return tuple(
        each
        for each in scene.schedules
        if (not each.models or model in each.models)
        and (each.when == When() or (now is not None and each.when.holds(now)))
        and (each.where is None or each.name in scene.inside)
    )


def entered(schedules: Iterable[Schedule], position: Position | None, inside: Container[str]) -> frozenset[str]:
    """The names of the schedules in whose place the board is.

    Args:
        schedules: All.
        position: None while it is not known: then it is nowhere.
        inside: What this was when last looked at.
    """
    if position is None:
        return frozenset()
    return frozenset(
        each.name
        for each in schedules
        if each.where is not None and each.where.holds(position, was=each.name in inside)
    )


def effective(preference: Preference, schedules: Iterable[Schedule], aside: Container[str] = ()) -> Effective:
    """What a preference becomes under schedules that apply.

    Args:
        preference: Somebody's word.
        schedules: Those that apply, as the configuration orders them.
        aside: Names of those that the word has set aside; strict ones apply all the same.
    """
    names = []
    for each in schedules:
        if each.strict or each.name not in aside:
            preference = each.preference.over(preference)
            names.append(each.name)
    return Effective(preference=preference, schedules=tuple(names))


def distance_m(one: Position, other: Position) -> float:
    """Along the surface, by the haversine formula (Sinnott 1984), which is sound for points that are close."""
    lat1, lat2 = math.radians(one.lat), math.radians(other.lat)
    turn = math.radians(other.lon - one.lon)
    half = math.sin((lat2 - lat1) / 2) ** 2 + math.cos(lat1) * math.cos(lat2) * math.sin(turn / 2) ** 2
    return 2 * _EARTH_M * math.asin(min(1.0, math.sqrt(half)))
