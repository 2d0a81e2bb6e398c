"""The fleet as it is asked about: rows, totals, and which devices a query means, read from the store at each question.

Any hub process answers alike: nothing is kept here but a second's worth of open alerts and the switches of an hour,
both read back from the store.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from edge_hub.overview import FleetView, ModelList, OpenAlerts, fleet_view, models_view
from edge_hub.query import Query, parse
from edge_hub.rows import Facts, Fleet, Row, facts_of, rows_of
from edge_hub.store import Store
from edge_hub.store.outline import Outline
from edge_hub.store.records import EventRecord, RuleRecord
from edge_sdk.mqtt import DeviceId

GROUP = "group:"
SWITCHES = "switches_h"  # a field of queries that takes counting
_HOUR_S = 3600.0
_ALERTS_FRESH_S = 1.0
MAX_OPEN_ALERTS = 100_000  # more are not looked at
_PAGE = 1000
_MAX_PAGES_BACK = 20  # of events, that a fresh process reads back of the last hour
_MINUTES = 61  # of the hour, with the one that has begun


class Census:
    """Answers questions about the fleet.

    Args:
        store: Where everything is.
        clock: Seconds since 1970.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._alerts = OpenAlerts()
        self._alerts_at = float("-inf")
        self._switches = _Switches(store)

    async def groups(self) -> dict[str, str]:
        """The query of each group by its name."""
        return groups_of(await self._store.rules())

    async def query(self, text: str) -> Query:
        """Compile a query that may name groups.

        Raises:
            QueryError: It is none.
        """
        return parse(text, await self.groups() if GROUP in text else {})

    async def matching(self, query: Query) -> tuple[Facts, ...]:
        """The devices a query holds for now, by name."""
        records = await self._store.outlines()
        fleet = await self.fleet_of(records, switches=SWITCHES in query.fields)

        def look() -> tuple[Facts, ...]:
            return tuple(facts for record in records if query(facts := facts_of(record, fleet)))

        return await asyncio.to_thread(look)

    async def counts(self, queries: Sequence[Query]) -> tuple[int, ...]:
        """How many devices each query holds for; every device is read once, however many queries there are."""
        records = await self._store.outlines()
        fleet = await self.fleet_of(records, switches=any(SWITCHES in query.fields for query in queries))

        def look() -> tuple[int, ...]:
            facts = [facts_of(record, fleet) for record in records]
            return tuple(sum(query(one) for one in facts) for query in queries)

        return await asyncio.to_thread(look)

    async def rows(self, text: str = "") -> tuple[Row, ...]:
        """The rows of the devices that a query means.

        Raises:
            QueryError: It is none.
        """
        if not text.strip():
            return await self._all_rows(await self._store.outlines())
        return tuple(facts.row for facts in await self.matching(await self.query(text)))

    async def some_rows(self, devices: Sequence[DeviceId]) -> tuple[Row, ...]:
        """The rows of these devices."""
        return rows_of(await self._store.outlines(devices), (await self.open_alerts()).counts)

    async def overview(self, rows: Sequence[Row] | None = None) -> FleetView:
        """The totals; of rows that were just read, where those are at hand."""
        if rows is None:
            rows = await self._all_rows(await self._store.outlines())
        alerts = await self.open_alerts()
        return await asyncio.to_thread(fleet_view, rows, alerts, now=self._clock())

    async def models(self) -> ModelList:
        """What the fleet serves, and where it runs."""
        return await asyncio.to_thread(models_view, await self._store.outlines())

    async def open_alerts(self) -> OpenAlerts:
        """As they were a second ago at most."""
        now = self._clock()
        if not 0 <= now - self._alerts_at < _ALERTS_FRESH_S:
            self._alerts = OpenAlerts.of(await self._store.alerts(open_only=True, limit=MAX_OPEN_ALERTS))
            self._alerts_at = now
        return self._alerts

    def forget_devices(self, devices: Collection[DeviceId]) -> None:
        """They were removed: who has one of their names from now on has not switched yet."""
        self._switches.forget(devices)

    def forget_alerts(self) -> None:
        """Alerts began or ended."""
        self._alerts_at = float("-inf")

    async def fleet_of(self, records: Sequence[Outline], *, switches: bool) -> Fleet:
        """What these devices, which are all, have in common."""
        now = self._clock()
        counted = await self._switches.count(now) if switches else {}
        alerts = (await self.open_alerts()).counts
        return await asyncio.to_thread(Fleet.of, records, now=now, alerts=alerts, switches=counted)

    async def _all_rows(self, records: Sequence[Outline]) -> tuple[Row, ...]:
        return await asyncio.to_thread(rows_of, records, (await self.open_alerts()).counts)


