"""The embedded broker of the PyPI package `iotcore`, for machines without mosquitto: demonstrations and tests.

It has no passwords, no access rules and no persistence (measured: every attack of our tests gets through), so it
listens on loopback and nowhere else.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from edge_hub.address import Endpoint
from edge_hub.broker.backend import WithoutAccounts
from edge_hub.broker.child import Child
from edge_hub.datadir import PRIVATE_DIRECTORY
from edge_hub.errors import BrokerMissingError
from edge_sdk import atomic
from edge_sdk.address import Address
from edge_sdk.errors import UnsafeListenError

# Not `-m`, which would look for modules in the current directory first.
_PROGRAM = (
    "import sys; sys.path[:] = [p for p in sys.path if p not in ('', '.')]; "
    "from edge_hub.broker._iotcore_child import main; main()"
)


class IotCore(WithoutAccounts):
    """A `BrokerBackend` that runs rumqttd in a child process.

    Args:
        address: Where it listens; loopback.
        directory: For its configuration; made 0700.

    Raises:
        UnsafeListenError: The address is not loopback.
        BrokerMissingError: The package is not installed.
    """

    kind = "iotcore"
    enrols = True  # credentials are handed out, and checked by a real broker later; this one takes everybody

    def __init__(self, *, address: Address, directory: Path) -> None:
        if not address.is_loopback:
            raise UnsafeListenError(
                "the embedded broker has no access control and listens on loopback only",
                where=str(address),
                hint="install mosquitto",
            )
        if importlib.util.find_spec("iotcore") is None:
            raise BrokerMissingError(
                "neither mosquitto nor iotcore is installed",
                hint="apt install mosquitto, or pip install 'adaptive-edge-sdk[broker]'",
            )
        with atomic.storage_errors(directory):
            directory.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
        self.endpoint = Endpoint(address=address)  # without a name: it asks for none
        self.for_devices = address
        self._child = Child(
            name="iotcore",
            command=lambda: (
                # -P is of 3.11: keep the working directory, where another `iotcore` may lie, off the path by hand.
                sys.executable,
                "-c",
                _PROGRAM,
                address.host,
                str(address.port),
                str(directory),
            ),
            address=address,
            pid_file=directory / "iotcore.pid",
        )

    @property
    def running(self) -> bool:
        """The process is there."""
        return self._child.running

    @property
    def restarts(self) -> int:
        """How often it had to be started again."""
        return self._child.restarts

    async def start(self) -> None:
        """Start it.

        Raises:
            AddressInUseError: The port is taken.
            BrokerError: It does not start.
        """
        await self._child.start()

    async def stop(self) -> None:
        """End it, and with it all it held."""
        await self._child.stop()
