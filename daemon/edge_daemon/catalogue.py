"""Which models this daemon serves: the bundles of its configuration, opened, verified, and told to the policy.

A bundle that can't be opened is left out with its reason, and the daemon goes on with the others. Blobs are hashed
here, files are not loaded: the daemon has no runtime.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_daemon.config import Config, ModelSection, ServerSection
from edge_daemon.errors import NoVariantError
from edge_daemon.policy.types import ModelFacts, ServerFacts, VariantFacts
from edge_sdk.bundle import Bundle
from edge_sdk.deciding import common_threads
from edge_sdk.errors import EdgeError
from edge_sdk.local import AssignedServer
from edge_sdk.machine import cpu_features, machine_name
from edge_sdk.manifest import Delegate, Latency, Origin, TensorSpec, Variant
from edge_sdk.mqtt import ServedModel, ServedVariant
from edge_sdk.physics import BoardModel, of
from edge_sdk.preference import Preference
from edge_sdk.profile import Profile

log = logging.getLogger(__name__)

# Of a variant nobody timed or predicted, relative to the others: its work, at a plausible rate of a small core
# (1e9 multiply-accumulates a second). Only the order matters; the first second of an app's reports replaces it.
_STAND_IN_MS_PER_MAC = 1e-6
_STAND_IN_MIN_MS = 0.01
_HEAD_BYTES = 400  # of a request: HTTP's header and the tensors' names and shapes as JSON
_LONGEST_ITEM = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """A model as policy and hub know it, wherever it lies.

    Attributes:
        name: The daemon's name for it, from the configuration.
        facts: What the policy knows of it: the variants that can run here.
        shown: The same for the hub, with where each latency comes from.
        preference: What the configuration wants, until somebody says otherwise.
        server: What apps are told to ask; None without one.
    """

    name: str
    facts: ModelFacts
    shown: ServedModel
    preference: Preference | None
    server: AssignedServer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Served(Offered):
    """A model that is served from a bundle on this machine."""

    bundle: Bundle


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

    @property
    def server(self) -> AssignedServer | None:
        """A server that some model names; those of all are at one address."""
        return next((model.server for model in self.served.values() if model.server is not None), None)

    def by_manifest(self, sha256: str) -> Served | None:
        """The model whose `manifest.json` has this content."""
        return next((model for model in self.served.values() if model.bundle.manifest_sha256 == sha256), None)


def read(config: Config, profile: Profile | None, root: str) -> Catalogue:
    """Open every bundle of the configuration; takes as long as hashing them does.

    Args:
        config: The configuration.
        profile: The board's, whose predictions count where nothing was measured here, and whose power.
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


def _open(name: str, section: ModelSection, profile: Profile | None, root: str) -> Served:
    bundle, board = Bundle(Path(section.bundle)), of(profile)
    features, machine = cpu_features(root), machine_name(root)
    variants = [v for v in bundle.manifest.variants if can_run(v, features)]
    if not variants:
        raise NoVariantError(
            f"none of its {len(bundle.manifest.variants)} variants can run on this CPU",
            where=str(bundle.path),
            hint="convert it for this board's profile",
        )
    here = {variant.id for variant in variants}
    variants += [v for v in bundle.manifest.variants if v.target.delegate is not Delegate.CPU and _twin(v) in here]
    known: dict[str, Latency] = {}
    # What the profile extends counts where there is nothing of its own.
    for own in (None,) if profile is None else (profile.extends, profile.id):
        known |= latencies_of(variants, bundle.latencies(), machine=machine, profile=own)
    counts = sorted({latency.threads for latency in known.values()})
    if counts:
        log.info("model %s: its latencies are those of threads: %s", name, ", ".join(map(str, counts)))
    return Served(
        name=name,
        bundle=bundle,
        facts=ModelFacts(
            name=name,
            variants=tuple(_facts(v, known.get(v.id), board) for v in variants),
            server=_server(section.server, bundle.manifest.inputs, board),
        ),
        shown=ServedModel(
            name=name,
            version=bundle.manifest.version,
            variants=tuple(_shown(v, known.get(v.id)) for v in variants),
        ),
        preference=section.preference,
        server=None if section.server is None else _assigned(section.server),
    )


