"""How far a conversion is: bars where a person watches, lines elsewhere, nothing of it on stdout."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_converter import progress


def test_lines_go_to_stderr_and_the_table_to_stdout(
    edge: Callable[..., object], tiny: Path, points: Path, tmp_path: Path
) -> None:
    done = edge("convert", tiny, "--data", points, "--profile", "jetson-orin-nano", "-o", tmp_path / "a.edge")
    for stage in ("quantize", "evaluate", "time"):
        assert f"edge: {stage}, " in done.err  # type: ignore[attr-defined]
    assert "edge: " not in done.out  # type: ignore[attr-defined]
    assert "fp32 (reference)" in done.out  # type: ignore[attr-defined]
    assert "jetson-orin-nano" in done.out  # type: ignore[attr-defined]
    assert "\x1b" not in done.err  # type: ignore[attr-defined]


def on_a_terminal(*words: str) -> tuple[int, str, str]:
    """Runs `edge` with stderr on a terminal; returns status, stdout, and what the terminal was sent."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "edge_sdk.cli", *words], stdout=subprocess.PIPE, stderr=slave, text=True,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"},
    ) as running:  # fmt: skip
        os.close(slave)
        shown = b""
        end = time.monotonic() + 120
        while time.monotonic() < end:
            try:
                part = os.read(master, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            shown += part
        out, _ = running.communicate(timeout=30)
    os.close(master)
    return running.returncode, out, shown.decode("utf-8", "replace")


def test_on_a_terminal_there_are_bars_and_no_chatter_of_libraries(tiny: Path, points: Path, tmp_path: Path) -> None:
    status, out, shown = on_a_terminal("convert", str(tiny), "--data", str(points), "-o", str(tmp_path / "a.edge"))
    assert status == 0
    assert "fp32 (reference)" in out
    for stage in ("quantize", "evaluate", "time"):
        assert stage in shown
    assert "━" in shown
    assert "XNNPACK" not in shown
    assert shown.rstrip().endswith("\x1b[?25h")  # the cursor is back


def test_on_a_terminal_an_error_is_still_a_line(tiny: Path, points: Path, tmp_path: Path) -> None:
    tiny.write_bytes(tiny.read_bytes()[:300])
    status, out, shown = on_a_terminal("convert", str(tiny), "--data", str(points), "-o", str(tmp_path / "a.edge"))
    assert (status, out) == (2, "")
    assert f"edge: {tiny}: " in shown
    assert "[source-model]" in shown


def test_a_log_hears_now_and_then_how_much_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    now_s = [0.0]
    lines = progress.Lines(clock=lambda: now_s[0])
    lines.stage("evaluate", 100)
    for _ in range(100):
        now_s[0] += 6.0
        lines.advance(1)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "edge: evaluate, 100 steps"
    assert said[1] == "edge: evaluate, 4 of 100, about 10 min left"
    assert said[-1] == "edge: evaluate, 96 of 100, about 24 s left"
    assert len(said) == 25


def test_a_program_started_without_stderr_shows_nothing_and_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    with progress.chosen() as watch:
        watch.stage("make", 2)
        watch.advance(1)
        watch.note("what nobody reads")
