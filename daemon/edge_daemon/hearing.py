"""What an app's report means: to the policy, and to the hub.

No I/O: the daemon feeds the one and spools the other, and a played device (`edge_lab.fleet`) does the same.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from edge_daemon.apps import App, Apps
from edge_daemon.policy.types import ActivationFailed, AppCannotAsk, AppCanRun, AppReported, Event
from edge_sdk import mqtt
from edge_sdk.local import AppReport

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What a report says.

    Attributes:
        events: For the policy.
        told: For the hub.
        changed: The app runs another variant than before, or says for the first time what it runs.
    """

    events: tuple[Event, ...]
    told: tuple[mqtt.Event, ...]
    changed: bool


def heard_of(apps: Apps, app: App, report: AppReport, *, now_s: float, now: float) -> Heard:
    """Take in a report of an app.

    Args:
        apps: Among which it is.
        app: That reports.
        report: What it says.
        now_s: Monotonic clock.
        now: Wall clock.
    """
    first, was_hot, was_on = app.active is None, app.hot, app.computes_on
    confirmed = apps.reported(app, report)
    events: list[Event] = []
    told: list[mqtt.Event] = []
    if report.failed_variant is not None:
        reason = report.failure or "no reason given"
        events.append(ActivationFailed(app=app.id, variant=report.failed_variant, reason=reason))
        told.append(
            mqtt.Event(
                at=now,
                kind="switch-failed",
                model=app.model,
                old=report.active,
                new=report.failed_variant,
                text=f"{_called(app)}: {reason}"[:1000],
            )
        )
        log.warning("%s: %s could not load %s: %s", app.model, _called(app), report.failed_variant, reason[:300])
    if report.runs is not None or app.hot != was_hot:
        events.append(AppCanRun(app=app.id, runs=report.runs, hot=app.hot))
    events.append(
        AppReported(
            app=app.id,
            variant=report.active,
            calls=report.calls,
            late=report.late,
            p50_ms=report.p50_ms,
            p95_ms=report.p95_ms,
            arrived=report.arrived,
            latencies_ms=report.latencies_ms,
            slow_ms=report.slow_ms,
            waited_ms=report.waited_ms,
            now_s=now_s,
            sent=report.sent,
            replied=report.replied,
            remote_ms=report.remote_p50_ms,
        )
    )
    if report.server_failure is not None:  # the last that happened: what was answered in this window came before it
        events.append(AppCannotAsk(app=app.id, reason=report.server_failure))
        log.warning("%s: %s cannot ask the server: %s", app.model, _called(app), report.server_failure[:300])
    if confirmed is not None:
        told.append(
            mqtt.Event(
                at=now,
                kind="switch",
                model=app.model,
                old=confirmed.old,
                new=confirmed.new,
                because=None if confirmed.decision is None else confirmed.decision.because,
                text=_called(app),
                took_ms=confirmed.took_ms,
            )
        )
        log.info("%s: %s runs %s instead of %s", app.model, _called(app), confirmed.new, confirmed.old)
    changed = confirmed is not None or first or app.computes_on != was_on
    return Heard(events=tuple(events), told=tuple(told), changed=changed)


def _called(app: App) -> str:
    return f"app {app.name[:100] or app.id[:8]}"
