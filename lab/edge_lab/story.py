"""What happened in a play, as data: looks at the device, answers of the app, switches and commands as the hub has them.

The story is told while it grows, so threads append to it and the view reads it: every list only ever gets longer, and
holds values that never change.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from edge_lab.digits_app import Answer
from edge_lab.played import PlayedConditions
from edge_sdk.mqtt import Conditions

_RECENT_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One look.

    Attributes:
        at_s: Since the play began.
        played: What the play made up just then.
        sensed: What the daemon sensed: the played board, and the real round trip over the played network.
        real: What the same sensors say of the machine all this runs on.
        active: The variant the device says answers.
    """

    at_s: float
    act: str
    played: PlayedConditions
    sensed: Conditions
    real: Conditions
    active: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """A switch event as the hub stored it."""

    at_s: float
    old: str | None
    new: str | None
    code: str
    text: str
    took_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSent:
    """A command and its one reply.

    Attributes:
        words: The command for people, such as `prefer speed`.
        status: `done`, `refused` or `expired`; None while there is no reply.
        text: The reply's own words.
        took_s: From sending to the reply.
    """

    at_s: float
    name: str
    words: str
    status: str | None = None
    text: str = ""
    took_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What some answers add up to; latencies in milliseconds, accuracy in percent."""

    answers: int
    failed: int
    accuracy: float | None
    p50_ms: float | None
    p95_ms: float | None

    @classmethod
    def of(cls, answers: Iterable[Answer]) -> Work:
        """Add up."""
        told = list(answers)
        times = sorted(answer.ms for answer in told if answer.ms is not None)
        return cls(
            answers=len(times),
            failed=len(told) - len(times),
            accuracy=100 * sum(answer.right for answer in told) / len(times) if times else None,
            p50_ms=statistics.median(times) if times else None,
            p95_ms=times[min(len(times) - 1, int(0.95 * len(times)))] if times else None,
        )


@dataclass(slots=True, kw_only=True)
class Story:
    """The play so far.

    Attributes:
        began: Wall clock of the play's first moment.
        length_s: How long it is to be.
        acts: When each begins, its short name and its title.
        commands: By the order sent; replaced by its successor when the reply has come.
        hub_devices: Devices the hub has online.
        hub_messages: Numbered messages the hub has stored.
    """

    began: float
    length_s: float
    acts: list[tuple[float, str, str]] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    switches: Sequence[Switch] = ()
    commands: list[CommandSent] = field(default_factory=list)
    hub_devices: int = 0
    hub_messages: int = 0

    def work(self) -> Work:
        """All answers."""
        return Work.of(tuple(self.answers))

    def recent(self) -> Work:
        """The answers of the last seconds that the active variant gave."""
        last = self.answers[-1] if self.answers else None
        if last is None:
            return Work.of(())
        found = []
        for answer in reversed(self.answers):
            if answer.at < last.at - _RECENT_S or answer.variant != last.variant:
                break
            found.append(answer)
        return Work.of(found)

    def active_by_app(self) -> str | None:
        """What gave the app's last answer."""
        return self.answers[-1].variant if self.answers else None

    def active_by_hub(self) -> str | None:
        """What runs, as far as the hub was told."""
        if self.switches:
            return self.switches[-1].new
        return self.active_by_app()

    def by_variant(self) -> dict[str, Work]:
        """The answers of each variant that gave any, the one with the most first."""
        told: dict[str, list[Answer]] = {}
        for answer in tuple(self.answers):
            if answer.variant is not None:
                told.setdefault(answer.variant, []).append(answer)
        return {name: Work.of(told[name]) for name in sorted(told, key=lambda name: -len(told[name]))}
