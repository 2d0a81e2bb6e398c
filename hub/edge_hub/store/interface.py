"""What the hub asks of a store.

Every method is a transaction: it returns when its effect is durable, or raises and has changed nothing. Any number of
hub processes may use one store; what they must agree on (the number of a message, the final state of a command, the
version of a desired document) is decided in the store and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from edge_hub.store.parts import Control, History, Leases, Removals
from edge_hub.store.records import (
    Arrival,
    CommandRecord,
    Committed,
    DesiredRecord,
    DeviceRecord,
    EventRecord,
    Malformed,
    QuarantinedRecord,
    Retention,
    Totals,
)
from edge_sdk.mqtt import DeviceId
from edge_sdk.preference import Preference


class Store(Control, History, Leases, Removals, Protocol):
    """Durable state of a hub. All methods raise `StoreError` where the database refuses."""

    async def close(self) -> None:
        """Finish what is under way and let go of the database."""

    async def commit(self, batch: Sequence[Arrival | Malformed]) -> Committed:
        """Store messages in the order given, each (device, boot, seq) once."""

    async def devices(self) -> tuple[DeviceRecord, ...]:
        """All devices enrolled or heard of, by name."""

    async def device(self, device: DeviceId) -> DeviceRecord | None:
        """One device."""

    async def enrol(self, device: DeviceId, password_hash: str, *, now: float, again: bool) -> None:
        """Keep a device's credentials.

        Raises:
            EnrolledError: It has some, and `again` is false.
        """

    async def enrol_all(self, passwords: Mapping[DeviceId, str], *, now: float, again: bool) -> None:
        """Keep the credentials of devices, all or none.

        Args:
            passwords: Their hashes.
            now: When.
            again: Also where there are some.

        Raises:
            EnrolledError: Names the first that has some, and `again` is false.
        """

    async def accounts(self) -> dict[str, str]:
        """Password hash by `tenant/device`, of all enrolled devices."""

    async def events(
        self, *, device: DeviceId | None = None, after: int | None = None, before: int | None = None, limit: int = 100
    ) -> tuple[EventRecord, ...]:
        """Events in ascending order of id: the first ones after `after`, else the last ones (before `before`)."""

    async def add_commands(self, commands: Sequence[CommandRecord]) -> None:
        """Keep pending commands, all or none.

        Raises:
            UnknownDeviceError: A device was neither enrolled nor heard of.
        """

    async def command(self, command_id: str) -> CommandRecord | None:
        """One command."""

    async def commands(self, device: DeviceId, *, limit: int = 20) -> tuple[CommandRecord, ...]:
        """A device's last commands, the newest first."""

    async def pending(self, *, device: DeviceId | None = None, unsent: bool = False) -> tuple[CommandRecord, ...]:
        """Commands without a final state, the oldest first; of one device, or only those never published."""

    async def published(self, *command_ids: str) -> None:
        """Commands were sent once more."""

    async def expire_commands(self, *, now: float, grace_s: float) -> tuple[CommandRecord, ...]:
        """Call pending commands expired whose time ended `grace_s` ago; returns them."""

    async def put_desired(
        self,
        device: DeviceId,
        *,
        preferences: dict[str, Preference],
        pins: dict[str, str | None],
        expected_version: int | None,
        now: float,
    ) -> DesiredRecord:
        """Replace the desired document; its version becomes one more than the last.

        Raises:
            UnknownDeviceError: The device was neither enrolled nor heard of.
            VersionConflictError: The present version is not `expected_version`.
        """

    async def desired(self, device: DeviceId) -> DesiredRecord | None:
        """A device's desired document."""

    async def all_desired(self) -> tuple[DesiredRecord, ...]:
        """Every desired document."""

    async def quarantined(self, *, limit: int = 100) -> tuple[QuarantinedRecord, ...]:
        """The last refused messages, the newest first."""

    async def totals(self) -> Totals:
        """Counts."""

    async def trim(self, retention: Retention, *, now: float) -> int:
        """Delete some of what exceeds the bounds; returns how many rows, 0 when there is nothing more to delete."""
