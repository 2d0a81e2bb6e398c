"""Trials of variants happen where they harm nobody, and seldom."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from typing import Any

import pytest

from edge_daemon.errors import BusyError
from edge_daemon.policy.types import Tried, Try
from edge_daemon.probing import EVERY_S, IDLE_S, PATIENCE_S, SAME_S, Prober
from edge_sdk.manifest import Latency, Origin

pytestmark = pytest.mark.device


class Stage:
    """A clock that is set, a measurer that answers at once, and tasks that run when they are begun."""

    def __init__(self, *, busy: bool = False) -> None:
        self.now_s = 1000.0
        self.busy = busy
        self.measured: list[str] = []
        self.told: list[Tried] = []
        self.prober = Prober(self, self.tried, self, self.begin)

    def monotonic(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return 1e9

    async def trial(self, model: str, variant: str) -> tuple[Latency, ...]:
        if self.busy:
            raise BusyError("another measurement is running", where=model)
        self.measured.append(variant)
        return (Latency(variant=variant, origin=Origin.MEASURED, machine="here", median_ms=12.0, samples=10),)

    async def tried(self, tried: Tried) -> None:
        self.told.append(tried)

    def begin(self, _name: str, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run(work)

    def wants(self, variant: str) -> None:
        self.prober.wanted(Try(model="digits", variant=variant))

    def second(self, passed_s: float = 1.0, *, calm: bool = True, load_pct: float | None = None) -> list[str]:
        self.now_s += passed_s
        self.prober.look(calm=calm, load_pct=load_pct)
        return self.measured


def test_a_trial_waits_until_nobody_calls_and_the_policy_hears_of_it() -> None:
    stage = Stage()
    stage.wants("a")
    for _ in range(5):
        stage.prober.called()
        assert stage.second() == []
    assert stage.second(IDLE_S) == ["a"]
    assert stage.told == [Tried(model="digits", variant="a", latency_ms=12.0)]


def test_a_processor_that_is_half_idle_has_room_for_one_beside_the_calls() -> None:
    stage = Stage()
    stage.wants("a")
    stage.prober.called()
    assert stage.second(load_pct=80.0) == []
    assert stage.second(0.5, load_pct=20.0) == ["a"]


def test_there_is_none_in_heat_and_the_wish_is_forgotten_after_a_while() -> None:
    stage = Stage()
    stage.wants("a")
    for _ in range(int(PATIENCE_S) + 2):
        assert stage.second(calm=False) == []
    assert stage.second(10.0) == []


def test_there_is_one_a_minute_at_most_and_the_same_not_again_for_longer() -> None:
    stage = Stage()
    seen: list[tuple[float, str]] = []
    for second in range(int(SAME_S) + 100):
        stage.wants("ab"[second % 2])
        before = len(stage.measured)
        if len(stage.second()) > before:
            seen.append((stage.now_s, stage.measured[-1]))
    assert sorted(stage.measured) == ["a", "a", "b", "b"]
    assert all(later - earlier >= EVERY_S for (earlier, _), (later, _) in itertools.pairwise(seen))
    for name in "ab":
        first, again = (at_s for at_s, which in seen if which == name)
        assert again - first >= SAME_S


def test_one_that_cannot_be_made_now_is_no_answer_and_leaves_room_for_the_next() -> None:
    stage = Stage(busy=True)
    stage.wants("a")
    assert stage.second(IDLE_S) == []
    assert stage.told == []
    stage.busy = False
    stage.now_s += EVERY_S
    stage.wants("b")
    assert stage.second(IDLE_S) == ["b"]
