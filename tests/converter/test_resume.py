"""A conversion that is killed goes on where it was, gives what one gives that was not, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_lab import digits

LIMIT_S = 120.0


def files(folder: Path) -> dict[str, bytes]:
    """What a bundle holds, but for what is measured anew each time."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in found
        if path.name not in {"evidence.json", "report.html"}
    }


def test_after_a_kill_it_goes_on_and_the_bundle_is_the_same(
    edge: Callable[..., Any], few_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    cache, scratch = tmp_path / "cache", tmp_path / "scratch"
    scratch.mkdir()
    out = tmp_path / "digits-1.edge"
    words = ["convert", digits.models()[1], "--data", few_digits, "--recipe", "default", "--cache", cache]
    running = subprocess.Popen(
        [sys.executable, "-m", "edge_sdk.cli", *map(str, words), "-o", out],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(scratch)},
    )
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end and len(list(cache.glob("??/[0-9a-f]*"))) < 3 and running.poll() is None:
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    assert running.wait(LIMIT_S) == -signal.SIGKILL
    assert not out.exists()
    assert list(scratch.iterdir()) != []

    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    again = edge(*words, "--resume", "-o", out)
    assert again.status == 0, again.err
    said = next(line for line in again.err.splitlines() if "known from an earlier conversion" in line)
    known, _, steps = said.removeprefix("edge: note: ").split()[:3]
    assert 3 <= int(known) < int(steps)

    whole = tmp_path / "whole" / "digits-1.edge"
    assert edge(*words[:-2], "--no-cache", "-o", whole).status == 0
    assert files(out) == files(whole)
    assert list(scratch.iterdir()) == []


def test_resuming_without_a_cache_is_refused(
    edge: Callable[..., Any], tiny: Path, points: Path, tmp_path: Path
) -> None:
    done = edge("convert", tiny, "--data", points, "--no-cache", "--resume", "-o", tmp_path / "a.edge")
    assert done.status == 2
    assert "--resume needs the results that --no-cache does not keep" in done.line
