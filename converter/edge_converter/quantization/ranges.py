"""The range of every activation, by one of four methods, from one walk through the float graph.

What a method costs and gains depends on the network: ranges that cover everything waste integers on what hardly
occurs, ranges that clip it lose what may decide. All four come from the same histograms, so the converter tries each
on samples apart (`edge_converter.static`) instead of believing in one.

Sampling is deterministic: every tensor's extremes are exact, and its histogram is of evenly spaced elements.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_converter.graph import WEIGHTED
from edge_converter.quantization.layerwise import FloatGraph, computed
from edge_converter.quantization.values import Floats, Values

_BINS = 2048
# Elements of one tensor that go into its histogram: 500 a bin.
_ELEMENTS = 1_000_000
_LEVELS = 255
# Of the mass, beyond either end: 1 in 10,000, as TensorRT's and NNCF's percentile calibrations take by default.
_BEYOND = 1e-4
_SHARES = np.linspace(1.0, 0.3, 36)
_TINY = 1e-12


class Method(Enum):
    """How a range is chosen.

    - `min-max`: everything seen is inside.
    - `percentile`: all but 1 in 10,000 elements at either end.
    - `mse`: where rounding and clipping together make the least mean square error.
    - `entropy`: where the distribution after rounding diverges least from that before (Migacz, 8-bit inference with
      TensorRT, GTC 2017).
    """

    MIN_MAX = "min-max"
    PERCENTILE = "percentile"
    MSE = "mse"
    ENTROPY = "entropy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What a tensor holds over the calibration samples.

    Attributes:
        low: Its least element.
        high: Its largest.
        counts: `[_BINS]`, how many of the elements looked at lie in each of as many equal parts from low to high.
        channels: The largest magnitude in each channel, `[channels]`.
        rank: Dimensions of the tensor.
        is_whole: Nothing of it may be clipped. It is what is asked: images of 8 bits then keep every one of their
            values. Or no weights follow: the answer is read from it, and its rarest values are what decides.
    """

    low: float
    high: float
    counts: NDArray[np.float64]
    channels: Floats
    rank: int
    is_whole: bool = False


def observe(source: bytes, inputs: Mapping[int, Floats], *, where: str) -> dict[str, Observed]:
    """What every float activation holds.

    Args:
        source: A float file of one subgraph.
        inputs: Calibration samples by input tensor, `[samples, *shape]`, batch dimension included.
        where: The file's name, for errors.

    Returns:
        By name of tensor.

    Raises:
        ValueError, RuntimeError: The runtime cannot compute one of the operators alone, or NaN or infinity comes out.
    """
    graph = FloatGraph(source, where=where)
    weighted = [number for number, operator in enumerate(graph.operators) if graph.kind(operator) in WEIGHTED]
    behind = graph.operators[weighted[-1] if weighted else 0 :]
    last = {*graph.inputs} | {int(tensor) for operator in behind for tensor in operator.outputs}
    return {
        graph.name(tensor): _observed(values, graph.name(tensor), is_whole=tensor in last)
        for tensor, values in computed(graph, inputs)
        if values.kept().dtype == np.float32
    }


def chosen(observed: Mapping[str, Observed], method: Method) -> dict[str, Any]:
    """Ranges in the form the quantizer takes them, by name of tensor."""
    ranges = {}
    for name, one in observed.items():
        low, high = _range(one, method)
        shape = [1] * one.rank
        ranges[name] = {"min": np.full(shape, low, np.float32), "max": np.full(shape, high, np.float32)}
    return ranges


