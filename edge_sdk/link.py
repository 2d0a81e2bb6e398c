"""The line from an app to the daemon on its board: what the app says of itself, and what it is told to run.

Two threads, because one waits: one reports about once a second, the other asks for the next assignment and is answered
as soon as there is one. Both end with `close`, in bounded time. If the daemon goes away, the app goes on with what it
runs, and registers anew once somebody answers again.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from msgspec import structs

from edge_sdk.errors import CommandError, DaemonUnreachableError, EdgeError, WireError
from edge_sdk.local import (
    KNOWS_RATES,
    KNOWS_SERVERS,
    SPEAKS,
    AppPin,
    AppPrefer,
    AppReport,
    Assignment,
    Done,
    LocalClient,
    Register,
    Registered,
)
from edge_sdk.preference import Preference

_log = logging.getLogger(__name__)

REPORT_EVERY_S = 1.0
SOONEST_S = 0.2  # between two reports, however many calls are slow
SILENT_S = 5.0  # a daemon that does not hear for so long decides nothing any more; it restarts within one or two
_WAIT_S = 25.0  # of one question for the next assignment
_ANSWER_S = 5.0  # of the daemon, beyond what it was asked to wait
_FIRST_RETRY_S = 0.5
_LONGEST_RETRY_S = 10.0
_JOIN_S = 2.0
_GOODBYE_S = 1.0
UNKNOWN_APP = "unknown-app"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An assignment, and the registration that it is for: serials begin anew with each."""

    app: str
    assignment: Assignment


