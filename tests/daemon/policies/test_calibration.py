"""What a latency is laid to: the variant's own factor, the moment, or chance."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from edge_daemon.policies import calibration
from edge_daemon.policies.calibration import Calibration
from edge_daemon.policies.tuning import Tuning

pytestmark = pytest.mark.device

TUNING = Tuning()
SPIKE = 0.7  # log of a latency that is twice as long
NOISE = 0.04


def learned(
    known: Calibration, took: Sequence[float], bias: float, seen: int, others: int
) -> tuple[Calibration, float]:
    known, bias, _ = calibration.learn(TUNING, known, took, bias, seen, others)
    return known, bias


def usual(log: float, count: int) -> list[float]:
    """So many latencies around one, without chance."""
    return [log + NOISE * (-1) ** index for index in range(count)]


def calm() -> Calibration:
    """After a hundred inferences of a variant that keeps its promise."""
    known, bias = learned(calibration.first(TUNING), usual(0.0, 100), 0.0, 0, 0)
    assert abs(known.slow + bias) < 0.05
    return known


@pytest.mark.parametrize("first", [[SPIKE, 0.0], [0.0, SPIKE], [SPIKE, SPIKE]])
def test_a_spike_among_the_first_of_a_variant_is_not_believed_for_good(first: list[float]) -> None:
    known, bias, seen = calm(), 0.0, 0
    for took in (first, usual(0.0, 4), usual(0.0, 6)):
        known, bias = learned(known, took, bias, seen, 100)
        seen += len(took)
    assert abs(bias) < 0.2
    assert abs(known.slow) < 0.1


def test_contention_that_ends_is_no_news_of_a_variant_that_was_seldom_seen() -> None:
    known = calm()
    known, _ = learned(known, usual(0.8, 20), 0.0, 100, 0)  # all is slow
    assert known.slow == pytest.approx(0.8, abs=0.1)
    known, bias = learned(known, usual(0.8, 6), 0.0, 0, 120)  # another variant, meanwhile
    known, bias = learned(known, usual(0.0, 6), bias, 6, 120)
    assert abs(known.slow) < 0.1
    assert abs(bias) < 0.1


def test_of_a_variant_that_is_known_well_the_board_is_faster_than_ever() -> None:
    known, bias = learned(calm(), usual(0.0, 60), 0.0, 0, 100)
    known, bias = learned(known, usual(-0.5, 10), bias, 60, 100)
    assert known.slow == pytest.approx(-0.5, abs=0.1)
    assert known.calm <= known.slow + NOISE
    assert abs(bias) < 0.1
