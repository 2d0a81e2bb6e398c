"""The hub's data directory: its lock, its token, its settings of the last run, and where everything else lies.

One process at a time owns it: a running hub, or a command that enrols while no hub runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, TypeVar

from msgspec import Meta

from edge_hub.errors import DataLockedError, StoreMovedError
from edge_sdk import atomic
from edge_sdk.errors import StorageError, UsageError
from edge_sdk.wire import MAX_LOCAL_BYTES, Name, Text, Unix, Wire, canonical, decode

DATABASE = "hub.db"
PRIVATE_FILE = 0o600
PRIVATE_DIRECTORY = 0o700
_TOKEN_BYTES = 32
_MOVED = "moved.json"
AUTHORITY = "authority"  # below the broker's, for which it signed at first
CA = "ca.pem"  # in it

_T = TypeVar("_T")


class Settings(Wire, frozen=True, kw_only=True):
    """What the last run was started with, so that commands find the hub and devices the broker.

    Attributes:
        url: Of the HTTP API, as a client on this machine reaches it.
        broker: `mosquitto`, `iotcore` or `external`.
        mqtt_host: Where devices find the broker.
        certificate: The API's own (PEM) where it was given by files: it may be for no name of this machine, or by an
            authority that is not known here. Who reads it here takes it, and no other.
    """

    url: Text
    broker: Name
    mqtt_host: Text
    mqtt_port: int
    mqtt_tls: bool = False
    certificate: Annotated[str, Meta(max_length=65_536)] | None = None


class MovedTo(Wire, frozen=True, kw_only=True):
    """Where everything of `hub.db` went.

    Attributes:
        store: The database, without user and password.
        at: When, seconds since 1970.
    """

    store: Text
    at: Unix


class DataDir:
    """The directory and the names within it.

    Args:
        path: Created (0700) where it does not exist.

    Raises:
        StorageError: It cannot be created or written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        try:
            self.path.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)
            if not os.access(self.path, os.W_OK | os.X_OK):
                raise PermissionError(None, "no permission to write here")
        except OSError as cause:
            raise StorageError(
                f"cannot be the data directory: {obstacle(self.path) or cause.strerror}",
                where=str(self.path),
                hint="choose another --data, or let this user write there",
            ) from cause

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.path / DATABASE

    @property
    def broker(self) -> Path:
        """What the broker's child process reads and writes."""
        return self.path / "broker"

    @property
    def authority(self) -> Path:
        """Of the hub's own authority."""
        return self.broker / AUTHORITY

    @property
    def ca(self) -> Path | None:
        """Its certificate, where there is one."""
        path = self.authority / CA
        return path if path.is_file() else None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Own the directory for the length of the block. The kernel lets go when the process ends, however it ends.

        Raises:
            DataLockedError: Another process owns it.
        """
        with atomic.storage_errors(self.path / "lock"):
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as cause:
                raise DataLockedError(
                    "another hub uses this data directory",
                    where=str(self.path),
                    hint="stop it, or choose another --data",
                ) from cause
            yield
        finally:
            os.close(descriptor)

    def secret(self, name: str) -> str:
        """A random secret kept in a file of this name (0600), made at first use."""
        path = self.path / name
        kept = _read_private(path)
        if kept:
            return kept
        fresh = secrets.token_urlsafe(_TOKEN_BYTES)
        atomic.write_bytes(path, fresh.encode() + b"\n", mode=PRIVATE_FILE)
        return fresh

    def read_token(self) -> str | None:
        """The administrator's token, or None where no hub has run yet."""
        return _read_private(self.path / "token") or None

    def write_settings(self, settings: Settings) -> None:
        """Keep how this run was started."""
        atomic.write_bytes(self.path / "hub.json", canonical(settings), mode=PRIVATE_FILE)

    def read_settings(self) -> Settings | None:
        """How the last run was started, or None where there was none."""
        return read_kept(self.path / "hub.json", Settings)

    def write_moved(self, moved: MovedTo) -> None:
        """Keep that `hub.db` is not what the fleet goes by any more."""
        atomic.write_bytes(self.path / _MOVED, canonical(moved), mode=PRIVATE_FILE)

    def refuse_moved(self) -> None:
        """Let no hub go on with a database that was moved elsewhere.

        Raises:
            StoreMovedError: It was.
        """
        moved = read_kept(self.path / _MOVED, MovedTo)
        if moved is not None:
            raise StoreMovedError(
                f"its database was moved to {moved.store}",
                where=str(self.path),
                hint="name that with --store; where 'edge hub move' broke off, repeat it; or remove "
                f"{_MOVED} to go on with what hub.db held then",
            )


def obstacle(path: Path) -> str | None:
    """What keeps a directory from being there, as far as names and permissions tell: the first that is in the way."""
    for one in (path, *path.parents):
        if is_directory(one):
            return None if os.access(one, os.W_OK | os.X_OK) else f"no permission to write in {one}"
        if os.path.lexists(one):
            return f"{one} is no directory"
    return None


def refuse_database(directory: Path, target: Path) -> None:
    """Refuse a file to write that is the directory's database: a hub would go on in one that nobody can find any more.

    Raises:
        UsageError: It is that, or one of the files that belong to it.
    """
    database = os.path.realpath(directory / DATABASE)
    if os.path.realpath(target) in {f"{database}{end}" for end in ("", "-wal", "-shm")}:
        raise UsageError("is the hub's own database", where=str(target), hint="name another file")


def is_directory(path: Path) -> bool:
    """Whether it is one that we can see; `Path.is_dir` raises where one on the way cannot be entered."""
    return os.path.isdir(path)  # noqa: PTH112 - see above


def read_kept(path: Path, kind: type[_T], *, max_bytes: int = MAX_LOCAL_BYTES) -> _T | None:
    """What an earlier run wrote as JSON, or None where it wrote nothing.

    Raises:
        StorageError: The file cannot be read, or is another thing.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as cause:
        raise StorageError(f"cannot be read: {cause.strerror}", where=str(path)) from cause
    return decode(content, kind, where=str(path), max_bytes=max_bytes, error=StorageError)


def _read_private(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as cause:
        raise StorageError(f"cannot be read: {cause}", where=str(path)) from cause
