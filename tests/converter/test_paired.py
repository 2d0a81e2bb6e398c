"""Comparing two models on the same samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_converter.paired import accuracy, compare

ANSWERS = st.integers(min_value=-1, max_value=3)
ROWS = st.lists(st.tuples(ANSWERS, ANSWERS, st.integers(min_value=0, max_value=3)), min_size=1, max_size=200)


def columns(rows: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    found = np.array(rows, np.int64)
    return found[:, 0], found[:, 1], found[:, 2]


def test_a_published_table_comes_out() -> None:
    # Bonett and Price's interval for 43 against 97 discordant pairs of 1,000 samples, computed by hand:
    # p = 44/1002 and 98/1002, difference 0.05389, standard error sqrt((0.14172 - 0.0029044) / 1002) = 0.011770.
    labels = np.zeros(1000, np.int64)
    reference, variant = labels.copy(), labels.copy()
    reference[:43] = 1
    variant[43:140] = 1
    found = compare(reference, variant, labels)
    assert found.drop == pytest.approx(5.4)
    assert found.interval == pytest.approx(100 * 1.959964 * 0.011770, rel=1e-3)
    assert found.agreement == pytest.approx(86.0)


def test_two_wrong_answers_that_differ_cost_nothing_and_disagree() -> None:
    found = compare(np.array([1, 0]), np.array([2, 0]), np.array([0, 0]))
    assert (found.drop, found.agreement) == (0.0, 50.0)


def test_more_samples_make_it_surer() -> None:
    def interval(times: int) -> float:
        one = np.array([0, 0, 0, 0, 1] * times)
        other = np.array([0, 0, 0, 1, 0] * times)
        return compare(one, other, np.zeros(5 * times, np.int64)).interval

    assert interval(4) > interval(40) > interval(400)


@given(ROWS)
def test_the_drop_is_the_difference_of_accuracies(rows: list[tuple[int, int, int]]) -> None:
    reference, variant, labels = columns(rows)
    found = compare(reference, variant, labels)
    assert math.isclose(found.drop, accuracy(reference, labels) - accuracy(variant, labels), abs_tol=1e-9)
    assert 0 < found.interval < 200
    assert 0 <= found.agreement <= 100


@given(ROWS)
def test_the_other_way_round_only_the_sign_changes(rows: list[tuple[int, int, int]]) -> None:
    reference, variant, labels = columns(rows)
    one, other = compare(reference, variant, labels), compare(variant, reference, labels)
    assert math.isclose(one.drop, -other.drop, abs_tol=1e-9)
    assert math.isclose(one.interval, other.interval, rel_tol=1e-9)
    assert one.agreement == other.agreement
