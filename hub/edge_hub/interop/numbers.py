"""How often each edge node has connected: its bdSeq, which goes on where the last run of the hub ended."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from edge_hub.datadir import PRIVATE_FILE, read_kept
from edge_hub.interop.metrics import MAX_NUMBER, following
from edge_sdk import atomic
from edge_sdk.errors import StorageError
from edge_sdk.mqtt import DeviceId
from edge_sdk.wire import encode

_log = logging.getLogger(__name__)

_MAX_BYTES = 16 * 1024 * 1024
_Numbers = dict[str, Annotated[int, Meta(ge=0, le=MAX_NUMBER)]]


class BirthNumbers:
    """The last bdSeq of each edge node, kept in a file.

    Args:
        path: The file.

    Raises:
        StorageError: It cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = asyncio.Lock()
        self._given, self._written = 0, 0
        self._last: dict[str, int] = read_kept(path, _Numbers, max_bytes=_MAX_BYTES) or {}

    async def following(self, device: DeviceId) -> int:
        """The number of the next connection; it is on disk before this returns, many in one writing."""
        name = str(device)
        number = following(self._last[name]) if name in self._last else 0
        self._last[name] = number
        self._given += 1
        mine = self._given
        async with self._lock:
            if self._written < mine:
                covered, content = self._given, encode(msgspec.to_builtins(self._last))
                try:
                    await asyncio.to_thread(atomic.write_bytes, self._path, content, mode=PRIVATE_FILE)
                except StorageError as error:
                    # At worst a number comes twice after a crash, which a host tells apart by the birth that follows.
                    _log.warning("Sparkplug: the number of a connection is not kept: %s", error)
                self._written = covered
        return number
