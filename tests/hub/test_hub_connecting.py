"""The hub's connections to a broker: what keeps them from coming about, and how much is on the way over one."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon_stage import PATIENCE_S, Broker

from edge_hub.address import Endpoint
from edge_hub.link import Link
from edge_sdk.address import Address
from edge_sdk.errors import StorageError

pytestmark = pytest.mark.broker


@pytest.fixture
def broker(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Broker]:
    one = Broker(tmp_path / "broker", encrypted=getattr(request, "param", False))
    one.start()
    yield one
    one.stop()


def endpoint(broker: Broker, *, ca: Path | None = None) -> Endpoint:
    here = Address(host="127.0.0.1", port=broker.port)
    return Endpoint(address=here, username=broker.HUB, password=broker.HUB_PASSWORD, tls=ca is not None, ca=ca)


async def nothing(*_: object) -> None:
    """After a connection."""


@pytest.mark.parametrize("broker", [True], indirect=True)
def test_a_missing_file_of_the_encryption_is_named_and_waited_for(broker: Broker, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"

    async def play() -> None:
        up = asyncio.Event()

        async def on_up() -> None:
            up.set()

        link = Link(endpoint=endpoint(broker, ca=ca), client_id="hub", on_message=lambda *_: None, on_up=on_up)
        running = asyncio.create_task(link.run())
        try:
            with pytest.raises(StorageError, match="certificate"):
                await asyncio.wait_for(link.connected_once(), PATIENCE_S)
            shutil.copy(tmp_path / "broker" / "ca.pem", ca)
            await asyncio.wait_for(up.wait(), PATIENCE_S)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(play())
