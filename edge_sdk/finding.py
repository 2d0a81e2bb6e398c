"""What a check of `edge doctor` found, and how other packages contribute checks.

A package names, under the entry-point group `edge.checks`, a tuple of `Contribution`. This module is light, so that
whoever contributes need not import what the doctor looks with.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

GROUP = "edge.checks"


class State(enum.Enum):
    """How a thing stands."""

    OK = "ok"
    MISSING = "missing"  # absent, which is no fault of a board that does without
    WARNING = "warning"  # it works, but not as well as it could
    BROKEN = "broken"  # it is there and does not work


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: Its name, stable for scripts.
        reason: What was found, one clause; of what is not OK, why.
        command: What mends it, to be pasted into a shell; empty where no command does.
        hint: What mends it, in words.
        is_vital: Nothing can run a model unless this is OK.
    """

    what: str
    state: State
    reason: str
    command: str = ""
    hint: str = ""
    is_vital: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """One section of `edge doctor`.

    Attributes:
        name: Stable for scripts.
        look: Looks below a root ("/" but in tests) at a machine of that architecture, and tells what it found in the
            order in which a reader wants to know it. It raises nothing: what cannot be looked at is a finding, too.
    """

    name: str
    look: Callable[[Path, str], Iterable[Finding]]
