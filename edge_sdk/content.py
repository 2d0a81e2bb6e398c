"""A file that somebody else may have made or changed: opened only if it is a regular one, and known by its SHA-256."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import BinaryIO

_CHUNK = 1 << 20


def regular(path: Path) -> BinaryIO:
    """Open a regular file and nothing else.

    A link could point anywhere, and to something else later; opening a named pipe would wait for a writer.

    Raises:
        OSError: There is none, or it is of another kind.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a link", str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def sha256(file: BinaryIO) -> str:
    """Of what is left to read."""
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()
