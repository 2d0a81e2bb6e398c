"""`edge demo` as a child process of a test, and what tells whether anything of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

MARK = "EDGE_TRIAL"


class Trial:
    """`edge demo` as a child process in a session of its own, marked so that all it starts can be found.

    Args:
        out: Its `--out`.
        scratch: Its directory for temporary files, empty.
        words: More arguments.
    """

    def __init__(self, out: Path, scratch: Path, *words: str) -> None:
        self.scratch = scratch
        self._mark = uuid.uuid4().hex
        env = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edge_sdk.cli", "demo", "--out", str(out), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env | {MARK: self._mark, "TMPDIR": str(scratch)},
            start_new_session=True,
        )
        self.said = ""
        self.printed = b""
        self._readers = [threading.Thread(target=self._read_stderr), threading.Thread(target=self._read_stdout)]
        for reader in self._readers:
            reader.start()

    def wait_until_said(self, words: str, limit_s: float) -> None:
        """Wait until these words are on its stderr."""
        deadline = time.monotonic() + limit_s
        while words not in self.said:
            assert self.process.poll() is None, f"it ended before it said {words!r}:\n{self.said}"
            assert time.monotonic() < deadline, f"it did not say {words!r} in {limit_s} s:\n{self.said}"
            time.sleep(0.02)

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> None:
        """As a terminal does: to the whole process group in the foreground."""
        os.killpg(self.process.pid, number)

    def finish(self, limit_s: float) -> int:
        """Its exit status, once it ended."""
        try:
            status = self.process.wait(limit_s)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait(10)
            for reader in self._readers:
                reader.join(10)
            for stream in (self.process.stdout, self.process.stderr):
                assert stream is not None
                stream.close()
        return status

    def processes(self) -> list[str]:
        """What it started, whatever that started in turn, and that still runs."""
        mark = f"{MARK}={self._mark}".encode()
        running = (str(folder) for folder in Path("/proc").glob("[0-9]*") if mark in _strings(folder / "environ"))
        return [f"{folder}: {b' '.join(_strings(Path(folder) / 'cmdline'))!r}" for folder in running]

    def leftovers(self) -> list[str]:
        """Processes and temporary files; with the processes go their ports."""
        return self.processes() + [str(path) for path in self.scratch.iterdir()]

    def _read_stderr(self) -> None:
        stream = self.process.stderr
        assert stream is not None
        for line in stream:
            self.said += line.decode("utf-8", "replace")

    def _read_stdout(self) -> None:
        assert self.process.stdout is not None
        self.printed = self.process.stdout.read()


class Demonstrated:
    """A demonstration that ran to its end."""

    def __init__(self, out: Path, trial: Trial, status: int, leftovers: list[str]) -> None:
        self.out = out
        self.trial = trial
        self.status = status
        self.leftovers = leftovers

    @property
    def bundle(self) -> Path:
        return self.out / "digits-1.edge"


def _strings(path: Path) -> list[bytes]:
    """What a file of /proc holds between its zero bytes; nothing where the process is gone or another user's."""
    try:
        return path.read_bytes().split(b"\0")
    except OSError:
        return []
