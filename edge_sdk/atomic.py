"""Files and directories that are there whole or not at all.

Everything is written beside its final name, flushed to the disk, and renamed; what a crash leaves behind is a
temporary name that begins with `.` and is swept by the next write.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edge_sdk.errors import StorageError

_PREFIX = ".edge-tmp-"


@contextlib.contextmanager
def storage_errors(where: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an `OSError` of a write into a `StorageError` that names the place.

    Raises:
        StorageError: The disk is full, or the place cannot be written.
    """
    try:
        yield
    except OSError as cause:
        raise StorageError(
            f"cannot be written: {cause.strerror or cause}",
            where=str(where),
            hint="free some space or choose another place; nothing was changed",
        ) from cause


def write_bytes(path: str | os.PathLike[str], content: bytes, *, mode: int = 0o644) -> None:
    """Replace the file's content, whole or not at all.

    Raises:
        StorageError: It could not be written; the old content stands.
    """
    target = Path(path)
    with storage_errors(target):
        descriptor, temporary = tempfile.mkstemp(prefix=_PREFIX, dir=target.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(mode)
            Path(temporary).replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
            raise
        sync_directory(target.parent)


@contextlib.contextmanager
def directory(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A fresh directory to fill, which takes the place of `path` when the block ends without an error.

    A directory that stands at `path` is replaced as one step as far as the file system allows: it is moved aside,
    the new one moved in, and the old one removed; if the second step fails the old one is moved back.

    Raises:
        StorageError: It could not be written; what stood at `path` stands.
    """
    target = Path(path)
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=target.parent))
        temporary.chmod(0o755)
    try:
        with storage_errors(target):
            yield temporary
            _sync_tree(temporary)
            _swap_in(temporary, target)
            sync_directory(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sync_directory(path: Path) -> None:
    """Make renames within a directory durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_tree(root: Path) -> None:
    for folder, _, files in os.walk(root):
        for name in files:
            descriptor = os.open(Path(folder) / name, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_directory(Path(folder))


def _swap_in(new: Path, target: Path) -> None:
    if not target.exists():
        new.rename(target)
        return
    aside = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=target.parent))
    try:
        target.rename(aside / "old")
        try:
            new.rename(target)
        except OSError:
            (aside / "old").rename(target)
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
