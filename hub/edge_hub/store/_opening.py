"""Connections to the SQLite file, and its complaints as errors of ours."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from edge_hub.errors import StoreError
from edge_hub.store._schema import APPLICATION_ID, FORMAT


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
        StoreError: There is no database, or none of a hub of this version.
    """
    if not path.is_file():
        raise StoreError("there is no database", where=str(path), hint="has a hub run with this --data?")
    with as_store_errors(path), contextlib.ExitStack() as opened:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        opened.callback(connection.close)
        connection.row_factory = sqlite3.Row
        if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise StoreError("no database of a hub", where=str(path), hint="name its data directory with --data")
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found != FORMAT:
            raise StoreError(
                f"a database of format {found}, this version reads {FORMAT}",
                where=str(path),
                hint="use the version that wrote it, or let a hub of this one run with it once",
            )
        opened.pop_all()
    return connection
