"""Rows as CSV or Parquet, written as they come."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any, BinaryIO

from edge_hub.errors import ExportLibraryError
from edge_hub.export.tables import Kind, Row

# A spreadsheet takes a cell that begins with one of these for a formula, and runs it: a device's words must not
# (OWASP, CSV injection; with the full-width forms that some of them take for the same).
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
# Whichever is reached first: a cell of text may be as long as a message.
_CHUNK_ROWS = 10_000
_CHUNK_CHARS = 8_000_000
_MICRO = 1_000_000


def write_csv(stream: BinaryIO, columns: Mapping[str, Kind], rows: Iterable[Row], *, unix: bool) -> int:
    """RFC 4180 with a header, UTF-8; what is not known is empty. Returns how many rows.

    Args:
        stream: Stays open.
        columns: By name, in order.
        rows: With as many values.
        unix: Times as seconds since 1970, not as ISO 8601.
    """
    written = 0
    text = io.TextIOWrapper(stream, encoding="utf-8", errors="backslashreplace", newline="", write_through=False)
    writer = csv.writer(text)
    writer.writerow(columns)
    # Numbers are written as they are; only the others are looked at.
    cells = [
        (index, _CELLS[kind])
        for index, kind in enumerate(columns.values())
        if kind in _CELLS and not (unix and kind is Kind.TIME)
    ]
    for row in rows:
        told = list(row)
        for index, cell in cells:
            if told[index] is not None:
                told[index] = cell(told[index])
        writer.writerow(told)
        written += 1
    text.flush()
    text.detach()
    return written


def write_parquet(stream: BinaryIO, columns: Mapping[str, Kind], rows: Iterable[Row], *, unix: bool) -> int:
    """Parquet, compressed with zstd; times are UTC timestamps in microseconds. Returns how many rows.

    Args:
        stream: Stays open.
        columns: By name, in order.
        rows: With as many values.
        unix: Times as seconds since 1970, not as timestamps.

    Raises:
        ExportLibraryError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter
    except ImportError as cause:
        raise ExportLibraryError(
            "Parquet needs pyarrow", hint="pip install 'adaptive-edge-sdk[export]', or take --format csv"
        ) from cause

    types = {
        Kind.TIME: pa.float64() if unix else pa.timestamp("us", tz="UTC"),
        Kind.TEXT: pa.string(),
        Kind.REAL: pa.float64(),
        Kind.WHOLE: pa.int64(),
        Kind.FLAG: pa.bool_(),
    }
    schema = pa.schema([(name, types[kind]) for name, kind in columns.items()])
    written = 0
    with ParquetWriter(stream, schema, compression="zstd") as writer:
        for chunk in _chunks(columns, rows):
            arrays = [
                pa.array([_typed(value, kind, unix=unix) for value in values], type=types[kind])
                for values, kind in zip(zip(*chunk, strict=True), columns.values(), strict=True)
            ]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
            written += len(chunk)
    return written


def _chunks(columns: Mapping[str, Kind], rows: Iterable[Row]) -> Iterator[list[Row]]:
    texts = [index for index, kind in enumerate(columns.values()) if kind is Kind.TEXT]
    chunk: list[Row] = []
    chars = 0
    for row in rows:
        chunk.append(row)
        chars += sum(len(row[index]) for index in texts if row[index])
        if len(chunk) >= _CHUNK_ROWS or chars >= _CHUNK_CHARS:
            yield chunk
            chunk, chars = [], 0
    if chunk:
        yield chunk


def _typed(value: Any, kind: Kind, *, unix: bool) -> Any:
    if value is None:
        return None
    if kind is Kind.TIME and not unix:
        return round(value * _MICRO)
    if kind is Kind.FLAG:
        return bool(value)
    return _text(value) if kind is Kind.TEXT else value


def iso(at: float) -> str:
    """ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _text(value: str) -> str:
    """Without halves of surrogate pairs, which UTF-8 has no bytes for."""
    return value.encode("utf-8", "backslashreplace").decode()


def _harmless(value: str) -> str:
    return f"'{value}" if value.startswith(FORMULA) else value


def _flag(value: Any) -> str:
    return "true" if value else "false"


_CELLS: dict[Kind, Callable[[Any], Any]] = {
    Kind.TIME: iso,
    Kind.TEXT: _harmless,
    Kind.FLAG: _flag,
}
WRITERS: dict[str, Callable[..., int]] = {"csv": write_csv, "parquet": write_parquet}
