"""The checks, in the order in which they are told, and what all of them found.

Other packages contribute (`edge_sdk.finding.Contribution`). What cannot be loaded is a finding itself, and takes
nothing else away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from edge_sdk._version import __version__
from edge_sdk.doctor import (
    accelerators,
    board,
    extras,
    processor,
    runtimes,
    sensors,
    services,
    storage,
)
from edge_sdk.doctor.contract import Finding, Look, Place, State
from edge_sdk.finding import GROUP, Contribution
from edge_sdk.machine import machine_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A check and its name, which is stable for scripts."""

    name: str
    look: Look


CHECKS: tuple[Check, ...] = (
    Check(name="board", look=board.look),
    Check(name="processor", look=processor.look),
    Check(name="runtimes", look=runtimes.look),
    Check(name="accelerators", look=accelerators.look),
    Check(name="memory", look=storage.look),
    Check(name="sensors", look=sensors.look),
    Check(name="extras", look=extras.look),
    Check(name="services", look=services.look),
)


def all_checks() -> tuple[Check, ...]:
    """Ours, and after the sensors' those that other packages contribute."""
    at = next(number for number, check in enumerate(CHECKS, 1) if check.name == "sensors")
    points = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    others = tuple(check for point in points for check in _contributed(point))
    return (*CHECKS[:at], *others, *CHECKS[at:])


def _contributed(point: EntryPoint) -> tuple[Check, ...]:
    try:
        contributions = tuple(point.load())
    except Exception as error:  # noqa: BLE001 - whatever somebody's module raises
        return (_broken(point, f"{type(error).__name__}: {error}"),)
    if not all(isinstance(one, Contribution) for one in contributions):
        return (_broken(point, "they are of another kind"),)
    return tuple(Check(name=one.name, look=_looking(one)) for one in contributions)


def _looking(one: Contribution) -> Look:
    return lambda place: one.look(place.root, place.machine)


def _broken(point: EntryPoint, why: str) -> Check:
    reason = f"the checks of {point.value!r} are left out: {why}"
    finding = Finding(what=point.name, state=State.BROKEN, reason=reason)
    return Check(name=point.name, look=lambda _place: [finding])


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What one check found."""

    name: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of `edge doctor --json`.

    Attributes:
        works: A model can be run here.
    """

    version: str
    machine: str
    works: bool
    sections: tuple[Section, ...]

    def counted(self, state: State) -> int:
        """How many findings are in this state."""
        return sum(one.state is state for section in self.sections for one in section.findings)


def examine(place: Place, *, checks: Sequence[Check] = CHECKS, told: Callable[[str], None] = lambda _: None) -> Report:
    """Look at everything.

    Args:
        place: Where.
        checks: Which.
        told: Told the name of each check before it begins.
    """
    sections = []
    for check in checks:
        told(check.name)
        sections.append(Section(name=check.name, findings=tuple(check.look(place))))
    vital = [one.state is State.OK for section in sections for one in section.findings if one.is_vital]
    return Report(
        version=__version__,
        machine=machine_name(place.root),
        works=any(vital),
        sections=tuple(sections),
    )
