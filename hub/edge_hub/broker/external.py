"""A broker that somebody else runs. Its accounts and access rules are its administrator's."""

from __future__ import annotations

from edge_hub.address import Endpoint
from edge_hub.broker.backend import WithoutAccounts
from edge_sdk.address import Address


class ExternalBroker(WithoutAccounts):
    """A `BrokerBackend` that starts nothing.

    What its administrator has to allow is in `docs/how-to/run-a-hub.md`: the hub everything below `edge/v1/`, each
    device its own `up/` and `down/`.
    """

    kind = "external"
    enrols = False
    running = True
    restarts = 0

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    @property
    def for_devices(self) -> Address:
        """The same address the hub uses."""
        return self.endpoint.address

    async def start(self) -> None:
        """Nothing to start; whether it answers shows when the hub connects.

        Raises:
            StorageError: The file of its authority cannot be read.
        """
        self.endpoint.context()

    async def stop(self) -> None:
        """Nothing to stop."""
