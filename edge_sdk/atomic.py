"""Files and directories that are there whole or not at all.

Everything is written beside its final name, flushed to the disk, and renamed. What a killed writer leaves behind is a
temporary name that begins with `.edge-tmp-`; each writer holds a lock on its own, so that a later write in that
directory can tell the abandoned from those still being written, and removes them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from edge_sdk.errors import StorageError

PREFIX = ".edge-tmp-"
_ABANDONED_AFTER_S = 60  # a writer locks its name at once after making it; this covers the moment between
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2  # renameat2(2)


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
    with file(path, mode=mode) as stream:
        stream.write(content)


def check(path: str | os.PathLike[str]) -> None:
    """Raise if what stands here is nothing to be replaced: who runs as root would put a file where /dev/null was.

    Raises:
        StorageError: It is a device, a pipe or a socket.
    """
    try:
        kind = os.stat(path).st_mode  # noqa: PTH116 - follows links, as /dev/stdout is one
    except OSError:
        return
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise StorageError("is a device, a pipe or a socket", where=str(path), hint="name a file; nothing was changed")


@contextlib.contextmanager
def file(path: str | os.PathLike[str], *, mode: int = 0o644) -> Iterator[BinaryIO]:
    """A stream to write, which takes the place of `path` when the block ends without an error.

    Raises:
        StorageError: It could not be written; the old content stands.
    """
    with _fresh(Path(path), mode) as (descriptor, _), os.fdopen(descriptor, "wb", closefd=False) as stream:
        yield stream


@contextlib.contextmanager
def named(path: str | os.PathLike[str], *, mode: int = 0o644) -> Iterator[Path]:
    """As `file`, for who writes to a name and not to a stream: yields that of an empty file.

    Raises:
        StorageError: It could not be written; the old content stands.
    """
    with _fresh(Path(path), mode) as (_, temporary):
        yield temporary


@contextlib.contextmanager
def _fresh(target: Path, mode: int) -> Iterator[tuple[int, Path]]:
    """An empty file beside `target`, by descriptor and name, which takes its place in the end."""
    import tempfile  # half a megabyte that who only reads does without; so below

    check(target)
    with storage_errors(target):
        _sweep(target.parent)
        descriptor, name = tempfile.mkstemp(prefix=PREFIX, dir=target.parent)
        temporary = Path(name)
        try:
            _lock(descriptor)
            yield descriptor, temporary
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
            temporary.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        finally:
            os.close(descriptor)
        sync_directory(target.parent)


@contextlib.contextmanager
def directory(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A fresh directory to fill, which takes the place of `path` when the block ends without an error.

    What stands at `path` is exchanged with it in one step where the kernel and the file system can (ext4, xfs, btrfs,
    tmpfs: renameat2), so that a reader, or a power cut, meets the old or the new. Elsewhere the old one is moved aside
    first; if the process is killed just then, the next call moves it back.

    Raises:
        StorageError: It could not be written; what stood at `path` stands.
    """
    import tempfile

    target = Path(path)
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _move_back(target)
        _sweep(target.parent)
        temporary = Path(tempfile.mkdtemp(prefix=PREFIX, dir=target.parent))
    descriptor = os.open(temporary, os.O_RDONLY)
    try:
        with storage_errors(target):
            _lock(descriptor)
            temporary.chmod(0o755)
            yield temporary
            _sync_tree(temporary)
            _swap_in(temporary, target)
            sync_directory(target.parent)
    finally:
        os.close(descriptor)
        _remove(temporary)


def sync_directory(path: Path) -> None:
    """Make renames within a directory durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Say that this temporary name is in use; the lock ends with the process, however it ends."""
    with contextlib.suppress(OSError):  # a file system without locks: then nobody sweeps there either
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _sweep(folder: Path) -> None:
    """Remove what killed writers left; a name whose lock is held, or that is too young to tell, is being written."""
    for entry in folder.glob(f"{PREFIX}*"):
        try:
            if time.time() - entry.lstat().st_mtime < _ABANDONED_AFTER_S:
                continue
            descriptor = os.open(entry, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        else:
            _remove(entry)
        finally:
            os.close(descriptor)


def _sync_tree(root: Path) -> None:
    for folder, _, names in os.walk(root):
        for name in names:
            descriptor = os.open(Path(folder) / name, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_directory(Path(folder))


def _swap_in(new: Path, target: Path) -> None:
    """Put `new` at `target`; what stood there ends up at `new`, or is gone."""
    if not target.exists():
        new.rename(target)
    elif not _exchange(new, target):
        aside = _aside(target)
        target.rename(aside)
        try:
            new.rename(target)
        except OSError:
            aside.rename(target)
            raise
        _remove(aside)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step; False where kernel, C library or file system cannot."""
    import ctypes

    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:  # glibc before 2.28, musl
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in {errno.ENOSYS, errno.EINVAL, errno.EXDEV, errno.EPERM}:
        return False
    raise OSError(number, os.strerror(number), str(other))


def _aside(target: Path) -> Path:
    return target.with_name(f".edge-old-{target.name}")


def _move_back(target: Path) -> None:
    """Undo a swap that was cut between its two steps, or finish one that was cut after them."""
    aside = _aside(target)
    if aside.exists():
        if target.exists():
            _remove(aside)
        else:
            aside.rename(target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        import shutil

        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
