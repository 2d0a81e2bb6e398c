"""The fleet in totals, and where each model's variants run. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from edge_hub.rows import Row
from edge_hub.store.outline import Outline, VariantOutline
from edge_hub.store.records import AlertRecord
from edge_sdk.manifest import Origin
from edge_sdk.mqtt import DeviceId
from edge_sdk.wire import Count, Millis, Name, Text, Unix, Wire

CRITICAL = "critical"

K = TypeVar("K")


class VariantTotal(Wire, frozen=True, kw_only=True, omit_defaults=False):
    """How many devices run this now."""

    model: Name
    version: Name | None
    variant: Name
    devices: Count


class AcceleratorTotal(Wire, frozen=True, kw_only=True, omit_defaults=False):
    """On how many devices a model is computed by this now; null where the device does not say."""

    on: Text | None
    devices: Count


class ProfileTotal(Wire, frozen=True, kw_only=True, omit_defaults=False):
    """How many devices have this profile; null where none was said."""

    profile: Name | None
    devices: Count


class HealthTotal(Wire, frozen=True, kw_only=True, omit_defaults=False):
    """Each device counts once: `offline`, else by its worst open alert."""

    ok: Count = 0
    warning: Count = 0
    critical: Count = 0
    offline: Count = 0


class FleetView(Wire, frozen=True, kw_only=True, omit_defaults=False):
    """All devices together, now."""

    at: Unix
    devices: Count
    online: Count
    alerts_open: Count
    variants: tuple[VariantTotal, ...]
    accelerators: tuple[AcceleratorTotal, ...]
    profiles: tuple[ProfileTotal, ...]
    health: HealthTotal


class ProfileUse(Wire, frozen=True, kw_only=True, omit_defaults=False):
    """A variant on the devices of one profile.

    Attributes:
        active: Where it runs now.
        able: Which could run it.
        p95_ms: The mean of what those that run it report, over their telemetry windows.
    """

    active: Count = 0
    able: Count = 0
    p95_ms: Millis | None = None


class VariantUse(Wire, frozen=True, kw_only=True, omit_defaults=False):
    """A variant with its evidence, and where it runs; devices without a profile are under `-`.

    Attributes:
        latency_ms: The least that a device took it to need.
    """

    id: Name
    precision: Name
    quality: float
    size_bytes: Count
    latency_ms: Millis | None = None
    origin: Origin | None = None
    profiles: dict[str, ProfileUse] = {}


class ModelUse(Wire, frozen=True, kw_only=True, omit_defaults=False):
    """A version of a model; the best variant first."""

    name: Name
    version: Name
    devices: Count
    variants: tuple[VariantUse, ...]


class ModelList(Wire, frozen=True, kw_only=True, omit_defaults=False):
    """What the fleet serves."""

    models: tuple[ModelUse, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAlerts:
    """Open alerts by device: how many, and which devices have a critical one."""

    counts: Mapping[DeviceId, int] = field(default_factory=dict)
    critical: frozenset[str] = frozenset()

    @classmethod
    def of(cls, alerts: Iterable[AlertRecord]) -> OpenAlerts:
        """Count them."""
        counts: Counter[DeviceId] = Counter()
        critical = set()
        for alert in alerts:
            counts[alert.device] += 1
            if alert.severity == CRITICAL:
                critical.add(str(alert.device))
        return cls(counts=counts, critical=frozenset(critical))


def fleet_view(rows: Iterable[Row], alerts: OpenAlerts, *, now: float) -> FleetView:
    """The totals of these rows."""
    variants: Counter[tuple[str, str | None, str]] = Counter()
    accelerators: Counter[str | None] = Counter()
    profiles: Counter[str | None] = Counter()
    health: Counter[str] = Counter()
    for row in rows:
        profiles[row.profile] += 1
        health[_health(row, alerts)] += 1
        if not row.online:
            continue  # what it ran when it was last heard of is no news of now
        running = [model for model in row.models if model.variant is not None]
        variants.update((model.name, model.version, model.variant or "") for model in running)
        accelerators.update({model.on for model in running})
    return FleetView(
        at=now,
        devices=sum(health.values()),
        online=sum(health.values()) - health["offline"],
        alerts_open=sum(alerts.counts.values()),
        variants=tuple(
            VariantTotal(model=model, version=version, variant=variant, devices=count)
            for (model, version, variant), count in _ordered(variants)
        ),
        accelerators=tuple(AcceleratorTotal(on=on, devices=count) for on, count in _ordered(accelerators)),
        profiles=tuple(ProfileTotal(profile=profile, devices=count) for profile, count in _ordered(profiles)),
        health=HealthTotal(**health),
    )


def models_view(records: Iterable[Outline]) -> ModelList:
    """Where each variant of each model could run and does."""
    devices: Counter[tuple[str, str]] = Counter()
    variants: dict[tuple[str, str], dict[str, _Use]] = {}
    for record in records:
        if record.birth is None:
            continue
        profile = record.birth.profile or "-"
        for model in record.birth.models:
            key = (model.name, model.version)
            devices[key] += 1
            uses = variants.setdefault(key, {})
            state = None if record.state is None else record.state.models.get(model.name)
            stats = None if record.sample is None else record.sample.models.get(model.name)
            active = state.active if state is not None and record.online else None
            for variant in model.variants:
                use = uses.setdefault(variant.id, _Use(variant))
                use.able[profile] += 1
                use.sees(variant)
                if variant.id == active:
                    use.active[profile] += 1
                    if stats is not None and stats.variant == active and stats.p95_ms is not None:
                        use.p95_ms[profile].append(stats.p95_ms)
    return ModelList(
        models=tuple(
            ModelUse(
                name=name,
                version=version,
                devices=devices[name, version],
                variants=tuple(
                    sorted((use.view() for use in uses.values()), key=lambda v: (-v.quality, v.size_bytes, v.id))
                ),
            )
            for (name, version), uses in sorted(variants.items())
        )
    )


@dataclass(slots=True)
class _Use:
    """A variant while it is being counted."""

    variant: VariantOutline
    able: Counter[str] = field(default_factory=Counter)
    active: Counter[str] = field(default_factory=Counter)
    p95_ms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    latency_ms: float | None = None
    origin: Origin | None = None

    def sees(self, variant: VariantOutline) -> None:
        """The same variant on another device."""
        if variant.latency_ms is not None and (self.latency_ms is None or variant.latency_ms < self.latency_ms):
            self.latency_ms, self.origin = variant.latency_ms, variant.origin

    def view(self) -> VariantUse:
        return VariantUse(
            id=self.variant.id,
            precision=self.variant.precision,
            quality=self.variant.quality,
            size_bytes=self.variant.size_bytes,
            latency_ms=self.latency_ms,
            origin=self.origin,
            profiles={
                profile: ProfileUse(active=self.active[profile], able=able, p95_ms=_mean(self.p95_ms.get(profile)))
                for profile, able in sorted(self.able.items())
            },
        )


def _health(row: Row, alerts: OpenAlerts) -> str:
    if not row.online:
        return "offline"
    if row.device in alerts.critical:
        return "critical"
    return "warning" if row.alerts else "ok"


def _mean(values: list[float] | None) -> float | None:
    return sum(values) / len(values) if values else None


def _ordered(counts: Counter[K]) -> list[tuple[K, int]]:
    """The most frequent first, then by name."""
    return sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
