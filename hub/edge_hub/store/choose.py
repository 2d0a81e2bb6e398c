"""Which store: a file in the data directory, or the database a URL names."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from edge_hub.store.sqlite import SqliteStore
from edge_sdk.errors import UsageError

if TYPE_CHECKING:
    from edge_hub.store.postgres import PostgresStore


async def open_postgres(url: str) -> PostgresStore:
    """The store in PostgreSQL.

    Raises:
        UsageError: It is no such URL, or the driver is not installed.
        StoreError: The database cannot be reached, or is no database of this version.
    """
    _need_driver()
    from edge_hub.store.postgres import PostgresStore

    return await PostgresStore.open(url)


def open_sqlite(path: Path) -> SqliteStore:
    """The store in a file.

    Raises:
        StoreError: It cannot be opened, is damaged, or is no database of this version.
    """
    return SqliteStore(path)


def without_secrets(url: str) -> str:
    """The URL of a database as it may be shown.

    Raises:
        UsageError: It is no such URL, or the driver is not installed.
    """
    _need_driver()
    from edge_hub.store._postgres_pool import DatabaseUrl

    return str(DatabaseUrl.parse(url))


def _need_driver() -> None:
    if importlib.util.find_spec("asyncpg") is None:
        raise UsageError(
            "asyncpg is not installed, which PostgreSQL takes", hint="pip install 'adaptive-edge-sdk[hub-postgres]'"
        )
