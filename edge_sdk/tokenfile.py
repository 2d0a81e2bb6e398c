"""A token in a file of its own: what stands in it, or why that is none. No text of an error repeats any of it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from edge_sdk.errors import UsageError

MAX_TOKEN_BYTES = 4096
_HINT = "one line of printable ASCII characters"
_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")  # UTF-8 and both orders of UTF-16 (Unicode 15, section 23.8)


def read_token(path: str | os.PathLike[str], *, least: int = 1) -> str:
    """The token, without the white space around it. A named pipe that nobody writes into is empty; it does not hang.

    Args:
        path: Of the file.
        least: So many characters it has to have.

    Raises:
        UsageError: It cannot be read, or holds no token.
    """
    where = os.fspath(path)
    try:
        raw = _head(where)
    except PermissionError as cause:
        raise UsageError(
            f"the token cannot be read: {cause.strerror}", where=where, hint="let the user who runs this read it"
        ) from cause
    except OSError as cause:
        raise UsageError(f"the token cannot be read: {cause.strerror}", where=where) from cause
    except ValueError as cause:  # a zero byte in the path
        raise UsageError("the token cannot be read: no path", where=ascii(where)[:200]) from cause
    token = raw.strip()
    if not token:
        raise UsageError("the file of the token is empty", where=where, hint=_HINT)
    if raw.startswith(_MARKS):
        raise UsageError("the token begins with a byte order mark", where=where, hint="save it without one")
    if len(raw) > MAX_TOKEN_BYTES:
        raise UsageError(f"the file of the token is larger than {MAX_TOKEN_BYTES} bytes", where=where, hint=_HINT)
    if len(token.splitlines()) > 1:
        raise UsageError("the file of the token has several lines", where=where, hint=_HINT)
    if not token.isascii() or not token.decode("ascii").isprintable():
        raise UsageError("the token holds characters that none has", where=where, hint=_HINT)
    if len(token) < least:
        raise UsageError(f"the token is shorter than {least} characters", where=where, hint=f"{_HINT}, kept secret")
    return token.decode("ascii")


def is_open_to_all(path: str | os.PathLike[str]) -> bool:
    """Every user of this machine can read the file; of one that cannot be looked at that is not known, and so no."""
    try:
        return bool(Path(path).stat().st_mode & stat.S_IROTH)
    except (OSError, ValueError):
        return False


def _head(where: str) -> bytes:
    """What stands in the file, as far as it may be looked at."""
    file = os.open(where, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.set_blocking(file, True)  # a pipe that somebody does write into has its time
        content = b""
        while len(content) <= MAX_TOKEN_BYTES and (piece := os.read(file, MAX_TOKEN_BYTES + 1)):
            content += piece
        return content
    finally:
        os.close(file)
