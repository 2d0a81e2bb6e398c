"""What can go wrong in the lab."""

from __future__ import annotations

import signal
from typing import ClassVar

from edge_sdk.errors import EXIT_USAGE, EdgeError


class LabError(EdgeError):
    """A demonstration or trial could not go on."""

    code = "lab"


class PartDiedError(LabError):
    """A process of the demonstration ended by itself, or did not come up in time."""

    code = "lab-part-died"


class OutDirectoryBusyError(LabError):
    """Another demonstration writes to the same directory."""

    code = "lab-out-busy"


class ScenarioError(LabError):
    """A scenario or a trace cannot be played."""

    code = "lab-scenario"
    exit_status = EXIT_USAGE


class PolicyFailedError(LabError):
    """A policy raised an error while it was tried, or answered what makes no sense."""

    code = "lab-policy-failed"


class FleetError(LabError):
    """A played fleet does not get through to its hub, or not everything it sent was confirmed."""

    code = "lab-fleet"


class InterruptedRunError(LabError):
    """The user or the system asked the run to end; everything is taken down before this reaches anyone.

    Args:
        number: The signal that asked.
    """

    code: ClassVar[str] = "interrupted"

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number
