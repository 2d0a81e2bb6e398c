"""An encrypted broker: trusted, not trusted, and with files that are none."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from daemon_stage import Broker, DaemonProcess, reporting, until

pytestmark = [pytest.mark.broker, pytest.mark.timeout(60)]

MakeDaemon = Callable[..., DaemonProcess]


@pytest.fixture
def encrypted(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path / "encrypted", encrypted=True)
    broker.start()
    yield broker
    broker.kill()


def connecting(daemon: MakeDaemon, broker: Broker, tls: str) -> DaemonProcess:
    board = daemon(reporting(broker.port).replace("[telemetry]", f"{tls}\n[telemetry]"))
    board.start()
    return board


def test_a_broker_of_a_trusted_authority_is_connected_to(daemon: MakeDaemon, encrypted: Broker, tmp_path: Path) -> None:
    board = connecting(daemon, encrypted, f'tls = {{ ca = "{tmp_path / "encrypted" / "ca.pem"}" }}')
    until(lambda: board.status().hub == "connected", "the connection")
    until(lambda: board.status().conditions.rtt_ms is not None, "a round trip")
    assert board.stop() == 0
    assert "Received DISCONNECT" in encrypted.log.read_text()


@pytest.mark.parametrize(
    ("tls", "status", "told"),
    [
        ("tls = true", "connecting", "certificate verify failed"),
        ('tls = { ca = "absent.pem" }', "refused", "mqtt.tls can't be used"),
        ("", "connecting", "never lasts|the connection .* ended|does not answer"),
    ],
)
def test_a_broker_that_cannot_be_trusted_gets_nothing_and_is_told(
    daemon: MakeDaemon, encrypted: Broker, tls: str, status: str, told: str
) -> None:
    board = connecting(daemon, encrypted, tls)
    until(lambda: re.search(told, board.status().hub_text), f"{told!r}")
    assert board.status().hub == status
    assert "acme" not in encrypted.log.read_text()
    assert board.stop() == 0
