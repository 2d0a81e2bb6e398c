"""Commands end exactly once, whatever the device and the hub go through; desired documents have one version each."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from daemon_stage import EDGE, PATIENCE_S, DaemonProcess, clean_environment, until
from hub_stage import CAM, FakeDevice, HubProcess

from edge_hub.api import CommandView, DesiredRequest, DesiredView
from edge_hub.enrolment import device_configuration
from edge_hub.errors import AnswerError
from edge_sdk import mqtt
from edge_sdk.mqtt import Conditions, Pause, Pin, ReplyStatus, Report, State, Up, UpEnvelope
from edge_sdk.preference import Mode, Preference
from edge_sdk.wire import new_token

pytestmark = pytest.mark.broker

Device = Callable[..., FakeDevice]


def edge(hub: HubProcess, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `edge hub ...` as a person would."""
    return subprocess.run(
        [*EDGE, "hub", *words, "--data", str(hub.data)],
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * PATIENCE_S,
        env=clean_environment(hub.directory),
        cwd=hub.directory,
    )


def finished(hub: HubProcess, id_: str) -> CommandView:
    def look() -> CommandView | None:
        with hub.client() as client:
            found = client.command(id_, wait_s=1.0)
        return found if found.state != "pending" else None

    return until(look, "the end of the command")


def order(hub: HubProcess, command: Any = None, *, expires_s: float = 60.0) -> str:
    with hub.client() as client:
        return client.send([CAM], command or Report(), expires_s=expires_s)[str(CAM)]


def test_a_reply_ends_a_command(hub: HubProcess, device: Device) -> None:
    cam = device()
    id_ = order(hub, Pin(model="digits", variant="int8"))
    command = cam.command()
    assert command.id == id_
    assert command.body == Pin(model="digits", variant="int8")
    cam.reply(id_, text="pinned")
    found = finished(hub, id_)
    assert found.state == "done"
    assert found.reply is not None
    assert found.reply.text == "pinned"


def test_the_first_reply_stands(hub: HubProcess, device: Device) -> None:
    cam = device()
    id_ = order(hub)
    cam.confirmed(cam.reply(cam.command().id, ReplyStatus.REFUSED, code="pinned", text="no"))
    cam.confirmed(cam.reply(id_, ReplyStatus.DONE))
    found = finished(hub, id_)
    assert (found.state, found.reply and found.reply.code) == ("refused", "pinned")


def test_a_command_waits_for_a_device_that_is_away_and_for_a_hub_that_restarts(hub: HubProcess, device: Device) -> None:
    cam = device()
    cam.close()
    id_ = order(hub)
    hub.kill()
    hub.start()
    cam = device()
    cam.born()
    assert cam.command().id == id_
    cam.reply(id_)
    assert finished(hub, id_).state == "done"


def test_a_command_is_sent_again_to_a_device_that_is_born_without_having_answered(
    hub: HubProcess, device: Device
) -> None:
    cam = device()
    id_ = order(hub)
    cam.command()
    cam.born(boot="1" * 32)
    assert cam.command(2).id == id_


def test_what_nobody_answers_expires_once(hub: HubProcess, device: Device) -> None:
    cam = device()
    id_ = order(hub, expires_s=3.0)
    cam.command()
    until(lambda: finished(hub, id_), "the expiry")
    assert finished(hub, id_).state == "expired"
    cam.confirmed(cam.reply(id_))
    late = finished(hub, id_)
    assert (late.state, late.late) == ("expired", True)


def believes(cam: FakeDevice, ahead_s: float) -> None:
    """Report a state by a clock that is so far ahead."""
    now = time.time() + ahead_s
    body = State(at=now, conditions=Conditions())
    envelope = UpEnvelope(id=new_token(), boot=cam.boot, seq=0, sent=now, body=body)
    cam.publish(mqtt.up_topic(cam.device, Up.STATE), mqtt.pack(envelope), retain=True)


