"""Changed devices as news: gathered for a quarter of a second, read in one go, spread as rows, or as gone."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable

import msgspec

from edge_hub.census import Census
from edge_hub.errors import StoreError
from edge_hub.feed import Feed, News, Topic
from edge_hub.rows import Gone, RowList
from edge_sdk.mqtt import DeviceId
from edge_sdk.wire import encode

_log = logging.getLogger(__name__)

GATHER_S = 0.25
_AT_ONCE = 500  # rows in one piece of news: a quarter of a megabyte


class RowFeed:
    """Spreads the rows of devices that changed while somebody listens.

    Args:
        census: Makes the rows.
        feed: Whom to tell.
    """

    def __init__(self, *, census: Census, feed: Feed) -> None:
        self._census = census
        self._feed = feed
        self._touched: dict[DeviceId, None] = {}
        self._some = asyncio.Event()

    def touch(self, devices: Iterable[DeviceId]) -> None:
        """These changed."""
        if self._feed.listeners:
            self._touched.update(dict.fromkeys(devices))
            if self._touched:
                self._some.set()

    async def run(self) -> None:
        """Spread, until cancelled."""
        while True:
            await self._some.wait()
            await asyncio.sleep(GATHER_S)
            self._some.clear()
            touched, self._touched = list(self._touched), {}
            for first in range(0, len(touched), _AT_ONCE):
                some = touched[first : first + _AT_ONCE]
                try:
                    rows = await self._census.some_rows(some)
                except StoreError as error:
                    _log.debug("rows are not told: %s", error)
                    self._feed.miss()
                    break
                # Encoded once, whoever listens.
                if rows:
                    body = msgspec.Raw(encode(RowList(rows=rows, at=time.time())))
                    self._feed.spread(News(topic=Topic.ROWS, body=body))
                there = {row.device for row in rows}
                gone = tuple(str(device) for device in some if str(device) not in there)
                if gone:
                    body = msgspec.Raw(encode(Gone(devices=gone, at=time.time())))
                    self._feed.spread(News(topic=Topic.GONE, body=body))
