"""What the hub asks of a broker, whoever runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from edge_hub.address import Endpoint
from edge_hub.broker.accounts import Guest
from edge_sdk.address import Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Papers:
    """What a device needs beside its password, all PEM.

    Attributes:
        ca: The authority it is to trust; None for the system's, or where nothing is encrypted.
        certificate: Its own, with `key`, where the broker asks for one.
    """

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None


class BrokerBackend(Protocol):
    """A broker that the hub starts, or one that it is told of.

    `start` is called once, `set_accounts` any number of times before and after it, `stop` once. A backend that runs
    a child process keeps it running: it restarts what crashes, and ends it together with the hub.
    """

    @property
    def kind(self) -> str:
        """`mosquitto`, `iotcore` or `external`."""

    @property
    def endpoint(self) -> Endpoint:
        """How the hub connects."""

    @property
    def for_devices(self) -> Address:
        """Where devices on this machine's side of the network connect."""

    @property
    def enrols(self) -> bool:
        """Devices get their credentials from us; with an external broker its administrator gives them."""

    @property
    def running(self) -> bool:
        """As far as the backend can tell; an external broker is always said to run."""

    @property
    def restarts(self) -> int:
        """How often it had to be started again."""

    async def set_accounts(self, accounts: Mapping[str, str]) -> None:
        """Let exactly these devices in.

        Args:
            accounts: Password hash (see `edge_hub.broker.accounts`) by user name, which is `tenant/device`.
        """

    async def admit(self, whose: str, guests: Sequence[Guest]) -> None:
        """Let these programs in, too, instead of those that the same part of the hub named before.

        A broker that is not ours, or has no accounts, is told nothing.
        """

    def endpoint_of(self, guest: Guest) -> Endpoint:
        """How a guest on this machine connects: as itself where the accounts are ours, else as the hub does."""

    def papers(self, *devices: str) -> tuple[Papers, ...]:
        """Make what devices need beside their passwords; may be called in a thread.

        Args:
            devices: Their user names.

        Raises:
            StorageError: What was made could not be recorded.
        """

    async def revoke(self, *devices: str) -> None:
        """Let no certificate of these devices count any more. Accounts and connections are `set_accounts`' affair.

        Raises:
            StorageError: It could not be recorded.
        """

    async def start(self) -> None:
        """Return once clients can connect.

        Raises:
            EdgeError: It cannot be started; nothing of it is left running.
        """

    async def stop(self) -> None:
        """End what `start` began, within seconds; harmless when nothing runs."""


class WithoutAccounts:
    """What is asked of a broker that has no accounts of ours: it is told nothing, and everybody comes as the hub."""

    endpoint: Endpoint

    async def set_accounts(self, accounts: Mapping[str, str]) -> None:
        """Nothing: see above."""

    async def admit(self, whose: str, guests: Sequence[Guest]) -> None:
        """Nothing: see above."""

    def endpoint_of(self, guest: Guest) -> Endpoint:  # noqa: ARG002 - the interface's
        """As the hub."""
        return self.endpoint

    def papers(self, *devices: str) -> tuple[Papers, ...]:
        """None of ours."""
        return tuple(Papers() for _ in devices)

    async def revoke(self, *devices: str) -> None:
        """Nothing: see above."""
