"""A PostgreSQL of the tests' own: made in a temporary directory, on a socket there, gone with the tests."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

_PATIENCE_S = 60.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def binaries() -> Path | None:
    """Where `initdb` and `postgres` lie; Debian keeps them off the PATH, a directory for each version."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    on_path = shutil.which("initdb")
    if on_path:
        found.append(Path(on_path).resolve().parent)
    return max(found, key=lambda path: (len(path.parent.name), path.parent.name), default=None)


class PostgresServer:
    """One server. PostgreSQL refuses to run as root: then it runs as the user its package made.

    Args:
        fast: Safe from a killed process, but not from a power cut.
    """

    def __init__(self, *, fast: bool = True) -> None:
        found = binaries()
        assert found is not None
        self._bin = found
        self._fast = fast
        self._user = "postgres" if os.geteuid() == 0 else None
        self.directory = Path(tempfile.mkdtemp(prefix="edge-pg-"))
        if self._user:
            os.chown(self.directory, pwd.getpwnam(self._user).pw_uid, -1)
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count()
        self._run("initdb", "-D", str(self.directory / "data"), "-A", "trust", "-U", "edge", "-E", "UTF8", "--no-sync")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://edge@/{database}?host={self.directory}"

    def start(self) -> None:
        fast = ("-c", "fsync=off", "-c", "full_page_writes=off") if self._fast else ()
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(self._bin / "postgres", "-D", self.directory / "data", "-k", self.directory),
                    *("-c", "listen_addresses=", "-c", "shared_buffers=32MB", *fast),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                user=self._user,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - it allocates nothing
                start_new_session=True,
            )
        deadline = time.monotonic() + _PATIENCE_S
        while not self._answers():
            assert self._process.poll() is None, (self.directory / "log").read_text()
            assert time.monotonic() < deadline, "PostgreSQL does not start"
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT at once but in order, SIGQUIT as after a crash."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait(_PATIENCE_S)

    def close(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.directory)

    def sql(self, statement: str, *values: object, database: str = "postgres") -> list[Any]:
        """Run one statement; its rows."""
        import asyncpg

        async def run() -> list[Any]:
            connection = await asyncpg.connect(self.url(database), server_settings={"search_path": "edge_hub,public"})
            try:
                return await connection.fetch(statement, *values)
            finally:
                await connection.close()

        # A thread of its own: a test's event loop may be running in this one.
        with ThreadPoolExecutor(1) as beside:
            return beside.submit(asyncio.run, run()).result(_PATIENCE_S)

    @contextlib.contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """The name of a database for the length of the block."""
        name = f"t{next(self._numbers)}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield name
        finally:
            self.sql(f"DROP DATABASE {name} WITH (FORCE)")

    def _answers(self) -> bool:
        done = subprocess.run([self._bin / "pg_isready", "-q", "-h", self.directory], check=False, timeout=_PATIENCE_S)
        return done.returncode == 0

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._bin / program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=self.directory,
            user=self._user,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        )
        assert done.returncode == 0, done.stderr


def _die_with_parent() -> None:
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)
