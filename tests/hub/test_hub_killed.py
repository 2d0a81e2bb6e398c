"""Processes of a hub are killed while a fleet reports: nothing confirmed is lost, nothing is counted twice."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon_stage import until
from fleet_stage import PlayedFleet
from hub_stage import HubProcess
from store_stage import PostgresPlace

from edge_sdk.errors import EdgeError

pytestmark = pytest.mark.broker

DEVICES = 3


def is_well(hub: HubProcess) -> bool:
    with contextlib.suppress(EdgeError), hub.client() as client:
        return client.health().ok
    return False


def kill(hub: HubProcess, whom: str) -> None:
    """Without a word; the hub itself is started again, as systemd would."""
    if whom == "hub":
        hub.kill()
        hub.start()
        return
    pid = next(pid for pid, what in hub.children().items() if what == whom)
    os.kill(pid, signal.SIGKILL)
    until(lambda: pid not in hub.children() and whom in hub.children().values(), f"another {whom}")
    until(lambda: is_well(hub), "the hub to be well again")


@pytest.fixture
def fleet(hub: HubProcess) -> Iterator[PlayedFleet]:
    played = PlayedFleet(hub, DEVICES, "--churn", "1")
    yield played
    played.close()


def survive(hub: HubProcess, fleet: PlayedFleet, victims: list[str]) -> None:
    rng = random.Random(os.environ.get("PYTEST_CURRENT_TEST"))
    fleet.until_online()
    for whom in victims:
        time.sleep(rng.uniform(0.2, 1.5))
        kill(hub, whom)
    time.sleep(1.0)
    told = fleet.finish()
    assert told["unconfirmed"] == 0
    assert told["sent"] > DEVICES
    with hub.client() as client:
        health = client.health()
        counted = [view.messages for view in client.devices()]
    assert (health.messages, sum(counted), health.malformed) == (told["sent"], told["sent"], 0)


def test_hub_and_broker_are_killed_while_a_fleet_reports(hub: HubProcess, fleet: PlayedFleet) -> None:
    survive(hub, fleet, ["broker", "hub", "broker"])
    assert "mosquitto" in hub.said  # it says what happened


class TestOfSeveralProcesses:
    pytestmark = pytest.mark.postgres

    @pytest.fixture
    def hub(self, tmp_path: Path, database: PostgresPlace) -> Iterator[HubProcess]:
        process = HubProcess(tmp_path / "h", "--store", database.url, "--workers", "2")
        process.start()
        yield process
        process.stop()

    def test_workers_broker_and_hub_are_killed_while_a_fleet_reports(
        self, hub: HubProcess, fleet: PlayedFleet, database: PostgresPlace
    ) -> None:
        survive(hub, fleet, ["worker", "broker", "hub"])
        assert database.sql("SELECT count(*) - count(DISTINCT (boot, seq)) FROM log")[0][0] == 0
