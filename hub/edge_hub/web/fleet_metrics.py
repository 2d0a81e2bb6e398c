"""The fleet as gauges for Prometheus: totals only, with so many label values at most, however large the fleet. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from edge_hub.overview import FleetView
from edge_hub.rows import Row
from edge_hub.store.records import AlertRecord
from edge_hub.web.metrics import Metric

MAX_LABELS = 50  # of a metric; what is rarer is summed up under `other`
_SEVERITIES = ("info", "warning", "critical")


def fleet_metrics(view: FleetView, rows: Sequence[Row], alerts: Iterable[AlertRecord]) -> tuple[Metric, ...]:
    """The gauges of a fleet as it is now."""
    here = [row for row in rows if row.online]
    variants: Counter[tuple[str, ...]] = Counter()
    for total in view.variants:
        variants[total.model, total.variant] += total.devices
    severities = Counter(alert.severity for alert in alerts)
    temps = [row.temp_c for row in here if row.temp_c is not None]
    batteries = [row.battery_pct for row in here if row.battery_pct is not None]
    models = [model for row in here for model in row.models]
    calls, late = _sum(model.calls for model in models), _sum(model.late for model in models)
    out_of_step = sum(not row.in_step for row in rows)
    health = view.health
    return (
        _many("running_devices", "Devices online on which a variant runs.", ("model", "variant"), variants),
        _many(
            "accelerator_devices",
            "Devices online on which this computes a model.",
            ("on",),
            Counter({(total.on or "unknown",): total.devices for total in view.accelerators}),
        ),
        _many(
            "profile_devices",
            "Devices by profile.",
            ("profile",),
            Counter({(total.profile or "none",): total.devices for total in view.profiles}),
        ),
        Metric(
            name="edge_hub_health_devices",
            kind="gauge",
            text="Devices by health: offline, else by the worst open alert.",
            values=tuple(
                ({"health": name}, getattr(health, name)) for name in ("ok", "warning", "critical", "offline")
            ),
        ),
        Metric(
            name="edge_hub_alerts_open",
            kind="gauge",
            text="Open alerts by severity.",
            values=tuple(({"severity": name}, severities[name]) for name in _SEVERITIES),
        ),
        _one("out_of_step_devices", "Devices that have not applied their desired document.", out_of_step),
        _one("window_calls", "Calls within the newest telemetry window of each device online.", calls),
        _one("window_late_calls", "Late ones of these.", late),
        _spread("temp_celsius", "Temperature of devices online.", temps),
        _spread("battery_percent", "Charge of devices online that have a battery.", batteries),
    )


def _one(name: str, text: str, value: float) -> Metric:
    return Metric(name=f"edge_hub_{name}", kind="gauge", text=text, values=(({}, value),))


def _spread(name: str, text: str, values: Sequence[float]) -> Metric:
    """Least, mean and most; nothing where there is nothing."""
    found = {"min": min(values), "mean": sum(values) / len(values), "max": max(values)} if values else {}
    return Metric(
        name=f"edge_hub_{name}",
        kind="gauge",
        text=text,
        values=tuple(({"of": which}, value) for which, value in found.items()),
    )


def _many(name: str, text: str, labels: tuple[str, ...], counts: Counter[tuple[str, ...]]) -> Metric:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    values = [(dict(zip(labels, key, strict=True)), float(count)) for key, count in ordered[:MAX_LABELS]]
    rest = sum(count for _, count in ordered[MAX_LABELS:])
    if rest:
        values.append((dict.fromkeys(labels, "other"), float(rest)))
    return Metric(name=f"edge_hub_{name}", kind="gauge", text=text, values=tuple(values))


def _sum(values: Iterable[int | None]) -> int:
    return sum(value or 0 for value in values)
