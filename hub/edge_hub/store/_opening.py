"""Connections to the SQLite file, and its complaints as errors of ours."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from edge_hub.errors import StoreError


@contextlib.contextmanager
def as_store_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite and the file system complain of into a `StoreError` that names the file."""
    try:
        yield
    except (sqlite3.Error, OSError) as cause:
        raise StoreError(
            f"the database refuses: {cause}", where=str(path), hint="is the disk full, or the file damaged?"
        ) from cause


def read_only(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing, for one thread, beside others that may write.

    Raises:
        StoreError: There is no database.
    """
    if not path.is_file():
        raise StoreError("there is no database", where=str(path), hint="has a hub run with this --data?")
    with as_store_errors(path):
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        connection.row_factory = sqlite3.Row
    return connection
