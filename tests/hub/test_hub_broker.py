"""The broker as the hub's child: it comes back, never outlives the hub, and nobody else's process is ended for it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon_stage import EDGE, PATIENCE_S, Broker, clean_environment, free_port, until
from hub_stage import CAM, FakeDevice, HubProcess, listens

from edge_hub import cli
from edge_hub.address import as_others_reach
from edge_hub.broker.child import _proof, end_leftover
from edge_sdk.address import Address
from edge_sdk.wire import encode, tomllib

pytestmark = pytest.mark.broker


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"]) as process:
        yield process
        process.kill()


def test_what_an_earlier_hub_left_behind_is_ended(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    recorded = tmp_path / "broker.pid"
    recorded.write_bytes(encode(_proof(sleeper.pid)))
    assert end_leftover(recorded)
    assert sleeper.wait(PATIENCE_S) == -signal.SIGTERM
    assert not recorded.exists()


@pytest.mark.parametrize("field", ["started_ticks", "boot"])
def test_a_process_that_only_has_the_number_is_left_alone(
    tmp_path: Path, sleeper: subprocess.Popen[bytes], field: str
) -> None:
    import msgspec

    recorded = tmp_path / "broker.pid"
    proof = _proof(sleeper.pid)
    assert proof is not None
    other = {"started_ticks": proof.started_ticks + 1} if field == "started_ticks" else {"boot": "another"}
    recorded.write_bytes(encode(msgspec.structs.replace(proof, **other)))
    end_leftover(recorded)
    assert sleeper.poll() is None


@pytest.mark.parametrize("content", [b"", b"12", b'{"pid": -1}', b"\xff" * 100])
def test_a_record_that_makes_no_sense_is_no_reason_to_end_anything(tmp_path: Path, content: bytes) -> None:
    recorded = tmp_path / "broker.pid"
    recorded.write_bytes(content)
    assert not end_leftover(recorded)
    assert not end_leftover(tmp_path / "absent")


def test_a_damaged_database_of_the_broker_is_moved_aside(hub: HubProcess) -> None:
    password = hub.enrol()
    cam = FakeDevice(hub.mqtt, password)
    cam.confirmed(cam.happens("before"))
    cam.close()
    hub.stop()
    database = hub.data / "broker" / "mosquitto.db"
    database.write_bytes(b"\0" * 1000)
    hub.start()
    assert list(database.parent.glob("mosquitto.db.damaged-*"))
    cam = FakeDevice(hub.mqtt, password)
    cam.confirmed(cam.happens("after"))
    cam.close()
    assert hub.messages() == 2


def test_a_broker_whose_port_was_taken_meanwhile_comes_back_when_it_is_free(hub: HubProcess) -> None:
    password = hub.enrol()
    broker = hub.broker_pid()
    os.kill(hub.pid, signal.SIGSTOP)  # or it would soon start another
    os.kill(broker, signal.SIGKILL)
    until(lambda: not listens(hub.mqtt), "the broker to end")
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.bind(("127.0.0.1", hub.mqtt))
        thief.listen()
        os.kill(hub.pid, signal.SIGCONT)

        def noticed() -> bool:
            with hub.client() as client:
                health = client.health()
            return not health.ok and not health.broker_running and "taken" in hub.said

        until(noticed, "the hub to say so")

    def well() -> bool:
        with hub.client() as client:
            return client.health().ok

    until(well, "the broker to be back")
    cam = FakeDevice(hub.mqtt, password)
    cam.confirmed(cam.happens("hello again"))
    cam.close()


def test_a_second_signal_ends_it_at_once_and_its_broker_too(hub: HubProcess) -> None:
    broker = hub.broker_pid()
    os.kill(broker, signal.SIGSTOP)  # it cannot end in order
    try:
        os.kill(hub.pid, signal.SIGINT)
        until(lambda: not listens(hub.http), "the hub to begin ending")
        assert hub.stop(signal.SIGINT) == 128 + signal.SIGINT
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(broker, signal.SIGCONT)
    until(lambda: not Path(f"/proc/{broker}").exists(), "the broker to end")


def test_interrupted_while_it_starts_it_leaves_nothing(tmp_path: Path) -> None:
    for pause_s in (0.1, 0.3, 0.5, 0.7, 0.9):
        hub = HubProcess(tmp_path / str(pause_s))
        hub.start(ready=False)
        time.sleep(pause_s)
        hub.stop(signal.SIGINT)
        assert "never retrieved" not in hub.said
        assert "was destroyed" not in hub.said
        until(lambda hub=hub: not listens(hub.mqtt) and not listens(hub.http), "both to be closed")


def test_a_signal_before_ours_are_heard_ends_what_starts_before_it_closes_anything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, done = asyncio.Event(), []

    class Slow:
        def __init__(self, _config: object) -> None:
            """Nothing."""

        async def start(self) -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                done.append("starts no more")

        async def stop(self) -> None:
            done.append("closes")

    async def interrupted() -> None:
        serving = asyncio.ensure_future(cli._serve(None))
        await begun.wait()
        serving.cancel()  # as asyncio's own handler of SIGINT does
        await asyncio.gather(serving, return_exceptions=True)

    monkeypatch.setattr("edge_hub.service.Hub", Slow)
    asyncio.run(interrupted())
    assert done == ["starts no more", "closes"]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = Broker(tmp_path / "broker")
    made.start()
    yield made
    made.stop()


def with_broker(tmp_path: Path, url: str) -> HubProcess:
    return HubProcess(tmp_path / "h", "--broker", url)


def test_a_broker_of_somebody_elses_serves_as_well(tmp_path: Path, broker: Broker) -> None:
    from daemon_stage import DEVICE, PASSWORD

    hub = with_broker(tmp_path, f"mqtt://hub:of%20the%20hub@127.0.0.1:{broker.port}")
    hub.start()
    try:
        device = FakeDevice(broker.port, PASSWORD, DEVICE)
        device.confirmed(device.happens("hello"))
        assert hub.messages(DEVICE) == 1
        told = subprocess.run(
            [*EDGE, "hub", "enroll", str(CAM), "-o", "device.toml", "--data", str(hub.data)],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
            cwd=hub.directory,
            env=clean_environment(hub.directory),
        )
        assert told.returncode != 0
        assert "somebody else's" in told.stderr
        assert not (hub.directory / "device.toml").exists()
        broker.kill()
        broker.start()

        def again() -> bool:
            with hub.client() as client:
                return client.health().ok

        until(again, "the hub to be connected again")
        device.when(device._client.is_connected, "the device to be connected again")
        device.insists(device.happens("after"), "after")  # it may be back before the hub is
        device.close()
    finally:
        hub.stop()
    assert listens(broker.port)


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("mqtt://hub:wrong@127.0.0.1:{port}", "broker-refused"),
        ("mqtt://127.0.0.1:{port}", "broker-refused"),
        ("mqtt://hub:x@127.0.0.1:1", "broker-unreachable"),
        ("mqtts://hub:x@127.0.0.1:{port}", "broker-unreachable"),
        ("mqtt://hub:x@nowhere.invalid", "broker-unreachable"),
        ("mqtt://hub:x@no..where", "broker-unreachable"),
    ],
)
def test_a_broker_that_does_not_let_the_hub_in_is_named(tmp_path: Path, broker: Broker, url: str, code: str) -> None:
    hub = with_broker(tmp_path, url.format(port=broker.port))
    hub.start(ready=False)
    assert hub.wait() == 1
    last = hub.said.splitlines()[-1]
    assert f"[{code}]" in last
    assert "wrong" not in hub.said
    assert "Traceback" not in hub.said


def test_a_data_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    for make, code in (
        (lambda path: path.write_text("a file"), "storage"),
        (lambda path: (path.mkdir(), (path / "hub.db").write_text("no database" * 1000)), "store"),
    ):
        hub = HubProcess(tmp_path / code)
        make(hub.data)
        hub.start(ready=False)
        assert hub.wait() == 1
        assert f"[{code}]" in hub.said.splitlines()[-1]
        assert "Traceback" not in hub.said
        assert not listens(hub.mqtt)


def test_a_device_is_told_an_address_that_leads_here(hub: HubProcess) -> None:
    here = Address(host="127.0.0.1", port=1)
    assert as_others_reach(here) == here
    assert as_others_reach(Address(host="0.0.0.0", port=1)).host != "0.0.0.0"  # noqa: S104
    told = subprocess.run(
        [*EDGE, "hub", "enroll", str(CAM), "-o", "d.toml", "--data", str(hub.data), "--mqtt", "hub.example:2883"],
        capture_output=True,
        check=False,
        timeout=PATIENCE_S,
        cwd=hub.directory,
        env=clean_environment(hub.directory),
    )
    assert told.returncode == 0, told.stderr
    written = tomllib.loads((hub.directory / "d.toml").read_text())
    assert (written["mqtt"]["host"], written["mqtt"]["port"]) == ("hub.example", 2883)


def test_a_line_without_end_from_the_broker_fills_no_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import asyncio

    from edge_hub.broker.child import Child
    from edge_hub.errors import BrokerError

    caplog.set_level(logging.CRITICAL)
    program = "import sys; sys.stderr.write('x' * 5_000_000 + '\\nits last words\\n'); sys.exit(3)"

    async def play() -> None:
        child = Child(
            name="talker",
            command=lambda: (sys.executable, "-c", program),
            address=Address(host="127.0.0.1", port=free_port()),
            pid_file=tmp_path / "pid",
        )
        with pytest.raises(BrokerError, match="its last words"):
            await child.start()
        await child.stop()

    asyncio.run(play())
