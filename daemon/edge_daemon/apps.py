"""The apps that run models now: who they are, what they were told to run, and what they say they run.

An app is gone when it says so, when its process is dead, or when it was silent for `SILENT_S`. What an app is told
and what it does are kept apart: a switch has happened when the app reports it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import msgspec
import psutil

from edge_daemon.errors import BusyError, UnknownAppError
from edge_daemon.policy.types import Assign
from edge_sdk.local import (
    KNOWS_RATES,
    SPEAKS,
    AppReport,
    AppStatus,
    AppUsage,
    AssignedServer,
    Assignment,
    Register,
)
from edge_sdk.mqtt import Decision
from edge_sdk.parallel.condition import is_hot
from edge_sdk.wire import new_token

SILENT_S: Final = 10.0  # apps report every second; ten in a row don't get lost on a unix socket
MAX_APPS: Final = 200


@dataclass(slots=True)
class App:
    """One app.

    Attributes:
        pid: As the kernel says it; 0 where it lies in another pid namespace.
        process: The one that had this number when the app joined; None where that cannot be told.
        speaks: What it understands, see `edge_sdk.local.Register`.
        computes_on, usage: As it last said of its accelerator; `hot` what follows from that.
        active: The variant it last reported; None before its first report.
        assigned: What it was last told, with the serial that counts its assignments.
        most_per_s: The rate of calls it was advised to keep below; None where any will do.
        waiting: Requests of it that wait for an assignment now.
        seen_s: When it last spoke, monotonic.
    """

    id: str
    model: str
    name: str
    pid: int
    process: psutil.Process | None
    seen_s: float
    speaks: int = 1
    active: str | None = None
    computes_on: str | None = None
    usage: AppUsage | None = None
    hot: bool = False
    assigned: Assign | None = None
    most_per_s: float | None = None
    serial: int = 0
    waiting: int = 0
    calls: int = 0
    p50_ms: float | None = None
    p95_ms: float | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def assign(self, assign: Assign) -> bool:
        """Tell it what to run; False if that is what it was told already."""
        if self.assigned is not None and _same(self.assigned, assign):
            return False
        self.assigned = assign
        self._tell()
        return True

    def advise(self, most_per_s: float | None) -> None:
        """Tell it how often it may call; what already waits for news gets it at once."""
        if most_per_s != self.most_per_s:
            self.most_per_s = most_per_s
            self._tell()

    def _tell(self) -> None:
        self.serial += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def assignment(self, max_latency_ms: float | None, server: AssignedServer | None = None) -> Assignment | None:
        """What it was last told, as it travels; None if nothing could be assigned yet.

        Args:
            max_latency_ms: A call that takes longer is late.
            server: Of its model; told where it is to be asked, and the app knows what that is.
        """
        if self.assigned is None:
            return None
        pinned_by, because = self.assigned.pinned_by, self.assigned.decision.because
        is_new = self.speaks >= KNOWS_RATES
        return Assignment(
            serial=self.serial,
            variant=self.assigned.decision.variant,
            because=because if is_new else msgspec.structs.replace(because, margin=None, numbers={}),
            pinned_by=None if pinned_by is None else pinned_by.value,
            max_latency_ms=max_latency_ms,
            most_per_s=self.most_per_s if is_new else None,
            server=server if self.assigned.asks and server is not None and self.speaks >= server.since else None,
        )

    async def changed_after(self, serial: int, wait_s: float) -> None:
        """Return when it was told something newer than `serial`, at the latest after `wait_s`."""
        if self.serial > serial or wait_s <= 0:
            return
        self.waiting += 1
        try:
            with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
                await asyncio.wait_for(self._changed.wait(), wait_s)
        finally:
            self.waiting -= 1

    def release(self) -> None:
        """Let what waits for an assignment return: the daemon ends, or the app left."""
        self._changed.set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmed:
    """An app runs another variant than before; `decision` is what it was told, if that is what it now runs."""

    app: App
    old: str
    new: str
    decision: Decision | None
    took_ms: float | None


class Apps:
    """All apps, by identity."""

    def __init__(self) -> None:
        self._apps: dict[str, App] = {}

    def __iter__(self) -> Iterator[App]:
        return iter(self._apps.values())

    def join(self, register: Register, model: str, pid: int, now_s: float) -> App:
        """Make a new app known.

        Raises:
            BusyError: There are as many as this daemon bears.
        """
        if len(self._apps) >= MAX_APPS:
            raise BusyError(f"{MAX_APPS} apps are registered already", hint="close some, or restart the daemon")
        app = App(
            id=new_token(),
            model=model,
            name=register.name,
            pid=pid,
            process=_process(pid),
            seen_s=now_s,
            speaks=min(register.speaks, SPEAKS),
        )
        self._apps[app.id] = app
        return app

    def find(self, app: str, now_s: float) -> App:
        """The app of this identity, which speaks right now.

        Raises:
            UnknownAppError: There is none.
        """
        found = self._apps.get(app)
        if found is None:
            raise UnknownAppError("no such app is registered", where=app[:64], hint="register it again")
        found.seen_s = now_s
        return found

    def leave(self, app: App) -> None:
        """Forget an app."""
        self._apps.pop(app.id, None)
        app.release()

    def come_back(self, app: App) -> None:
        """Know an app again that was not to be forgotten yet."""
        self._apps[app.id] = app

    def gone(self, now_s: float) -> list[App]:
        """The apps whose process is dead or which were silent for too long."""
        return [app for app in self if _is_dead(app.process) or (not app.waiting and now_s - app.seen_s > SILENT_S)]

    def reported(self, app: App, report: AppReport) -> Confirmed | None:
        """Take in a report; returns the switch it confirms, if it does."""
        old, app.active = app.active, report.active
        app.calls += report.calls
        if report.p50_ms is not None:
            app.p50_ms, app.p95_ms = report.p50_ms, report.p95_ms
        app.computes_on, app.usage = report.computes_on, report.usage
        excess_c = None if report.usage is None else _excess_c(report.usage)
        if excess_c is not None:  # one whose sensor is silent stays as it was
            app.hot = is_hot(excess_c, was=app.hot)
        if old is None or old == report.active:
            return None
        told = None if app.assigned is None else app.assigned.decision
        return Confirmed(
            app=app,
            old=old,
            new=report.active,
            decision=told if told is not None and told.variant == report.active else None,
            took_ms=report.switched_ms,
        )

    def spoke_last(self, model: str) -> App | None:
        """Of the apps of a model that said what they run, the one that spoke last: its word is the model's."""
        spoken = [app for app in self if app.model == model and app.active is not None]
        return max(spoken, key=lambda app: app.seen_s) if spoken else None

    def count(self, model: str) -> int:
        """How many run this model."""
        return sum(app.model == model for app in self)

    def status(self) -> tuple[AppStatus, ...]:
        """All, as the local API shows them."""
        return tuple(
            AppStatus(
                app=app.id,
                name=app.name,
                pid=app.pid,
                model=app.model,
                active=app.active,
                p50_ms=app.p50_ms,
                p95_ms=app.p95_ms,
                calls=app.calls,
                most_per_s=app.most_per_s,
                computes_on=app.computes_on,
                usage=app.usage,
            )
            for app in self
        )

    def release(self) -> None:
        """Let every waiting request return; the daemon ends."""
        for app in self:
            app.release()


def _same(one: Assign, other: Assign) -> bool:
    return (one.decision.variant, one.pinned_by, one.asks) == (other.decision.variant, other.pinned_by, other.asks)


def _excess_c(usage: AppUsage) -> float | None:
    return None if usage.temp_c is None or usage.limit_c is None else usage.temp_c - usage.limit_c


def _process(pid: int) -> psutil.Process | None:
    """The process behind a number as it is now, so that another one of the same number later is told from it."""
    try:
        return psutil.Process(pid) if pid > 0 else None
    except psutil.Error:  # gone already, or hidden from us: then silence has to tell
        return None


def _is_dead(process: psutil.Process | None) -> bool:
    if process is None:
        return False
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True
