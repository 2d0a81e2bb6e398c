"""Results on stdout, messages on stderr."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO


def emit(
    args: argparse.Namespace, value: Any, text: Callable[[], str], *, colour: Callable[[str], str] | None = None
) -> None:
    """Print a result: as one JSON object under `--json`, else as `text()` for people.

    The JSON holds every field, also those that have their default: a script may rely on each key. On a terminal, unless
    `NO_COLOR` is set, the text goes through `colour` once it is safe to print.
    """
    stream = sys.stdout
    if stream is None:  # closed by whoever started us
        return
    if getattr(args, "json", False):
        import msgspec

        stream.write(_printable_json(msgspec.json.format(msgspec.json.encode(_plain(value)), indent=2), stream) + "\n")
    else:
        shown = _printable(text().rstrip("\n"), stream)
        wants_colour = colour is not None and stream.isatty() and not os.environ.get("NO_COLOR")
        stream.write((colour(shown) if colour is not None and wants_colour else shown) + "\n")
    stream.flush()


def say(message: str) -> None:
    """A message for people, on stderr; where nobody reads that, nobody is told."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            sys.stderr.write(_printable(message, sys.stderr) + "\n")
            sys.stderr.flush()


def one_line(text: str) -> str:
    """The text without line breaks, which a stranger could put into it to pose as another line of ours."""
    return " ".join(text.splitlines())


def _plain(value: Any) -> Any:
    """Containers, numbers and strings; unlike `msgspec.to_builtins` with every field of a `Wire` value."""
    import dataclasses

    import msgspec

    if isinstance(value, str):  # a path may hold bytes that are no text
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, msgspec.Struct):
        tag = {value.__struct_config__.tag_field: value.__struct_config__.tag} if value.__struct_config__.tag else {}
        return tag | {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {_plain(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value if isinstance(value, msgspec.Raw) else msgspec.to_builtins(value)


def _printable(text: str, stream: TextIO) -> str:
    """The text without what would steer a terminal (it may come from a stranger's bundle) or break the encoding."""
    safe = "".join(char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text)
    encoding = stream.encoding or "utf-8"
    return safe.encode(encoding, "backslashreplace").decode(encoding)


def _printable_json(text: bytes, stream: TextIO) -> str:
    """The same JSON, with what `_printable` escapes written as JSON escapes it."""

    def escaped(match: re.Match[str]) -> str:
        char = match[0]
        try:
            char.encode(stream.encoding or "utf-8")
        except UnicodeEncodeError:
            return json.dumps(char)[1:-1]
        return char if char.isprintable() else json.dumps(char)[1:-1]

    import json

    return re.sub(r"[^\n -~]", escaped, text.decode())


def table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]], *, right: frozenset[int] = frozenset()) -> str:
    """A plain-text table; columns whose index is in `right` are set flush right."""
    lines = [tuple(one_line(cell) for cell in line) for line in (header, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]

    def one(line: tuple[str, ...]) -> str:
        cells = (c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        return "  ".join(cells).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([one(lines[0]), rule, *(one(line) for line in lines[1:])])