def skew_s(hub: HubProcess) -> float | None:
    with hub.client() as client:
        return client.device(CAM).device.skew_s


@pytest.mark.parametrize(("ahead_s", "later_s"), [(600.0, 600.0), (-600.0, 0.0)], ids=["ahead", "behind"])
def test_a_device_is_told_the_end_of_a_command_by_its_own_clock_where_that_is_ahead(
    hub: HubProcess, device: Device, ahead_s: float, later_s: float
) -> None:
    cam = device()
    believes(cam, ahead_s)
    until(lambda: abs((skew_s(hub) or 0.0) - ahead_s) < 60, "the hub to know its clock")
    id_ = order(hub)
    envelope = cam.command()
    known = finished_or_not(hub, id_)
    assert known.expires - known.sent == pytest.approx(60.0)
    assert envelope.sent == known.sent
    assert envelope.expires is not None
    assert envelope.expires - known.expires == pytest.approx(later_s, abs=60.0)
    assert (envelope.expires == known.expires) is (ahead_s < 0)


def finished_or_not(hub: HubProcess, id_: str) -> CommandView:
    with hub.client() as client:
        return client.command(id_)


def test_a_device_ten_minutes_ahead_acts_on_a_command_of_one(hub: HubProcess, tmp_path: Path) -> None:
    """The real daemon, in a process whose wall clock is ahead."""
    ahead = tmp_path / "ahead"
    ahead.mkdir()
    (ahead / "sitecustomize.py").write_text("import time\n_time = time.time\ntime.time = lambda: _time() + 600\n")
    with hub.client() as client:
        configuration = device_configuration(client.enrol(CAM, again=False), {})
        daemon = DaemonProcess(tmp_path / "board", configuration, environment={"PYTHONPATH": str(ahead)})
        daemon.start()
        try:
            until(lambda: (skew_s(hub) or 0.0) > 590, "the hub to know its clock")
            id_ = client.send([CAM], Report(), expires_s=60)[str(CAM)]
            found = finished(hub, id_)
            assert (found.state, found.late) == ("done", False), found
        finally:
            daemon.stop()


def test_a_reply_to_nothing_is_kept_and_harms_nobody(hub: HubProcess, device: Device) -> None:
    cam = device()
    cam.confirmed(cam.reply("a" * 32))
    with hub.client() as client:
        assert client.health().ok


def test_desired_documents_count_up_and_conflicts_are_refused(hub: HubProcess, device: Device) -> None:
    cam = device()

    def put(**more: Any) -> DesiredView:
        request = DesiredRequest(preferences={"digits": Preference(mode=Mode.SPEED)}, **more)
        with hub.client() as client:
            return client._ask("PUT", f"/api/v1/devices/{CAM}/desired", DesiredView, request)

    assert put().desired.version == 1
    assert put(if_version=1).desired.version == 2
    with pytest.raises(AnswerError) as caught:
        put(if_version=1)
    assert caught.value.code == "version-conflict"
    cam.when(lambda: any(e.body.version == 2 for e in cam.desired), "the document")


def test_send_prints_the_reply_and_its_exit_status_tells(hub: HubProcess, device: Device) -> None:
    cam = device()
    wanted = ("speed", "--deadline-ms", "50", "--battery-until", "18:30", "--max-power-w", "5")
    talking = subprocess.Popen(
        [*EDGE, "hub", "send", str(CAM), "prefer", *wanted, "--data", str(hub.data), "--json"],
        stdout=subprocess.PIPE,
        text=True,
        env=clean_environment(hub.directory),
    )
    command = cam.command()
    assert command.body.preference == Preference(
        mode=Mode.SPEED, deadline_ms=50.0, battery_until="18:30", max_power_w=5.0
    )
    cam.reply(command.id, text="as you like")
    out, _ = talking.communicate(timeout=PATIENCE_S)
    assert talking.returncode == 0
    (told,) = json.loads(out)["commands"]
    assert (told["state"], told["reply"]["text"]) == ("done", "as you like")


