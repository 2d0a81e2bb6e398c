"""Which runtimes are installed, and whether the one that is used computes: tried in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from edge_sdk import footprint
from edge_sdk.bundle import opened
from edge_sdk.doctor.contract import Finding, Place, State, absent, parted
from edge_sdk.errors import DelegateError, EdgeError
from edge_sdk.runtime import RUNTIME_VARIABLE, Runtime, Unavailable, available

# A dense layer and a softmax: the same file as the tests' own (tests/data/tiny/make_tiny.py).
TINY = Path(__file__).parent / "tiny.tflite"
_DEADLINE_S = 60.0
_OLDEST = (2, 1, 1)  # of ai-edge-litert, as pyproject asks
_LITERT = "ai-edge-litert"
_WHAT = "computing"
_CRASHED = "ended the runtime with"  # as `footprint` says it


def look(place: Place) -> Iterator[Finding]:
    """See `Look`."""
    try:
        found = footprint.of(TINY, threads=1, deadline_s=_DEADLINE_S)
    except DelegateError as error:
        if _CRASHED in error.what:  # whatever crashes there would crash here
            yield _broken(error.what, f"pip install --force-reinstall {_LITERT}", "or take another version of it")
            return
        known = available()
        yield _broken(error.what, *_mended(known, error))
    else:
        known = available()
        reason = f"a small model runs on the CPU with {found.runtime}, {found.load_ms:.3g} ms to the first answer"
        yield Finding(what=_WHAT, state=State.OK, reason=reason, is_vital=True)
    yield from map(_told, known)
    if place.model is not None:
        yield _on(place.model)


def _on(model: Path) -> Finding:
    """Whether the CPU runs the model that is asked about: of a bundle, the reference."""
    try:
        if model.is_dir() or model.suffix == ".edgebundle":
            with opened(model) as bundle:
                path = bundle.blob(bundle.variant(bundle.manifest.reference))
                found = footprint.of(path, threads=1, deadline_s=_DEADLINE_S)
        else:
            found = footprint.of(model, threads=1, deadline_s=_DEADLINE_S)
    except DelegateError as error:  # no fault of a file that is for an accelerator
        return Finding(what=model.name, state=State.WARNING, reason=f"not on the CPU: {error.what}", hint=error.hint)
    except EdgeError as error:
        return Finding(what=model.name, state=State.BROKEN, reason=error.what, hint=error.hint)
    reason = f"runs on the CPU, {found.load_ms:.3g} ms to the first answer"
    return Finding(what=model.name, state=State.OK, reason=reason)


def _told(one: Runtime | Unavailable) -> Finding:
    if isinstance(one, Unavailable):
        return absent(one, state=State.BROKEN if _is_broken(one) else State.MISSING)
    if one.name == _LITERT and _numbers(one.version) < _OLDEST:
        return Finding(
            what=one.name,
            state=State.WARNING,
            reason=f"{one.version} is older than what this SDK is tested with",
            command=f"pip install -U {_LITERT}",
        )
    return Finding(what=one.name, state=State.OK, reason=one.version)


def _broken(reason: str, command: str, hint: str) -> Finding:
    return Finding(what=_WHAT, state=State.BROKEN, reason=reason, command=command, hint=hint, is_vital=True)


def _mended(known: Sequence[Runtime | Unavailable], error: EdgeError) -> tuple[str, str]:
    """Command and hint: what mends the runtime that is there and broken, else what brings the preferred one."""
    missing = [one for one in known if isinstance(one, Unavailable)]
    named = os.environ.get(RUNTIME_VARIABLE)
    if named and len(missing) < len(known):
        return f"unset {RUNTIME_VARIABLE}", f"it asks for {named[:80]!r}, and others are installed"
    if len(missing) < len(known):
        return f"pip install --force-reinstall {_LITERT}", error.hint
    worst = next(filter(_is_broken, missing), missing[0])
    return parted(worst.hint)


def _is_broken(one: Unavailable) -> bool:
    return "not installed" not in one.reason


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
