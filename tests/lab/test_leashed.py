"""A leashed process never outlives its stop, its group, or us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_lab.errors import InterruptedRunError, PartDiedError
from edge_lab.interrupts import Interrupts
from edge_lab.leashed import Leashed, wait_for

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
WITH_CHILD = "import subprocess, sys; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); p.wait()"


def python(code: str, tmp_path: Path, *, piped: bool = True) -> Leashed:
    return Leashed("trial", [sys.executable, "-c", code], log=tmp_path / "trial.log", piped=piped)


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


def eventually(found: Callable[[], bool], limit_s: float = 30.0) -> bool:
    deadline = time.monotonic() + limit_s
    while not found():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_one_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    process = python(STUBBORN, tmp_path)
    assert process.stdout.readline() == b"up\n"
    begun = time.monotonic()
    process.stop(grace_s=0.3)
    assert 0.25 < time.monotonic() - begun < 20
    assert process.status == -signal.SIGKILL


def test_impatience_cuts_the_grace_short(tmp_path: Path) -> None:
    process = python(STUBBORN, tmp_path)
    assert process.stdout.readline() == b"up\n"
    begun = time.monotonic()
    process.stop(grace_s=30, patient=lambda: False)
    assert time.monotonic() - begun < 20


def test_its_children_end_with_it_even_when_it_ended_first(tmp_path: Path) -> None:
    process = python(WITH_CHILD, tmp_path)
    child = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    assert eventually(lambda: process.status is not None)
    process.stop(grace_s=1)
    assert eventually(lambda: gone(child))


def test_it_ends_when_we_are_killed(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from edge_lab.leashed import Leashed; import time\n"
        "p = Leashed('inner', ['sleep', '60'], log=Path(sys.argv[1]))\n"
        "print(p.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "inner.log")], stdout=subprocess.PIPE) as outer:
        assert outer.stdout is not None
        inner = int(outer.stdout.readline())
        assert not gone(inner)
        outer.kill()
    assert eventually(lambda: gone(inner))


def test_a_death_is_one_line_with_its_last_words(tmp_path: Path) -> None:
    code = "import sys; print('first', file=sys.stderr); sys.exit('the port is taken')"
    process = Leashed("hub", [sys.executable, "-c", code], log=tmp_path / "hub.log")
    with pytest.raises(
        PartDiedError, match=r"\Athe hub ended with status 1; its log ends: first \| the port is taken\Z"
    ):
        wait_for(lambda: False, what="the hub", limit_s=60, needs=[process], wait=time.sleep)
    process.stop(grace_s=1)


def test_what_does_not_come_in_time_is_said_so(tmp_path: Path) -> None:
    process = python(STUBBORN, tmp_path)
    with pytest.raises(PartDiedError, match="the answer did not come within 0 s"):
        wait_for(lambda: False, what="the answer", limit_s=0.1, needs=[process], wait=time.sleep)
    process.stop(grace_s=0)


def test_a_signal_is_noted_and_raised_only_where_the_run_waits() -> None:
    with Interrupts() as interrupts:
        interrupts.wait(0.01)
        signal.raise_signal(signal.SIGTERM)
        assert not interrupts.again
        signal.raise_signal(signal.SIGINT)
        assert interrupts.again
        with pytest.raises(InterruptedRunError, match="stopped by SIGTERM") as raised:
            interrupts.wait(60)
    assert raised.value.number == signal.SIGTERM
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