def can_run(variant: Variant, features: frozenset[str] | None) -> bool:
    """Whether this CPU can run the variant; where its features are unknown, what needs some is taken to run."""
    if variant.target.delegate is not Delegate.CPU:
        return False
    return features is None or set(variant.target.isa) <= features


def _twin(variant: Variant) -> str | None:
    """What the CPU runs of a variant for an accelerator: apps that have one may run it, the others the twin."""
    return variant.target.fallback


def latencies_of(
    variants: Sequence[Variant], evidence: Sequence[Latency], *, machine: str, profile: str | None
) -> dict[str, Latency]:
    """The best evidence of each variant's latency here: measured on this machine, else for its profile.

    Of several, one with the number of threads that most variants were timed with, then the newest: times of one and of
    four threads say nothing of which variant is the faster. What a variant took on another delegate than its own is not
    taken for it. What the apps report replaces all of this anyway.
    """
    by_id = {variant.id: variant for variant in variants}
    evidence = [one for one in evidence if one.variant in by_id and one.is_of(by_id[one.variant])]
    here = [latency for latency in evidence if latency.origin is Origin.MEASURED and latency.machine == machine]
    alike = [latency for latency in evidence if profile is not None and profile in {latency.profile, latency.machine}]
    measured = [latency for latency in alike if latency.origin is not Origin.PREDICTED]
    found: dict[str, Latency] = {}
    for group in (here, measured, alike):
        threads = common_threads(group)
        for variant in variants:
            mine = [latency for latency in group if latency.variant == variant.id]
            if mine and variant.id not in found:
                found[variant.id] = max(mine, key=lambda one: (one.threads == threads, one.at or 0.0))
    return found


def _facts(variant: Variant, latency: Latency | None, board: BoardModel) -> VariantFacts:
    stand_in = max(_STAND_IN_MIN_MS, variant.cost.macs * _STAND_IN_MS_PER_MAC)
    power_w = board.busy_w(variant.target.delegate.value)
    if latency is not None and latency.energy_mj and latency.median_ms > 0:
        power_w = latency.energy_mj / latency.median_ms
    return VariantFacts(
        id=variant.id,
        quality=variant.quality.value,
        latency_ms=stand_in if latency is None else latency.median_ms,
        measured=latency is not None and latency.origin is Origin.MEASURED,
        size_bytes=variant.size_bytes,
        power_w=power_w,
        accelerated=variant.target.delegate is not Delegate.CPU,
        twin=variant.target.fallback,
    )


def _server(section: ServerSection | None, inputs: Sequence[TensorSpec], board: BoardModel) -> ServerFacts | None:
    if section is None:
        return None
    return ServerFacts(
        quality=section.quality,
        payload_kb=(_HEAD_BYTES + sum(map(_size_bytes, inputs))) / 1000,
        server_ms=section.server_ms,
        radio_w=board.radio_w,
        spares=section.metered == "avoid",
    )


def _assigned(section: ServerSection) -> AssignedServer:
    return AssignedServer(url=section.url, model=section.model, token_file=section.token_file, ca_file=section.ca_file)


def _size_bytes(spec: TensorSpec) -> int:
    """Of one sample of an input as binary data: its elements, each as long as the number in its dtype's name says."""
    bits = "".join(char for char in spec.dtype if char.isdigit())
    item = min(max(int(bits or 8) // 8, 1), _LONGEST_ITEM)
    return item * math.prod(max(size, 1) for size in spec.shape)


def _shown(variant: Variant, latency: Latency | None) -> ServedVariant:
    return ServedVariant(
        id=variant.id,
        precision=variant.precision.value,
        quality=variant.quality.value,
        size_bytes=variant.size_bytes,
        latency_ms=None if latency is None else latency.median_ms,
        origin=None if latency is None else latency.origin,
        delegate=variant.target.delegate.value,
    )
