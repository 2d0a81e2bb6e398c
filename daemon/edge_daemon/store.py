"""What must outlive a power cut: one SQLite file, one transaction for everything that belongs together.

A command's effect (the policy's state) and its reply (a row of the spool) are committed at once, so that a crash at
any moment leaves either both or neither. WAL with `synchronous=FULL`: what was committed is on the disk. A file that
turns out damaged is moved aside and a fresh one begun, and where none can be kept at all (a disk that is full or
read-only at the start) memory has to do: a device with a bad SD card goes on working.

The store belongs to the thread that made it; the daemon reaches it through its lane "store" (`edge_daemon.lanes`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from edge_daemon.errors import StateInUseError
from edge_daemon.memory import CommandMemory
from edge_daemon.spool import Limits, Message, Spool, Stored
from edge_sdk.errors import StorageError
from edge_sdk.mqtt import Event

log = logging.getLogger(__name__)

FILE = "state.db"
LOCK = "lock"
MEMORY: Final = ":memory:"
SCHEMA = 1
_SUFFIXES = ("", "-wal", "-shm")
_DISK_FAILS = frozenset({errno.EROFS, errno.EIO, errno.ENOSPC, errno.EDQUOT})  # a kernel makes a bad one read-only
_TABLES = """
CREATE TABLE kv (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE commands (id TEXT PRIMARY KEY, sent REAL NOT NULL, at REAL NOT NULL, reply BLOB) WITHOUT ROWID;
CREATE INDEX commands_at ON commands (at);
CREATE TABLE spool (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    boot TEXT NOT NULL,
    seq INTEGER NOT NULL,
    kind TEXT NOT NULL,
    priority INTEGER NOT NULL,
    expires REAL NOT NULL,
    payload BLOB NOT NULL,
    UNIQUE (boot, seq)
);
CREATE INDEX spool_order ON spool (priority, row);
CREATE INDEX spool_expires ON spool (expires);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The command that the first message of a commit answers."""

    command: str
    sent: float


class Store:
    """The daemon's state on disk.

    Args:
        directory: Made with mode 0700 if absent; None keeps everything in memory, for devices that are only played.
        boot: This start of the daemon; what is spooled is numbered within it.
        limits: Of the spool.

    Attributes:
        trouble: Why state cannot be kept now; None while it can. May be read from any thread.

    Raises:
        StateInUseError: Another daemon holds the directory.
        StorageError: The directory cannot be made or written.
    """

    def __init__(self, directory: Path | None, *, boot: str, limits: Limits) -> None:
        self.path = Path(MEMORY) if directory is None else directory / FILE
        self.quarantined: Path | None = None
        self.trouble: str | None = None
        self._in_memory: str | None = None
        self._lock = None if directory is None else _hold(directory)
        try:
            self._connection = _connect(MEMORY) if directory is None else self._open()
        except BaseException:
            self._let_go()
            raise
        self.spool = Spool(self._connection, boot=boot, limits=limits)
        self.commands = CommandMemory(self._connection)

    def close(self) -> None:
        """Give the file and the directory free."""
        self._connection.close()
        self._let_go()

    def _let_go(self) -> None:
        if self._lock is not None:
            os.close(self._lock)

    def get(self, key: str) -> bytes | None:
        """The value kept under `key`."""
        with _storage_errors(self.path):
            found = self._connection.execute("SELECT value FROM kv WHERE key = ?", (key,)).fetchone()
        return None if found is None else bytes(found[0])

    def waiting(self, limit: int) -> list[int]:
        """The rows of the spool to send first.

        Raises:
            StorageError: The disk is broken.
        """
        with _storage_errors(self.path):
            return self.spool.head(limit)

    def last_row(self) -> int:
        """The newest row of the spool; what waits up to it when a connection comes about is the backlog.

        Raises:
            StorageError: The disk is broken.
        """
        with _storage_errors(self.path):
            return self.spool.last_row()

    def split(self, limit: int, mark: int) -> tuple[list[int], list[int]]:
        """The rows of the spool to send first: those after `mark`, and those of the backlog.

        Raises:
            StorageError: The disk is broken.
        """
        with _storage_errors(self.path):
            return self.spool.live(limit, mark), self.spool.backlog(limit, mark)

    def payloads(self, rows: Sequence[int]) -> list[Stored]:
        """What is to be sent of these rows; a row that is gone is left out.

        Raises:
            StorageError: The disk is broken.
        """
        with _storage_errors(self.path):
            return self.spool.payloads(rows)

    def commit(
        self,
        now: float,
        *,
        values: Mapping[str, bytes] | None = None,
        messages: Sequence[Message] = (),
        answer: Answer | None = None,
    ) -> tuple[Stored, ...]:
        """Keep values, spool messages and remember an answer, all or nothing.

        Args:
            now: Wall clock.
            values: To keep, by key.
            messages: To spool; with `answer`, the first is the reply.
            answer: The command that is answered.

        Returns:
            What was spooled; a message that found no room is not in it, but a reply is remembered all the same.

        Raises:
            StorageError: The disk is full or broken; nothing was changed.
        """
        with self._transaction():
            for key, value in (values or {}).items():
                self._connection.execute("INSERT OR REPLACE INTO kv VALUES (?, ?)", (key, value))
            stored = [self.spool.add(message, now) for message in messages]
            if answer is not None:
                self.commands.answer(answer.command, answer.sent, now, stored[0].payload)
        return tuple(one for one in stored if one.row is not None)

    def begin(self, answer: Answer, now: float) -> None:
        """Remember that a command that takes long has begun, so that a restart can answer it.

        Raises:
            StorageError: The disk is full or broken.
        """
        with self._transaction():
            self.commands.begin(answer.command, answer.sent, now)

    def acknowledge(self, boot: str, ranges: Sequence[tuple[int, int]]) -> int:
        """Forget what the hub has stored; returns how many messages that were.

        Raises:
            StorageError: The disk is full or broken.
        """
        with self._transaction():
            return self.spool.acknowledge(boot, ranges)

    def tidy(self, now: float, stepped_s: float = 0.0) -> int:
        """Drop what is too old to be worth sending, and spool an event that tells of all that was dropped.

        There is one such event at a time: on a device that is away for weeks they would crowd out the telemetry.

        Args:
            now: Wall clock.
            stepped_s: How far it was set forward since the last call.

        Returns:
            Of how many messages, dropped for whatever reason, it tells now.

        Raises:
            StorageError: The disk is full or broken.
        """
        with self._transaction():
            self.spool.expire(now, stepped_s)
            lost = self.spool.totals().unreported
            if not lost or self.spool.is_telling():
                return 0
            text = f"{lost} messages were dropped before the hub had stored them: no room, or too old"
            told = self.spool.add(Message(body=Event(at=now, kind="spool-dropped", text=text)), now)
            self.spool.reported(lost, told.row)
            return lost

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            with _storage_errors(self.path):
                before = self._connection.total_changes
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield
                    self._connection.execute("COMMIT")
                except BaseException:
                    with contextlib.suppress(sqlite3.Error):  # a full disk has rolled back already
                        self._connection.execute("ROLLBACK")
                    self.spool.recount()
                    raise
        except StorageError as error:
            self.trouble = str(error)
            raise
        if self._connection.total_changes != before:  # what wrote nothing says nothing of the disk
            self.trouble = self._in_memory

    def _open(self) -> sqlite3.Connection:
        with _storage_errors(self.path):
            try:
                return self._sound()
            except (sqlite3.OperationalError, OSError) as error:  # no space: the file may be well
                self.trouble = self._in_memory = f"{self.path}: state cannot be kept: {error}; memory has to do"
                return _connect(MEMORY)

    def _sound(self) -> sqlite3.Connection:
        """The file, or a fresh one where it is damaged."""
        try:
            return _connect(self.path)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            self.quarantined = _move_aside(self.path)
            log.warning("%s is damaged (%s): moved to %s, beginning anew", self.path, error, self.quarantined.name)
            return _connect(self.path)


def _connect(path: Path | Literal[":memory:"]) -> sqlite3.Connection:
    """Open, check and prepare the file.

    Raises:
        sqlite3.DatabaseError: It is damaged, or of a later version than this one writes.
    """
    connection = sqlite3.connect(path, isolation_level=None, timeout=5.0)
    try:
        if isinstance(path, Path):
            _prepare(connection)
        else:
            _lay_out(connection)
    except BaseException:
        connection.close()
        raise
    if isinstance(path, Path):
        path.chmod(0o600)
    return connection


def _lay_out(connection: sqlite3.Connection) -> None:
    """Prepare memory: pages as small as they can be, for a played fleet has thousands of these."""
    connection.execute("PRAGMA page_size=512")
    _make_tables(connection)


def _prepare(connection: sqlite3.Connection) -> None:
    # The directory is ours alone. Without sharing, the index of the log is in memory instead of in a mapped file, which
    # a full disk could not hold.
    connection.execute("PRAGMA locking_mode=EXCLUSIVE")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA journal_size_limit=1048576")
    connection.execute("PRAGMA cache_size=-512")  # the default of 2 MB would be a twentieth of the whole process
    verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        _make_tables(connection)
    elif version != SCHEMA:
        raise sqlite3.DatabaseError(f"it has format {version}, this daemon writes {SCHEMA}")


def _make_tables(connection: sqlite3.Connection) -> None:
    connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {SCHEMA}; COMMIT;")


def _move_aside(path: Path) -> Path:
    """Keep one damaged file for whoever wants to look into it; an earlier one gives way."""
    aside = path.with_name(f"{path.name}.damaged")
    for suffix in _SUFFIXES:
        source, target = path.with_name(path.name + suffix), path.with_name(aside.name + suffix)
        target.unlink(missing_ok=True)
        if source.exists():
            source.replace(target)
    return aside


def _hold(directory: Path) -> int | None:
    """Lock the directory for as long as this process lives; the lock dies with it, however it dies.

    None where the disk is to blame: then there is nothing that two daemons could spoil.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as cause:
        if cause.errno in _DISK_FAILS:
            return None
        raise StorageError(
            f"state cannot be kept here: {cause.strerror}",
            where=str(directory),
            hint="name a writable place under [state] directory",
        ) from cause
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as cause:
        os.close(descriptor)
        raise StateInUseError(
            "another daemon works with this state",
            where=str(directory),
            hint="stop it, or give this one another [state] directory",
        ) from cause
    return descriptor


@contextlib.contextmanager
def _storage_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as cause:
        raise StorageError(f"state cannot be kept: {cause}", where=str(path)) from cause
