"""The commands `edge daemon ...` against a daemon that runs, and against none."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from daemon_stage import EDGE, PATIENCE_S, DaemonProcess, clean_environment, serving

from edge_sdk.bundle import Bundle
from edge_sdk.cli import main

pytestmark = [pytest.mark.device, pytest.mark.timeout(90)]

Edge = Callable[..., str]


@pytest.fixture
def board(daemon: Callable[..., DaemonProcess], digits: Bundle) -> DaemonProcess:
    board = daemon(serving(digits.path))
    board.start()
    return board


@pytest.fixture
def edge(board: DaemonProcess, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Edge:
    """Runs a command; what it printed."""
    monkeypatch.setenv("EDGE_DAEMON_SOCKET", str(board.socket))

    def edge(*arguments: str, status: int = 0) -> str:
        assert main(["daemon", *arguments]) == status
        captured = capsys.readouterr()
        return captured.out if status == 0 else captured.err

    return edge


def test_status_shows_all_there_is(edge: Edge) -> None:
    text = edge("status")
    for part in ("adaptive-edge-sdk", "hub: none", "senses:", "digits", "exact", "balanced"):
        assert part in text
    shown = json.loads(edge("status", "--json"))
    assert shown["models"]["digits"]["decision"]["variant"] == "exact"
    assert shown["hub"] == "none"
    assert shown["conditions"]["missing"]


def test_orders_are_carried_out_and_explained(edge: Edge) -> None:
    assert edge("pin", "digits", "quick") == "digits is pinned to quick\n"
    assert json.loads(edge("status", "--json"))["models"]["digits"]["pinned_by"] == "operator"
    assert json.loads(edge("unpin", "digits", "--json")) == {"text": "digits is decided by the policy again"}
    limits = ("--max-latency-ms", "50", "--deadline-ms", "80", "--min-accuracy", "90", "--max-temp-c", "70")
    limits += ("--battery-until", "18:30", "--max-power-w", "5")
    assert "battery" in edge("prefer", "battery", "--model", "digits", *limits)
    preference = json.loads(edge("status", "--json"))["models"]["digits"]["preference"]
    assert preference == {
        "mode": "battery", "max_latency_ms": 50, "deadline_ms": 80, "min_accuracy": 90, "max_temp_c": 70,
        "battery_until": "18:30", "battery_for_s": None, "max_power_w": 5,
    }  # fmt: skip
    assert "battery" in edge("prefer", "battery", "--battery-for-s", "3600")
    assert json.loads(edge("status", "--json"))["models"]["digits"]["preference"]["battery_until"].endswith("Z")
    assert "pin" in edge("explain")
    decisions = json.loads(edge("explain", "digits", "--json"))["decisions"]
    assert decisions[-1]["because"]["code"] == "start"


def test_an_impossible_order_is_one_line_and_a_status(edge: Edge) -> None:
    assert "unknown-variant" in edge("pin", "digits", "nope", status=2)
    assert "unknown-model" in edge("explain", "letters", status=1)
    assert "usage" in edge("prefer", "speed", "--max-latency-ms", "nan", status=2)
    assert "usage" in edge("prefer", "speed", "--battery-until", "noon", status=2)
    assert "usage" in edge("prefer", "speed", "--battery-until", "18:30", "--battery-for-s", "9", status=2)
    assert "usage" in edge("watch", "--every", "0", status=2)
    with pytest.raises(SystemExit) as caught:
        main(["daemon", "prefer", "quickest"])
    assert caught.value.code == 2


def test_without_a_daemon_every_command_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_DAEMON_SOCKET", str(tmp_path / "none.sock"))
    for command in (["status"], ["explain"], ["unpin"], ["pin", "a", "b"], ["prefer", "speed"], ["watch"]):
        assert main(["daemon", *command]) == 1
        said = capsys.readouterr().err
        assert "daemon-unreachable" in said
        assert said.count("\n") == 1


def test_watch_prints_a_line_each_time_until_interrupted(board: DaemonProcess, tmp_path: Path) -> None:
    watching = subprocess.Popen(
        [*EDGE, "daemon", "watch", "--every", "0.1", "--json", "--socket", str(board.socket)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(tmp_path),
    )
    assert watching.stdout is not None
    assert watching.stderr is not None
    with watching.stdout, watching.stderr:
        lines = [json.loads(watching.stdout.readline()) for _ in range(3)]
        watching.send_signal(signal.SIGINT)
        assert watching.wait(PATIENCE_S) == 130
        assert b"Traceback" not in watching.stderr.read()
    assert [line["models"]["digits"]["decision"]["variant"] for line in lines] == ["exact"] * 3