def _observed(values: Values, name: str, *, is_whole: bool) -> Observed:
    stored = values.kept()
    low, high = float(stored.min()), float(stored.max())
    if not np.isfinite([low, high]).all():
        raise ValueError(f"{name[:60]} holds NaN or infinity")
    flat = stored.reshape(-1)
    # An odd step meets every channel, whatever power of two there are of them.
    step = max(1, len(flat) // _ELEMENTS) | 1
    counts, _ = np.histogram(flat[::step], bins=_BINS, range=(low, high if high > low else low + 1.0))
    channels = np.maximum(*(each.reshape(-1, stored.shape[-1]) for each in (stored.max(axis=0), -stored.min(axis=0))))
    return Observed(
        low=low,
        high=high,
        counts=counts.astype(np.float64),
        channels=channels.max(axis=0),
        rank=stored.ndim - 1,
        is_whole=is_whole,
    )


def _range(one: Observed, method: Method) -> tuple[float, float]:
    """Low and high; a range always holds 0, which padding and rectifiers need exactly."""
    low, high = min(one.low, 0.0), max(one.high, 0.0)
    if one.high <= one.low or one.is_whole:
        return low, high
    match method:
        case Method.MIN_MAX:
            return low, high
        case Method.PERCENTILE:
            return _percentile(one)
        case Method.MSE:
            return _least_square(one, low, high)
        case Method.ENTROPY:
            return _least_divergence(one, low, high)


def _centres(one: Observed) -> NDArray[np.float64]:
    width = (one.high - one.low) / _BINS
    return np.linspace(one.low + width / 2, one.high - width / 2, _BINS, dtype=np.float64)


def _percentile(one: Observed) -> tuple[float, float]:
    share = np.cumsum(one.counts) / one.counts.sum()
    edges = np.linspace(one.low, one.high, _BINS + 1)
    first = int(np.searchsorted(share, _BEYOND))
    last = min(int(np.searchsorted(share, 1.0 - _BEYOND)), _BINS - 1)
    return min(float(edges[first]), 0.0), max(float(edges[last + 1]), 0.0)


def _least_square(one: Observed, low: float, high: float) -> tuple[float, float]:
    centres = _centres(one)
    best, least = (low, high), np.inf
    for lower in _SHARES if low < 0 else _SHARES[:1]:
        for upper in _SHARES if high > 0 else _SHARES[:1]:
            bottom, top = low * lower, high * upper
            beyond = np.maximum(centres - top, 0.0) + np.maximum(bottom - centres, 0.0)
            step = (top - bottom) / _LEVELS
            # What is inside is off by up to half a step, evenly; zeros are exact whatever the step.
            error = float(one.counts @ beyond**2 + one.counts.sum() * step**2 / 12)
            if error < least:
                best, least = (bottom, top), error
    return best


def _least_divergence(one: Observed, low: float, high: float) -> tuple[float, float]:
    centres = _centres(one)
    one = replace(one, counts=_without_zeros(one))
    best, least = (low, high), np.inf
    for share in _SHARES:
        bottom, top = low * share, high * share
        inside = (centres >= bottom) & (centres <= top)
        if not inside.any():
            continue
        before = one.counts[inside].copy()
        before[0] += one.counts[centres < bottom].sum()
        before[-1] += one.counts[centres > top].sum()
        after = _rounded(one.counts[inside], centres[inside], bottom, top)
        divergence = _divergence(before, after)
        if divergence < least:
            best, least = (bottom, top), divergence
    return best


def _without_zeros(one: Observed) -> NDArray[np.float64]:
    """The histogram with as many elements at 0 as beside it.

    0 is exact in every range, and half of what comes out of a rectifier is 0: spread over the other values that share
    its integer it would outweigh everything else, and the narrowest range would seem best.
    """
    counts: NDArray[np.float64] = one.counts.copy()
    zero = int((0.0 - one.low) / (one.high - one.low) * _BINS)
    beside = [at for at in (zero - 1, zero + 1) if 0 <= at < _BINS]
    if 0 <= zero < _BINS:
        counts[zero] = min(counts[zero], max(counts[at] for at in beside))
    return counts


def _rounded(counts: NDArray[np.float64], centres: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """The same mass, spread evenly over those bins of each integer that hold any."""
    level = np.minimum(((centres - low) / (high - low) * _LEVELS).astype(np.int64), _LEVELS - 1)
    held = counts > 0
    mass = np.bincount(level, counts, minlength=_LEVELS)
    bins = np.bincount(level, held, minlength=_LEVELS)
    spread: NDArray[np.float64] = np.where(held, (mass / np.maximum(bins, 1))[level], 0.0)
    return spread


def _divergence(before: NDArray[np.float64], after: NDArray[np.float64]) -> float:
    p, q = before / before.sum(), np.maximum(after / max(after.sum(), _TINY), _TINY)
    held = p > 0
    return float((p[held] * np.log(p[held] / q[held])).sum())
