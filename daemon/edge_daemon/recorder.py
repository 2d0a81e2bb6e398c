"""Telemetry: what apps did and what was sensed, as one record per window, batched for the hub.

Records wait in memory until their batch is due, then the batch is spooled and survives anything. A power cut takes
at most the records of one batch; writing each at once would wear out an SD card for little.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec import structs

from edge_sdk.local import AppReport
from edge_sdk.mqtt import Conditions, ModelStats, Sample, Tele
from edge_sdk.wire import encode

_MAX_SAMPLES = 600  # of a batch, see `mqtt.Tele`
# Of a batch before it is compressed, which takes it to a quarter or less: a hub takes 256 KiB, which become 1 MiB.
_MAX_BYTES = 512 * 1024
_MAX_WINDOWS = 2_000  # reports of apps within one window; beyond, the quantiles are of the first ones


@dataclass(slots=True)
class _Work:
    """One model's work within the window; `p50`, `p95` hold (value, calls) of each app's second."""

    variant: str | None = None
    calls: int = 0
    late: int = 0
    failed: int = 0
    p50: list[tuple[float, int]] = field(default_factory=list)
    p95: list[tuple[float, int]] = field(default_factory=list)


class Recorder:
    """Collects records.

    Args:
        sample_every_s: Length of a window.
        telemetry_every_s: Length of a batch.
        now_s: Monotonic clock.
    """

    def __init__(self, *, sample_every_s: float, telemetry_every_s: float, now_s: float) -> None:
        self.sample_every_s = sample_every_s
        self.telemetry_every_s = telemetry_every_s
        self._began_s = now_s
        self._batched_s = now_s
        self._work: dict[str, _Work] = {}
        self._samples: list[Sample] = []
        self._bytes = 0

    def saw(self, model: str, report: AppReport) -> None:
        """Count an app's report."""
        work = self._work.setdefault(model, _Work())
        if work.variant != report.active:
            # The quantiles of a window are of the variant that ended it: mixing two would describe neither.
            work.variant, work.p50, work.p95 = report.active, [], []
        work.calls += report.calls
        work.late += report.late
        work.failed += report.failed
        here = report.calls - report.replied  # the quantiles are of what was computed here
        if here > 0 and report.p50_ms is not None and len(work.p50) < _MAX_WINDOWS:
            work.p50.append((report.p50_ms, here))
            work.p95.append((report.p50_ms if report.p95_ms is None else report.p95_ms, here))

    def sample(self, now_s: float, at: float, conditions: Conditions, active: dict[str, str | None]) -> bool:
        """End the window if it is time; True if it was.

        Args:
            now_s: Monotonic clock.
            at: Wall clock.
            conditions: As they are now.
            active: What runs of each model.
        """
        window_s = now_s - self._began_s
        if window_s < self.sample_every_s:
            return False
        models = {name: _stats(self._work.get(name, _Work()), variant) for name, variant in active.items()}
        # Why a value is missing is in the state; said again in 600 records it would be most of a batch.
        told = structs.replace(conditions, missing={})
        sample = Sample(at=at, window_s=min(window_s, 86_400.0), conditions=told, models=models)
        self._samples.append(sample)
        self._bytes += len(encode(sample)) + 1
        self._work.clear()
        self._began_s = now_s
        return True

    def batch(self, now_s: float, *, all_of_it: bool = False) -> Tele | None:
        """The batch if it is due (or in any case with `all_of_it`), else None."""
        is_full = len(self._samples) >= _MAX_SAMPLES or self._bytes >= _MAX_BYTES
        due = all_of_it or is_full or now_s - self._batched_s >= self.telemetry_every_s
        if not due or not self._samples:
            return None
        samples, self._samples = self._samples[:_MAX_SAMPLES], self._samples[_MAX_SAMPLES:]
        self._bytes = 0
        self._batched_s = now_s
        return Tele(samples=tuple(samples))


def _stats(work: _Work, active: str | None) -> ModelStats:
    return ModelStats(
        variant=work.variant or active,
        calls=work.calls,
        late=work.late,
        failed=work.failed,
        p50_ms=_quantile(work.p50, 0.5),
        p95_ms=_quantile(work.p95, 0.95),
    )


def _quantile(values: list[tuple[float, int]], share: float) -> float | None:
    """The quantile of the apps' own quantiles, weighted by their calls: an estimate, on the safe side for p95."""
    total = sum(calls for _, calls in values)
    passed = 0
    for value, calls in sorted(values):
        passed += calls
        if passed >= share * total:
            return value
    return None
