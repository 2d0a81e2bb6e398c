"""The hub's connections to a broker: what keeps them from coming about, and how much is on the way over one."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon_stage import PATIENCE_S, Broker
from gmqtt.mqtt.constants import MQTTv311

from edge_hub.address import Endpoint
from edge_hub.connecting import Client, Line, Outbox
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


def test_what_goes_wrong_after_a_connection_is_heard_of(broker: Broker) -> None:
    async def play() -> None:
        async def on_up() -> None:
            raise LookupError("a mistake of ours")

        link = Link(endpoint=endpoint(broker), client_id="hub", on_message=lambda *_: None, on_up=on_up)
        with pytest.raises(LookupError):
            await asyncio.wait_for(link.run(), PATIENCE_S)
        assert not link.up

    asyncio.run(play())


class Counted(Outbox):
    """Knows how much was on the way at the most."""

    most = 0

    def push_message(self, mid: int, raw_package: bytes) -> None:
        super().push_message(mid, raw_package)
        self.most = max(self.most, len(self._messages))


def test_however_many_publish_at_once_no_more_is_on_the_way_than_may_be(broker: Broker) -> None:
    async def play() -> int:
        outbox = Counted(2)
        line = Line(endpoint(broker), Client("hub", persistent_storage=outbox), outbox)
        await line._reach(MQTTv311)
        try:
            sent = await asyncio.gather(*(line.publish("edge/v1/x", b"x", qos=1) for _ in range(40)))
        finally:
            await line.close()
        assert all(sent)
        return outbox.most

    assert asyncio.run(play()) == 2
