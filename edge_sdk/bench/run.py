"""One run of `edge bench`: what was planned is timed, and told in the words of evidence."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

from edge_sdk import energy
from edge_sdk import threads as counting
from edge_sdk.bench import result
from edge_sdk.bench.cases import Case, Left, Wanted, Way, planned
from edge_sdk.bench.result import Benched, BestThreads, Isolation, Raw
from edge_sdk.bench.timing import Timed, footprints, groups_of, turns
from edge_sdk.bundle import EVIDENCE, Bundle
from edge_sdk.errors import DelegateError, StorageError
from edge_sdk.machine import machine_name
from edge_sdk.manifest import Latency, Origin
from edge_sdk.room import free_bytes
from edge_sdk.runtime import Unavailable


def bench(
    bundle: Bundle,
    ids: Sequence[str],
    wanted: Wanted,
    *,
    seconds: float,
    profile: str | None,
    shown: str,
    write: bool,
    root: Path = Path("/"),
    told: Callable[[str], None] = lambda _: None,
) -> Benched:
    """Time variants of a bundle.

    Args:
        bundle: Where they are.
        ids: Which.
        wanted: On what, and how.
        seconds: For each case.
        profile: The class of boards this machine belongs to, where that is known.
        shown: The bundle as the user called it.
        write: Into the bundle's `evidence.json`.
        root: Below which the sensors of power lie.
        told: Told what is done now.

    Raises:
        UnknownVariantError: The bundle has no such variant.
        UsageError: A delegate that is asked for makes no sense.
        DelegateError: None of them runs here.
        BundleError: There is evidence that it cannot be added to.
        StorageError: The evidence could not be written.
    """
    if write:
        # What cannot be added to is found out before minutes are spent.
        bundle.evidence()
        if not os.access(bundle.path, os.W_OK | os.X_OK):
            raise StorageError("cannot be written to", where=shown, hint="drop --write, or copy the bundle")
    variants = [bundle.variant(id_) for id_ in dict.fromkeys(ids)]
    plan = list(planned(bundle, variants, wanted))
    left = [one for one in plan if isinstance(one, Left)]
    known, broken = footprints([one for one in plan if isinstance(one, Case)], wanted.counts[0], told)
    left += broken
    refused = {one.id for one in broken}
    cases = [
        one for one in plan if isinstance(one, Case) and (one.way is Way.DELEGATE or one.variant.id not in refused)
    ]
    meter = energy.find(root)
    timed: list[Timed] = []
    groups = []
    for group in groups_of(cases, known, free_bytes()):
        names = tuple(dict.fromkeys(case.variant.id for case in group))
        told(f"timing {', '.join(names)}, {len(group)} rows of {seconds:g} s")
        done, failed = turns(group, known, seconds, meter)
        timed += done
        left += failed
        groups.append(names)
    if not timed:
        raise DelegateError(
            f"none of {len(variants)} variants runs here: {left[0].id}: {left[0].reason}",
            where=shown,
            hint=left[0].hint or "convert for this board's profile",
        )
    latency = tuple(_latency(one, profile) for one in timed if one.case.way in {Way.PLAIN, Way.DELEGATE})
    if write:
        bundle.add_latencies(latency)
    return Benched(
        bundle=shown,
        machine=machine_name(),
        profile=profile,
        threads=tuple(wanted.counts),
        latency=tuple(sorted(latency, key=lambda entry: (entry.median_ms, entry.variant, entry.threads))),
        raw=tuple(_raws(timed)),
        best_threads=tuple(_best_threads(timed)),
        isolation=tuple(_isolations(timed)),
        energy=_energy(meter, timed),
        left=tuple(left),
        groups=tuple(groups),
        written=str(Path(shown) / EVIDENCE) if write else None,
    )


def _latency(one: Timed, profile: str | None) -> Latency:
    variant = one.case.variant
    return Latency(
        variant=variant.id,
        blob=variant.blob,
        precision=variant.precision,
        macs=variant.cost.macs,
        origin=Origin.MEASURED,
        machine=machine_name(),
        profile=profile,
        runtime=one.runtime[:100],
        threads=one.case.threads,
        delegate=one.case.computes,
        samples=len(one.times_ms),
        median_ms=one.median_ms,
        p95_ms=one.p95_ms,
        p99_ms=one.p99_ms,
        load_ms=one.load_ms,
        first_ms=one.first_ms,
        memory_bytes=one.memory_bytes,
        energy_mj=None if one.energy is None else one.energy.mj,
        at=max(0.0, round(time.time(), 3)),
    )


def _beside(timed: Sequence[Timed], one: Timed) -> Timed | None:
    """The same variant as an app runs it on the CPU, with as many threads."""
    place = one.case.variant.id, one.case.threads
    mine = (x for x in timed if x.case.way is Way.PLAIN and (x.case.variant.id, x.case.threads) == place)
    return next(mine, None)


def _pairs(one: Timed, other: Timed) -> Iterator[tuple[float, float]]:
    """The quickest of each turn that both had; the turns of the two came one after the other."""
    return zip(one.quickest_ms, other.quickest_ms, strict=False)


def _raws(timed: Sequence[Timed]) -> Iterator[Raw]:
    for one in timed:
        ours = _beside(timed, one) if one.case.way is Way.RAW else None
        if ours is not None:
            yield Raw(
                variant=one.case.variant.id,
                threads=one.case.threads,
                samples=len(one.times_ms),
                median_ms=one.median_ms,
                p95_ms=one.p95_ms,
                p99_ms=one.p99_ms,
                ratio=round(median(a / max(b, 1e-6) for a, b in _pairs(ours, one)), 3),
            )


def _isolations(timed: Sequence[Timed]) -> Iterator[Isolation]:
    for one in timed:
        ours = _beside(timed, one) if one.case.way is Way.ISOLATED else None
        if ours is not None:
            cost_ms = median(b - a for a, b in _pairs(ours, one))
            yield Isolation(variant=one.case.variant.id, cost_ms=round(cost_ms, 4))


def _best_threads(timed: Sequence[Timed]) -> Iterator[BestThreads]:
    tried: dict[str, dict[int, float]] = {}
    for one in timed:
        if one.case.way is Way.PLAIN:
            tried.setdefault(one.case.variant.id, {})[one.case.threads] = one.median_ms
    for id_, medians in tried.items():
        if len(medians) > 1:
            best = counting.fastest(medians)
            gain = next(iter(medians.values())) / max(medians[best], 1e-6)
            yield BestThreads(variant=id_, threads=best, gain=round(gain, 3))


def _energy(meter: energy.Meter | Unavailable, timed: Sequence[Timed]) -> result.Energy:
    if isinstance(meter, Unavailable):
        return result.Energy(reason=meter.reason)
    spent = [one.energy for one in timed if one.energy is not None]
    if not spent:
        return result.Energy(reason="the sensor stopped to answer")
    return result.Energy(sensor=spent[0].sensor, idle_w=round(sum(each.idle_w for each in spent) / len(spent), 3))
