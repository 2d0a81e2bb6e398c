"""Weights to integers so that a layer's *outputs* stay close, not its weights: error-compensating rounding, in numpy.

Every function takes a layer as a matrix `[taps, channels]` (what one output channel multiplies its inputs with is a
column) and the second moments of its inputs. Rounding one weight up is made good by rounding others down.

- `compensated`: optimal brain quantization column by column with lazy updates (Frantar et al., GPTQ, arXiv 2210.17323),
  the taps with the largest inputs first, followed by coordinate descent on the integers themselves.
- `aimed`: what the weights should be, given that the inputs they will meet are those of the quantized layers before
  (asymmetric calibration; Li et al., GPTAQ, arXiv 2504.02692), held to the trained ones by a ridge.

Moments are centred: a constant shift of the output is the bias's to mend, which costs nothing.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Stack = NDArray[np.float64]

# Of the mean second moment, added to each: keeps the inverse of few samples from chasing noise. What the scores of
# EfficientNet-Lite0 are off by in int8, relative to their variance (96 photographs choose, 250 others, 8 patches a
# tap): a ridge of 0.1 0.0054, 0.3 0.0042, 1 0.0030, 3 0.0028, none of the aiming 0.0035; with one scale a layer 0.3
# 0.0101, 1 0.0088, 3 0.0084. Of fewer levels aiming is worth more. In 4 bits, at 0.3, 1 and 3: EfficientNet-Lite0
# 0.115, 0.108, 0.113; ResNet8 0.0151, 0.0139, 0.0142; a small network 0.00098, 0.00098, 0.00119. More samples (128) and
# another damping (0.01, 0.1) change nothing that can be told.
DAMPING = 0.03
RIDGE, RIDGE_OF_FEW_LEVELS = 3.0, 1.0
_BLOCK = 64
_SWEEPS = 2
_TINY = 1e-12
_PRICINGS = 2  # what an integer takes depends on how often it is chosen
_UNSEEN = 0.5  # occurrences of an integer nobody has chosen yet
# Of the scale at which nothing is clipped.
_NARROWEST = 0.4
_NARROWINGS = 25


def aimed(weights: Matrix, moments: Matrix, cross: Matrix, *, ridge: float = RIDGE) -> Matrix:
    """Weights that give on the inputs there will be what the trained ones give on the inputs there should be.

    Args:
        weights: `[taps, channels]`.
        moments: `[taps, taps]`, of the inputs there will be: E[q q'].
        cross: `[taps, taps]`, of those with what they lack: E[q (x - q)'].
        ridge: How strongly the trained weights hold, as a share of the mean second moment.
    """
    held = moments + np.eye(len(moments)) * (ridge * float(np.mean(np.diag(moments))) + _TINY)
    result: Matrix = weights + np.linalg.solve(held, cross @ weights)
    return result


def aimed_each(weights: Matrix, moments: Stack, cross: Stack, *, ridge: float = RIDGE) -> Matrix:
    """The same for a depthwise layer.

    Args:
        weights: `[taps, channels]`.
        moments: `[channels, taps, taps]`.
        cross: `[channels, taps, taps]`.
        ridge: As above, of each channel.
    """
    taps = len(weights)
    own = np.mean(np.diagonal(moments, axis1=1, axis2=2), axis=1)
    held = moments + np.eye(taps)[None] * (ridge * own + _TINY)[:, None, None]
    lacking = np.einsum("cij,jc->ci", cross, weights)
    result: Matrix = weights + np.linalg.solve(held, lacking[..., None])[..., 0].T
    return result


def compensated(
    weights: Matrix,
    moments: Matrix,
    scales: Matrix,
    *,
    most: int,
    damping: float = DAMPING,
    price: Matrix | None = None,
) -> Matrix:
    """Integers for `weights / scales`, each rounding error made good by the taps that are still to be rounded.

    Args:
        weights: `[taps, channels]`.
        moments: `[taps, taps]`, positive semi-definite.
        scales: `[channels]`.
        most: The largest magnitude of an integer: 127 for 8 bits.
        damping: As a share of the mean second moment.
        price: What a bit costs in mean square of each channel's output, `[channels]`: an integer nearer to 0, and so
            more frequent, is taken where it saves more bits than it loses (rate-distortion optimised quantization;
            Sullivan and Wiegand, IEEE Signal Processing Magazine 15(6), 1998).
    """
    damped = _damped(moments, damping)
    if price is None:
        codes = _rounded(weights, damped, scales, most, None)
        return _descended(codes, weights, damped, scales, most=most)
    codes = np.clip(np.rint(weights / scales), -most, most)
    for _ in range(_PRICINGS):
        costs = price[:, None] * _bits(codes, most)  # a row a channel
        codes = _rounded(weights, damped, scales, most, costs)
        codes = _descended(codes, weights, damped, scales, most=most, costs=costs)
    return codes


def steps_for(moments: Matrix, price: Matrix, *, damping: float = DAMPING) -> Matrix:
    """`[channels]`: the step between integers at which one bit more would gain just its price.

    At many levels, an even step D loses D^2/12 of each weight's curvature, and a bit more makes that a quarter:
    D^2 = 6 price / (ln 2 curvature) (Gish and Pierce, Asymptotically efficient quantizing, 1968). A weight's curvature
    is what remains of it when the other weights make good for its error.
    """
    factor = _factor(_damped(moments, damping))
    curvature = float(np.exp(np.mean(-2 * np.log(np.diag(factor)))))
    steps: Matrix = np.sqrt(6 * price / (math.log(2) * curvature))
    return steps


def _bits(codes: Matrix, most: int) -> Matrix:
    """`[2 most + 1]`: what each integer takes where it is coded by how often it occurs."""
    counts = np.bincount((codes.reshape(-1) + most).astype(np.int64), minlength=2 * most + 1) + _UNSEEN
    bits: Matrix = -np.log2(counts / counts.sum())
    return bits


def _factor(damped: Matrix) -> Matrix:
    """The upper triangle whose rows say how a tap's error is made good by the taps after it."""
    factor: Matrix = np.linalg.cholesky(np.linalg.inv(damped)).T
    return factor


def _rounded(weights: Matrix, damped: Matrix, scales: Matrix, most: int, costs: Matrix | None) -> Matrix:
    """Column by column, each error made good by the taps that are still to be rounded."""
    taps = len(weights)
    order = np.argsort(-np.diag(damped), kind="stable")
    left = weights[order].copy()
    factor = _factor(damped[np.ix_(order, order)])
    codes = np.zeros_like(left)
    for begin in range(0, taps, _BLOCK):
        end = min(begin + _BLOCK, taps)
        errors = np.zeros((end - begin, weights.shape[1]))
        for tap in range(begin, end):
            codes[tap] = np.clip(np.rint(left[tap] / scales), -most, most)
            if costs is not None:
                codes[tap] = _cheaper(codes[tap], left[tap] / scales, (scales / factor[tap, tap]) ** 2, costs)
            error = (left[tap] - codes[tap] * scales) / factor[tap, tap]
            errors[tap - begin] = error
            left[tap + 1 : end] -= np.outer(factor[tap, tap + 1 : end], error)
        left[end:] -= factor[begin:end, end:].T @ errors
    back = np.empty_like(order)
    back[order] = np.arange(taps)
    ordered: Matrix = codes[back]
    return ordered


def _cheaper(codes: Matrix, wanted: Matrix, curve: Matrix, costs: Matrix) -> Matrix:
    """Each integer, or the next towards 0 where that saves more bits than it loses."""
    most, channel = costs.shape[1] // 2, np.arange(len(codes))
    nearer = codes - np.sign(codes)
    stays = curve * (codes - wanted) ** 2 + costs[channel, (codes + most).astype(np.int64)]
    moves = curve * (nearer - wanted) ** 2 + costs[channel, (nearer + most).astype(np.int64)]
    cheaper: Matrix = np.where(moves < stays, nearer, codes)
    return cheaper


def compensated_each(weights: Matrix, moments: Stack, scales: Matrix, *, most: int, damping: float = DAMPING) -> Matrix:
    """The same for a depthwise layer, in which every channel has inputs, and so moments, of its own.

    Few taps: the integers are descended upon directly, one at a time and then in pairs.

    Args:
        weights: `[taps, channels]`.
        moments: `[channels, taps, taps]`.
        scales: `[channels]`.
        most: The largest magnitude of an integer.
        damping: As a share of the mean second moment of each channel.
    """
    taps = len(weights)
    own = np.mean(np.diagonal(moments, axis1=1, axis2=2), axis=1)
    damped = moments + np.eye(taps)[None] * (damping * own + _TINY)[:, None, None]
    codes = np.clip(np.rint(weights / scales), -most, most)
    # R = H (w - s q): half the slope of the error at the integers as they are.
    slope = np.einsum("cij,jc->ic", damped, weights - codes * scales)
    curve = np.diagonal(damped, axis1=1, axis2=2).T
    for _ in range(_SWEEPS * taps):
        moved = False
        for tap in range(taps):
            step = np.clip(codes[tap] + np.rint(slope[tap] / (curve[tap] * scales)), -most, most) - codes[tap]
            moved |= bool(step.any())
            codes[tap] += step
            slope -= damped[:, :, tap].T * (step * scales)
        if not moved:
            break
    _move_pairs(codes, slope, damped, scales, most)
    return codes


def largest(weights: Matrix, *, most: int) -> Matrix:
    """`[channels]`: the scale at which each channel's largest weight is the largest integer."""
    scales: Matrix = np.maximum(np.abs(weights).max(axis=0) / most, _TINY)
    return scales


def clipped(weights: Matrix, curve: Matrix, scales: Matrix, *, most: int, together: bool = False) -> Matrix:
    """`[channels]`: scales that may clip a channel's largest weights where the others gain more by it.

    With few levels that is nearly always so. Searched over a grid, by the error each weight's own input makes of it.

    Args:
        weights: `[taps, channels]`.
        curve: The inputs' second moments, `[taps, 1]` or `[taps, channels]`.
        scales: The largest there may be, `[channels]`.
        most: The largest magnitude of an integer.
        together: One share for all channels, by the sum of their errors.
    """
    best, least = scales, np.full(scales.shape, np.inf)
    for share in np.linspace(1.0, _NARROWEST, _NARROWINGS):
        tried = np.maximum(scales * share, _TINY)
        codes = np.clip(np.rint(weights / tried), -most, most)
        error = (curve * (codes * tried - weights) ** 2).sum(axis=0)
        if together:
            error = np.full(error.shape, error.sum())
        best = np.where(error < least, tried, best)
        least = np.minimum(error, least)
    return best


def _move_pairs(codes: Matrix, slope: Matrix, damped: Stack, scales: Matrix, most: int) -> None:
    """Move one integer by one, and another so that it makes good for it, in the channels where that pays; in place."""
    taps = len(codes)
    curve = np.diagonal(damped, axis1=1, axis2=2).T
    for first, up, second in itertools.product(range(taps), (1.0, -1.0), range(taps)):
        if first == second:
            continue
        step = np.rint((slope[second] - damped[:, second, first] * (up * scales)) / (curve[second] * scales))
        gain = 2 * scales * (up * slope[first] + step * slope[second]) - scales**2 * (
            curve[first] + 2 * up * step * damped[:, first, second] + step**2 * curve[second]
        )
        fits = (np.abs(codes[first] + up) <= most) & (np.abs(codes[second] + step) <= most)
        pays = np.where((gain > _TINY) & fits, 1.0, 0.0)
        codes[first] += pays * up
        codes[second] += pays * step
        slope -= damped[:, :, first].T * (pays * up * scales) + damped[:, :, second].T * (pays * step * scales)


def _damped(moments: Matrix, damping: float) -> Matrix:
    damped: Matrix = moments + np.eye(len(moments)) * (damping * float(np.mean(np.diag(moments))) + _TINY)
    return damped


def _descended(
    codes: Matrix, weights: Matrix, damped: Matrix, scales: Matrix, *, most: int, costs: Matrix | None = None
) -> Matrix:
    """Coordinate descent: each integer in turn to where the error is least, given all others."""
    slope = damped @ (weights - codes * scales)
    curve = np.diag(damped)
    for _ in range(_SWEEPS):
        moved = False
        for tap in np.argsort(-curve, kind="stable"):
            wanted = codes[tap] + slope[tap] / (curve[tap] * scales)
            best = np.clip(np.rint(wanted), -most, most)
            if costs is not None:
                best = _cheaper(best, wanted, curve[tap] * scales**2, costs)
            step = best - codes[tap]
            where = np.nonzero(step)[0]
            if where.size:
                moved = True
                codes[tap, where] += step[where]
                slope[:, where] -= np.outer(damped[:, tap], step[where] * scales[where])
        if not moved:
            break
    return codes
