"""The directory a demonstration writes to: only its own is overwritten, and only by one demonstration at a time.

A marker file says that the directory is ours. Everything appears in it whole or not at all; a directory that we made
and put nothing into is removed again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from edge_lab.errors import OutDirectoryBusyError
from edge_sdk import atomic
from edge_sdk.errors import StorageError, UsageError

MARKER = ".edge-demo"
REPORT = "report.html"
_MARKER_TEXT = b"Written by `edge demo`, which may overwrite what it wrote here.\n"


class OutDirectory:
    """An open one; see `opened`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def put_report(self, page: str) -> Path:
        """Write the page of the play.

        Raises:
            StorageError: It could not be written; the old one stands.
        """
        target = self.path / REPORT
        atomic.write_bytes(target, page.encode())
        return target

    def put_bundle(self, source: Path) -> Path:
        """Put a copy of a bundle in the place of the one of the same name.

        Raises:
            StorageError: It could not be written; the old one stands.
        """
        target = self.path / source.name
        with atomic.directory(target) as fresh, atomic.storage_errors(target):
            shutil.copytree(source, fresh, dirs_exist_ok=True)
        return target


@contextlib.contextmanager
def opened(path: Path) -> Iterator[OutDirectory]:
    """Make the directory, or take one of ours, and keep other demonstrations out of it.

    Raises:
        UsageError: It is a file, or a directory that holds what is not ours.
        OutDirectoryBusyError: Another demonstration is writing to it.
        StorageError: It cannot be made or written.
    """
    made = _make(path)
    marked = (path / MARKER).exists()
    try:
        with _held(path):
            yield OutDirectory(path)
    finally:
        # Where nothing was put, nothing stays of us either.
        if not marked and {entry.name for entry in path.iterdir()} == {MARKER}:
            (path / MARKER).unlink()
        if made:
            with contextlib.suppress(OSError):
                path.rmdir()


def _make(path: Path) -> bool:
    """Make the directory where there is none; True if it was made."""
    if path.is_dir():
        if not (path / MARKER).is_file() and any(path.iterdir()):
            raise UsageError(
                "holds files that no demonstration has written",
                where=str(path),
                hint="name another directory with --out, or an empty one",
            )
        return False
    if path.exists() or path.is_symlink():
        raise UsageError("is no directory", where=str(path), hint="name another place with --out")
    try:
        path.mkdir(parents=True)
    except OSError as cause:
        raise StorageError(
            f"cannot be made: {cause.strerror}", where=str(path), hint="name another place with --out"
        ) from cause
    return True


@contextlib.contextmanager
def _held(path: Path) -> Iterator[None]:
    marker = path / MARKER
    with atomic.storage_errors(marker):
        descriptor = os.open(marker, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as cause:
            raise OutDirectoryBusyError(
                "another demonstration writes here", where=str(path), hint="wait for it, or name another with --out"
            ) from cause
        if os.fstat(descriptor).st_size == 0:
            with atomic.storage_errors(marker):
                os.write(descriptor, _MARKER_TEXT)
        yield
    finally:
        os.close(descriptor)
