"""What is to be timed: variants, on what computes them, with how many threads; and what cannot be, with the reason."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_sdk.bundle import Bundle
from edge_sdk.delegates.contract import CPU, EXTERNAL, DelegateRequest
from edge_sdk.delegates.delegation import Delegation
from edge_sdk.delegates.registry import find
from edge_sdk.errors import UsageError
from edge_sdk.machine import cpu_features
from edge_sdk.manifest import Delegate, Variant
from edge_sdk.runtime import Unavailable


class Way(enum.Enum):
    """How a variant is run."""

    PLAIN = "plain"  # on the CPU, in this process, as an app runs it
    RAW = "raw"  # by the runtime's own interpreter, without this product
    DELEGATE = "delegate"  # on an accelerator, in a process of its own
    ISOLATED = "isolated"  # on the CPU, in a process of its own: what the way there and back costs


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing to time.

    Attributes:
        path: The file.
        computes: Who computes, by the name that evidence has for it.
        twin: The file whose answers on the CPU are right, for a delegate.
    """

    variant: Variant
    path: Path
    way: Way
    threads: int
    computes: str = CPU
    delegation: Delegation | None = None
    twin: Path | None = None

    @property
    def name(self) -> str:
        """Tells it from all others of one run."""
        return f"{self.variant.id} {self.way.value} {self.computes} {self.threads}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A variant that was not timed on something.

    Attributes:
        delegate: On what.
        hint: What mends it.
    """

    id: str
    delegate: str
    reason: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is asked of a run.

    Attributes:
        requests: Delegates to time variants on.
        counts: Numbers of threads for the CPU; on delegates the first is taken.
        raw: Time the bare interpreter as well.
    """

    requests: Sequence[DelegateRequest] = ()
    counts: Sequence[int] = (1,)
    raw: bool = True


def planned(bundle: Bundle, variants: Iterable[Variant], wanted: Wanted) -> Iterator[Case | Left]:
    """What is to be timed of these variants, and what cannot be here.

    A variant for the CPU is timed there with each number of threads, and on each delegate that is asked for. One for an
    accelerator is timed on that alone, where it is found. Nothing is loaded yet.

    Raises:
        UsageError: A request makes no sense, or two have the same name in evidence.
    """
    for name, count in Counter(map(_named, wanted.requests)).items():
        if count > 1:
            raise UsageError(f"{name!r} is asked for {count} times", hint="run it once for each device and options")
    found = [_Looked(request=request, outcome=find(request)) for request in wanted.requests]
    for variant in variants:
        path, own = bundle.blob(variant), variant.target.delegate
        if own is Delegate.CPU:
            yield from _on_cpu(variant, path, wanted, isolated=any(each.is_there for each in found))
            yield from (_on_delegate(variant, path, path, each, wanted.counts[0]) for each in found)
            continue
        fallback = variant.target.fallback
        twin = bundle.blob(bundle.variant(fallback)) if fallback else path
        plain = DelegateRequest(name=own.value)
        asked = [each for each in found if each.request.name == own.value]
        for each in asked or [_Looked(request=plain, outcome=find(plain))]:
            yield _on_delegate(variant, path, twin, each, wanted.counts[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Looked:
    """A delegate that was looked for."""

    request: DelegateRequest
    outcome: Delegation | Unavailable

    @property
    def is_there(self) -> bool:
        return isinstance(self.outcome, Delegation)


def _on_cpu(variant: Variant, path: Path, wanted: Wanted, *, isolated: bool) -> Iterator[Case | Left]:
    features = cpu_features()
    lacking = set(variant.target.isa) - features if features is not None else set()
    if lacking:
        reason = f"needs {', '.join(sorted(lacking))}, which this CPU does not have"
        yield Left(id=variant.id, delegate=CPU, reason=reason)
        return
    # What is compared with each other takes its turn one after the other.
    ways = ((Way.PLAIN, True), (Way.RAW, wanted.raw), (Way.ISOLATED, isolated))
    yield from (Case(variant=variant, path=path, way=way, threads=wanted.counts[0]) for way, is_on in ways if is_on)
    yield from (Case(variant=variant, path=path, way=Way.PLAIN, threads=threads) for threads in wanted.counts[1:])


def _on_delegate(variant: Variant, path: Path, twin: Path, looked: _Looked, threads: int) -> Case | Left:
    computes, outcome = _named(looked.request), looked.outcome
    if isinstance(outcome, Unavailable):
        return Left(id=variant.id, delegate=computes, reason=outcome.reason, hint=outcome.hint)
    return Case(
        variant=variant,
        path=path,
        way=Way.DELEGATE,
        threads=threads,
        computes=computes,
        delegation=outcome,
        twin=twin,
    )


def _named(request: DelegateRequest) -> str:
    """A name that evidence takes: the backend's, or the file's of a library of one's own."""
    if request.name != EXTERNAL:
        return request.name
    name = "".join(char if char.isascii() and (char.isalnum() or char in "._-") else "-" for char in _file(request))
    return name.lstrip("._-")[:64] or EXTERNAL


def _file(request: DelegateRequest) -> str:
    return Path(request.library).name
