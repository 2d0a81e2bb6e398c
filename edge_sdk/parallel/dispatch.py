"""Which replica takes which samples next. No clock, no thread and no lock: the pool brings them.

Calls take turns, a piece at a time, so that a long one starves no other. Every replica asks for work when it is free
and may be told to leave it to others: because they would be done sooner, or because it is hot or failed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from edge_sdk.errors import DelegateError, EdgeError
from edge_sdk.parallel.job import Job, Piece
from edge_sdk.parallel.replica import READY, Replica
from edge_sdk.parallel.sharing import Lane, finish_s, piece

ASK_S = 0.2  # a watch is asked no more often than this
_SHORTEST_NAP_S = 1e-3


class Dispatch:
    """The calls under way and the replicas that answer them.

    Args:
        replicas: At least one.
    """

    def __init__(self, replicas: Sequence[Replica]) -> None:
        self.replicas = tuple(replicas)
        self._open: deque[Job] = deque()  # calls of which samples are left

    @property
    def waiting(self) -> int:
        """Samples that no replica has taken."""
        return sum(job.left for job in self._open)

    def add(self, job: Job, now_s: float) -> list[Replica]:
        """A call came; which of the replicas that sleep should ask for work."""
        self._open.append(job)
        asleep = [each for each in self.replicas if each.is_parked]
        ready = [each for each in asleep if each.badness(now_s) == READY]
        ready.sort(key=lambda each: each.sample_s or 0.0)
        return _woken(ready[: job.samples] + [each for each in asleep if each not in ready])

    def drop(self, job: Job) -> None:
        """Nobody waits for the rest of it."""
        if job in self._open:
            self._open.remove(job)

    def take(self, replica: Replica, now_s: float) -> tuple[Piece | None, float | None]:
        """What a free replica computes next; or None and for how long it may sleep, unless it is woken.

        Without a time it may sleep until a call comes.
        """
        nap_s: float | None = None
        ahead = 0
        for job in self._open:
            if not job.left:
                continue  # a silent replica answered after all
            wait_s = self._wait_s(replica, job, ahead, now_s)
            if wait_s is None:
                return self._give(replica, job, now_s), None
            nap_s = wait_s if nap_s is None else min(nap_s, wait_s)
            ahead += job.left
        return None, nap_s

    def failed(self, replica: Replica, part: Piece, error: BaseException, now_s: float) -> list[Replica]:
        """A replica failed a piece: others take it, or the call fails with the last one's error.

        Returns:
            Who should ask for work.
        """
        replica.failed(error, now_s)
        job = part.job
        job.refused.add(replica)
        if len(job.refused) == len(self.replicas):
            self.fail(job, _ours(error))
        return self.give_back(part)

    def fail(self, job: Job, error: BaseException) -> None:
        """A call ends with this error."""
        job.fail(error)
        self.drop(job)

    def give_back(self, part: Piece) -> list[Replica]:
        """A piece is for anybody again; returns who should ask for it."""
        job = part.job
        if job.is_over or not job.give_back(part):
            return []
        if job not in self._open:
            self._open.appendleft(job)
        return _woken([each for each in self.replicas if each.is_parked])

    def look_for_silent(self, job: Job, now_s: float) -> list[Replica]:
        """What silent replicas hold of a call is given to others, too; returns who should ask for it."""
        woken: list[Replica] = []
        for replica in self.replicas:
            part = replica.piece
            if part is not None and part.job is job and not replica.is_late and replica.is_silent(now_s):
                replica.is_late = True
                if len(self.replicas) > 1:
                    woken += self.give_back(part)
        return woken

    def _wait_s(self, replica: Replica, job: Job, ahead: int, now_s: float) -> float | None:
        """None where the replica should take a piece of this call, else when to ask again."""
        bad = replica.badness(now_s)
        others = [each for each in self.replicas if each is not replica and not each.is_away(now_s)]
        if bad != READY:
            rivals = [each.badness(now_s) for each in others if each not in job.refused]
            if replica in job.refused or any(rival < bad for rival in rivals):
                return max(_SHORTEST_NAP_S, replica.rests_s(now_s) or ASK_S)
            return None
        if replica.sample_s is None:
            return None
        lanes = _lanes(others, now_s)
        if not lanes:
            return None
        # By one sample, not by a piece: the fastest never leaves it to others, so somebody always takes it.
        others_s = finish_s(ahead + job.left, lanes)
        return max(_SHORTEST_NAP_S, others_s) if replica.sample_s > others_s else None

    def _give(self, replica: Replica, job: Job, now_s: float) -> Piece:
        part = job.take(self._size(replica, job, now_s))
        self._open.remove(job)
        if job.left:
            self._open.append(job)  # the others' turn
        replica.begin(part, now_s)
        return part

    def _size(self, replica: Replica, job: Job, now_s: float) -> int:
        if replica.is_unsure(now_s) or replica.sample_s is None:
            return 1
        if job.most < job.samples:
            return job.most
        others = [each for each in self.replicas if each is not replica and not each.is_away(now_s)]
        lanes = [
            Lane(free_in_s=0.0, sample_s=each.sample_s or replica.sample_s)
            for each in others
            if each.badness(now_s) == READY
        ]
        return piece(job.left, replica.sample_s, lanes)


def _ours(error: BaseException) -> EdgeError:
    """What a caller is told who catches our errors alone."""
    if isinstance(error, EdgeError):
        return error
    ours = DelegateError(f"every replica failed, the last with {type(error).__name__}: {error!s:.300}")
    ours.__cause__ = error
    return ours


def _woken(replicas: list[Replica]) -> list[Replica]:
    """They are as good as awake: the next call wakes others."""
    for replica in replicas:
        replica.is_parked = False
    return replicas


def _lanes(replicas: Sequence[Replica], now_s: float) -> list[Lane]:
    """Those whose speed is known and that may take work."""
    return [
        Lane(free_in_s=each.free_in_s(now_s), sample_s=each.sample_s)
        for each in replicas
        if each.sample_s is not None and each.badness(now_s) == READY
    ]
