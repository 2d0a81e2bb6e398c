"""Results on stdout, messages on stderr."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any


def emit(args: argparse.Namespace, value: Any, text: Callable[[], str]) -> None:
    """Print a result: as one JSON object under `--json`, else as `text()` for people."""
    if getattr(args, "json", False):
        import msgspec

        plain = msgspec.json.encode(msgspec.to_builtins(value))
        sys.stdout.write(msgspec.json.format(plain, indent=2).decode() + "\n")
    else:
        sys.stdout.write(text().rstrip("\n") + "\n")
    sys.stdout.flush()


def say(message: str) -> None:
    """A message for people, on stderr."""
    sys.stderr.write(message + "\n")
    sys.stderr.flush()


def table(header: tuple[str, ...], rows: list[tuple[str, ...]], *, right: frozenset[int] = frozenset()) -> str:
    """A plain-text table; columns whose index is in `right` are set flush right."""
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]

    def one(line: tuple[str, ...]) -> str:
        cells = (c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        return "  ".join(cells).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([one(header), rule, *(one(row) for row in rows)])
