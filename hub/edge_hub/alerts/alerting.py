"""The part of the hub that evaluates the rules, again and again, and says what began and ended.

What counts is in the store: open alerts, of which a rule and a device have one at most, and since when a condition
holds that has not held for long enough. A restart, or another process that takes over, goes on from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from edge_hub.alerts import silences
from edge_hub.alerts.evaluation import Outcome, Pending, compiled, evaluate
from edge_hub.alerts.rules import in_force
from edge_hub.alerts.views import AlertView
from edge_hub.census import MAX_OPEN_ALERTS, SWITCHES, Census, groups_of
from edge_hub.errors import StoreError, UnknownDeviceError
from edge_hub.feed import Feed, News, Topic
from edge_hub.rows import facts_of
from edge_hub.store import Store
from edge_hub.store.records import AlertRecord, RuleRecord
from edge_sdk.errors import WireError
from edge_sdk.mqtt import DeviceId
from edge_sdk.wire import Unix, Wire, decode, encode

_log = logging.getLogger(__name__)

# A look takes a twentieth of a processor at most: each second in a small fleet, every few in one of thousands.
_LEAST_PAUSE_S, _MOST_PAUSE_S = 1.0, 30.0
_PAUSE_PER_LOOK = 19.0
_STATE = "state:alerts"
_MAX_STATE_BYTES = 32 * 1024 * 1024
# Each is a transaction; the rest of a fleet that vanished at once follows with the next look.
_AT_ONCE = 500


class _State(Wire, frozen=True, kw_only=True):
    """What an evaluation leaves for the next."""

    pending: dict[str, dict[str, Unix]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hands:
    """Whom an alert concerns.

    Attributes:
        touch: Told of devices whose number of alerts changed.
        tell: Told that there is something to deliver.
    """

    touch: Callable[[Iterable[DeviceId]], None]
    tell: Callable[[], None]


class Alerting:
    """Evaluates the rules.

    Args:
        store: Where everything is.
        census: Knows the devices.
        feed: Told of each alert that begins or ends.
        hands: Who else is.
        clock: Seconds since 1970.
    """

    def __init__(
        self, *, store: Store, census: Census, feed: Feed, hands: Hands, clock: Callable[[], float] = time.time
    ) -> None:
        self.evaluations = 0
        self._store = store
        self._census = census
        self._feed = feed
        self._hands = hands
        self._clock = clock
        self._said: dict[str, str] = {}

    async def run(self) -> None:
        """Evaluate until cancelled; of one process at a time."""
        while True:
            began_s = time.monotonic()
            try:
                await self.step()
            except StoreError as error:
                _log.debug("the rules are not looked at: %s", error)
            took_s = time.monotonic() - began_s
            await asyncio.sleep(min(max(_PAUSE_PER_LOOK * took_s, _LEAST_PAUSE_S), _MOST_PAUSE_S))

    async def step(self) -> None:
        """One look at everything."""
        now = self._clock()
        kept = await self._store.rules()
        rules, broken = compiled(in_force(kept), groups_of(kept))
        self._complain({name: str(error) for name, error in broken.items()})
        records = await self._store.outlines()
        fleet = await self._census.fleet_of(records, switches=any(SWITCHES in rule.fields for rule in rules))
        alerts = await self._store.alerts(open_only=True, limit=MAX_OPEN_ALERTS)
        pending = _pending(kept)

        def look() -> Outcome:
            return evaluate(
                rules,
                (facts_of(record, fleet) for record in records),
                opened={(alert.rule, alert.device): alert for alert in alerts},
                pending=pending,
                kept=frozenset(broken),
                now=now,
            )

        found = await asyncio.to_thread(look)
        await self._take(found, now)
        # What begins with the next look has waited as long.
        left = {name: dict(devices) for name, devices in found.pending.items()}
        for alert in found.begin[_AT_ONCE:]:
            left.setdefault(alert.rule, {})[str(alert.device)] = alert.began
        if left != pending:
            await self._store.put_rule(RuleRecord(name=_STATE, body=encode(_State(pending=left)), changed=now))
        for name in silences.over(kept, now):
            await self._store.delete_rule(name)
        self.evaluations += 1

    async def _take(self, found: Outcome, now: float) -> None:
        changed: list[AlertRecord] = []
        for alert in found.begin[:_AT_ONCE]:
            with contextlib.suppress(UnknownDeviceError):  # removed since it was looked at
                changed.append(await self._store.raise_alert(alert))
        for alert in found.end[:_AT_ONCE]:
            ended = await self._store.end_alert(alert.id, now=now)
            changed += [] if ended is None else [ended]
        if not changed:
            return
        for alert in changed:
            self._feed.spread(News(topic=Topic.ALERT, body=AlertView.of(alert)))
        self._census.forget_alerts()
        self._hands.touch(alert.device for alert in changed)
        self._hands.tell()

    def _complain(self, broken: dict[str, str]) -> None:
        for name, text in broken.items():
            if self._said.get(name) != text:
                _log.warning("alert rule %s cannot be asked: %s", name, text)
        self._said = broken


def _pending(kept: tuple[RuleRecord, ...]) -> Pending:
    body = next((record.body for record in kept if record.name == _STATE), None)
    if body is None:
        return {}
    try:
        return decode(body, _State, where=_STATE, max_bytes=_MAX_STATE_BYTES).pending
    except WireError as error:  # another version's: conditions begin to hold anew
        _log.warning("%s", error)
        return {}
