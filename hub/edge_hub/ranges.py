"""Numbers to inclusive ranges: what an acknowledgement carries, and what is kept of numbers for ever."""

from __future__ import annotations

from collections.abc import Iterable


def to_ranges(numbers: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """The numbers as ascending inclusive ranges that neither overlap nor touch."""
    found: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return tuple(found)


def join_ranges(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same numbers as ascending ranges that neither overlap nor touch."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found


def close_oldest(ranges: list[tuple[int, int]], most: int) -> list[tuple[int, int]]:
    """Of ascending ranges that neither overlap nor touch, at most so many: the lowest become one, with their gaps."""
    surplus = len(ranges) - most
    return ranges if surplus <= 0 else [(ranges[0][0], ranges[surplus][1]), *ranges[surplus + 1 :]]
