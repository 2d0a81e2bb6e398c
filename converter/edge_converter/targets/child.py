"""A compiler as a child process: with a deadline, a bound on what is kept of its output, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from edge_converter.errors import CompilerError

_MAX_OUTPUT_BYTES = 1 << 20
_CHUNK = 1 << 16
_SHOWN_CHARS = 300
_END_S = 5.0
_LOOK_S = 0.5


def run(command: Sequence[str], folder: Path, *, deadline_s: float) -> str:
    """What the compiler printed, of which the first megabyte is kept.

    Args:
        command: Program and arguments; no shell sees them.
        folder: It runs there, and its temporary files go there.
        deadline_s: It may take this long.

    Raises:
        CompilerError: It cannot be started, fails, crashes, or is not done in time.
    """
    name = Path(command[0]).name if len(command) < 3 or command[1] != "-m" else command[2]  # noqa: PLR2004
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
    try:
        # A session of its own: whatever it starts ends with it.
        child = subprocess.Popen(
            list(command),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    except OSError as cause:
        raise CompilerError(f"cannot be started: {cause.strerror or cause}", where=name) from cause
    until = time.monotonic() + deadline_s
    try:
        printed, is_closed = _printed(child, until)
        status = child.wait(max(_END_S, until - time.monotonic())) if is_closed else None
    except subprocess.TimeoutExpired:
        status = None
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait(_END_S)
        if child.stdout is not None:
            child.stdout.close()
    if status is None:
        raise CompilerError(f"not done within {deadline_s:g} s", where=name, hint="raise --compiler-deadline")
    if status != 0:
        # What fails is told in the bundle, which names no place on this machine.
        raise CompilerError(f"{_how(status)}: {_last(printed.replace(str(folder), '.'))}", where=name)
    return printed


def _printed(child: subprocess.Popen[bytes], until: float) -> tuple[str, bool]:
    """What it prints until it closes its output or ends, and whether it did so in time."""
    kept = bytearray()
    stream = child.stdout
    if stream is None:
        return "", True
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while (left_s := until - time.monotonic()) > 0:
            if not selector.select(min(left_s, _LOOK_S)):
                if child.poll() is not None:  # what it left running still holds its output
                    return kept.decode("utf-8", "replace"), True
                continue
            chunk = os.read(stream.fileno(), _CHUNK)
            if not chunk:
                return kept.decode("utf-8", "replace"), True
            kept += chunk[: max(0, _MAX_OUTPUT_BYTES - len(kept))]
    return kept.decode("utf-8", "replace"), False


def _how(status: int) -> str:
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


def _last(printed: str) -> str:
    """The last line, which is what went wrong where something did."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    return lines[-1][:_SHOWN_CHARS] if lines else "it said nothing"
