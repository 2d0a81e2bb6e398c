"""How long a variant takes here: what was promised, corrected by what apps see.

A window's median is explained by three factors: what the variant takes on a calm device (`log_bias`, per variant), how
much everything is slowed down just now (`log_slowdown`, shared by all variants, as in ALERT, USENIX ATC'20), and noise.
The shared factor is what lets contention felt by one variant speak for all. A surprise is split between the two: of a
variant seen for the first time most is its own, of one seen often nearly all is the moment's. (With a smaller share,
two variants whose evidence is three times too fast are returned to over and over: 52 switches in five minutes of a
simulation of this module, against 6.) Residuals are clipped, so one absurd window cannot throw an estimate.
"""

from __future__ import annotations

import math
from dataclasses import replace

from edge_daemon.policy.state import ModelRecord, PolicyState, VariantRecord, sane_ms
from edge_daemon.policy.types import AppReported

_RESIDUAL_MAX = 1.5  # in natural logarithm: a factor of 4.5 per window
_BIG_RESIDUAL = 0.25
_FAST_GAIN, _CALM_GAIN = 0.6, 0.3
_BIAS_GAIN, _BIAS_GAIN_MIN = 0.7, 0.01
_MEASURED_REPORTS = 20  # a measurement in a child process weighs like this many windows
_FEW_CALLS = 2.0  # a window of this many calls weighs half
_TAIL_CALLS, _TAIL_GAIN, _TAIL_MAX = 10, 0.15, 2.0
_SLOWDOWN_MIN, _SLOWDOWN_MAX = -2.0, 4.0
_BIAS_MAX = 5.0


def slowdown(state: PolicyState) -> float:
    """The factor by which everything takes longer just now."""
    return math.exp(state.log_slowdown)


def expected_ms(state: PolicyState, variant: VariantRecord) -> float:
    """The median expected of one inference now."""
    return variant.latency_ms * slowdown(state)


def p95_ms(state: PolicyState, model: ModelRecord, variant: VariantRecord) -> float:
    """What 95 of 100 inferences are expected to keep now."""
    return variant.latency_ms * math.exp(state.log_slowdown + model.log_tail)


def learn(state: PolicyState, model: ModelRecord, seen: AppReported) -> tuple[ModelRecord, float]:
    """The model's record and the logarithm of the slowdown after one window of one app."""
    variant = model.variant(seen.variant)
    p50_ms = sane_ms(seen.p50_ms)
    if variant is None or p50_ms is None or seen.calls <= 0:
        return model, state.log_slowdown
    weight = seen.calls / (seen.calls + _FEW_CALLS)
    residual = math.log(p50_ms / variant.latency_ms) - state.log_slowdown
    residual = min(max(residual, -_RESIDUAL_MAX), _RESIDUAL_MAX)
    reports = variant.reports + 1
    own = max(_BIAS_GAIN_MIN, _BIAS_GAIN / reports)
    shared = (1 - own) * (_FAST_GAIN if abs(residual) > _BIG_RESIDUAL else _CALM_GAIN)
    log_slowdown = min(max(state.log_slowdown + weight * shared * residual, _SLOWDOWN_MIN), _SLOWDOWN_MAX)
    bias = variant.log_bias + weight * own * residual
    return (
        replace(
            model,
            variants=replaced(model.variants, _biased(variant, bias, reports)),
            log_tail=_tail(model.log_tail, seen, p50_ms),
        ),
        log_slowdown,
    )


def measured(model: ModelRecord, variant: VariantRecord, median_ms: float) -> ModelRecord:
    """The model's record after a variant was timed on this machine."""
    timed = replace(
        variant, prior_ms=median_ms, latency_ms=median_ms, log_bias=0.0, measured=True, reports=_MEASURED_REPORTS
    )
    return replace(model, variants=replaced(model.variants, timed), measured=True)


def replaced(variants: tuple[VariantRecord, ...], new: VariantRecord) -> tuple[VariantRecord, ...]:
    """The variants with the one of the same id replaced."""
    return tuple(new if variant.id == new.id else variant for variant in variants)


def _biased(variant: VariantRecord, bias: float, reports: int) -> VariantRecord:
    bias = min(max(bias, -_BIAS_MAX), _BIAS_MAX)
    return replace(variant, log_bias=bias, reports=reports, latency_ms=variant.prior_ms * math.exp(bias))


def _tail(log_tail: float, seen: AppReported, p50_ms: float) -> float:
    p95 = sane_ms(seen.p95_ms)
    if p95 is None or seen.calls < _TAIL_CALLS:
        return log_tail
    ratio = min(max(math.log(p95 / p50_ms), 0.0), _TAIL_MAX)
    return log_tail + _TAIL_GAIN * (ratio - log_tail)
