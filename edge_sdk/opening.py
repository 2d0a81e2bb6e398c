"""A model opened on whatever is to compute it: the CPU in this process, or an accelerator with the CPU behind it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_sdk.anyengine import AnyEngine
from edge_sdk.bundle import Bundle
from edge_sdk.delegates import findings as kept
from edge_sdk.delegates.attach import with_delegate
from edge_sdk.delegates.contract import AUTO, CPU, DelegateRequest, Delegates, asked, requests_for
from edge_sdk.delegates.delegation import Delegation
from edge_sdk.delegates.findings import Finding, Findings
from edge_sdk.delegates.gpu import ON_ONNX
from edge_sdk.delegates.probe import finding_of, key, probe
from edge_sdk.delegates.registry import find
from edge_sdk.engine import Engine
from edge_sdk.errors import DelegateError, DelegateUnavailableError, ModelClosedError, ModelLoadError
from edge_sdk.fitness import too_new
from edge_sdk.guard import CANARY_S, QUARANTINE_S, DelegateEvent, GuardedEngine, Happening, tell
from edge_sdk.isolation import IsolatedEngine
from edge_sdk.isolation.engine import LOAD_DEADLINE_S
from edge_sdk.runtime import ONNX_RUNTIME, Runtime, Unavailable, choose

_AGAIN = "'edge doctor --again' tries it anew"


def open_engine(
    model: str | os.PathLike[str],
    *,
    delegate: Delegates = CPU,
    twin: str | os.PathLike[str] | None = None,
    threads: int = 1,
    runtime: Runtime | None = None,
    isolated: bool = True,
    stored: bool = False,
    deadline_s: float = LOAD_DEADLINE_S,
    observe: Callable[[float], None] | None = None,
    report: Callable[[DelegateEvent], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    findings: Findings | None = None,
    canary_s: float = CANARY_S,
    quarantine_s: float = QUARANTINE_S,
) -> Engine | GuardedEngine:
    """A loaded and warmed engine.

    Args:
        model: A file.
        delegate: Who computes: `cpu`, `edgetpu`, `edgetpu:usb:0`, `gpu`, the path of an external delegate's library; or
            several, the first that works computes, and the CPU stands behind the last.
        twin: The file that the CPU runs where the accelerator cannot; None takes `model`. A file compiled for an
            accelerator needs one.
        threads: Of the interpreter, for what the CPU computes.
        runtime: For the CPU in this process.
        isolated: The accelerator computes in a worker process, whose crash costs one call a little time. Without it, a
            call is faster by the way there and back, and a crash of the library ends the app; so the library is tried
            in a process of its own before it is loaded into this one.
        stored: As of `Engine`: for a segment of a pipeline.
        deadline_s: For the accelerator to load and answer for the first time.
        observe: Told the milliseconds of every call.
        report: Told when the accelerator falls out and comes back; by default that is logged.
        cancelled: Asked while an accelerator loads: True ends it with `ModelClosedError`.
        findings: Where it is noted what works here; None takes the user's own.
        canary_s: See `GuardedEngine`.
        quarantine_s: See `GuardedEngine`.

    Raises:
        ModelLoadError: The CPU cannot run the model, or its twin.
        UsageError: There is no such delegate, or `threads` is no positive whole number.
        RuntimeUnavailableError: No runtime is installed.
    """
    requests = [each for each in asked(delegate) if each.name != CPU]
    if not requests:
        return Engine(model, threads=threads, runtime=runtime, observe=observe, stored=stored)
    for each in requests:
        find(each)  # what makes no sense is told before anything is loaded
    right = Engine(twin or model, threads=threads, runtime=runtime, stored=stored)
    if right.keeps_state:
        # Its answers hang together; with two that answer in turn, and a canary between, neither would be right.
        reason = "the model keeps state from call to call"
        (report or tell)(DelegateEvent(happening=Happening.FELL_BACK, delegate=str(requests[0]), reason=reason))
        right.observe = observe
        return right
    engine: GuardedEngine | None = None
    try:
        for request in reversed(requests):
            opener = _Opener(
                request=request,
                model=os.fspath(model),
                twin=os.fspath(twin or model),
                threads=threads,
                isolated=isolated,
                deadline_s=deadline_s,
                findings=findings or kept.usual(),
                cancelled=cancelled,
                stored=stored,
            )
            engine = GuardedEngine(
                opener.open,
                right,
                delegate=opener.shown,
                behind=engine,
                observe=observe if request is requests[0] else None,
                report=report,
                canary_s=canary_s,
                quarantine_s=quarantine_s,
                verdict=opener.judge,
            )
            opener.cancelled = engine.is_closing
    except BaseException:
        (engine or right).close()
        raise
    return engine or right


def open_variant(
    bundle: Bundle,
    id_: str,
    *,
    delegate: Delegates = AUTO,
    threads: int = 1,
    runtime: Runtime | None = None,
    observe: Callable[[float], None] | None = None,
    report: Callable[[DelegateEvent], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Engine | GuardedEngine:
    """A variant of a bundle, on what it was made for, with its twin for the CPU behind it.

    Args:
        bundle: Where it is.
        id_: Its id.
        delegate: `auto` takes what the variant was made for. `cpu` refuses variants for accelerators. Others are
            loaded for variants of their kind, and for those that were made for no accelerator.
        threads: As of `open_engine`.
        runtime: As of `open_engine`.
        observe: As of `open_engine`.
        report: As of `open_engine`.
        cancelled: As of `open_engine`.

    Raises:
        UnknownVariantError: The bundle has no such variant.
        DelegateUnavailableError: It is for an accelerator, and another delegate was asked for.
        ModelLoadError: The runtime does not know its operators, or its twin cannot be run here.
    """
    variant = bundle.variant(id_)
    made_for = variant.target.delegate.value
    reason = None if variant.target.runtime == ONNX_RUNTIME else too_new(variant, runtime or choose())
    if reason is not None:  # whoever chose it: the runtime would only find out in the middle of the file
        raise ModelLoadError(
            reason, where=f"{bundle.path}: {id_}", hint="install a newer runtime, or take another variant"
        )
    options = ON_ONNX if variant.target.runtime == ONNX_RUNTIME else {}
    wanted = requests_for(DelegateRequest(name=made_for, options=options), asked(delegate))
    if not wanted:
        twin = variant.target.fallback
        raise DelegateUnavailableError(
            f"{id_!r} is for the delegate {made_for!r}, and another is asked for",
            where=str(bundle.path),
            hint=f"take {twin!r}, its twin for the CPU" if twin else "take one for the CPU",
        )
    if variant.target.runtime == ONNX_RUNTIME:
        runtime = None  # each file takes the one for its format
    fallback = bundle.variant(variant.target.fallback) if variant.target.fallback else variant
    return open_engine(
        bundle.blob(variant),
        delegate=wanted,
        twin=bundle.blob(fallback),
        threads=threads,
        runtime=runtime,
        observe=observe,
        report=report,
        cancelled=cancelled,
    )


@dataclass(slots=True, kw_only=True)
class _Opener:
    """Opens the accelerator's engine, now and after each quarantine."""

    request: DelegateRequest
    model: str
    twin: str
    threads: int
    isolated: bool
    deadline_s: float
    findings: Findings
    cancelled: Callable[[], bool]
    stored: bool
    noted: str = ""
    is_known: bool = False

    @property
    def shown(self) -> str:
        """What events call it."""
        return str(self.request)

    def open(self) -> AnyEngine:
        """Look, remember, load.

        Raises:
            DelegateError: It cannot be had, or did not work the last time.
            ModelClosedError: The load was cancelled.
        """
        found = find(self.request)  # anew each time: a device may have been plugged in
        if isinstance(found, Unavailable):
            raise DelegateUnavailableError(found.reason, where=self.shown, hint=found.hint)
        noted = key(found, self.model)
        known = self.findings.known(noted)
        if known is not None and not known.works:
            raise DelegateUnavailableError(f"{known.reason} (found out before)", where=self.shown, hint=_AGAIN)
        if known is None and not self.isolated:
            self._try_out(found)
        try:
            engine = self._isolated_engine(found) if self.isolated else self._own_engine(found)
        except DelegateError as error:
            self.findings.note(noted, finding_of(error))
            raise
        self.noted, self.is_known = noted, known is not None
        return engine

    def judge(self, wrong: str) -> None:
        """Note whether the engine that was just opened answers right: an empty text, or why not."""
        if wrong or not self.is_known:
            what = f"{self.model} on {self.shown}"
            self.findings.note(self.noted, Finding(works=not wrong, what=what[:1000], reason=wrong[:1000]))

    def _isolated_engine(self, found: Delegation) -> AnyEngine:
        return IsolatedEngine(
            self.model,
            delegation=found,
            threads=self.threads,
            deadline_s=self.deadline_s,
            cancelled=self.cancelled,
            stored=self.stored,
        )

    def _try_out(self, found: Delegation) -> None:
        """In a process of its own, which notes what it finds."""
        if self.cancelled():
            raise ModelClosedError("the load was cancelled", where=self.model)
        outcome = probe(found, self.model, twin=self.twin, deadline_s=self.deadline_s, findings=self.findings)
        if isinstance(outcome, Unavailable):
            raise DelegateUnavailableError(outcome.reason, where=self.shown, hint=outcome.hint)

    def _own_engine(self, found: Delegation) -> AnyEngine:
        return Engine(self.model, threads=self.threads, runtime=with_delegate(found, choose()), stored=self.stored)


def library(path: str | os.PathLike[str], **options: str) -> DelegateRequest:
    """A request for an external delegate of your own.

    Args:
        path: Of its library.
        **options: For the library.
    """
    return DelegateRequest(name="external", library=os.fspath(Path(path).absolute()), options=options)
