"""The audit log's pen: who did what, when, to whom, noted once it has happened."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from edge_hub.store import Store
from edge_hub.store.records import AuditRecord
from edge_sdk.wire import encode

MAX_DETAIL_BYTES = 64 * 1024
_MAX_TARGET_CHARS = 2000


class Author(Protocol):
    """Whoever does something: a caller of the API."""

    @property
    def name(self) -> str:
        """Of the token."""

    @property
    def role(self) -> Any:
        """With a `word`."""


class Audit:
    """Notes.

    Args:
        store: Keeps them.
        told: Called with the kind of what was noted, once it is kept.
        clock: Seconds since 1970.
    """

    def __init__(self, store: Store, *, told: Callable[[str], None], clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._told = told
        self._clock = clock

    async def note(self, who: Author, what: str, target: str, detail: Any = None) -> None:
        """Somebody did something.

        Args:
            who: The caller.
            what: One word: `command`, `cancel`, `desired`, `labels`, `enrol`, `token`, ...
            target: A device, a query, a name.
            detail: What was asked, no secrets.

        Raises:
            StoreError: It could not be kept; what was done is done.
        """
        body = encode({} if detail is None else detail)
        await self._store.add_audit(
            AuditRecord(
                at=self._clock(),
                who=who.name,
                role=who.role.word,
                what=what,
                target=target[:_MAX_TARGET_CHARS],
                detail=body if len(body) <= MAX_DETAIL_BYTES else encode({"size_bytes": len(body)}),
            )
        )
        self._told(what)
