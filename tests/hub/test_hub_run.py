"""How a hub starts, what it refuses, and that nothing of it is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from daemon_stage import until
from hub_stage import CAM, FakeDevice, HubProcess, hub_command, listens
from unprivileged import reachable, unprivileged

from edge_hub.address import Endpoint
from edge_hub.datadir import DataDir
from edge_hub.enrolment import check_writable
from edge_hub.errors import HubUnreachableError, TokenRefusedError
from edge_sdk.address import Address
from edge_sdk.errors import EdgeError, StorageError, UsageError
from edge_sdk.wire import tomllib

pytestmark = pytest.mark.broker


def last_line(hub: HubProcess) -> str:
    return hub.said.splitlines()[-1]


def fails(hub: HubProcess, status: int, code: str) -> str:
    """Start it, and let it end with this status and one line with this code."""
    hub.start(ready=False)
    assert hub.wait() == status, hub.said
    assert f"[{code}]" in last_line(hub)
    assert "Traceback" not in hub.said
    assert not listens(hub.http)
    return last_line(hub)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("which", ["http", "mqtt"])
def test_a_port_that_is_taken_is_named(tmp_path: Path, taken: int, which: str) -> None:
    hub = HubProcess(tmp_path)
    setattr(hub, which, taken)
    hub.start(ready=False)
    assert hub.wait() == 1
    assert "[address-in-use]" in last_line(hub)
    assert str(taken) in last_line(hub)
    other = hub.mqtt if which == "http" else hub.http
    assert not listens(other)


def test_two_hubs_cannot_share_a_directory(hub: HubProcess) -> None:
    second = HubProcess(hub.directory)
    assert "another hub" in fails(second, 1, "data-locked")
    with hub.client() as client:
        assert client.health().ok


@pytest.mark.parametrize("options", [("--listen", "0.0.0.0:8080"), ("--mqtt", "0.0.0.0:1883")])
def test_it_listens_to_the_network_only_when_told_twice(tmp_path: Path, options: tuple[str, str]) -> None:
    assert "--insecure-listen" in fails(HubProcess(tmp_path, *options), 2, "unsafe-listen")


def test_the_embedded_broker_serves_this_machine_and_no_other(tmp_path: Path) -> None:
    hub = HubProcess(tmp_path / "a", "--embedded")
    hub.start()
    try:
        cam = FakeDevice(hub.mqtt, hub.enrol())
        try:
            cam.confirmed(cam.happens("hello"))
            assert hub.messages() == 1
        finally:
            cam.close()
    finally:
        hub.stop()
    assert not listens(hub.mqtt)
    beyond = HubProcess(tmp_path / "b", "--embedded", "--insecure-listen", "--mqtt", "0.0.0.0:18830")
    beyond.start(ready=False)
    assert beyond.wait() != 0
    assert "loopback" in last_line(beyond) or "this machine" in last_line(beyond)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_end_it_leaves_nothing(tmp_path: Path, how: signal.Signals) -> None:
    hub = HubProcess(tmp_path)
    hub.start()
    broker = hub.broker_pid()
    assert hub.stop(how) == 0
    assert not listens(hub.http)
    assert not listens(hub.mqtt)
    assert not Path(f"/proc/{broker}").exists()


def test_killed_it_takes_its_broker_along(tmp_path: Path) -> None:
    hub = HubProcess(tmp_path)
    hub.start()
    broker = hub.broker_pid()
    hub.kill()
    until(lambda: not Path(f"/proc/{broker}").exists(), "the broker to end")


def test_what_lies_in_the_directory_is_for_its_owner_alone(hub: HubProcess) -> None:
    hub.enrol()
    for path in [hub.data, *hub.data.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_enrolment_writes_what_a_daemon_takes(hub: HubProcess) -> None:
    def enroll(*more: str) -> subprocess.CompletedProcess[str]:
        return hub_command(hub.directory, "enroll", str(CAM), "-o", "device.toml", "--data", str(hub.data), *more)

    told = enroll("--model", "digits=/opt/digits-1.edge", "--json")
    assert told.returncode == 0, told.stderr
    written = hub.directory / "device.toml"
    assert written.stat().st_mode & 0o077 == 0
    config = tomllib.loads(written.read_text())
    assert config["models"] == {"digits": "/opt/digits-1.edge"}
    assert config["mqtt"]["port"] == hub.mqtt
    assert config["mqtt"]["password"] not in told.stdout
    assert json.loads(told.stdout)["device"] == str(CAM)
    again = enroll()
    assert again.returncode == 1
    assert "[already-enrolled]" in again.stderr
    assert tomllib.loads(written.read_text()) == config
    assert enroll("--again").returncode == 0
    assert tomllib.loads(written.read_text())["mqtt"]["password"] != config["mqtt"]["password"]


def test_an_enrolment_does_not_disturb_who_is_connected(hub: HubProcess) -> None:
    from hub_stage import OTHER

    cam = FakeDevice(hub.mqtt, hub.enrol())
    lost: list[object] = []
    cam._client.on_disconnect = lambda *found: lost.append(found)
    other = FakeDevice(hub.mqtt, hub.enrol(OTHER), OTHER)
    try:
        cam.confirmed(cam.happens("still connected"))
        assert lost == []
    finally:
        cam._client.on_disconnect = None
        cam.close()
        other.close()


def test_only_the_token_opens_the_api(hub: HubProcess) -> None:
    base = f"http://127.0.0.1:{hub.http}"
    with hub.client(token="wrong") as client, pytest.raises(TokenRefusedError):
        client.devices()
    with httpx.Client(base_url=base, trust_env=False) as bare:
        assert bare.get("/").status_code == 200
        for path in ("/api/v1/devices", "/api/v1/health", "/api/v1/stream", "/metrics", "/api/v1/quarantine"):
            assert bare.get(path).status_code == 401, path
        assert bare.post("/api/v1/commands", content=b"{}").status_code == 401
        assert bare.get("/api/v1/devices", headers={"Authorization": f"Basic {hub.token}"}).status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/api/v1/nothing", b"", 404),
        ("DELETE", "/api/v1/devices", b"", 405),
        ("GET", "/api/v1/devices/acme/nobody", b"", 404),
        ("GET", "/api/v1/devices/a%20b/c", b"", 400),
        ("GET", "/api/v1/events?limit=-1", b"", 400),
        ("GET", "/api/v1/events?after=1e9", b"", 400),
        ("GET", "/api/v1/commands/" + "0" * 32, b"", 404),
        ("GET", "/api/v1/commands/x?wait_s=nan", b"", 400),
        ("POST", "/api/v1/commands", b"{}", 400),
        ("POST", "/api/v1/commands", b"not json", 400),
        ("POST", "/api/v1/commands", b"{" + b" " * 70_000 + b"}", 400),
        ("POST", "/api/v1/commands", b'{"command":{"name":"report"}}', 400),
        ("POST", "/api/v1/devices", b'{"device":"acme/../x"}', 400),
        ("PUT", "/api/v1/devices/acme/nobody/desired", b"{}", 404),
    ],
)
def test_a_request_that_makes_no_sense_is_answered_with_a_code(
    hub: HubProcess, method: str, path: str, body: bytes, status: int
) -> None:
    headers = {"Authorization": f"Bearer {hub.token}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{hub.http}", trust_env=False, headers=headers) as client:
        answer = client.request(method, path, content=body)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"code", "text"}


def test_metrics_are_in_prometheus_form(hub: HubProcess) -> None:
    headers = {"Authorization": f"Bearer {hub.token}"}
    answer = httpx.get(f"http://127.0.0.1:{hub.http}/metrics", headers=headers, trust_env=False)
    lines = answer.text.splitlines()
    assert "edge_hub_broker_connected 1" in lines
    assert all(line.startswith("#") or len(line.rsplit(" ", 1)) == 2 for line in lines)


def test_a_disk_that_is_full_confirms_nothing_and_says_so(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk takes root")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "edge-test", disk], check=True)
    hub = HubProcess(disk)
    try:
        hub.start()
        cam = FakeDevice(hub.mqtt, hub.enrol())
        try:
            cam.confirmed(cam.happens("there is room"))
            filler = disk / "filler"
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while file.write(b"\0" * 4096):
                    pass
            numbers = [cam.happens("x" * 900) for _ in range(50)]

            def unwell() -> bool:
                with hub.client() as client:
                    return not client.health().ok

            until(unwell, "the hub to say that it cannot store")
            unconfirmed = [number for number in numbers if number not in cam.acked]
            assert unconfirmed
            filler.unlink()
            until(lambda: not unwell(), "the hub to recover")
            for number in unconfirmed:
                cam.confirmed(number)
            assert hub.messages() == 51
        finally:
            cam.close()
    finally:
        hub.stop()
        subprocess.run(["umount", disk], check=True)


def test_clients_say_in_one_line_where_no_hub_is(tmp_path: Path) -> None:
    for words, code in (
        (["devices", "--data", "nowhere"], "[usage]"),
        (["devices", "--data", "."], "[usage]"),
    ):
        told = hub_command(tmp_path, *words)
        assert told.returncode == 2
        (line,) = told.stderr.splitlines()
        assert code in line
        assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("run", "--data", ""), 2, ("argument --data: it is empty, and names nothing",)),
        (("devices", "--data", ""), 2, ("argument --data: it is empty, and names nothing",)),
        (("simulate", "--data", ""), 2, ("argument --data: it is empty, and names nothing",)),
        (("backup", "-o", ""), 2, ("it is empty, and names nothing",)),
        (("run", "--data", "file/hub"), 1, ("cannot be the data directory", "file is no directory", "another --data")),
        (("run", "--data", "/proc/none/hub"), 1, ("/proc/none/hub: cannot be the data directory", "another --data")),
        (("enroll", "acme/cam1", "-o", "none/device.toml"), 2, ("there is no directory", "mkdir -p")),
        (("enroll", "acme/cam1", "-o", "file/device.toml"), 2, ("file is no directory",)),
        (("enroll", "acme/cam1", "-o", "."), 2, ("is a directory", "such as device.toml")),
        (("enroll", "acme/cam1", "-o", "/proc/device.toml"), 2, ("cannot be written: /proc", "where you may write")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_a_place_that_cannot_be_written_is_one_line_that_says_what_is_in_the_way(
    tmp_path: Path, words: tuple[str, ...], status: int, said: tuple[str, ...]
) -> None:
    (tmp_path / "file").touch()
    told = hub_command(tmp_path, *words)
    assert told.returncode == status, told.stderr
    (line,) = told.stderr.splitlines()
    for part in said:
        assert part in line
    assert {path.name for path in tmp_path.iterdir()} == {"file"}


def test_the_directory_that_may_not_be_written_is_named() -> None:
    with reachable() as place:
        place.chmod(0o555)
        with unprivileged():
            with pytest.raises(StorageError, match=f"no permission to write in {place}"):
                DataDir(place / "a" / "b")
            with pytest.raises(UsageError, match="cannot be written"):
                check_writable(place / "device.toml")


def test_a_hub_that_is_gone_is_named(hub: HubProcess) -> None:
    with hub.client() as client:
        hub.stop()
        with pytest.raises(HubUnreachableError, match="edge hub run"):
            client.devices()


@pytest.mark.parametrize(
    "text", ["", "host", ":1", "host:0", "host:65536", "host:x", "::1:80", "host: 80", "host:8\u0966"]
)
def test_addresses_are_read_strictly(text: str) -> None:
    with pytest.raises(UsageError):
        Address.parse(text)


@pytest.mark.parametrize("url", ["http://x", "mqtt://", "mqtt://h:99999", "mqtt://h/p", "mqtts://u:secret@h:x"])
def test_a_bad_broker_url_is_refused_without_repeating_its_password(url: str) -> None:
    with pytest.raises(EdgeError) as caught:
        Endpoint.parse(url)
    assert "secret" not in str(caught.value)
