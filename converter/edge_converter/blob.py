"""A file as a bundle names and weighs it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

_ZSTD_LEVEL = 19


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """What a manifest says of a file.

    Attributes:
        sha256: Its name in the bundle.
        size_bytes: Of the file.
        transfer_bytes: Compressed by zstd, as it travels.
    """

    sha256: str
    size_bytes: int
    transfer_bytes: int


def of(path: Path) -> Blob:
    """Read the file."""
    import zstandard

    content = path.read_bytes()
    return Blob(
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        transfer_bytes=len(zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(content)),
    )
