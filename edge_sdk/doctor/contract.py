"""What a check is asked, and what it tells."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from edge_sdk import finding
from edge_sdk.delegates.contract import DelegateRequest
from edge_sdk.delegates.findings import Findings
from edge_sdk.runtime import Unavailable

_MOST_BYTES = 1 << 20
_COMMAND = re.compile(r"(?:sudo|apt-get|pip|edge|reinstall) [^,;()]*[^,;()\s]")


State = finding.State
Finding = finding.Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where to look, and how far.

    Attributes:
        root: Below which `/sys`, `/proc`, `/dev` and the libraries lie; another than `/` in tests.
        machine: The processor's architecture, as `platform.machine()` spells it.
        requests: Delegates to look for beside those that are known.
        model: Delegates are tried on this file or bundle, and so is the CPU.
        is_deep: Delegates are tried, also without a model.
        findings: What was found out about delegates before.
    """

    root: Path = Path("/")
    machine: str = field(default_factory=platform.machine)
    requests: tuple[DelegateRequest, ...] = ()
    model: Path | None = None
    is_deep: bool = False
    findings: Findings = field(default_factory=lambda: Findings(None))

    def text(self, name: str) -> str:
        """The content of a file below the root; empty where it cannot be read."""
        try:
            with (self.root / name).open("rb") as file:
                return file.read(_MOST_BYTES).decode("utf-8", "replace").strip().strip("\0")
        except OSError:
            return ""

    def number(self, name: str) -> int | None:
        """The whole number in a file below the root."""
        try:
            return int(self.text(name))
        except ValueError:
            return None


class Look(Protocol):
    """One check. It raises nothing: what cannot be looked at is a finding, too."""

    def __call__(self, place: Place) -> Iterable[Finding]:
        """What was found, in the order in which a reader wants to know it."""


def absent(found: Unavailable, *, state: State = State.MISSING) -> Finding:
    """The finding for what cannot be used here."""
    command, hint = parted(found.hint)
    return Finding(what=found.name, state=state, reason=found.reason, command=command, hint=hint)


def parted(hint: str) -> tuple[str, str]:
    """The command in a hint, and what else is to be known or done; without a command, the whole hint."""
    told = _COMMAND.search(hint)
    if told is None:
        return "", hint
    command = told[0].removesuffix(" mends it")
    command = re.sub(r"\Aapt-get ", "sudo apt-get ", re.sub(r"\Areinstall ", "pip install --force-reinstall ", command))
    return command, hint[told.end() :].strip(" ,;()")
