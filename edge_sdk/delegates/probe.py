"""Whether a delegate really computes a model here: tried in a process of its own, with a time limit, against the twin.

A crash, a hang, a refusal or a wrong answer is a value with a reason. What was found out is kept on disk by what it
depends on: the library's content, the device, the model, the runtime and this machine.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_sdk.content import sha256
from edge_sdk.delegates.canary import Canary, said
from edge_sdk.delegates.delegation import Delegation
from edge_sdk.delegates.findings import Finding, Findings
from edge_sdk.engine import Engine
from edge_sdk.errors import DelegateError, DelegateUnavailableError, WorkerLostError
from edge_sdk.isolation import IsolatedEngine
from edge_sdk.isolation.engine import LOAD_DEADLINE_S
from edge_sdk.machine import machine_name
from edge_sdk.runtime import Unavailable, choose

_TIMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """A delegate that computes this model, and computes it right.

    Attributes:
        load_ms: From the library to the first answer, the process's own start left out.
        median_ms: Of a few inferences, the way to the worker and back included.
        distance: Of its answer from the twin's, as a share of what rounding explains.
        memory_bytes: Of the worker, the runtime included.
    """

    delegation: Delegation
    load_ms: float
    median_ms: float
    distance: float
    memory_bytes: int | None


def probe(
    delegation: Delegation,
    model: str | os.PathLike[str],
    *,
    twin: str | os.PathLike[str] | None = None,
    deadline_s: float = LOAD_DEADLINE_S,
    findings: Findings | None = None,
) -> Probed | Unavailable:
    """Try a delegate on a model.

    Args:
        delegation: From `edge_sdk.delegates.find`.
        model: The file it is to run.
        twin: The file whose answers are right, on the CPU; None takes the same.
        deadline_s: For loading and the first answer.
        findings: Where the result is kept; None keeps nothing.

    Raises:
        ModelLoadError: The twin itself cannot be run here.
    """
    with Engine(os.fspath(twin or model)) as right:
        canary = Canary(right)
    outcome, finding = _tried(delegation, model, canary, deadline_s)
    if findings is not None:
        findings.note(key(delegation, model), finding)
    return outcome


def finding_of(error: DelegateError) -> Finding:
    """What is to be remembered of a failure.

    A device that is absent or in use may be there the next time, and memory, too; a crash and a hang will come again.
    """
    is_lasting = (
        error.is_lasting if isinstance(error, WorkerLostError) else not isinstance(error, DelegateUnavailableError)
    )
    return Finding(works=False, what=error.where[:1000], reason=error.what[:1000], is_lasting=is_lasting)


def key(delegation: Delegation, model: str | os.PathLike[str]) -> str:
    """A digest of all that the outcome of a try depends on."""
    runtime = choose()
    parts = [
        str(delegation),
        repr(sorted(delegation.options.items())),
        _content(delegation.library) if delegation.library else "",
        _content(model),
        f"{runtime.name} {runtime.version}",
        machine_name(),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _tried(
    delegation: Delegation, model: str | os.PathLike[str], canary: Canary, deadline_s: float
) -> tuple[Probed | Unavailable, Finding]:
    try:
        with IsolatedEngine(model, delegation=delegation, deadline_s=deadline_s) as engine:
            distance = canary.distance(engine)
            if not distance <= 1:
                reason = f"it computes wrong: {said(distance)}"
                wrong = Unavailable(name=delegation.name, reason=reason, hint="take the CPU, or another driver")
                return wrong, Finding(works=False, what=f"{os.fspath(model)} on {delegation}"[:1000], reason=reason)
            times: list[float] = []
            for _ in range(_TIMED):
                canary.distance(engine, observe=times.append)
            probed = Probed(
                delegation=delegation,
                load_ms=engine.opened.load_ms,
                median_ms=float(np.median(times)),
                distance=distance,
                memory_bytes=engine.memory_bytes,
            )
            return probed, Finding(works=True)
    except DelegateError as error:
        return Unavailable(name=delegation.name, reason=error.what, hint=error.hint), finding_of(error)


def _content(path: str | os.PathLike[str]) -> str:
    try:
        with Path(path).open("rb") as file:
            return sha256(file)
    except OSError:
        return f"absent {os.fspath(path)}"
