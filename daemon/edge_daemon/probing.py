"""Times a variant in an idle moment, because the policy asked for it: better than to try it on somebody's call.

A trial is a child process that starts an interpreter, loads the variant and times it: a second or two of one core on a
small board. So it waits for a moment in which no app called for `IDLE_S`, or half of the processor has nothing to do,
and the board is neither hot nor throttled nor short of charge. There is one a minute at most, and the same variant not
again for ten minutes. A wish that finds no such moment within a minute is forgotten; the policy will ask again.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Protocol

from edge_daemon.clock import Clock
from edge_daemon.policy.types import Tried, Try
from edge_sdk.errors import EdgeError
from edge_sdk.manifest import Latency

log = logging.getLogger(__name__)

IDLE_S: Final = 2.0
EVERY_S: Final = 60.0
SAME_S: Final = 600.0
PATIENCE_S: Final = 60.0
BUSY_PCT: Final = 50.0  # of all cores


class Measurer(Protocol):
    """Times variants in a child process."""

    async def trial(self, model: str, variant: str) -> tuple[Latency, ...]:
        """The latency of one variant.

        Raises:
            EdgeError: It could not be measured.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    model: str
    variant: str
    since_s: float


class Prober:
    """Carries out one trial at a time, when it harms nobody.

    Args:
        measurer: Times variants; a trial gives way to a measurement that somebody ordered.
        tried: Told of the outcome.
        clock: Of idle moments.
        begin: Begins a task of this name, that ends by itself.
    """

    def __init__(
        self,
        measurer: Measurer,
        tried: Callable[[Tried], Awaitable[None]],
        clock: Clock,
        begin: Callable[[str, Coroutine[Any, Any, None]], None],
    ) -> None:
        self._measurer, self._tried, self._clock, self._begin = measurer, tried, clock, begin
        self._wish: _Wish | None = None
        self._last_s: float | None = None
        self._last_of: dict[tuple[str, str], float] = {}
        self._is_busy = False
        self._called_s = clock.monotonic()

    def called(self) -> None:
        """An app was called just now."""
        self._called_s = self._clock.monotonic()

    def wanted(self, item: Try) -> None:
        """The policy asks for a trial; a newer wish takes the place of one that waits."""
        if self._may(item.model, item.variant):
            self._wish = _Wish(model=item.model, variant=item.variant, since_s=self._clock.monotonic())

    def look(self, *, calm: bool, load_pct: float | None) -> None:
        """Begin the trial that is wanted, if this is a moment for it.

        Args:
            calm: The board is neither hot nor throttled, nor short of charge.
            load_pct: CPU in use, of all cores; None where nobody knows.
        """
        wish, now_s = self._wish, self._clock.monotonic()
        if wish is None or self._is_busy:
            return
        if now_s - wish.since_s > PATIENCE_S:
            self._wish = None
        elif calm and (now_s - self._called_s >= IDLE_S or (load_pct is not None and load_pct <= BUSY_PCT)):
            self._wish, self._is_busy = None, True
            self._last_s = self._last_of[wish.model, wish.variant] = now_s
            self._begin("trial", self._try(wish))

    async def _try(self, wish: _Wish) -> None:
        try:
            found = await self._measurer.trial(wish.model, wish.variant)
        except EdgeError as error:
            log.debug("%s of %s could not be tried: %s", wish.variant, wish.model, error)
            return
        finally:
            self._is_busy = False
        for latency in found:
            log.info("%s: %s takes %.3g ms, tried in an idle moment", wish.model, latency.variant, latency.median_ms)
            await self._tried(Tried(model=wish.model, variant=latency.variant, latency_ms=latency.median_ms))

    def _may(self, model: str, variant: str) -> bool:
        now_s, of = self._clock.monotonic(), self._last_of.get((model, variant))
        recently = self._last_s is not None and now_s - self._last_s < EVERY_S
        return not recently and not self._is_busy and (of is None or now_s - of >= SAME_S)
