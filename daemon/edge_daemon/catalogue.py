"""Which models this daemon serves: the bundles of its configuration, opened, verified, and told to the policy.

A bundle that can't be opened is left out with its reason, and the daemon goes on with the others. Blobs are hashed
here, files are not loaded: the daemon has no runtime.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_daemon.config import Config, ModelSection
from edge_daemon.errors import NoVariantError
from edge_daemon.policy.types import ModelFacts, VariantFacts
from edge_sdk.bundle import Bundle
from edge_sdk.errors import EdgeError
from edge_sdk.machine import cpu_features, machine_name
from edge_sdk.manifest import Delegate, EvidenceFile, Latency, Origin, Variant
from edge_sdk.mqtt import ServedModel, ServedVariant
from edge_sdk.preference import Preference

log = logging.getLogger(__name__)

# Of a variant nobody timed or predicted, relative to the others: its work, at a plausible rate of a small core
# (1e9 multiply-accumulates a second). Only the order matters; the first second of an app's reports replaces it.
_STAND_IN_MS_PER_MAC = 1e-6
_STAND_IN_MIN_MS = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A model that is served.

    Attributes:
        name: The daemon's name for it, from the configuration.
        facts: What the policy knows of it: the variants that can run here.
        shown: The same for the hub, with where each latency comes from.
        preference: What the configuration wants, until somebody says otherwise.
    """

    name: str
    bundle: Bundle
    facts: ModelFacts
    shown: ServedModel
    preference: Preference | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A model that was configured and can't be served."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """All models, by name."""

    served: Mapping[str, Served]
    broken: tuple[Broken, ...] = ()

    def by_manifest(self, sha256: str) -> Served | None:
        """The model whose `manifest.json` has this content."""
        return next((model for model in self.served.values() if model.bundle.manifest_sha256 == sha256), None)


def read(config: Config, profile: str | None, root: str) -> Catalogue:
    """Open every bundle of the configuration; takes as long as hashing them does.

    Args:
        config: The configuration.
        profile: The board's profile, whose predictions count where nothing was measured here.
        root: Below which the machine's `/proc` lies.
    """
    served: dict[str, Served] = {}
    broken: list[Broken] = []
    for name, section in config.bundles().items():
        try:
            served[name] = _open(name, section, profile, root)
        except EdgeError as error:  # noqa: PERF203 - each model fails alone
            broken.append(Broken(name=name, reason=str(error)))
            log.error("model %s is not served: %s [%s]", name, error, error.code)  # noqa: TRY400 - a line, no traceback
    return Catalogue(served=served, broken=tuple(broken))


def _open(name: str, section: ModelSection, profile: str | None, root: str) -> Served:
    bundle = Bundle(Path(section.bundle))
    features, machine = cpu_features(root), machine_name(root)
    variants = [v for v in bundle.manifest.variants if can_run(v, features)]
    if not variants:
        raise NoVariantError(
            f"none of its {len(bundle.manifest.variants)} variants can run on this CPU",
            where=str(bundle.path),
            hint="convert it for this board's profile",
        )
    evidence = bundle.evidence()
    known = {v.id: latency_of(v, evidence, machine=machine, profile=profile) for v in variants}
    return Served(
        name=name,
        bundle=bundle,
        facts=ModelFacts(name=name, variants=tuple(_facts(v, known[v.id]) for v in variants)),
        shown=ServedModel(
            name=name,
            version=bundle.manifest.version,
            variants=tuple(_shown(v, known[v.id]) for v in variants),
        ),
        preference=section.preference,
    )


def can_run(variant: Variant, features: frozenset[str] | None) -> bool:
    """Whether this CPU can run the variant; where its features are unknown, what needs some is taken to run."""
    if variant.target.delegate is not Delegate.CPU:
        return False
    return features is None or set(variant.target.isa) <= features


def latency_of(variant: Variant, evidence: EvidenceFile, *, machine: str, profile: str | None) -> Latency | None:
    """The best evidence of a variant's latency here: measured on this machine, else for its profile, else none.

    Of several, the newest; the runtime that runs it is the apps' choice, and what they report replaces this anyway.
    """
    mine = [latency for latency in evidence.latency if latency.variant == variant.id]
    here = [latency for latency in mine if latency.origin is Origin.MEASURED and latency.machine == machine]
    alike = [latency for latency in mine if profile is not None and profile in {latency.profile, latency.machine}]
    measured = [latency for latency in alike if latency.origin is not Origin.PREDICTED]
    for group in (here, measured, alike):
        if group:
            return max(group, key=lambda latency: latency.at or 0.0)
    return None


def _facts(variant: Variant, latency: Latency | None) -> VariantFacts:
    stand_in = max(_STAND_IN_MIN_MS, variant.cost.macs * _STAND_IN_MS_PER_MAC)
    return VariantFacts(
        id=variant.id,
        quality=variant.quality.value,
        latency_ms=stand_in if latency is None else latency.median_ms,
        measured=latency is not None and latency.origin is Origin.MEASURED,
        size_bytes=variant.size_bytes,
    )


def _shown(variant: Variant, latency: Latency | None) -> ServedVariant:
    return ServedVariant(
        id=variant.id,
        precision=variant.precision.value,
        quality=variant.quality.value,
        size_bytes=variant.size_bytes,
        latency_ms=None if latency is None else latency.median_ms,
        origin=None if latency is None else latency.origin,
    )
