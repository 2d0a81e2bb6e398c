"""Which delegates are here, why the others are not, and, where that is asked for, whether they compute.

Looking loads nothing. Trying one is done in a process of its own, against the twin on the CPU
(`edge_sdk.delegates.probe`), and what was found out before is believed unless it was forgotten.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from edge_sdk import profile
from edge_sdk.bundle import Bundle, opened
from edge_sdk.delegates.contract import EXTERNAL, DelegateRequest
from edge_sdk.delegates.delegation import Delegation
from edge_sdk.delegates.external import edgetpus
from edge_sdk.delegates.findings import Finding as Kept
from edge_sdk.delegates.probe import key, probe
from edge_sdk.delegates.registry import backends, find
from edge_sdk.doctor.contract import Finding, Place, State, absent
from edge_sdk.doctor.runtimes import TINY
from edge_sdk.errors import EdgeError, ProfileError
from edge_sdk.runtime import Unavailable

_NOT_BY_NAME = {EXTERNAL, "xnnpack"}  # which needs a path; which the CPU uses anyway
_AGAIN = "edge doctor --deep --again"
_USB2_MBIT = 480
_EDGETPU_VENDORS = frozenset({"1a6e", "18d1"})
_AGES = ((2 * 86400.0, 86400.0, "days"), (2 * 3600.0, 3600.0, "hours"), (0.0, 60.0, "minutes"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Model:
    """What a delegate is tried on, and whose answers are right."""

    path: Path
    twin: Path


def look(place: Place) -> Iterator[Finding]:
    """See `Look`."""
    is_tried = place.is_deep or place.model is not None
    for request in _requests(place):
        found = _found(request, place)
        if isinstance(found, Unavailable):
            yield absent(found)
        elif is_tried:
            yield _tried(found, place)
        else:
            reason = f"found: {_shown(found)}; 'edge doctor --deep' tries whether it computes"
            yield Finding(what=_name(found), state=State.OK, reason=reason)
    yield from _slow_usb(place)
    if not is_tried:
        yield from _kept(place)


def _requests(place: Place) -> Iterator[DelegateRequest]:
    asked = {request.name for request in place.requests}
    yield from place.requests
    try:
        board = profile.match(place.root, place.machine)
    except ProfileError:
        board = None  # said of the board
    names = dict.fromkeys([*backends(), *(board.delegates if board else ())])
    yield from (DelegateRequest(name=name) for name in names if name not in asked | _NOT_BY_NAME)


def _found(request: DelegateRequest, place: Place) -> Delegation | Unavailable:
    try:
        return find(request, root=place.root)
    except EdgeError as error:
        return Unavailable(name=request.name, reason=error.what, hint=error.hint)


def _name(found: Delegation) -> str:
    """What it is called: a library of one's own by its file."""
    return Path(found.library).name if found.name == EXTERNAL else str(found)


def _shown(found: Delegation) -> str:
    return found.library or "LiteRT brings it"


def _tried(found: Delegation, place: Place) -> Finding:
    what = _name(found)
    try:
        if place.model is not None and (place.model.is_dir() or place.model.suffix == ".edgebundle"):
            with opened(place.model) as bundle:
                return _outcome(found, _of_bundle(bundle, found), place)
        model = place.model or TINY
        return _outcome(found, _Model(path=model, twin=model), place)
    except EdgeError as error:
        return Finding(what=what, state=State.WARNING, reason=f"not tried: {error.what}", hint=error.hint)


def _of_bundle(bundle: Bundle, found: Delegation) -> _Model:
    """The first variant made for this delegate with its twin, else the reference."""
    for variant in bundle.manifest.variants:
        if variant.target.delegate.value == found.name and variant.target.fallback:
            twin = bundle.blob(bundle.variant(variant.target.fallback))
            return _Model(path=bundle.blob(variant), twin=twin)
    reference = bundle.blob(bundle.variant(bundle.manifest.reference))
    return _Model(path=reference, twin=reference)


def _outcome(found: Delegation, model: _Model, place: Place) -> Finding:
    what = _name(found)
    known = place.findings.known(key(found, model.path))
    if known is not None:
        age = f"found out {_age(known)}"
        if known.works:
            return Finding(what=what, state=State.OK, reason=f"computes ({age}): {_shown(found)}")
        return Finding(what=what, state=State.BROKEN, reason=f"{known.reason} ({age})", command=_AGAIN)
    outcome = probe(found, model.path, twin=model.twin, findings=place.findings)
    if isinstance(outcome, Unavailable):
        return replace(absent(outcome, state=State.BROKEN), what=what)
    on = "a small model" if place.model is None else place.model.name
    memory = "" if outcome.memory_bytes is None else f", {outcome.memory_bytes / 1e6:.0f} MB in its process"
    reason = f"computes {on} in {outcome.median_ms:.3g} ms, {outcome.load_ms / 1e3:.2f} s to the first answer{memory}"
    return Finding(what=what, state=State.OK, reason=f"{reason}: {_shown(found)}")


def _slow_usb(place: Place) -> Iterator[Finding]:
    """An Edge TPU on a USB 2 port: 58.1 ms instead of 18.2 (aallan/benchmarking-ml-on-the-edge @98467e0)."""
    if "usb" not in edgetpus(place.root):
        return
    for folder in sorted(place.root.glob("sys/bus/usb/devices/*")):
        name = folder.relative_to(place.root).as_posix()
        speed = place.number(f"{name}/speed")
        if place.text(f"{name}/idVendor").lower() in _EDGETPU_VENDORS and speed is not None and speed <= _USB2_MBIT:
            yield Finding(
                what="edgetpu port",
                state=State.WARNING,
                reason=f"the Edge TPU is on a USB 2 port ({speed} Mbit/s): an inference takes 3.2 times as long",
                hint="plug it into a USB 3 port (blue), with a USB 3 cable",
            )


def _kept(place: Place) -> Iterator[Finding]:
    """What apps found out before, and will not try again until it is a day old."""
    for kept in place.findings.all():
        if not kept.works:
            where = f"{kept.what}: " if kept.what else ""
            yield Finding(
                what="remembered",
                state=State.WARNING,
                reason=f"{where}{kept.reason} (found out {_age(kept)}; apps do not try it again for a day)",
                command="edge doctor --again",
            )


def _age(kept: Kept) -> str:
    age_s = max(0.0, time.time() - kept.at)
    least_s, unit_s, unit = next(each for each in _AGES if age_s >= each[0])
    del least_s
    return f"{age_s / unit_s:.0f} {unit} ago" if age_s >= unit_s else "just now"
