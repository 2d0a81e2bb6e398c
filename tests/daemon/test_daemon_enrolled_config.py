"""What the hub's enrolment writes is what the daemon reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_daemon.config import load

enrolment = pytest.importorskip("edge_hub.enrolment")
api = pytest.importorskip("edge_hub.api")


@pytest.mark.parametrize("tls", [False, True])
def test_an_enrolled_device_can_connect(tmp_path: Path, tls: bool) -> None:
    credentials = api.Credentials(
        device="acme/board-1", host="hub.example", port=18883, tls=tls, username="acme/board-1", password='p"\\w'
    )
    path = tmp_path / "device.toml"
    enrolment.write_configuration(path, enrolment.device_configuration(credentials, {"digits": "/opt/digits-1.edge"}))
    loaded = load(path)
    assert str(loaded.device_id()) == "acme/board-1"
    assert loaded.mqtt is not None
    assert (loaded.mqtt.host, loaded.mqtt.effective_port) == ("hub.example", 18883)
    assert (loaded.mqtt.username, loaded.mqtt.password) == ("acme/board-1", 'p"\\w')
    assert (loaded.mqtt.encryption is not None) == tls
    assert loaded.bundles()["digits"].bundle == "/opt/digits-1.edge"
