"""Results on stdout, messages on stderr."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO


def emit(args: argparse.Namespace, value: Any, text: Callable[[], str]) -> None:
    """Print a result: as one JSON object under `--json`, else as `text()` for people.

    The JSON holds every field, also those that have their default: a script may rely on each key.
    """
    if getattr(args, "json", False):
        import msgspec

        sys.stdout.write(msgspec.json.format(msgspec.json.encode(_plain(value)), indent=2).decode() + "\n")
    else:
        sys.stdout.write(_printable(text().rstrip("\n"), sys.stdout) + "\n")
    sys.stdout.flush()


def say(message: str) -> None:
    """A message for people, on stderr."""
    sys.stderr.write(_printable(message, sys.stderr) + "\n")
    sys.stderr.flush()


def _plain(value: Any) -> Any:
    """Containers, numbers and strings; unlike `msgspec.to_builtins` with every field of a `Wire` value."""
    import dataclasses

    import msgspec

    if isinstance(value, msgspec.Raw):
        return value
    if isinstance(value, msgspec.Struct):
        tag = {value.__struct_config__.tag_field: value.__struct_config__.tag} if value.__struct_config__.tag else {}
        return tag | {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return msgspec.to_builtins(value)


def _printable(text: str, stream: TextIO) -> str:
    """The text without what would steer a terminal (it may come from a stranger's bundle) or break the encoding."""
    safe = "".join(char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text)
    encoding = stream.encoding or "utf-8"
    return safe.encode(encoding, "backslashreplace").decode(encoding)


def table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]], *, right: frozenset[int] = frozenset()) -> str:
    """A plain-text table; columns whose index is in `right` are set flush right."""
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]

    def one(line: tuple[str, ...]) -> str:
        cells = (c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        return "  ".join(cells).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([one(header), rule, *(one(row) for row in rows)])