def groups_of(kept: Iterable[RuleRecord]) -> dict[str, str]:
    """The groups among what is kept under names: the query of each by its name."""
    return {one.name.removeprefix(GROUP): one.body.decode() for one in kept if one.name.startswith(GROUP)}


class _Switches:
    """Counts each device's switches within the last hour, to the minute, reading each event once.

    A fleet that flaps as a whole costs 400 bytes a device, however often it does.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = asyncio.Lock()
        self._last: int | None = None
        self._hours: dict[DeviceId, _Hour] = {}

    async def count(self, now: float) -> Mapping[DeviceId, int]:
        """By device; of those that switched at all."""
        async with self._lock:
            if self._last is None:
                await self._read_back(now)
            await self._read_on()
        minute = _minute(now)
        counts = {device: hour.count(minute) for device, hour in self._hours.items()}
        for device, count in counts.items():
            if not count:
                del self._hours[device]
        return counts

    def forget(self, devices: Collection[DeviceId]) -> None:
        """Count none of theirs."""
        for device in devices:
            self._hours.pop(device, None)

    async def _read_back(self, now: float) -> None:
        self._hours.clear()  # of a time before, that broke off
        before: int | None = None
        last = 0
        for _ in range(_MAX_PAGES_BACK):
            page = await self._store.events(before=before, limit=_PAGE)
            last = max(last, page[-1].id if page else 0)
            self._take(page)
            if len(page) < _PAGE or page[0].received < now - _HOUR_S:
                break
            before = page[0].id
        self._last = last

    async def _read_on(self) -> None:
        while True:
            page = await self._store.events(after=self._last, limit=_PAGE)
            self._take(page)
            if page:
                self._last = page[-1].id
            if len(page) < _PAGE:
                return

    def _take(self, page: Sequence[EventRecord]) -> None:
        for one in page:
            if one.event.kind == "switch":
                hour = self._hours.get(one.device)
                if hour is None:
                    hour = self._hours[one.device] = _Hour()
                hour.add(_minute(one.received))


class _Hour:
    """How often something happened in each minute of the last hour."""

    __slots__ = ("_counts", "_last", "_total")

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._counts = array("I", bytes(4 * _MINUTES))
        self._last = 0
        self._total = 0

    def add(self, minute: int) -> None:
        """It happened once more, then; what is older than an hour is not counted."""
        self._move(minute)
        if minute > self._last - _MINUTES:
            self._counts[minute % _MINUTES] += 1
            self._total += 1

    def count(self, minute: int) -> int:
        """How often within the hour that ends with this minute."""
        if self._last > minute + 1:  # the clock was set back: what it said before is worth nothing
            self._forget()
        self._move(minute)
        return self._total

    def _move(self, minute: int) -> None:
        """Forget what the new minutes take the place of."""
        for passed in range(max(self._last, minute - _MINUTES) + 1, minute + 1):
            self._total -= self._counts[passed % _MINUTES]
            self._counts[passed % _MINUTES] = 0
        self._last = max(self._last, minute)


def _minute(at: float) -> int:
    return int(at // 60)
