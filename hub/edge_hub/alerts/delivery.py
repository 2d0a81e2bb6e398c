"""Telling others of alerts: each beginning and each end once on each way, in order, also over a restart.

How far a way has come is in the store: the last alert whose beginning was told, and which of those told are not ended
yet. What is to be told next follows from that and the alerts themselves, so that nothing is queued that a kill could
lose. A crash between telling and noting it tells once more, under the same id.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Protocol

from edge_hub.alerts.silences import silences_in_force
from edge_hub.alerts.views import AlertView, Silence
from edge_hub.census import MAX_OPEN_ALERTS, Census
from edge_hub.errors import QueryError, StoreError
from edge_hub.rows import Facts, facts_of
from edge_hub.store import Store
from edge_hub.store.records import AlertRecord, RuleRecord
from edge_hub.tasks import within
from edge_sdk.errors import WireError
from edge_sdk.wire import Count, Name, Wire, decode, encode

_log = logging.getLogger(__name__)

MAX_WAITING = 1000  # more that nobody could be told of are passed over, the oldest first
GIVE_UP_S = 6 * 3600.0
_LOOK_EVERY_S = 5.0
_FIRST_BACKOFF_S = 1.0
_LAST_BACKOFF_S = 300.0
_PAGE = 200
_NOTE_EVERY = 20  # a crash tells as many once more at most
_MAX_TOLD_BYTES = 4 * 1024 * 1024
_MOST_DOUBLINGS = 20
_TOLD = "told:"
BEGAN, ENDED = "began", "ended"


class Notice(Wire, frozen=True, kw_only=True, omit_defaults=False):
    """What is told.

    Attributes:
        id: The same whenever this is told again.
        what: `began` or `ended`.
    """

    id: str
    what: Name
    alert: AlertView


class Way(Protocol):
    """Where alerts are told: a webhook, a topic."""

    @property
    def name(self) -> str:
        """Stable over restarts, of this way alone."""

    async def tell(self, notice: Notice) -> str | None:
        """Tell it; None when it arrived, else why it did not."""


class _Told(Wire, frozen=True, kw_only=True):
    """How far a way has come: the last alert whose beginning was told, and those of which the end is still to come."""

    last: Count = 0
    open: tuple[Count, ...] = ()

    def after(self, notice: Notice, *, heard: bool) -> _Told:
        """How far it is once this was told, or passed over: of what nobody heard, nobody is told the end."""
        number = notice.alert.id
        if notice.what == ENDED:
            return _Told(last=self.last, open=tuple(one for one in self.open if one != number))
        return _Told(last=number, open=(*self.open, number) if heard else self.open)


class Delivery:
    """Brings alerts on one way.

    Args:
        way: Where to.
        store: Has the alerts, and keeps how far this has come.
        census: Says whether a silence means a device.
        clock: Seconds since 1970.
    """

    def __init__(self, way: Way, *, store: Store, census: Census, clock: Callable[[], float] = time.time) -> None:
        self.told = 0
        self.given_up = 0
        self._way = way
        self._store = store
        self._census = census
        self._clock = clock
        self._some = asyncio.Event()
        self._failures = 0

    def tell(self) -> None:
        """There may be something to tell."""
        self._some.set()

    async def run(self) -> None:
        """Tell until cancelled; of one process at a time."""
        while True:
            wait_s = _LOOK_EVERY_S
            try:
                await self.step()
                if self._failures:
                    backoff_s = min(_FIRST_BACKOFF_S * 2 ** (self._failures - 1), _LAST_BACKOFF_S)
                    wait_s = backoff_s * random.uniform(0.8, 1.2)  # noqa: S311 - spreads hubs apart
            except StoreError as error:
                _log.debug("alerts are not told: %s", error)
            await self._rest(wait_s)

    async def step(self) -> None:
        """Tell what is to be told, until something does not arrive."""
        noted = await self._read()
        silences = silences_in_force(await self._store.rules(), self._clock())
        over, told = await self._ended(noted)
        fresh, told = await self._fresh(told)
        try:
            for number, (what, alert) in enumerate([*over, *fresh], start=1):
                notice = Notice(id=f"{alert.id}-{what}", what=what, alert=AlertView.of(alert))
                heard = False
                if what == ENDED or not await self._silenced(alert, silences):
                    heard = await self._tell(notice)
                    if not heard and self._failures:
                        return
                told = told.after(notice, heard=heard)
                if number % _NOTE_EVERY == 0:
                    await self._write(told)
                    noted = told
        finally:
            if told != noted:
                await self._write(told)

    async def _tell(self, notice: Notice) -> bool:
        """Whether it arrived; where not, `failures` says whether to try again."""
        trouble = await self._way.tell(notice)
        if trouble is None:
            if self._failures:
                _log.warning("alerts arrive again (%s)", self._way.name)
            self._failures = 0
            self.told += 1
            return True
        happened = notice.alert.began if notice.alert.ended is None else notice.alert.ended
        if self._clock() - happened >= GIVE_UP_S:
            self.given_up += 1
            self._failures = 0
            return False
        if not self._failures:
            _log.warning("an alert is not told (%s): %s; trying again", self._way.name, trouble)
        self._failures = min(self._failures + 1, _MOST_DOUBLINGS)
        return False

    async def _ended(self, told: _Told) -> tuple[list[tuple[str, AlertRecord]], _Told]:
        """Alerts whose beginning was told and which are over; and what was told, but for what can be found no more."""
        still = {alert.id for alert in await self._store.alerts(open_only=True, limit=MAX_OPEN_ALERTS)}
        found, lost = [], set()
        for number in told.open:
            if number not in still:
                page = await self._store.alerts(before=number + 1, limit=1)
                alert = next((one for one in page if one.id == number), None)
                alert = alert or await self._store.alert_of_removed(number)
                if alert is None:
                    lost.add(number)  # retention took it
                else:
                    found.append((ENDED, alert))
        return found, _Told(last=told.last, open=tuple(one for one in told.open if one not in lost))

    async def _fresh(self, told: _Told) -> tuple[list[tuple[str, AlertRecord]], _Told]:
        """Alerts whose beginning is to be told, the oldest first; and what was told, with what is passed over."""
        found: list[AlertRecord] = []
        before: int | None = None
        while len(found) < MAX_WAITING:
            page = await self._store.alerts(before=before, limit=_PAGE)
            fresh = [alert for alert in page if alert.id > told.last]
            found += fresh
            if len(fresh) < _PAGE:
                break
            before = page[-1].id
        else:
            del found[MAX_WAITING:]
            self.given_up += found[-1].id - 1 - told.last
            told = _Told(last=found[-1].id - 1, open=told.open)
        return [(BEGAN, alert) for alert in reversed(found)], told

    async def _silenced(self, alert: AlertRecord, silences: tuple[Silence, ...]) -> bool:
        meant = [one for one in silences if one.rule in {None, alert.rule}]
        if not meant:
            return False
        if any(not one.query for one in meant):
            return True
        found = await self._store.outlines((alert.device,))
        if not found:
            return False
        facts = facts_of(found[0], await self._census.fleet_of(found, switches=False))
        return any([await self._means(one.query, facts) for one in meant])

    async def _means(self, query: str, facts: Facts) -> bool:
        try:
            return (await self._census.query(query))(facts)
        except QueryError:  # it names a group that was deleted: nothing is silenced by it
            return False

    async def _read(self) -> _Told:
        for record in await self._store.rules():
            if record.name == self._key:
                try:
                    return decode(record.body, _Told, where=self._key, max_bytes=_MAX_TOLD_BYTES)
                except WireError:
                    break
        # A new way is told of what begins from now on.
        newest = await self._store.alerts(limit=1)
        told = _Told(last=newest[0].id if newest else 0)
        await self._write(told)
        return told

    async def _write(self, told: _Told) -> None:
        await self._store.put_rule(RuleRecord(name=self._key, body=encode(told), changed=self._clock()))

    @property
    def _key(self) -> str:
        return f"{_TOLD}{self._way.name}"

    async def _rest(self, wait_s: float) -> None:
        try:
            await within(self._some.wait(), wait_s)
        except asyncio.TimeoutError:
            return
        self._some.clear()
        if self._failures:  # news does not shorten what a failure asked to wait
            await asyncio.sleep(wait_s)
