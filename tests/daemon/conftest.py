"""Fixtures of the daemon's tests; the tools behind them are in `tests/daemon_stage.py`."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from daemon_stage import Broker, DaemonProcess, NotingHub, tiny_bundle

from edge_sdk.bundle import Bundle


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose path is short enough for a unix socket in it, wherever pytest keeps its own."""
    path = Path(tempfile.mkdtemp(prefix="edge-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def digits(tmp_path: Path) -> Bundle:
    return tiny_bundle(tmp_path / "digits-1.edge")


@pytest.fixture
def daemon(short_path: Path) -> Iterator[Callable[..., DaemonProcess]]:
    """Makes daemons; those that still run at the end are killed."""
    with ExitStack() as ends:

        def make(config: str = "", *, name: str = "d", environment: dict[str, str] | None = None) -> DaemonProcess:
            process = DaemonProcess(short_path / name, config, environment=environment)
            ends.callback(process.kill)
            return process

        yield make


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker that runs."""
    broker = Broker(tmp_path / "broker")
    broker.start()
    yield broker
    broker.kill()


@pytest.fixture
def hub(broker: Broker) -> Iterator[NotingHub]:
    """A hub that notes and confirms everything."""
    hub = NotingHub(broker.port)
    yield hub
    hub.close()
