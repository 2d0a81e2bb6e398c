"""A remote engine with a local one behind it: who waits too long for the network is answered here.

The remote is asked first. If it has not answered by the deadline minus the time the local engine takes, the local one
computes, and what the remote says later is dropped. If the remote fails, the local one computes at once.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edge_sdk.errors import InputShapeError, UsageError
from edge_sdk.living import Living
from edge_sdk.remote.calls import Calls, lost
from edge_sdk.remote.described import check_samples
from edge_sdk.remote.errands import Counts, Errands, HedgeCounts, Run

if TYPE_CHECKING:
    from typing_extensions import Self

    from edge_sdk.anyengine import AnyEngine
    from edge_sdk.manifest import TensorSpec
    from edge_sdk.remote.engine import RemoteEngine

_WARM = 3  # runs of the local engine at the start, so that its time is known
_MOST_OUTSTANDING = 64
_LONGEST_DEADLINE_S = 3600.0
_LONGEST_LOCAL_S = 60.0  # that `close` waits for a local run


class Hedged:
    """Two engines of one model as one; safe for any number of threads.

    Args:
        remote: Asked first. Its own deadline must be bounded, since nobody takes a call back from it.
        local: Takes and gives the same.
        deadline_s: By when a call shall be answered. Where the local engine alone takes longer than that, the remote
            has all of it, and the local one answers only after that, late.
        outstanding: Remote calls that may be under way at once, those nobody waits for any more included: a remote that
            stalls costs this many calls their wait, and the others nothing.

    Closes both engines. Raises:
        UsageError: An argument makes no sense.
        InputShapeError: The two do not take or give the same.
    """

    def __init__(self, remote: AnyEngine, local: AnyEngine, *, deadline_s: float, outstanding: int = 4) -> None:
        if not 0 < deadline_s <= _LONGEST_DEADLINE_S:  # NaN fails as well
            raise UsageError(f"deadline_s is {deadline_s!r}", hint="give seconds, more than 0 and at most an hour")
        if not 1 <= outstanding <= _MOST_OUTSTANDING:
            raise UsageError(f"outstanding is {outstanding!r}", hint=f"give a number from 1 to {_MOST_OUTSTANDING}")
        check_same(remote, local)
        self._local, self._deadline_s = local, deadline_s
        self._remote = remote
        self._calls = Calls()
        self._tally = Counts()
        self._errands = Errands(remote.run, self._tally, most=outstanding)
        zeros = [np.zeros([max(1, size) for size in each.shape], each.dtype) for each in local.inputs]
        for _ in range(_WARM):
            self._run_locally(zeros)
        self._forgotten = weakref.finalize(self, self._errands.end)
        _LIVE.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What `run` takes, in this order."""
        return self._local.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What `run` gives, in this order."""
        return self._local.outputs

    @property
    def counts(self) -> HedgeCounts:
        """What became of the calls so far."""
        return self._tally.counts()

    def run(self, arrays: Sequence[Any]) -> list[Any]:
        """One answer per output, of whichever engine; fresh arrays that belong to the caller.

        Raises:
            InputError: An array the model does not take.
            ModelClosedError: After `close`.
            DelegateError: Neither engine could; the local one's error.
        """
        with self._calls:
            return self._run(arrays)

    def close(self) -> None:
        """Wait for calls under way, then close both engines. May be repeated."""
        self._calls.end(self._deadline_s + _LONGEST_LOCAL_S)
        self._forgotten()
        self._errands.join()
        self._remote.close()
        self._local.close()
        _LIVE.discard(self)

    def _run(self, arrays: Sequence[Any]) -> list[Any]:
        self._tally.add("calls")
        local_s = self._tally.local_s()
        patience_s = self._deadline_s - (local_s if local_s < self._deadline_s else 0.0)
        _, answer = self._errands.ask(arrays, patience_s)
        if answer is not None:
            return answer
        answer = self._run_locally(arrays)
        self._tally.add("local")
        return answer

    def _run_locally(self, arrays: Sequence[Any]) -> list[Any]:
        begun_s = time.perf_counter()
        answer = self._local.run(arrays)
        self._tally.local_took(time.perf_counter() - begun_s)
        return answer

    def _lose(self) -> None:
        """In the child of a fork: the threads stayed in the parent."""
        self._calls = lost()
        self._forgotten.detach()


_LIVE: Living[Hedged] = Living(Hedged._lose)  # noqa: SLF001 - this module's own


class Faced(Protocol):
    """What takes and gives tensors."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What it takes, in this order."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What it gives, in this order."""


def check_same(remote: Faced, local: Faced) -> None:
    """The dtypes and the shapes of a sample agree; names may differ, since arrays go by position.

    Raises:
        InputShapeError: They do not.
    """
    for what, far, near in (("inputs", remote.inputs, local.inputs), ("outputs", remote.outputs, local.outputs)):
        told = [[(each.dtype, len(each.shape), *each.shape[1:]) for each in specs] for specs in (far, near)]
        names = [[each.name for each in specs] for specs in (far, near)]
        # Names may differ; the same ones in another order would mix up what looks alike.
        if told[0] != told[1] or (names[0] != names[1] and sorted(names[0]) == sorted(names[1])):
            raise InputShapeError(
                f"the {what} of the remote engine are {_shown(far)}, of the local one {_shown(near)}",
                hint="serve the same model, or another variant of it",
            )


def _shown(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{each.name!r} {each.dtype} {list(each.shape)}" for each in specs)


def matching(remote: RemoteEngine, local: Faced) -> Run:
    """A call of the remote whose answer is refused where it holds more or fewer samples than were asked about.

    What is free in an engine's description may be anything. That two engines stand in for each other, and the one here
    gives a sample for a sample, says more.

    Args:
        remote: The engine; the call raises also `RemoteAnswerError`.
        local: What stands in for it.
    """
    faces = (*local.inputs, *local.outputs)
    is_by_sample = all(each.shape[:1] == faces[0].shape[:1] for each in faces) and bool(faces[0].shape)
    dimensions = len(remote.inputs[0].shape)

    def run(arrays: Sequence[Any]) -> list[Any]:
        answer = remote.run(arrays)
        shape = np.shape(arrays[0])
        if is_by_sample and len(shape) == dimensions:
            check_samples(answer, shape[0], where=remote.where)
        return answer

    return run
