"""Reads the plain tar files that packed bundles are (POSIX.1-1988 ustar), and nothing else a tar file may hold.

`tarfile` of the standard library also takes sparse entries (a few bytes that expand to terabytes), links, devices and
extended headers, and has hung on crafted ones (CVE-2019-20907, CVE-2025-8194). A bundle comes from a stranger and
needs none of that: here an entry is a regular file with a short name and an octal size, or the file is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_BLOCK = 512
_REGULAR = b"0"
_MAGIC = b"ustar\x0000"


class NotUstarError(ValueError):
    """The bytes are no plain ustar file; the text says what was found instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file: its name, and where its content lies."""

    name: str
    offset: int
    size_bytes: int


def entries(stream: BinaryIO) -> Iterator[Entry]:
    """The files in their order; reading the content between two steps is allowed.

    Raises:
        NotUstarError: A header is damaged or of another kind, or the file ends early.
    """
    end = stream.seek(0, 2)
    position = 0
    while True:
        stream.seek(position)
        header = stream.read(_BLOCK)
        if len(header) < _BLOCK:
            raise NotUstarError("it ends early")
        if header == bytes(_BLOCK):  # the first of two empty blocks that end the archive
            return
        entry = _entry(header, position + _BLOCK)
        position = entry.offset + -(-entry.size_bytes // _BLOCK) * _BLOCK
        if position > end:
            raise NotUstarError(f"{entry.name!r} ends early")
        yield entry


def _entry(header: bytes, offset: int) -> Entry:
    if header[257:265] != _MAGIC or _octal(header[148:156]) != sum(header[:148]) + sum(b"        ") + sum(header[156:]):
        raise NotUstarError("it is no ustar file, or damaged")
    name = header[:100].rstrip(b"\0").decode("ascii", "backslashreplace")
    if header[156:157] != _REGULAR:
        raise NotUstarError(f"{name!r} is no plain file")
    if header[345:500].strip(b"\0"):
        raise NotUstarError(f"{name!r} has a long path")
    return Entry(name=name, offset=offset, size_bytes=_octal(header[124:136]))


def _octal(field: bytes) -> int:
    digits = field.strip(b" \0")
    if not digits or digits.strip(b"01234567"):
        raise NotUstarError("a number in a header is not octal")
    return int(digits, 8)
