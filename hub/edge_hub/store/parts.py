"""What more the hub asks of a store, by what it is for; `Store` is all of them together.

As there: every method is a transaction, any number of processes may use one store.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from edge_hub.store.outline import Outline
from edge_hub.store.records import (
    AlertRecord,
    AuditRecord,
    CommandRecord,
    Point,
    Removal,
    Removed,
    RuleRecord,
    TokenRecord,
)
from edge_sdk.mqtt import DeviceId


class Control(Protocol):
    """Labels, cancelled commands, tokens, alert rules, alerts, the audit log."""

    async def outlines(self, devices: Sequence[DeviceId] | None = None) -> tuple[Outline, ...]:
        """All devices, or of these the ones there are, by name."""

    async def set_labels(self, device: DeviceId, labels: dict[str, str]) -> None:
        """Replace a device's labels.

        Raises:
            UnknownDeviceError: The device was neither enrolled nor heard of.
        """

    async def cancel_command(self, command_id: str, *, now: float) -> CommandRecord | None:
        """Call a pending command cancelled; the record as it is now (which may have ended before), None without one."""

    async def batch(self, batch: str) -> tuple[CommandRecord, ...]:
        """The commands that were ordered at once, by device."""

    async def recent_commands(self, *, before: float | None = None, limit: int = 100) -> tuple[CommandRecord, ...]:
        """Of all devices, the newest first; those sent before."""

    async def audit(self, *, before: int | None = None, limit: int = 100) -> tuple[AuditRecord, ...]:
        """The newest first; those with a lower id."""

    async def add_audit(self, record: AuditRecord) -> None:
        """Append to the audit log, which nothing but retention shortens."""

    async def tokens(self) -> tuple[TokenRecord, ...]:
        """All, by name."""

    async def put_token(self, record: TokenRecord) -> None:
        """Keep a token, instead of one of the same name."""

    async def token_used(self, name: str, *, now: float) -> None:
        """A token was used; one that is not there any more stays away."""

    async def delete_token(self, name: str) -> bool:
        """Forget a token; whether there was one."""

    async def rules(self) -> tuple[RuleRecord, ...]:
        """All rules, and what is kept like one (see `RuleRecord`), by name."""

    async def put_rule(self, record: RuleRecord) -> None:
        """Keep a rule, instead of one of the same name."""

    async def delete_rule(self, name: str) -> bool:
        """Forget a rule; whether there was one."""

    async def raise_alert(self, record: AlertRecord) -> AlertRecord:
        """Keep a new alert; of one rule and device only one is open, which is returned unchanged."""

    async def end_alert(self, alert_id: int, *, now: float) -> AlertRecord | None:
        """Close an open alert; None where it was closed already."""

    async def acknowledge_alert(self, alert_id: int, *, who: str, now: float) -> AlertRecord | None:
        """Somebody has seen it; who saw it first stands. None without such an alert."""

    async def alerts(
        self, *, open_only: bool = False, device: DeviceId | None = None, before: int | None = None, limit: int = 100
    ) -> tuple[AlertRecord, ...]:
        """The newest first."""


class History(Protocol):
    """Telemetry over time, condensed; back-up."""

    async def history(self, device: DeviceId, *, since: float, until: float, step_s: float) -> tuple[Point, ...]:
        """At most 2,000 points in ascending order, from whichever of samples, minutes and hours has at least this step.

        Raises:
            UnknownDeviceError: The device was neither enrolled nor heard of.
            UsageError: It would be more points.
        """

    async def roll_up(self, *, now: float) -> int:
        """Condense some of what is in the log and not in the minutes and hours yet.

        Late messages (a spool that was replayed) count in the minutes they belong to.

        Returns:
            How many messages; 0 when all are.
        """

    async def back_up(self, target: Path) -> None:
        """A consistent copy of everything while the hub runs; whole or not at all.

        Raises:
            StorageError: It could not be written.
        """


class Removals(Protocol):
    """Devices that are taken out of the fleet."""

    async def remove(self, devices: Sequence[DeviceId], *, now: float) -> Removed:
        """Take these devices out of the fleet, all or none.

        Their accounts, what is known and what is desired of them are gone at once, pending commands are cancelled and
        open alerts end. What hangs on them can be reached no more, and `sweep` deletes it. For `HELD_OFF_S` what they
        sent before is confirmed and dropped, unless they are enrolled anew; after that, who reports is a new device.

        Raises:
            UnknownDeviceError: One was neither enrolled nor heard of.
        """

    async def removals(self) -> tuple[Removal, ...]:
        """Of the last hours at least, the first first."""

    async def sweep(self, *, now: float) -> int:
        """Delete some of what removed devices left; returns how many rows, 0 when there is nothing more to delete."""

    async def alert_of_removed(self, alert_id: int) -> AlertRecord | None:
        """An alert that ended because its device was removed, for `KEPT_ALERTS_S`."""


class Leases(Protocol):
    """What several hub processes agree on by time: who has which number, who is the scheduler."""

    async def lease(self, kind: str, holder: str, *, slots: int, now: float, ttl_s: float) -> int | None:
        """The lowest free number below `slots`, held until `now + ttl_s`; the same again for the same holder.

        Args:
            kind: `worker`, or `scheduler`, which has one slot.
            holder: Random, of the process.
            slots: How many there are.
            now: By the clock of whoever asks; processes of one hub run on clocks that agree to a second.
            ttl_s: How long without being asked for again.

        Returns:
            None where all are taken.
        """

    async def release(self, kind: str, holder: str) -> None:
        """Let go of it at once."""
