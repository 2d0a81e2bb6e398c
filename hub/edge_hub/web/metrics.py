"""The Prometheus text format (exposition format 0.0.4), as much of it as is needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_hub.census import MAX_OPEN_ALERTS

if TYPE_CHECKING:
    from edge_hub.service import Hub

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric with its values by labels."""

    name: str
    kind: str
    text: str
    values: tuple[tuple[Mapping[str, str], float], ...]


def write(metrics: Iterable[Metric]) -> bytes:
    """The whole page."""
    lines: list[str] = []
    for metric in metrics:
        lines.append(f"# HELP {metric.name} {_escaped(metric.text)}")
        lines.append(f"# TYPE {metric.name} {metric.kind}")
        for labels, value in metric.values:
            inner = ",".join(f'{key}="{_escaped(text, quote=True)}"' for key, text in labels.items())
            lines.append(f"{metric.name}{{{inner}}} {_number(value)}" if inner else f"{metric.name} {_number(value)}")
    return ("\n".join(lines) + "\n").encode()


async def collect(hub: Hub) -> tuple[Metric, ...]:
    """The hub's counters and gauges.

    Raises:
        StoreError: The store cannot be read.
    """
    from edge_hub.web.fleet_metrics import fleet_metrics

    totals = await hub.store.totals()
    rows = await hub.census.rows()
    view = await hub.census.overview(rows)
    alerts = await hub.store.alerts(open_only=True, limit=MAX_OPEN_ALERTS)
    workers = hub.workers

    def one(name: str, kind: str, text: str, value: float) -> Metric:
        return Metric(name=f"edge_hub_{name}", kind=kind, text=text, values=(({}, value),))

    return (
        one("devices", "gauge", "Devices enrolled or heard of.", totals.devices),
        one("devices_online", "gauge", "Devices that were born and whose will has not come.", totals.online),
        one("messages_total", "counter", "Numbered messages stored, each once.", totals.messages),
        one("duplicates_total", "counter", "Numbered messages that came again.", totals.duplicates),
        one("malformed_total", "counter", "Messages refused and put into quarantine.", totals.malformed),
        one("closed_gaps_total", "counter", "Gaps in numbers, given up as too many.", totals.closed_gaps),
        one("forgotten_boots_total", "counter", "Starts of daemons, forgotten as too many.", totals.forgotten_boots),
        one("events_total", "counter", "Events stored.", totals.events),
        Metric(
            name="edge_hub_commands",
            kind="gauge",
            text="Commands kept, by state.",
            values=tuple(({"state": state}, count) for state, count in sorted(totals.commands.items())),
        ),
        one("store_bytes", "gauge", "What the database holds.", totals.size_bytes),
        one("ingest_waiting", "gauge", "Messages received and not stored yet.", _waiting(hub)),
        one("ingest_batches_total", "counter", "Batches stored since the start.", hub.ingest.batches),
        one("broker_connected", "gauge", "1 while the hub is connected to the broker.", hub.link.up),
        one("broker_connections_total", "counter", "Connections to the broker since the start.", hub.link.connections),
        one("broker_restarts_total", "counter", "Restarts of the broker's process.", hub.broker.restarts),
        one("workers", "gauge", "Worker processes asked for.", 0 if workers is None else workers.count),
        one("workers_running", "gauge", "Those that take their share.", 0 if workers is None else workers.running),
        one(
            "workers_unwell",
            "gauge",
            "Workers that say they are in trouble, or say nothing.",
            0 if workers is None else len(workers.troubles),
        ),
        one("worker_restarts_total", "counter", "Times one was replaced.", 0 if workers is None else workers.restarts),
        one("listeners", "gauge", "Open event streams.", hub.feed.listeners),
        one("alert_looks_total", "counter", "Times the alert rules were evaluated.", hub.alerting.evaluations),
        one("alerts_told_total", "counter", "Beginnings and ends of alerts that arrived.", _sum(hub, "told")),
        one("alerts_given_up_total", "counter", "Those nobody could be told of.", _sum(hub, "given_up")),
        *fleet_metrics(view, rows, alerts),
        *(
            ()
            if hub.certificate is None
            else (
                one(
                    "certificate_ends_seconds",
                    "gauge",
                    "When the certificate of the HTTP API ends, seconds since 1970.",
                    hub.certificate.ends,
                ),
            )
        ),
        one("start_time_seconds", "gauge", "When the hub started, seconds since 1970.", hub.started),
    )


def _waiting(hub: Hub) -> int:
    return hub.ingest.waiting + (0 if hub.workers is None else hub.workers.waiting)


def _sum(hub: Hub, what: str) -> int:
    return sum(getattr(delivery, what) for delivery in hub.deliveries)


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _escaped(text: str, *, quote: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quote else text
