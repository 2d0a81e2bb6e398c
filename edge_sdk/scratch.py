"""A temporary folder for the work of one program: gone with it, and if it is killed, gone with the next one.

Each folder is locked by whoever made it, and a lock ends with its process however that ends. So what nobody holds any
more can be told from what is in use, also by another program that runs at the same time, and by no guess about ages.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edge_sdk.errors import StorageError

PREFIX = "edge-scratch-"
_MOST_SWEPT = 100  # at a time: a start is not to wait for what a thousand killed programs left
_LITTLE_BYTES = 50_000_000  # a network and what a framework writes of it
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
HINT = "free some space there, or set TMPDIR to a folder on a larger disk"


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A fresh folder where temporary files belong, for as long as the block lasts.

    Raises:
        StorageError: It cannot be made, or there is no room in it for what the block writes.
    """
    try:
        place = Path(tempfile.gettempdir())
    except OSError as cause:  # it has tried to write to each
        raise StorageError("no folder for temporary files can be written to", hint=HINT) from cause
    _sweep(place)
    try:
        path, descriptor = _made(place)
    except OSError as cause:
        raise _full(place, cause) from cause
    try:
        yield path
    except OSError as cause:
        if cause.errno in _NO_ROOM and _is_in(path, cause.filename):
            raise _full(place, cause) from cause
        raise
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def little_room(path: Path) -> str:
    """What to try where so little is left of a disk that it may be why something failed; empty where there is enough.

    Args:
        path: A folder of this module's.
    """
    try:
        free_bytes = shutil.disk_usage(path).free
    except OSError:
        return ""
    if free_bytes > _LITTLE_BYTES:
        return ""
    return f"{free_bytes / 1e6:.1f} MB are free in {tempfile.gettempdir()}: {HINT}"


def _made(place: Path) -> tuple[Path, int]:
    """A folder that is locked; another one, if a sweep was there between its making and its locking."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_mine = _names(path, descriptor)
            except BlockingIOError:
                is_mine = False
            except OSError:  # a file system without locks: nothing there can be swept either
                is_mine = True
            if is_mine:
                return path, descriptor
            os.close(descriptor)


def _sweep(place: Path) -> None:
    """Remove folders that nobody holds any more: this user's own, and real ones, not links to elsewhere."""
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        found = [Path(entry) for entry in entries if entry.name.startswith(PREFIX)]
        for path in found[:_MOST_SWEPT]:
            _remove_abandoned(path)


def _remove_abandoned(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # a link, a file, another user's, or gone
        return
    try:
        if os.fstat(descriptor).st_uid == os.geteuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _names(path, descriptor):
                shutil.rmtree(path, ignore_errors=True)
    except OSError:  # it is held, or cannot be told
        return
    finally:
        os.close(descriptor)


def _names(path: Path, descriptor: int) -> bool:
    """Whether the path still leads to what the descriptor holds."""
    with contextlib.suppress(OSError):
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    return False


def _is_in(folder: Path, named: object) -> bool:
    """Whether an error's file lies in the folder; a failed write names none."""
    return named is None or (isinstance(named, (str, bytes)) and os.fsdecode(named).startswith(str(folder)))


def _full(place: Path, cause: OSError) -> StorageError:
    return StorageError(
        f"no temporary files can be written here: {cause.strerror or cause}", where=str(place), hint=HINT
    )
