"""Where a bundle goes, what it is called, and the time it bears."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from edge_converter.request import ConvertRequest
from edge_sdk import bundle as bundles
from edge_sdk.errors import UsageError

_MOST_DIGITS = 10  # of SOURCE_DATE_EPOCH
_LATEST = 4_102_444_800  # that a manifest takes: until 2100
_NAMED_OUTPUT = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*?)(?:-(?P<version>[0-9][A-Za-z0-9.]*?))?(?:\.edge)?\Z")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


def name(request: ConvertRequest) -> tuple[str, str]:
    """The model's name and version.

    Raises:
        UsageError: One of them is no name.
    """
    found = _NAMED_OUTPUT.match(request.output.name)
    called = request.name or (found["name"] if found else request.models[0].stem if request.models else "")
    version = request.version or (found["version"] if found else None) or "1"
    for what, value in (("name", called), ("version", version)):
        if not _NAME.match(value):
            raise UsageError(
                f"{value[:80]!r} is no {what}",
                hint=f"give one with --{what}: letters, digits, dots, hyphens; at most 64",
            )
    if not request.models:
        raise UsageError("no model is given")
    return called, version


def check(output: Path) -> None:
    """Refuse, before minutes are spent, to put a bundle where something else stands.

    Raises:
        UsageError: Something else stands there, or nothing can be written there.
    """
    try:
        _check(output)
    except OSError as cause:
        raise UsageError(
            f"cannot be written to: {cause.strerror}", where=str(output), hint="choose another place for -o"
        ) from cause


def _check(output: Path) -> None:
    if output.is_dir():
        if any(output.iterdir()) and not (output / bundles.MANIFEST).is_file():
            raise UsageError("is a directory that holds no bundle", where=str(output), hint="name a new one")
    elif output.exists() or output.is_symlink():
        raise UsageError("is a file; a bundle is a directory", where=str(output), hint="such as digits-1.edge")
    parent = next((place for place in output.absolute().parents if place.exists()), Path("/"))
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UsageError("cannot be written to", where=str(parent), hint="choose another place for -o")


def now() -> float:
    """Whole seconds since 1970, or what SOURCE_DATE_EPOCH says, for builds that must repeat."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    is_time = given.isascii() and given.isdigit() and len(given) <= _MOST_DIGITS and int(given) <= _LATEST
    return float(given) if is_time else float(int(time.time()))
