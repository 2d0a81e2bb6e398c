"""Two things that each decision does many times, in the way that takes Python the least."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def clamped(value: float, least: float, most: float) -> float:
    """The value, or the bound that it is beyond: `min(max(value, least), most)` in a fifth of the time."""
    return least if value < least else most if value > most else value


def put(values: tuple[T, ...], at: int, value: T) -> tuple[T, ...]:
    """The values with one of them changed."""
    changed = [*values]
    changed[at] = value
    return tuple(changed)