def test_a_refused_command_fails_in_one_line(hub: HubProcess, device: Device) -> None:
    cam = device()
    talking = subprocess.Popen(
        [*EDGE, "hub", "send", str(CAM), "pause", "--data", str(hub.data)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(hub.directory),
    )
    command = cam.command()
    assert command.body == Pause()
    cam.reply(command.id, ReplyStatus.REFUSED, code="busy", text="not now")
    _, err = talking.communicate(timeout=PATIENCE_S)
    assert talking.returncode == 1
    (line,) = err.splitlines()
    assert "not now" in line
    assert "[command-failed]" in line


def test_one_command_to_several_devices_needs_them_all_to_be_known(hub: HubProcess, device: Device) -> None:
    device()
    told = edge(hub, "send", f"{CAM},acme/nobody", "report", "--no-wait")
    assert told.returncode == 1
    assert "[unknown-device]" in told.stderr
    with hub.client() as client:
        assert client.device(CAM).commands == ()


@pytest.mark.parametrize(
    "words",
    [
        ("send", "acme", "report"),
        ("send", str(CAM), "dance"),
        ("send", str(CAM), "prefer", "speed", "--deadline-ms", "nan"),
        ("send", str(CAM), "prefer", "speed", "--min-accuracy", "101"),
        ("send", str(CAM), "prefer", "speed", "--battery-until", "24:00"),
        ("send", str(CAM), "configure", "--sample-every-s", "0"),
        ("send", str(CAM), "report", "--timeout", "0"),
    ],
)
def test_a_command_that_makes_no_sense_is_refused_before_it_is_sent(hub: HubProcess, words: tuple[str, ...]) -> None:
    told = edge(hub, *words)
    assert told.returncode in {1, 2}
    assert len([line for line in told.stderr.splitlines() if line.startswith("edge: ")]) == 1
    assert "Traceback" not in told.stderr


def test_show_and_devices_tell_of_a_device(hub: HubProcess, device: Device) -> None:
    cam = device()
    cam.born()
    cam.confirmed(cam.happens("\x1b[31mred"))
    listed = edge(hub, "devices")
    assert listed.returncode == 0
    assert "acme/cam1  online" in listed.stdout
    shown = edge(hub, "show", str(CAM))
    assert "\x1b" not in shown.stdout  # a device must not steer the terminal of who looks at it
    assert "red" in shown.stdout
    assert json.loads(edge(hub, "show", str(CAM), "--json").stdout)["device"]["device"] == str(CAM)
    assert edge(hub, "show", "acme/nobody").returncode == 1


def test_watch_tells_what_happens_and_ends_when_interrupted(hub: HubProcess, device: Device) -> None:
    import signal

    cam = device()
    cam.confirmed(cam.happens("long ago"))
    watching = subprocess.Popen(
        [*EDGE, "hub", "watch", "--after", "0", "--data", str(hub.data), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(hub.directory),
    )
    assert watching.stdout is not None
    first = json.loads(watching.stdout.readline())
    assert first["body"]["event"]["text"] == "long ago"
    cam.happens("just now")
    second = json.loads(watching.stdout.readline())
    assert (second["topic"], second["body"]["event"]["text"]) == ("event", "just now")
    watching.send_signal(signal.SIGINT)
    _, err = watching.communicate(timeout=PATIENCE_S)
    assert watching.returncode == 130
    assert err.splitlines()[-1] == "edge: interrupted"


def test_sent_commands_are_kept_in_order(hub: HubProcess, device: Device) -> None:
    cam = device()
    ids = [order(hub) for _ in range(5)]
    for number, id_ in enumerate(ids, start=1):
        assert cam.command(number).id == id_
        cam.reply(id_)
    for id_ in ids:
        assert finished(hub, id_).finished is not None
    with hub.client() as client:
        assert [one.id for one in client.device(CAM).commands] == ids[::-1]
