"""What was computed before, found again by what it was computed from.

An entry's key is a digest of all that its content depends on: the bytes that went in, the options, the seed, the
versions of what computes, the kind of machine. So a conversion that was killed goes on where it was, and one that
changes an option repeats only what depends on it. An entry is written whole or not at all, checked when it is read, and
the least recently used go first once the whole is too large.
"""

from __future__ import annotations

import hashlib
import os
import platform
import tempfile
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import msgspec

from edge_sdk import atomic
from edge_sdk.errors import StorageError
from edge_sdk.machine import cpu_features

VARIABLE = "EDGE_CACHE"
MOST_BYTES = 4_000_000_000
_FORMAT = 1
_DIGEST_BYTES = 32
# What computes: another version of one of these may give other bytes.
_COMPUTERS = ("adaptive-edge-sdk", "ai-edge-litert", "litert-quantizer", "numpy", "tensorflow", "keras")


def folder() -> Path | None:
    """Where entries lie: `EDGE_CACHE`, else the user's cache directory; None where there is neither."""
    named = os.environ.get(VARIABLE)
    if named is not None:
        return Path(named) if named else None
    base = os.environ.get("XDG_CACHE_HOME")
    if base and Path(base).is_absolute():
        return Path(base) / "adaptive-edge-sdk" / "convert"
    try:
        return Path.home() / ".cache" / "adaptive-edge-sdk" / "convert"
    except RuntimeError:  # nobody's home
        return None


def trouble(at: Path) -> str:
    """Why no entry can be kept there; empty where one can. The directory is made."""
    try:
        at.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=at) as file:
            file.write(bytes(_DIGEST_BYTES))
    except OSError as cause:
        return cause.strerror or str(cause)
    return ""


def key(kind: str, *parts: object) -> str:
    """A digest of what an entry depends on.

    Args:
        kind: What is computed, such as `pass` or `answers`.
        parts: All that decides the result, as values that JSON can hold; bytes by their own digest.
    """
    plain = [digest(part) if isinstance(part, bytes) else part for part in parts]
    return digest(msgspec.json.encode([_FORMAT, kind, plain], order="sorted"))


def digest(content: bytes) -> str:
    """The SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def computers() -> dict[str, str]:
    """The versions of what computes, and the kind of machine: arithmetic differs between them in the last bits."""
    found = {"machine": platform.machine(), "python": platform.python_version()}
    features = cpu_features() or frozenset()
    found["features"] = digest(" ".join(sorted(features)).encode())[:16]
    found["processors"] = str(os.cpu_count())
    for name in _COMPUTERS:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


class Cache:
    """A directory of entries.

    Args:
        at: The directory; it is made when the first entry is written. None keeps nothing.
        most_bytes: What all entries together may take.

    Attributes:
        found: How many entries were asked for and found.
        missed: Likewise, and not found.
        unkept: Why an entry was not kept; empty where all were.
    """

    def __init__(self, at: Path | None, *, most_bytes: int = MOST_BYTES) -> None:
        self._at = at
        self._most_bytes = most_bytes
        self.found = 0
        self.missed = 0
        self.unkept = ""

    @property
    def place(self) -> Path | None:
        """The directory; None where nothing is kept."""
        return self._at

    def __contains__(self, key: str) -> bool:
        if self._at is None:
            return False
        try:
            return self._path(self._at, key).is_file()
        except OSError:  # a name that no file system takes
            return False

    def get(self, key: str) -> bytes | None:
        """The entry's content, or None; a damaged entry is removed."""
        content = self._read(key)
        if content is None:
            self.missed += 1
        else:
            self.found += 1
        return content

    def put(self, key: str, content: bytes) -> None:
        """Keep an entry. Where it cannot be written `unkept` says why: the disk may be full, and work goes on."""
        if self._at is None:
            return
        path = self._path(self._at, key)
        try:
            with atomic.storage_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            atomic.write_bytes(path, hashlib.sha256(content).digest() + content)
        except StorageError as error:
            self.unkept = error.what

    def trim(self) -> int:
        """Remove the entries that were used least recently until the rest fits; returns how many."""
        if self._at is None or not self._at.is_dir():
            return 0
        entries = []
        for path in self._at.glob("??/[0-9a-f]*"):  # not what somebody is writing just now
            with suppress(OSError):
                status = path.stat()
                entries.append((status.st_mtime_ns, status.st_size, path))
        left = sum(size for _, size, _ in entries)
        removed = 0
        for _, size, path in sorted(entries, key=lambda entry: entry[0]):
            if left <= self._most_bytes:
                break
            with suppress(OSError):
                path.unlink()
            left -= size
            removed += 1
        return removed

    def _read(self, key: str) -> bytes | None:
        if self._at is None:
            return None
        path = self._path(self._at, key)
        try:
            raw = path.read_bytes()
        except OSError:
            return None
        content = raw[_DIGEST_BYTES:]
        if hashlib.sha256(content).digest() != raw[:_DIGEST_BYTES]:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            return None
        with suppress(OSError):
            os.utime(path)  # used now
        return content

    @staticmethod
    def _path(at: Path, key: str) -> Path:
        return at / key[:2] / key
