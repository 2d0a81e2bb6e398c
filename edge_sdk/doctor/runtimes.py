"""Which runtimes are installed, and whether the one that is used computes: tried in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edge_sdk import footprint
from edge_sdk.doctor.contract import Finding, Place, State, absent
from edge_sdk.errors import DelegateError, EdgeError
from edge_sdk.runtime import Unavailable, available, choose

# A dense layer and a softmax: the same file as the tests' own (tests/data/tiny/make_tiny.py).
TINY = Path(__file__).parent / "tiny.tflite"
_DEADLINE_S = 60.0
_OLDEST = (2, 1, 1)  # of ai-edge-litert, as pyproject asks
_LITERT = "ai-edge-litert"


def look(place: Place) -> Iterator[Finding]:
    """See `Look`."""
    del place  # what is installed is this Python's
    tried = _tried()
    yield tried
    if "ended the runtime" in tried.reason:
        return  # whatever crashes there would crash here
    for each in available():
        if isinstance(each, Unavailable):
            breaks = "not installed" not in each.reason
            yield absent(each, state=State.BROKEN if breaks else State.MISSING)
        elif each.name == _LITERT and _numbers(each.version) < _OLDEST:
            yield Finding(
                what=each.name,
                state=State.WARNING,
                reason=f"{each.version} is older than what this SDK is tested with",
                command=f"pip install -U {_LITERT}",
            )
        else:
            yield Finding(what=each.name, state=State.OK, reason=each.version)


def _tried() -> Finding:
    what = "computing"
    try:
        found = footprint.of(TINY, threads=1, deadline_s=_DEADLINE_S)
    except DelegateError as error:
        command, hint = _mended(error)
        return Finding(what=what, state=State.BROKEN, reason=error.what, command=command, hint=hint, is_vital=True)
    reason = f"a small model runs on the CPU with {found.runtime}, {found.load_ms:.3g} ms to the first answer"
    return Finding(what=what, state=State.OK, reason=reason, is_vital=True)


def _mended(error: EdgeError) -> tuple[str, str]:
    try:
        choose()
    except EdgeError as chosen:
        return "pip install -U adaptive-edge-sdk", chosen.hint
    return f"pip install -U --force-reinstall {_LITERT}", error.hint


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
