"""Who takes which samples, on a clock of the test's own: nothing is forgotten, and unequal replicas end together."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parallel_stage import Doubling, numbered

from edge_sdk.errors import DelegateError
from edge_sdk.parallel import Condition
from edge_sdk.parallel.dispatch import Dispatch
from edge_sdk.parallel.job import Job
from edge_sdk.parallel.replica import Replica

pytestmark = pytest.mark.device

LOOK_S = 0.05
GONE = DelegateError("gone")


@dataclass
class Player:
    """How one replica behaves.

    Attributes:
        sample_s: For one sample.
        fails: So many pieces of its first ones.
        hangs: Whether it never answers.
        hot: Whether it is, all the time.
    """

    sample_s: float
    fails: int = 0
    hangs: bool = False
    hot: bool = False


class Played:
    """A pool's threads as events on a clock: a replica is done, or wakes; a caller looks for silent ones."""

    def __init__(self, players: Sequence[Player]) -> None:
        self.players = players
        self.replicas = [Replica(str(number), Doubling(), None, 0.0) for number in range(len(players))]
        self.dispatch = Dispatch(self.replicas)
        self.now_s = 0.0
        self.events: list[tuple[float, int, str, int]] = []
        self.order = itertools.count()
        for replica, player in zip(self.replicas, players, strict=True):
            if player.hot:
                replica.told(Condition(temp_c=90.0, limit_c=80.0), 0.0)
            replica.is_parked = True

    def run(self, jobs: Sequence[Job], limit_s: float = 1e4) -> float:
        """Until all are over; when that is."""
        begun_s = self.now_s
        for job in jobs:
            self._wake(self.dispatch.add(job, self.now_s))
        self._at(self.now_s + LOOK_S, "look", 0)
        while not all(job.is_over for job in jobs):
            assert self.events, "nobody will ever do anything again"
            self.now_s, _, kind, number = heapq.heappop(self.events)
            assert self.now_s - begun_s < limit_s
            if kind == "look":
                for job in jobs:
                    if not job.is_over:
                        self._wake(self.dispatch.look_for_silent(job, self.now_s))
                self._at(self.now_s + LOOK_S, "look", 0)
            elif kind == "done":
                self._done(number)
                self._ask(number)
            elif self.replicas[number].piece is None:
                self._ask(number)
        for job in jobs:
            self.dispatch.drop(job)
        return self.now_s - begun_s

    def _at(self, when_s: float, kind: str, number: int) -> None:
        heapq.heappush(self.events, (when_s, next(self.order), kind, number))

    def _wake(self, replicas: Sequence[Replica]) -> None:
        for replica in replicas:
            self._at(self.now_s, "wake", self.replicas.index(replica))

    def _ask(self, number: int) -> None:
        replica, player = self.replicas[number], self.players[number]
        part, nap_s = self.dispatch.take(replica, self.now_s)
        replica.is_parked = part is None
        if part is not None:
            assert part.size >= 1
            if not player.hangs:
                self._at(self.now_s + part.size * player.sample_s, "done", number)
        elif nap_s is not None:
            assert nap_s > 0
            self._at(self.now_s + nap_s, "wake", number)

    def _done(self, number: int) -> None:
        replica, player = self.replicas[number], self.players[number]
        part = replica.piece
        assert part is not None
        if player.fails:
            player.fails -= 1
            self._wake(self.dispatch.failed(replica, part, GONE, self.now_s))
            return
        fresh = part.job.claim(part)
        answers = [array * 2 for array in part.arrays()]
        part.job.place(answers)
        part.job.write(part, fresh, answers)
        part.job.written(fresh)
        replica.answered(part.size, self.now_s)
        part.job.refused.discard(replica)


def batch_of(samples: int) -> Job:
    return Job([numbered(samples)], samples=samples, is_whole=False, most=samples)


speeds = st.sampled_from([1e-6, 1e-5, 0.001, 0.01, 0.3])
players = st.builds(
    Player,
    sample_s=speeds,
    fails=st.integers(0, 3),
    hangs=st.booleans(),
    hot=st.booleans(),
)


@given(
    first=st.builds(Player, sample_s=speeds, hot=st.booleans()),
    others=st.lists(players, max_size=4),
    sizes=st.lists(st.lists(st.integers(1, 80), min_size=1, max_size=3), min_size=1, max_size=3),
)
@settings(max_examples=120, deadline=None)
def test_while_one_replica_works_every_call_is_answered(
    first: Player, others: list[Player], sizes: list[list[int]]
) -> None:
    played = Played([first, *others])
    for calls in sizes:
        jobs = [batch_of(size) for size in calls]
        # The slowest alone would take so long; beside that, patience with those that fail or hang.
        limit_s = 2 * (sum(calls) + 50) * max(player.sample_s for player in played.players) + 20
        played.run(jobs, limit_s)
        for job, size in zip(jobs, calls, strict=True):
            assert job.error is None
            np.testing.assert_array_equal(job.outputs[0], numbered(size) * 2)


@given(
    unequal=st.lists(st.sampled_from([0.001, 0.002, 0.003, 0.007, 0.02]), min_size=1, max_size=4),
    samples=st.integers(20, 300),
)
@settings(max_examples=120, deadline=None)
def test_replicas_of_unequal_speed_end_within_a_few_samples_of_the_optimum(unequal: list[float], samples: int) -> None:
    played = Played([Player(speed) for speed in unequal])
    played.run([batch_of(20 * len(unequal))])  # now the rates are known
    for _ in range(50):  # what still computes is done
        played.run([batch_of(1)])
    took_s = played.run([batch_of(samples)])
    best_s = samples / sum(1 / speed for speed in unequal)
    assert took_s <= best_s + 2 * max(unequal)


def test_a_call_fails_only_when_every_replica_has_failed_it() -> None:
    played = Played([Player(0.001, fails=99), Player(0.001, fails=99)])
    job = batch_of(9)
    played.run([job])
    assert job.error is GONE
    played.players[1].fails = 0
    again = batch_of(9)
    played.run([again])
    assert again.error is None
