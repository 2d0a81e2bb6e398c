"""Fixtures of the hub's tests; the tools behind them are in `tests/hub_stage.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hub_stage import CAM, FakeDevice, HubProcess

from edge_sdk.mqtt import DeviceId


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubProcess]:
    """A hub that runs, with mosquitto."""
    process = HubProcess(tmp_path / "h")
    process.start()
    yield process
    process.stop()


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
