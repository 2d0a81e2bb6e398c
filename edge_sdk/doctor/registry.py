"""The checks, in the order in which they are told, and what all of them found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
