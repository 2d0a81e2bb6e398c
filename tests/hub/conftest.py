"""Fixtures of the hub's tests; the tools behind them are in `tests/hub_stage.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hub_stage import CAM, FakeDevice, HubProcess
from postgres_stage import PostgresServer
from store_stage import Place, PostgresPlace, SqlitePlace, postgres_place

from edge_sdk.mqtt import DeviceId


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubProcess]:
    """A hub that runs, with mosquitto."""
    with HubProcess(tmp_path / "h") as process:
        yield process


@pytest.fixture
def device(hub: HubProcess) -> Iterator[Callable[..., FakeDevice]]:
    """Makes enrolled devices that are connected."""
    with ExitStack() as ends:
        passwords: dict[DeviceId, str] = {}

        def make(who: DeviceId = CAM, **more: Any) -> FakeDevice:
            if who not in passwords:
                passwords[who] = hub.enrol(who)
            made = FakeDevice(hub.mqtt, passwords[who], who, **more)
            ends.callback(made.close)
            return made

        yield make


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL that runs; what asks for it is marked `postgres`."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[PostgresPlace]:
    """An empty database."""
    with postgres_place(postgres) as place:
        yield place


@pytest.fixture(scope="session", params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def server(request: pytest.FixtureRequest) -> PostgresServer | None:
    """The database server of `place`, where it is one that has a server; for the whole session, as that is."""
    if request.param == "sqlite":
        return None
    found: PostgresServer = request.getfixturevalue("postgres")
    return found


@pytest.fixture
def place(server: PostgresServer | None, tmp_path: Path) -> Iterator[Place]:
    """Where a store is made: each test that asks for it runs on both."""
    if server is None:
        yield SqlitePlace(tmp_path)
    else:
        with postgres_place(server) as found:
            yield found
