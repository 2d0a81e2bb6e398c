"""Since when conditions hold that have not held for long enough, by a clock that does not step.

The wall clock of a hub may be set while it runs; a condition has not held longer for that. So within a process a hold
is counted by its steady clock, and what each look is told is the wall time that lies so far back. What outlives the
process is that wall time, in the store; it is written when it is another one than before.
"""

from __future__ import annotations

import logging

from edge_hub.alerts.evaluation import Pending
from edge_hub.store.records import RuleRecord
from edge_sdk.errors import WireError
from edge_sdk.wire import Unix, Wire, decode, encode

_log = logging.getLogger(__name__)

STATE = "state:alerts"
_MAX_STATE_BYTES = 32 * 1024 * 1024
# The two clocks drift by what NTP may slew (500 ppm, adjtimex(2)): not worth a write at each look.
_SAME_S = 1.0


class _State(Wire, frozen=True, kw_only=True):
    """What an evaluation leaves for the next: since when, by rule and device."""

    pending: dict[str, dict[str, Unix]] = {}


class Holding:
    """The holds of one process, from its first look on."""

    def __init__(self) -> None:
        # By the steady clock; None before the first look, which takes what the store has.
        self._since: dict[str, dict[str, float]] | None = None
        self._stored: Pending = {}

    def pending(self, kept: tuple[RuleRecord, ...], *, now: float, steady_s: float) -> Pending:
        """Since when conditions hold, as the wall clock counts now.

        Args:
            kept: What the store keeps under names.
            now: Seconds since 1970.
            steady_s: The steady clock at the same moment.
        """
        self._stored = _read(kept)
        if self._since is None:
            return self._stored
        ahead_s = now - steady_s
        return {name: {one: max(at + ahead_s, 0.0) for one, at in held.items()} for name, held in self._since.items()}

    def left(self, pending: dict[str, dict[str, float]], *, now: float, steady_s: float) -> RuleRecord | None:
        """Take what a look left for the next; what the store is to keep of it, where it has something else.

        Args:
            pending: As the wall clock counted at the look.
            now: Of that look, as is `steady_s`.
            steady_s: See there.
        """
        ahead_s = now - steady_s
        self._since = {name: {one: at - ahead_s for one, at in held.items()} for name, held in pending.items()}
        if _alike(pending, self._stored):
            return None
        return RuleRecord(name=STATE, body=encode(_State(pending=pending)), changed=now)


def _alike(one: Pending, other: Pending) -> bool:
    return one.keys() == other.keys() and all(
        held.keys() == other[name].keys()
        and all(abs(at - other[name][device]) < _SAME_S for device, at in held.items())
        for name, held in one.items()
    )


def _read(kept: tuple[RuleRecord, ...]) -> Pending:
    body = next((record.body for record in kept if record.name == STATE), None)
    if body is None:
        return {}
    try:
        return decode(body, _State, where=STATE, max_bytes=_MAX_STATE_BYTES).pending
    except WireError as error:  # another version's: conditions begin to hold anew
        _log.warning("%s", error)
        return {}
