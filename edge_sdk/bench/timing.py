"""Times cases in turns, together where memory holds them all.

Every variant is loaded once in a child process first, which tells its load time and memory and is all that ends if it
crashes the runtime.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edge_sdk import energy, footprint, rounds
from edge_sdk.bench.cases import Case, Left, Way
from edge_sdk.bench.loading import LOAD_DEADLINE_S, Loaded, Sturdy, load
from edge_sdk.errors import DelegateError
from edge_sdk.footprint import Footprint
from edge_sdk.rounds import Plan
from edge_sdk.runtime import Unavailable

_MOST_ROUNDS = 200
_SLOWEST = 8  # times --seconds: where a model that takes seconds an inference stops
# Of what the system calls available; the rest is for what else the device does.
_MEMORY_SHARE = 0.6
_WORKER_BYTES = 75 * 10**6  # a process with a runtime in it: 50 to 75 MB (measured, x86-64)
_FEWEST_FOR_P99 = 100
_LONGEST_IDLE_S, _LONGEST_BUSY_S = 1.0, 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """One case after its turns."""

    case: Case
    times_ms: Sequence[float]
    runtime: str
    load_ms: float | None
    first_ms: float | None
    memory_bytes: int | None
    energy: energy.Energy | None

    @property
    def median_ms(self) -> float:
        """Of all inferences timed."""
        return round(float(np.median(self.times_ms)), 4)

    @property
    def quickest_ms(self) -> list[float]:
        """Of each turn, in their order: what comparisons rest on, because it is the least disturbed by other work."""
        turn = Plan().turn
        return [min(self.times_ms[at : at + turn]) for at in range(0, len(self.times_ms), turn)]

    @property
    def p95_ms(self) -> float:
        """19 of 20 were below."""
        return round(float(np.percentile(self.times_ms, 95)), 4)

    @property
    def p99_ms(self) -> float | None:
        """99 of 100 were below; None where there are no hundred."""
        enough = len(self.times_ms) >= _FEWEST_FOR_P99
        return round(float(np.percentile(self.times_ms, 99)), 4) if enough else None


def footprints(
    cases: Sequence[Case], threads: int, told: Callable[[str], None]
) -> tuple[dict[str, Footprint], list[Left]]:
    """What each variant that the CPU is to run costs, and those it cannot run."""
    plain = {case.variant.id: case for case in cases if case.way is Way.PLAIN}
    known: dict[str, Footprint] = {}
    left: list[Left] = []
    for number, (id_, case) in enumerate(plain.items(), 1):
        told(f"loading {id_} ({number} of {len(plain)})")
        try:
            known[id_] = footprint.of(case.path, threads=threads, deadline_s=LOAD_DEADLINE_S)
        except DelegateError as error:
            left.append(Left(id=id_, delegate=case.computes, reason=error.what, hint=error.hint))
    return known, left


def groups_of(
    cases: Sequence[Case], known: Mapping[str, Footprint], available: int | None
) -> Iterator[tuple[Case, ...]]:
    """As many cases at once as memory holds, a variant's all together; one alone is tried however large it is."""
    of_variant: dict[str, list[Case]] = {}
    for case in cases:
        of_variant.setdefault(case.variant.id, []).append(case)
    room = None if available is None else int(available * _MEMORY_SHARE)
    group: list[Case] = []
    taken = 0
    for id_, mine in of_variant.items():
        each = (known[id_].memory_bytes if id_ in known else None) or mine[0].variant.size_bytes
        needs = sum(each + (_WORKER_BYTES if one.way in {Way.DELEGATE, Way.ISOLATED} else 0) for one in mine)
        if group and room is not None and taken + needs > room:
            yield tuple(group)
            group, taken = [], 0
        group += mine
        taken += needs
    if group:
        yield tuple(group)


def turns(
    group: Sequence[Case], known: Mapping[str, Footprint], seconds: float, meter: energy.Meter | Unavailable
) -> tuple[list[Timed], list[Left]]:
    """Load all of a group, time it in turns, and let go of it; and what failed meanwhile."""
    plan = Plan(rounds=_MOST_ROUNDS, enough_s=seconds, longest_s=_SLOWEST * seconds)
    left: list[Left] = []
    timed: list[Timed] = []
    with contextlib.ExitStack() as stack:
        loaded: dict[str, tuple[Case, Loaded]] = {}
        for case in group:
            try:
                one = load(case)
            except DelegateError as error:
                left.append(Left(id=case.variant.id, delegate=case.computes, reason=error.what, hint=error.hint))
                continue
            stack.callback(one.close)
            loaded[case.name] = case, one
        times = rounds.timed_ms(
            {name: one.engine for name, (_, one) in loaded.items()},
            {name: one.sample for name, (_, one) in loaded.items()},
            plan,
        )
        for name, (case, one) in loaded.items():
            spent = None
            if case.way in {Way.PLAIN, Way.DELEGATE} and not isinstance(meter, Unavailable):
                spent = _spent(meter, one, seconds)
            if isinstance(one.engine, Sturdy) and one.engine.reason:
                left.append(Left(id=case.variant.id, delegate=case.computes, reason=one.engine.reason))
                continue
            cost = known.get(case.variant.id) if case.way is Way.PLAIN else None
            timed.append(
                Timed(
                    case=case,
                    times_ms=times[name],
                    runtime=one.runtime,
                    load_ms=cost.load_ms if cost else one.load_ms,
                    first_ms=cost.first_ms if cost else one.first_ms,
                    memory_bytes=cost.memory_bytes if cost else one.memory_bytes,
                    energy=spent,
                )
            )
    return timed, left


def _spent(meter: energy.Meter, one: Loaded, seconds: float) -> energy.Energy | None:
    found = energy.measure(
        meter,
        lambda: one.engine.run(one.sample),
        idle_s=min(_LONGEST_IDLE_S, seconds),
        busy_s=min(_LONGEST_BUSY_S, seconds),
    )
    return None if isinstance(found, Unavailable) else found
