"""What goes wrong around a daemon, and what it does then: one clear line, the rest goes on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest
from daemon_stage import (
    EDGE,
    PATIENCE_S,
    DaemonProcess,
    clean_environment,
    fill,
    reporting,
    serving,
    small_disk,
    tiny_bundle,
    until,
)

from edge_daemon.spool import Limits
from edge_daemon.store import Answer, Store
from edge_sdk.bundle import BLOBS, Bundle
from edge_sdk.errors import CommandError
from edge_sdk.local import Done, LocalClient, PinRequest
from edge_sdk.wire import new_token

pytestmark = [pytest.mark.device, pytest.mark.timeout(90)]

MakeDaemon = Callable[..., DaemonProcess]


def refused(directory: Path, *arguments: str) -> tuple[int, str]:
    """Exit status and standard error of a daemon that does not start."""
    done = subprocess.run(
        [*EDGE, "daemon", "run", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        cwd=directory,
        env=clean_environment(directory),
    )
    return done.returncode, done.stderr


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("text", "status", "parts"),
    [
        ("[telemetry]\nsampl_every_s = 1\n", 2, ("sampl_every_s", "daemon.toml", "[config]")),
        ("[device]\nprofile = 'rpi99'\n", 2, ("rpi99", "[unknown-profile]")),
        ("[api]\ngroup = 'no-such-group'\n", 2, ("no-such-group", "[config]")),
        ("[mqtt]\nhost = 'h'\n", 2, ("device.tenant", "edge hub enroll")),
        ("[state]\ndirectory = '/proc/no'\n", 1, ("/proc/no", "[storage]")),
        ("[device\n", 2, ("not TOML", "[config]")),
    ],
)
def test_a_configuration_that_makes_no_sense_is_one_line(
    short_path: Path, text: str, status: int, parts: tuple[str, ...]
) -> None:
    config = short_path / "daemon.toml"
    config.write_text(text if "[state]" in text else f'state.directory = "state"\n{text}')
    code, said = refused(short_path, "--config", str(config), "--socket", str(short_path / "s"))
    assert code == status
    assert all(part in last_line(said) for part in parts)
    assert "Traceback" not in said


def test_with_an_empty_configuration_it_runs_alone(daemon: MakeDaemon) -> None:
    board = daemon()
    board.config.write_text("")
    board.start()
    status = board.status()
    assert status.hub == "none"
    assert status.models == {}
    assert status.conditions.load_pct is not None or "load_pct" in status.conditions.missing
    assert board.stop() == 0
    assert not board.socket.exists()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(daemon: MakeDaemon, how: signal.Signals) -> None:
    board = daemon()
    board.start()
    assert board.stop(how) == 0
    assert "did not end" not in board.said  # no stage took its whole time
    assert "hangs" not in board.said
    assert last_line(board.said).endswith("stopped")


def test_a_second_daemon_on_the_same_state_is_refused_in_one_line(daemon: MakeDaemon) -> None:
    board = daemon()
    board.start()
    code, said = refused(board.directory, "--config", str(board.config), "--socket", str(board.directory / "other"))
    assert code == 1
    assert "another daemon works with this state" in last_line(said)
    assert said.count("\n") == 1
    assert board.status()


def test_a_socket_that_is_taken_is_refused_in_one_line(daemon: MakeDaemon) -> None:
    first, second = daemon(name="1"), daemon(name="2")
    first.start()
    code, said = refused(second.directory, "--config", str(second.config), "--socket", str(first.socket))
    assert code == 1
    assert "another daemon answers here" in last_line(said)
    assert "[address-in-use]" in last_line(said)
    assert first.status()


def test_a_daemon_that_was_killed_leaves_nothing_in_the_way(daemon: MakeDaemon) -> None:
    board = daemon()
    for _ in range(2):
        board.start()
        board.kill()
    assert board.socket.exists()
    board.start()
    assert board.stop() == 0


def test_a_tampered_bundle_is_left_out_with_its_reason_and_the_others_are_served(
    daemon: MakeDaemon, digits: Bundle, tmp_path: Path
) -> None:
    letters = tiny_bundle(tmp_path / "letters-1.edge", name="letters")
    blob = next((letters.path / BLOBS).iterdir())
    blob.write_bytes(blob.read_bytes()[:-1] + b"\0")
    absent = tmp_path / "absent.edge"
    board = daemon(f'{serving(digits.path)}letters = "{letters.path}"\nabsent = "{absent}"\n')
    board.start()
    status = board.status()
    assert set(status.models) == {"digits"}
    assert set(status.left_out) == {"letters", "absent"}
    assert blob.name[:12] in status.left_out["letters"]
    assert board.said.count("is not served") == 2
    with LocalClient(board.socket) as client, pytest.raises(CommandError, match="letters"):
        client.call("POST", "/v1/pin", Done, PinRequest(model="letters", variant="exact"))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_on_a_full_disk_it_goes_on_says_so_and_recovers(daemon: MakeDaemon, digits: Bundle, short_path: Path) -> None:
    with small_disk(short_path / "disk", "700k") as disk:
        board = daemon(serving(digits.path) + "[policy]\nsnapshot_every_s = 1\n")
        board.config.write_text(board.config.read_text().replace('"state"', f'"{disk}"'))
        board.start()
        fill(disk / "ballast")
        with LocalClient(board.socket) as client:

            def pin(number: int) -> None:
                client.call("POST", "/v1/pin", Done, PinRequest(model="digits", variant=("quick", "exact")[number % 2]))

            with pytest.raises(CommandError) as caught:  # once what is left of the write-ahead log's room is used up
                deque(map(pin, range(300)), maxlen=0)
        assert caught.value.code == "storage"
        until(lambda: board.status().trouble, "the trouble to be shown")
        assert "full" in board.status().trouble[0]
        assert board.status().models["digits"].decision is not None
        board.says("working on")
        assert board.said.count("working on") == 1
        (disk / "ballast").unlink()
        board.says("state is kept again")
        with LocalClient(board.socket) as client:
            client.call("POST", "/v1/pin", Done, PinRequest(model="digits", variant="quick"))
        assert board.status().trouble == ()
        assert board.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_disk_that_is_full_from_the_start_does_not_keep_it_from_deciding(
    daemon: MakeDaemon, digits: Bundle, short_path: Path
) -> None:
    with small_disk(short_path / "disk", "64k") as disk:
        fill(disk / "ballast")
        board = daemon(serving(digits.path))
        board.config.write_text(board.config.read_text().replace('"state"', f'"{disk}"'))
        board.start()
        assert "memory has to do" in board.status().trouble[0]
        assert board.status().models["digits"].decision is not None
        assert board.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_on_a_disk_that_filled_up_it_starts_with_what_was_kept(
    daemon: MakeDaemon, digits: Bundle, short_path: Path
) -> None:
    pytest.importorskip("paho")
    with small_disk(short_path / "disk", "700k") as disk:
        board = daemon(reporting(1) + serving(digits.path) + "[policy]\nsnapshot_every_s = 1\n")
        board.config.write_text(board.config.read_text().replace('"state"', f'"{disk}"'))
        board.start()
        with LocalClient(board.socket) as client:
            client.call("POST", "/v1/pin", Done, PinRequest(model="digits", variant="quick"))
        board.stop()
        store = Store(disk, boot=new_token(), limits=Limits(max_bytes=10_000, max_age_s=1e9))
        store.begin(Answer(command="a" * 32, sent=5.0), now=6.0)  # of a measurement that the stop cut short
        store.close()
        fill(disk / "ballast")
        board.start()
        status = board.status()
        assert "full" in status.trouble[0]
        assert status.models["digits"].pinned == "quick"
        board.says("a restart would not know")
        (disk / "ballast").unlink()
        board.says("state is kept again")
        assert board.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize("kept", [True, False])
def test_a_disk_that_is_read_only_does_not_keep_it_from_deciding(
    daemon: MakeDaemon, digits: Bundle, short_path: Path, *, kept: bool
) -> None:
    with small_disk(short_path / "disk", "700k") as disk:
        board = daemon(serving(digits.path))
        board.config.write_text(board.config.read_text().replace('"state"', f'"{disk}/state"'))
        if kept:
            board.start()
            board.stop()
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        board.start()
        assert "memory has to do" in board.status().trouble[0]
        assert board.status().models["digits"].decision is not None
        assert board.stop() == 0


def test_damaged_state_is_begun_anew_and_said(daemon: MakeDaemon, digits: Bundle) -> None:
    board = daemon(serving(digits.path))
    board.start()
    board.stop()
    (board.state / "state.db").write_bytes(b"x" * 50_000)
    board.start()
    assert "is damaged" in board.said
    assert (board.state / "state.db.damaged").exists()
    assert board.status().models["digits"].decision is not None


def test_damaged_values_are_forgotten_and_said(daemon: MakeDaemon, digits: Bundle) -> None:
    pytest.importorskip("paho")
    board = daemon(reporting(1) + serving(digits.path))
    board.start()
    board.stop()
    store = Store(board.state, boot=new_token(), limits=Limits(max_bytes=10_000, max_age_s=1e9))
    names = ["policy", "wishes", "settings", "desired.version", "desired.refused"]
    counts = ["spool.dropped", "spool.dropped.reported", "spool.dropped.told", "commands.floor"]
    store.commit(1.0, values=dict.fromkeys(names + counts, b"\xff\xfe"))
    store.close()
    board.start()
    assert board.status().models["digits"].decision is not None
    board.says("the kept settings")
    assert board.stop() == 0
    assert board.said.count("can't be read") == len(names)


def test_a_variant_that_is_gone_with_a_new_bundle_is_not_decided_any_more(
    daemon: MakeDaemon, digits: Bundle, tmp_path: Path
) -> None:
    board = daemon(serving(digits.path))
    board.start()
    with LocalClient(board.socket) as client:
        client.call("POST", "/v1/pin", Done, PinRequest(model="digits", variant="quick"))
    board.stop()
    manifest = digits.path / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text.replace('"id": "quick"', '"id": "fast"'))
    board.start()
    model = board.status().models["digits"]
    assert model.pinned is None
    assert model.decision is not None
    assert model.decision.variant in {"exact", "fast"}


def test_no_daemon_needs_numpy_or_a_runtime(daemon: MakeDaemon, digits: Bundle) -> None:
    pytest.importorskip("paho")
    board = daemon(reporting(1) + serving(digits.path))
    board.start()
    mapped = Path(f"/proc/{board.pid}/maps").read_text().lower()
    for heavy in ("numpy", "tensorflow", "litert", "tflite_runtime"):
        assert heavy not in mapped
    assert "_ssl" in mapped, "the file is what we take it for"


def test_systemd_is_told_when_it_is_ready_lives_and_stops(daemon: MakeDaemon, short_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(short_path / "notify"))
        systemd.settimeout(PATIENCE_S)
        board = daemon(environment={"NOTIFY_SOCKET": str(short_path / "notify"), "WATCHDOG_USEC": "400000"})
        board.start(ready=False)
        for awaited in (b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"):
            while not systemd.recv(1000).startswith(awaited):
                pass
        os.kill(board.pid, signal.SIGTERM)
        while systemd.recv(1000) != b"STOPPING=1":  # it is read meanwhile: a socket that is full would hold it up
            pass
        assert board.wait() == 0


def test_a_signal_while_it_starts_ends_it(daemon: MakeDaemon) -> None:
    board = daemon()
    board.start(ready=False)
    time.sleep(0.25)
    assert board.stop() in {0, -signal.SIGTERM}, "before the handler stands, the signal itself ends it"
    board.start()
    assert board.stop() == 0


def test_what_sensors_say_is_shown_and_played_values_are_marked(daemon: MakeDaemon, tmp_path: Path) -> None:
    for name, text in (
        ("sys/class/thermal/thermal_zone0/type", "cpu-thermal"),
        ("sys/class/thermal/thermal_zone0/temp", "61500"),
        ("sys/class/power_supply/BAT0/type", "Battery"),
        ("sys/class/power_supply/BAT0/present", "1"),
        ("sys/class/power_supply/BAT0/capacity", "42"),
        ("sys/class/power_supply/BAT0/status", "Discharging"),
    ):
        path = tmp_path / "board" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    board = daemon(f'[sensors]\nroot = "{tmp_path / "board"}"\nplayed = true\n[device]\nprofile = "rpi4"\n')
    board.start()
    # It waits half a second for its sensors, and begins without those that take longer.
    until(lambda: not {"temp_c", "battery_pct"} & set(board.status().conditions.missing), "the sensors to answer")
    conditions = board.status().conditions
    assert (conditions.temp_c, conditions.battery_pct, conditions.charging) == (61.5, 42.0, False)
    assert conditions.played
    assert conditions.temp_limit_c is not None
    (tmp_path / "board/sys/class/thermal/thermal_zone0/temp").write_text("70000\n")
    until(lambda: board.status().conditions.temp_c == 70.0, "the new temperature")


def test_a_profile_with_an_impossible_limit_is_told_and_the_shipped_one_taken(
    daemon: MakeDaemon, tmp_path: Path
) -> None:
    site = tmp_path / "profiles"
    site.mkdir()
    (site / "rpi4.toml").write_text(
        'extends = "rpi4"\n[thermal]\nmax_temp_c = { value = 40, basis = "measured", source = "a slip" }\n'
    )
    board = daemon('[device]\nprofile = "rpi4"\n', environment={"EDGE_PROFILES": str(site)})
    board.start()
    status = board.status()
    assert status.profile == "rpi4"
    assert status.conditions.temp_limit_c == 75
    assert len(status.trouble) == 1
    assert f"{site}/rpi4.toml: thermal.max_temp_c: 40 C cannot be kept" in status.trouble[0]
    assert "a device profile is left out" in board.said
    assert board.stop() == 0


def test_a_board_whose_only_profile_is_impossible_runs_without_one(daemon: MakeDaemon, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('id = "mine"\nextends = "rpi4"\n[board]\nr_c_per_w = { value = [1, -1] }\n')
    board = daemon('[device]\nprofile = "mine"\n', environment={"EDGE_PROFILES": str(tmp_path)})
    board.start()
    status = board.status()
    assert status.profile is None
    assert "mine.toml" in status.trouble[0]
    assert board.stop() == 0
