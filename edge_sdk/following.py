"""An app at its daemon's word: which variant it is told to run, and what it tells of itself.

How the two speak is `edge_sdk.link`'s business, how a variant is put in force `edge_sdk.switching`'s.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable

from edge_sdk.asking import SERVER, Asking
from edge_sdk.errors import DaemonUnreachableError, ModelClosedError
from edge_sdk.faring import Faring
from edge_sdk.lease import Seat
from edge_sdk.link import DaemonLink, Told
from edge_sdk.local import AppReport, Assignment
from edge_sdk.preference import Preference
from edge_sdk.switch import Switch
from edge_sdk.switching import Switcher
from edge_sdk.tally import Tally

_log = logging.getLogger(__name__)

MAX_FAILURE = 1000


class Follower:
    """Carries out what the daemon says; what cannot be loaded is reported, and the old variant goes on.

    Args:
        link: To the daemon; closed together with this.
        assignment: What runs at first.
        seat: Where it runs.
        switcher: Over that seat.
        tally: Of the app's calls.
        turn: Held while something is decided.
        runs: The variants that can run here.
        faring: Tells of accelerators.
        advised: Told when the advice changes, in a thread of the link.
        asking: Told which server to ask.
    """

    def __init__(
        self,
        link: DaemonLink,
        assignment: Assignment,
        *,
        seat: Seat,
        switcher: Switcher,
        tally: Tally,
        turn: threading.RLock,
        runs: tuple[str, ...],
        faring: Faring,
        advised: Callable[[float | None], None],
        asking: Asking,
    ) -> None:
        self._link, self._seat, self._switcher, self._tally, self._turn = link, seat, switcher, tally, turn
        self._assigned: tuple[str, int, str] | None = None  # the newest: to which app, its serial, the variant
        self._refused: tuple[str, int, str] | None = None  # one whose variant could not be loaded
        self._failed: tuple[str, str] | None = None  # a variant that could not be loaded, and why; to be reported
        self._switched_ms: float | None = None
        self._runs, self._faring, self._advised, self._asking = link.can_run(runs), faring, advised, asking
        self._in_flight = 0  # at the last report
        self.most_per_s: float | None = None
        self._note(Told(app=link.registered.app, assignment=assignment))
        me = weakref.ref(self)

        def report() -> AppReport:
            follower = me()
            if follower is None:  # forgotten without `close`
                link.abandon()
                return AppReport(active=assignment.variant)
            return follower._report()  # noqa: SLF001 - a function of this class

        def follow(told: Told) -> None:
            follower = me()
            if follower is not None:
                follower._follow(told)  # noqa: SLF001 - a function of this class

        def lost() -> None:
            follower = me()
            if follower is not None:
                follower._asking.tell(None)  # noqa: SLF001 - as above

        link.start(report, follow, lost)

    def hurry(self) -> None:
        """Report now: a call was late or slow, or something has changed."""
        self._link.hurry()

    def pin(self, variant: str) -> None:
        """Ask for the app's own pin, with the turn held; where no daemon answers, nobody is there to say no.

        Raises:
            PinnedError: The operator or the hub has pinned another.
            UnknownVariantError: The model has no such variant there.
        """
        try:
            self._note(self._link.pin(variant))
        except DaemonUnreachableError as error:
            self._asking.tell(None)  # who pins a variant wants no other answers
            _log.debug("the pin stays with the app: %s", error)

    def unpin(self) -> bool:
        """Give the app's pin back, with the turn held; whether there is somebody to decide."""
        try:
            self._adopt(self._link.pin(None))
        except DaemonUnreachableError:
            return False
        return True

    def prefer(self, preference: Preference | None) -> None:
        """Say what the app wants, with the turn held; where no daemon answers, one that comes is told."""
        try:
            self._adopt(self._link.prefer(preference))
        except DaemonUnreachableError as error:
            _log.debug("the preference waits for a daemon: %s", error)

    def over(self, switch: Switch) -> None:
        """An order was carried out or failed, with the turn held: the daemon is to know."""
        if switch.error is None:
            self._switched_ms = switch.took_ms
            return
        self._failed = (switch.variant, str(switch.error)[:MAX_FAILURE])
        if self._assigned is not None and self._assigned[2] == switch.variant:
            self._refused = self._assigned

    def close(self) -> None:
        """Say goodbye."""
        self._link.close()

    def _report(self) -> AppReport:
        self._switcher.tidy()
        failed, self._failed = self._failed, None
        switched_ms, self._switched_ms = self._switched_ms, None
        runs, self._runs = self._runs, None
        taken = self._tally.take(self._seat.active)
        before, self._in_flight = self._in_flight, self._seat.in_flight + self._asking.in_flight
        return AppReport(
            active=taken.variant,
            calls=taken.calls,
            late=taken.late,
            failed=taken.failed,
            p50_ms=taken.p50_ms,
            p95_ms=taken.p95_ms,
            switched_ms=switched_ms,
            failed_variant=failed[0] if failed else None,
            failure=failed[1] if failed else None,
            arrived=max(0, taken.calls + taken.failed + self._in_flight - before),
            latencies_ms=taken.sample_ms,
            slow_ms=taken.slow_ms,
            runs=runs,
            computes_on=SERVER if self._asking.is_on else self._faring.computes_on(taken.variant)[:200],
            usage=self._faring.usage(taken.variant),
            waited_ms=taken.waited_ms,
            sent=taken.sent,
            replied=taken.replied,
            remote_p50_ms=taken.remote_p50_ms,
            server_failure=self._asking.failure,
        )

    def _follow(self, told: Told) -> None:
        with self._turn:
            try:
                self._adopt(told)
            except ModelClosedError as error:
                _log.debug("there is nothing to switch: %s", error)

    def _note(self, told: Told) -> bool:
        """Take in an assignment; whether there is none newer: two threads and the app's own pins bring them."""
        if told.app != self._link.registered.app:
            return False
        new, known = told.assignment, self._assigned
        if known is not None and known[0] == told.app and new.serial < known[1]:
            return False
        self._assigned = (told.app, new.serial, new.variant)
        self._tally.limit_ms = new.max_latency_ms
        self._asking.tell(new.server)
        if new.most_per_s != self.most_per_s:
            self.most_per_s = new.most_per_s
            self._advise(new.most_per_s)
        return True

    def _advise(self, most_per_s: float | None) -> None:
        try:
            self._advised(most_per_s)
        except Exception:  # noqa: BLE001 - the app's own code, whose failure is no reason not to follow the daemon
            _log.exception("on_advice failed")

    def _adopt(self, told: Told) -> None:
        if not self._note(told):
            return
        if self._refused == self._assigned:
            return  # it was tried and reported; another assignment is on its way
        self._refused = None
        self._switcher.begin(told.assignment.variant)
