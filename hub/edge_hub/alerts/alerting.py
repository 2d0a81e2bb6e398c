"""The part of the hub that evaluates the rules, again and again, and says what began and ended.

What counts is in the store: open alerts, of which a rule and a device have one at most, and since when a condition
holds that has not held for long enough. A restart, or another process that takes over, goes on from there. In between
time is counted by a clock that does not step (`edge_hub.alerts.holding`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge_hub.alerts import silences
from edge_hub.alerts.evaluation import Outcome, compiled, evaluate
from edge_hub.alerts.holding import Holding
from edge_hub.alerts.rules import in_force
from edge_hub.census import MAX_OPEN_ALERTS, SWITCHES, Census, groups_of
from edge_hub.errors import StoreError, UnknownDeviceError
from edge_hub.rows import facts_of
from edge_hub.store import Store
from edge_hub.store.records import AlertRecord

_log = logging.getLogger(__name__)

# A look takes a twentieth of a processor at most: each second in a small fleet, every few in one of thousands.
_LEAST_PAUSE_S, _MOST_PAUSE_S = 1.0, 30.0
_PAUSE_PER_LOOK = 19.0
# Each is a transaction; the rest of a fleet that vanished at once follows with the next look.
_AT_ONCE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Hands:
    """Whom an alert concerns.

    Attributes:
        spread: Called with each alert that began or ended.
        tell: Told that there is something to deliver.
    """

    spread: Callable[[Sequence[AlertRecord]], None]
    tell: Callable[[], None]


class Alerting:
    """Evaluates the rules.

    Args:
        store: Where everything is.
        census: Knows the devices.
        hands: Whom they concern.
        clock: Seconds since 1970.
        steady: Seconds that never step.
    """

    def __init__(
        self,
        *,
        store: Store,
        census: Census,
        hands: Hands,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.evaluations = 0
        self._store = store
        self._census = census
        self._hands = hands
        self._clock = clock
        self._steady = steady
        self._holding = Holding()
        self._said: dict[str, str] = {}

    async def run(self) -> None:
        """Evaluate until cancelled; of one process at a time."""
        self._holding = Holding()  # another process may have gone on meanwhile: what it left is in the store
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
        now, steady_s = self._clock(), self._steady()
        kept = await self._store.rules()
        rules, broken = compiled(in_force(kept), groups_of(kept))
        self._complain({name: str(error) for name, error in broken.items()})
        records = await self._store.outlines()
        fleet = await self._census.fleet_of(records, switches=any(SWITCHES in rule.fields for rule in rules))
        alerts = await self._store.alerts(open_only=True, limit=MAX_OPEN_ALERTS)
        pending = self._holding.pending(kept, now=now, steady_s=steady_s)

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
        record = self._holding.left(left, now=now, steady_s=steady_s)
        if record is not None:
            await self._store.put_rule(record)
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
        self._census.forget_alerts()
        self._hands.spread(changed)
        self._hands.tell()

    def _complain(self, broken: dict[str, str]) -> None:
        for name, text in broken.items():
            if self._said.get(name) != text:
                _log.warning("alert rule %s cannot be asked: %s", name, text)
        self._said = broken
