"""Rounding that looks at what comes out of a layer, against rounding to the nearest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_converter.quantization import rounding

Matrix = NDArray[np.float64]


def layer(seed: int, taps: int, channels: int) -> tuple[Matrix, Matrix]:
    """Weights, and second moments of inputs that hang together, as those of a network do."""
    random = np.random.default_rng(seed)
    mixed = random.normal(size=(taps, taps)) * np.exp(-random.uniform(0, 3, taps))[:, None]
    inputs = random.normal(size=(8 * taps, taps)) @ mixed
    return random.normal(size=(taps, channels)), inputs.T @ inputs / len(inputs)


def lost(weights: Matrix, codes: Matrix, scales: Matrix, moments: Matrix) -> Matrix:
    """`[channels]`: mean square of the error that comes out."""
    error = weights - codes * scales
    return np.einsum("ic,ij,jc->c", error, moments, error)


@pytest.mark.parametrize("most", [7, 127])
@pytest.mark.parametrize("taps", [4, 27, 130])
def test_less_is_lost_than_by_rounding_to_the_nearest(taps: int, most: int) -> None:
    for seed in range(5):
        weights, moments = layer(seed, taps, 16)
        scales = rounding.largest(weights, most=most)
        nearest = np.clip(np.rint(weights / scales), -most, most)
        chosen = rounding.compensated(weights, moments, scales, most=most, damping=0.001)
        ratio = lost(weights, chosen, scales, moments).sum() / lost(weights, nearest, scales, moments).sum()
        assert ratio < 0.8, (seed, ratio)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 5), st.sampled_from([1, 7, 127]))
def test_integers_are_whole_and_within_their_bits(seed: int, taps: int, channels: int, most: int) -> None:
    weights, moments = layer(seed, taps, channels)
    scales = rounding.largest(weights, most=most) * 0.7  # so that some have to be clipped
    for codes in (
        rounding.compensated(weights, moments, scales, most=most),
        rounding.compensated_each(weights, np.repeat(moments[None], channels, axis=0), scales, most=most),
    ):
        assert codes.shape == weights.shape
        assert np.array_equal(codes, np.rint(codes))
        assert np.abs(codes).max() <= most


def test_a_depthwise_layer_is_never_worse_than_rounded_to_the_nearest() -> None:
    gained = []
    for seed in range(20):
        weights, _ = layer(seed, 9, 24)
        moments = np.stack([layer(1000 * seed + channel, 9, 1)[1] for channel in range(24)])
        scales = rounding.largest(weights, most=127)
        nearest = np.rint(weights / scales)
        chosen = rounding.compensated_each(weights, moments, scales, most=127, damping=1e-9)

        def mean_square(
            codes: Matrix, weights: Matrix = weights, scales: Matrix = scales, m: Matrix = moments
        ) -> Matrix:
            error = weights - codes * scales
            return np.einsum("ic,cij,jc->c", error, m, error)

        before, after = mean_square(nearest), mean_square(chosen)
        assert (after <= before * (1 + 1e-6) + 1e-12).all()
        gained.append(after.sum() / before.sum())
    assert np.mean(gained) < 0.8


def test_without_moments_it_is_rounding_to_the_nearest() -> None:
    weights, _ = layer(0, 12, 4)
    scales = rounding.largest(weights, most=127)
    assert np.array_equal(rounding.compensated(weights, np.eye(12), scales, most=127), np.rint(weights / scales))


def test_inputs_that_are_as_they_should_be_leave_the_aim_alone() -> None:
    weights, moments = layer(3, 10, 4)
    assert np.allclose(rounding.aimed(weights, moments, np.zeros((10, 10))), weights)
    each = np.repeat(moments[None], 4, axis=0)
    assert np.allclose(rounding.aimed_each(weights, each, np.zeros((4, 10, 10))), weights)


def test_inputs_that_came_out_too_small_are_made_good() -> None:
    weights, moments = layer(4, 10, 3)
    # What there will be is 0.8 of what there should be: E[q (x - q)'] = 0.25 E[q q'].
    aimed = rounding.aimed(weights, moments, 0.25 * moments, ridge=1e-9)
    assert np.allclose(aimed, 1.25 * weights, rtol=1e-4)


def test_a_layer_that_is_never_fed_anything_is_rounded_all_the_same() -> None:
    weights, _ = layer(5, 6, 2)
    nothing = np.zeros((6, 6))
    scales = rounding.largest(weights, most=127)
    assert np.isfinite(rounding.compensated(weights, nothing, scales, most=127)).all()
    assert np.isfinite(rounding.compensated_each(weights, np.zeros((2, 6, 6)), scales, most=127)).all()
    assert (rounding.largest(np.zeros((6, 2)), most=127) > 0).all()