class DaemonLink:
    """An app's registration with the daemon, kept up.

    Args:
        socket: Of the daemon; None takes the usual place.
        model: The daemon's name for the model, or None.
        manifest: SHA-256 of the bundle's manifest, or None.
        preference: What the app wants.
        name: What the app calls itself.
        runs: The variants it can run, where that is known yet.
        speaks: What it understands; less than it could, where it wants nothing of what is newer.

    Raises:
        DaemonUnreachableError: Nobody answers on the socket.
        CommandError: The daemon does not serve the model.
    """

    def __init__(
        self,
        *,
        socket: str | os.PathLike[str] | None,
        model: str | None,
        manifest: str | None,
        preference: Preference | None,
        name: str,
        runs: tuple[str, ...] | None = None,
        speaks: int = SPEAKS,
    ) -> None:
        self._register = Register(
            model=model,
            manifest=manifest,
            name=name[:200],
            pid=os.getpid(),
            preference=_fixed(preference),
            speaks=speaks,
            runs=runs,
        )
        self._reporting = LocalClient(socket, timeout_s=_ANSWER_S)
        self._waiting = LocalClient(self._reporting.path, timeout_s=_ANSWER_S)
        self._speak = threading.Lock()  # one request at a time on `_reporting`
        self._stopped = threading.Event()
        self._due = threading.Event()
        self._threads: list[threading.Thread] = []
        try:
            self.registered = self._join()
        except BaseException:
            self._reporting.close()
            raise

    def start(
        self,
        report: Callable[[], AppReport],
        apply: Callable[[Told], None],
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin to report, and to be told.

        Args:
            report: What happened since it was last called.
            apply: Carry out an assignment; may take as long as a load. Called from either thread, one at a time, also
                with one that is not the newest.
            lost: No daemon hears the app any more; an assignment is applied once one does.
        """
        self._report, self._apply, self._lost = report, apply, lost
        self._applying = threading.Lock()
        for target, name in ((self._run_reports, "edge-report"), (self._run_assignments, "edge-assignment")):
            thread = threading.Thread(target=target, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def can_run(self, runs: tuple[str, ...]) -> tuple[str, ...] | None:
        """Note the variants this app can run, for a daemon that comes; what one that is there has to be told."""
        told = self._register.runs
        self._register = structs.replace(self._register, runs=runs)
        return None if told == runs else runs

    def hurry(self) -> None:
        """Report now and not in a second: a call was late or slow, or the variant has changed."""
        self._due.set()

    def say(self, report: AppReport) -> Told:
        """Report once, out of turn.

        Raises:
            EdgeError: The daemon does not answer, or refuses.
        """
        return self._call("report", report)

    def pin(self, variant: str | None) -> Told:
        """Pin a variant for this app, or take the pin back.

        Raises:
            PinnedError: The operator or the hub has pinned another.
            UnknownVariantError: The model has no such variant there.
            DaemonUnreachableError: Nobody answers.
        """
        return self._call("pin", AppPin(variant=variant))

    def prefer(self, preference: Preference | None) -> Told:
        """Say what this app wants from now on, also after the daemon was away.

        Raises:
            DaemonUnreachableError: Nobody answers.
        """
        fixed = _fixed(preference)
        self._register = structs.replace(self._register, preference=fixed)
        return self._call("prefer", AppPrefer(preference=fixed))

    def close(self) -> None:
        """End the threads; the one that reports says goodbye."""
        self.abandon()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(_JOIN_S)
        if not self._threads:
            self._part()

    def abandon(self) -> None:
        """Let the threads end by themselves, for an app that forgot to close its model."""
        self._stopped.set()
        self._due.set()
        self._waiting.interrupt()

    def _part(self) -> None:
        with self._speak, self._reporting:  # closed at the end
            try:
                self._reporting.call("DELETE", f"/v1/apps/{self.registered.app}", Done, timeout_s=_GOODBYE_S)
            except EdgeError as error:
                _log.debug("no goodbye: %s", error)

    def _join(self) -> Registered:
        try:
            return self._reporting.call("POST", "/v1/apps", Registered, self._register)
        except WireError:
            # A daemon from before these fields refuses them; what else may be wrong it says again.
            old = structs.replace(self._register, speaks=1, runs=None)
            return self._reporting.call("POST", "/v1/apps", Registered, old)

    def _spoken(self, body: object) -> object:
        """A message in words that the daemon understands."""
        if isinstance(body, AppReport) and self.registered.speaks < KNOWS_SERVERS:
            body = structs.replace(body, waited_ms=None, sent=0, replied=0, remote_p50_ms=None, server_failure=None)
        if isinstance(body, AppReport) and self.registered.speaks < KNOWS_RATES:
            body = structs.replace(
                body, arrived=None, latencies_ms=(), slow_ms=None, runs=None, computes_on=None, usage=None
            )
        return body

    def _call(self, what: str, body: object) -> Told:
        with self._speak:
            try:
                return self._call_once(what, body)
            except CommandError as error:
                if error.code != UNKNOWN_APP or self._stopped.is_set():
                    raise
            except DaemonUnreachableError:
                if self._stopped.is_set():
                    raise
                # It may have been restarted, and the connection with it: that is found out by asking once more.
            self.registered = self._join()
            return self._call_once(what, body)

    def _call_once(self, what: str, body: object) -> Told:
        app = self.registered.app
        answer = self._reporting.call("POST", f"/v1/apps/{app}/{what}", Assignment, self._spoken(body))
        return Told(app=app, assignment=answer)

    def _run_reports(self) -> None:
        try:
            self._keep_reporting()
        finally:
            self._part()

    def _keep_reporting(self) -> None:
        retry_s = _FIRST_RETRY_S
        pause_s = REPORT_EVERY_S
        is_heard = True
        reported_s = heard_s = time.monotonic()
        while not self._stopped.is_set():
            if self._due.wait(pause_s):
                self._stopped.wait(max(0.0, reported_s + SOONEST_S - time.monotonic()))
            self._due.clear()
            if self._stopped.is_set():
                return
            reported_s = time.monotonic()
            try:
                self._follow(self.say(self._report()))
            except EdgeError as error:
                if is_heard:
                    _log.warning("the daemon does not hear this app, which goes on as it is: %s", error)
                    heard_s = time.monotonic()
                elif time.monotonic() - heard_s > SILENT_S:
                    self._lost()
                is_heard, pause_s, retry_s = False, retry_s, min(2 * retry_s, _LONGEST_RETRY_S)
                continue
            if not is_heard:
                _log.info("the daemon hears this app again")
            is_heard, pause_s, retry_s = True, REPORT_EVERY_S, _FIRST_RETRY_S

    def _run_assignments(self) -> None:
        with self._waiting:
            self._keep_following()

    def _keep_following(self) -> None:
        app, serial = "", 0
        while not self._stopped.is_set():
            if app != self.registered.app:
                app, serial = self.registered.app, 0
            path = f"/v1/apps/{app}/assignment?after={serial}&wait_s={_WAIT_S:g}"
            try:
                assignment = self._waiting.call("GET", path, Assignment, timeout_s=_WAIT_S + _ANSWER_S)
            except EdgeError:
                # The reports find out what is wrong, and register anew; here there is nothing to do but wait for it.
                self._stopped.wait(_FIRST_RETRY_S)
                continue
            serial = assignment.serial
            self._follow(Told(app=app, assignment=assignment))

    def _follow(self, told: Told) -> None:
        with self._applying:
            if not self._stopped.is_set():
                self._apply(told)


def _fixed(preference: Preference | None) -> Preference | None:
    """With a moment instead of a time from now on: it may be said again to a daemon that comes later."""
    return None if preference is None else preference.fixed(time.time())
