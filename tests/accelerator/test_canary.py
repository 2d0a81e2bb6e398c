"""The canary finds out what is wrong, and does not cry at what is merely rounded otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from edge_sdk.delegates.canary import Canary
from edge_sdk.front import Front
from edge_sdk.port import Port

pytestmark = [pytest.mark.accelerator, pytest.mark.device]


class Model(Front):
    """Computes a function of one input of four numbers."""

    def __init__(self, function: Any, like: np.ndarray) -> None:
        self._function = function
        self._face((port((1, 4), np.float32),), (port(like.shape, like.dtype),))

    def close(self) -> None:
        """There is nothing to free."""

    def compute(self, values: Sequence[Any]) -> list[Any]:
        return [self._function(values[0])]


def port(shape: tuple[int, ...], dtype: Any) -> Port:
    free = (False,) * len(shape)
    return Port(name="x", index=0, shape=shape, free=free, dtype=np.dtype(dtype), scale=None, zero=0)


def float16(answer: np.ndarray) -> np.ndarray:
    return answer.astype(np.float16).astype(np.float32)


def model(function: Any) -> Model:
    return Model(function, function(np.ones((1, 4), np.float32)))


def one(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x[:, :1] - 0.3))


def far_from_zero(x: np.ndarray) -> np.ndarray:
    return x + np.float32(1000)


def same_everywhere(x: np.ndarray) -> np.ndarray:
    return np.full_like(x, 0.1)


def masked(x: np.ndarray) -> np.ndarray:
    return np.where(np.arange(4) == 2, np.float32(-np.inf), x)


@pytest.mark.parametrize("function", [one, far_from_zero, same_everywhere, masked])
def test_16_bit_floats_are_right(function: Any) -> None:
    canary = Canary(model(function))
    assert canary.distance(model(lambda x: float16(function(x)))) <= 1


@pytest.mark.parametrize(
    ("function", "lie"),
    [
        (one, lambda x: one(x) / 2),
        (far_from_zero, lambda x: x + np.float32(900)),
        (same_everywhere, np.zeros_like),
        (masked, lambda x: masked(1 - x)),
        (masked, lambda x: x * np.float32(np.nan)),
    ],
)
def test_what_is_off_by_more_than_rounding_is_wrong(function: Any, lie: Any) -> None:
    assert not Canary(model(function)).distance(model(lie)) <= 1


def test_an_answer_that_a_rounding_turns_round_is_not_held_against_anybody() -> None:
    def boxes(x: np.ndarray) -> np.ndarray:  # the nearest first, and all are equally near
        order = np.argsort(x.astype(np.float64).sum() * 1e6 % 97 * np.arange(1, 9) % 1)
        return np.arange(8, dtype=np.float32)[order][np.newaxis]

    canary = Canary(model(boxes))
    assert canary.distance(model(lambda x: boxes(x + np.float32(1e-4)))) <= 1


def test_the_number_of_a_class_is_no_quantity() -> None:
    canary = Canary(model(lambda x: np.argmax(x, axis=1)))
    assert canary.distance(model(lambda x: (np.argmax(x, axis=1) + 1) % 4)) <= 1
