"""`edge daemon record`: a trace that is there whole or not at all, and that the simulator plays."""

from __future__ import annotations

import csv
import itertools
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from daemon_stage import EDGE, PATIENCE_S, DaemonProcess, clean_environment, serving, until

from edge_daemon import trace
from edge_daemon.sensors.suite import SensorSuite
from edge_daemon.sensors.tcpinfo import TcpInfo
from edge_sdk.bundle import Bundle
from edge_sdk.cli import main
from edge_sdk.local import AppReport, Assignment, LocalClient, Register, Registered

pytestmark = [pytest.mark.device, pytest.mark.timeout(90)]

BOARD = {
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "61824\n",
    "sys/class/hwmon/hwmon1/name": "ina219\n",
    "sys/class/hwmon/hwmon1/power1_input": "3250000\n",
    "sys/class/power_supply/BAT0/type": "Battery\n",
    "sys/class/power_supply/BAT0/status": "Charging\n",
    "sys/class/power_supply/BAT0/capacity": "50\n",
    "sys/class/power_supply/BAT0/energy_full": "20000000\n",
    "sys/class/power_supply/BAT0/power_now": "1750000\n",
    "proc/stat": "cpu  0 0 0 0 0 0 0 0\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in BOARD.items():
        file = tmp_path / "board" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path / "board"


def rows(path: Path) -> list[Mapping[str, str]]:
    with path.open(newline="", encoding="ascii") as file:
        return list(csv.DictReader(file))


def test_a_recording_has_the_columns_that_ever_had_a_value(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "here" / "trace.csv"
    out.parent.mkdir()
    nobody = str(tmp_path / "none.sock")
    words = ["--out", str(out), "--every", "0.1", "--for", "0.35", "--root", str(root), "--socket", nobody]
    assert main(["daemon", "record", *words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    found = rows(out)
    assert told["rows"] == len(found) <= 4  # fewer where the machine has others to serve
    assert list(found[0]) == told["columns"]
    assert {"time_s", "temp_c", "power_w", "battery_pct", "battery_wh", "battery_w", "charging"} <= set(found[0])
    assert told["played"] == ["battery_w"]
    assert "no connection to a hub" in told["missing"]["rtt_ms"]
    first = found[0]
    assert (first["time_s"], first["temp_c"], first["power_w"], first["charging"]) == ("0", "61.824", "3.25", "1")
    assert float(first["battery_w"]) == -5.0  # a panel gives what charges the battery and what the board draws
    assert float(first["battery_wh"]) == 10.0
    assert list(out.parent.iterdir()) == [out]
    times = [float(row["time_s"]) for row in found]
    assert all(later > earlier for earlier, later in itertools.pairwise(times))


@pytest.mark.parametrize(
    ("takes_s", "times"),
    [
        ((0.0, 0.0, 0.0, 0.0), [0.0, 0.1, 0.2, 0.3]),
        ((0.0, 0.12, 0.0), [0.0, 0.1, 0.22, 0.3]),
        ((0.0, 0.0999, 0.0), [0.0, 0.1, 0.2, 0.3]),
        ((0.19, 0.0, 0.0), [0.0, 0.19, 0.24, 0.34]),
        ((0.4,), [0.0, 0.4]),
    ],
)
def test_a_row_that_is_late_is_not_made_up_for_nor_followed_at_once(
    monkeypatch: pytest.MonkeyPatch, takes_s: tuple[float, ...], times: list[float]
) -> None:
    now_s = 1000.0

    class Ended(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            nonlocal now_s
            now_s += timeout or 0.0
            return False

    monkeypatch.setattr("edge_daemon.trace.time.monotonic", lambda: now_s)
    found = []
    for number, time_s in enumerate(trace._times(0.1, 0.35, Ended())):
        found.append(round(time_s, 3))
        now_s += takes_s[number] if number < len(takes_s) else 0.0
    monkeypatch.undo()
    assert found == times


def test_setting_the_wall_clock_tears_no_hole(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = itertools.cycle([0.0, 86_400.0, -86_400.0])
    wall = time.time
    monkeypatch.setattr("edge_daemon.trace.time.time", lambda: wall() + next(steps))
    out = tmp_path / "trace.csv"
    with SensorSuite(root) as suite:
        trace.record(out, suite, root=str(root), socket="/nowhere", every_s=0.02, for_s=0.1, ended=threading.Event())
    found = rows(out)
    assert float(found[1]["unix_s"]) - float(found[0]["unix_s"]) > 80_000
    times = [float(row["time_s"]) for row in found]
    assert all(0 < later - earlier < 60 for earlier, later in itertools.pairwise(times))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_recording_that_is_interrupted_ends_with_a_whole_trace(root: Path, tmp_path: Path, number: int) -> None:
    out = tmp_path / "trace.csv"
    out.write_text("the old one")
    with recording(root, out, tmp_path) as child:
        assert out.read_text() == "the old one"
        child.send_signal(number)
        stdout, stderr = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 0, stderr
    found = rows(out)
    assert len(found) >= 1
    assert f"{len(found)} rows" in stdout
    assert all(None not in row.values() and row["temp_c"] == "61.824" for row in found)


def test_a_recording_that_is_killed_leaves_what_was_there(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "trace.csv"
    out.parent.mkdir()
    out.write_text("the old one")
    with recording(root, out, tmp_path) as child:
        child.kill()
        child.communicate(timeout=PATIENCE_S)
    assert {path.name: path.read_text() for path in out.parent.iterdir()} == {"trace.csv": "the old one"}


def recording(root: Path, out: Path, home: Path) -> subprocess.Popen[str]:
    """A child that records, once it does."""
    words = ["daemon", "record", "--out", str(out), "--every", "0.1", "--root", str(root), "--socket", "/nowhere"]
    child = subprocess.Popen(
        [*EDGE, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean_environment(home)
    )
    assert child.stderr is not None
    assert "Ctrl-C ends it" in child.stderr.readline()
    return child


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--every", "0"), "--every 0.0 is out of range"),
        (("--every", "nan"), "--every nan is out of range"),
        (("--for", "-1"), "--for -1.0 is out of range"),
        (("--for", "inf"), "--for inf is out of range"),
        (("--root", "/no/such/place"), "there is no such directory"),
        (("--profile", "c64"), "no profile"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_recorded(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], says: str
) -> None:
    out = tmp_path / "trace.csv"
    assert main(["daemon", "record", "--out", str(out), "--root", str(root), "--socket", "/nowhere", *words]) == 2
    assert says in capsys.readouterr().err
    assert not out.exists()


def test_a_place_that_cannot_be_written_is_told_at_once(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "no" / "such" / "folder.csv"
    assert main(["daemon", "record", "--out", str(out), "--root", str(root), "--socket", "/nowhere"]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_a_device_is_not_recorded_over(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "null").symlink_to("/dev/null")
    words = ("--out", str(tmp_path / "null"), "--root", str(root), "--socket", "/nowhere")
    assert main(["daemon", "record", *words]) == 1  # at once: without --for it would go on for ever
    assert "is a device" in capsys.readouterr().err


def test_a_board_of_which_nothing_is_played_still_makes_a_trace_the_simulator_takes(tmp_path: Path) -> None:
    out = tmp_path / "trace.csv"
    done = record_for(out, SensorSuite(tmp_path), root=tmp_path)
    assert done.played == ()
    assert set(rows(out)[0]) == {"time_s", "unix_s", "slowdown"}


def record_for(out: Path, suite: SensorSuite, *, root: Path, socket: str = "/nowhere") -> trace.Recording:
    with suite:
        return trace.record(
            out, suite, root=str(root), socket=socket, every_s=0.02, for_s=0.05, ended=threading.Event()
        )


def test_a_throughput_holds_before_and_after_the_transfer_that_showed_it(root: Path, tmp_path: Path) -> None:
    class Once(SensorSuite):
        asked = 0

        def read(self) -> Any:
            self.asked += 1
            if self.asked == 2:
                self.throughput.feed("up", 1_000_000, 4.0)
            conditions = super().read()
            if self.asked == 3:
                self.throughput = type(self.throughput)(time.monotonic)
            if self.asked == 6:
                ended.set()
            return conditions

    ended = threading.Event()
    out = tmp_path / "trace.csv"
    with Once(root) as suite:
        suite.look(TcpInfo(rtt_ms=12.0, acked_bytes=None, busy_s=None))
        trace.record(out, suite, root=str(root), socket="/nowhere", every_s=0.01, for_s=60.0, ended=ended)
    found = rows(out)
    assert len(found) > 3
    assert {row["up_mbps"] for row in found} == {"2"}
    assert {row["rtt_ms"] for row in found} == {"12"}


def test_a_recording_ends_before_it_is_longer_than_anybody_plays(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "trace.csv"
    for name, most in (("MOST_ROWS", 3), ("MOST_BYTES", 400)):
        with monkeypatch.context() as patched, SensorSuite(root) as suite:
            patched.setattr(trace, name, most)
            done = trace.record(
                out, suite, root=str(root), socket="/nowhere", every_s=0.01, for_s=None, ended=threading.Event()
            )
        assert done.full
        assert done.rows == len(rows(out)) <= 20
        assert out.stat().st_size <= 1000


def test_rows_too_far_apart_to_be_played_are_warned_of(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--root", str(root), "--socket", "/nowhere", "--for", "0.1", "--every", "60"]
    assert main(["daemon", "record", "--out", str(tmp_path / "trace.csv"), *words]) == 0
    assert "sees gaps" in capsys.readouterr().err
    reader = pytest.importorskip("edge_lab.simulate.trace", reason="numpy is missing")
    assert reader.HOLD_S == trace.HOLD_S


def test_the_simulators_reader_takes_what_was_recorded(root: Path, tmp_path: Path) -> None:
    reader = pytest.importorskip("edge_lab.simulate.trace", reason="numpy is missing")
    for board in (root, tmp_path):
        out = tmp_path / f"{board.name}.csv"
        record_for(out, SensorSuite(board), root=board)
        recorded = reader.read(out)
        assert set(recorded.columns) == ({"battery_w"} if board == root else {"slowdown"})


def test_with_a_daemon_the_requests_of_its_apps_and_how_slow_they_are_answered_are_recorded(
    daemon: Callable[..., DaemonProcess], digits: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Counting(SensorSuite):
        rows = 0

        def read(self) -> Any:
            self.rows += 1
            return super().read()

    monkeypatch.setattr(trace, "_STATUS_TIMEOUT_S", PATIENCE_S)
    board = daemon(serving(digits.path))
    board.start()
    out, ended = tmp_path / "trace.csv", threading.Event()
    done: list[trace.Recording] = []

    def record() -> None:
        with suite:
            found = trace.record(
                out, suite, root=str(tmp_path), socket=str(board.socket), every_s=0.05, for_s=None, ended=ended
            )
        done.append(found)

    suite, recorder = Counting(tmp_path), threading.Thread(target=record)
    with LocalClient(board.socket) as client:
        app = client.call("POST", "/v1/apps", Registered, Register(model="digits", pid=os.getpid()))

        def report(p50_ms: float) -> None:
            body = AppReport(active=app.assignment.variant, calls=10, p50_ms=p50_ms, p95_ms=p50_ms)
            client.call("POST", f"/v1/apps/{app.app}/report", Assignment, body)

        report(2.0)
        recorder.start()
        try:
            for p50_ms in (2.0, 5.0, 2.0):
                report(p50_ms)
                enough = suite.rows + 4  # until it was asked twice in between
                until(lambda enough=enough: suite.rows >= enough, "a few rows")
        finally:
            ended.set()
            recorder.join(PATIENCE_S)
    assert {"requests_per_s", "slowdown"} <= set(done[0].played)
    found = rows(out)
    assert sum(float(row["requests_per_s"] or 0) for row in found) > 0
    slow = [float(row["slowdown"]) for row in found if row["slowdown"]]
    assert min(slow) >= 1.0
    assert max(slow) == pytest.approx(2.5)
