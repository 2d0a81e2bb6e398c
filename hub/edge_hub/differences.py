"""Where a device is not as it is desired to be. Pure.

The device reports what is in force: a pin, and the preference with what schedules and apps make of it. Where they had
a part in it, the preference is not compared: it is meant to differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from edge_sdk.mqtt import Desired, ModelState, State
from edge_sdk.preference import Preference
from edge_sdk.wire import Text, Unix, Wire

_PINNING = frozenset({"pin", "unpin"})


class Difference(Wire, frozen=True, kw_only=True, omit_defaults=False):
    """One thing that is desired and not reported.

    Attributes:
        what: Such as `pins.digits`, `preferences.digits.mode`.
        desired: Null: not pinned, no limit.
        reported: Null as well where the device has not said it.
        since: Since when, where that is known: when the document was sent, or, after the device had applied it, when
            somebody at the device pinned or unpinned.
    """

    what: Text
    desired: str | float | None
    reported: str | float | None
    since: Unix | None = None


def differences(desired: Desired, state: State | None, *, sent: float) -> tuple[Difference, ...]:
    """What differs now; `sent` is when this version was made."""
    applied = state is not None and state.desired_version >= desired.version
    models = {} if state is None else state.models
    found: list[Difference] = []
    for name, pin in desired.pins.items():
        model = models.get(name)
        if model is None or model.pinned != pin:
            reported = None if model is None else model.pinned
            if pin is not None or reported is not None or model is None:
                since = _pinned_at(model) if applied else sent
                found.append(Difference(what=f"pins.{name}", desired=pin, reported=reported, since=since))
    for name, wanted in desired.preferences.items():
        model = models.get(name)
        if model is None or model.wished_by is None:
            for key, mine, theirs in _unlike(wanted, None if model is None else model.preference):
                what = f"preferences.{name}.{key}"
                found.append(Difference(what=what, desired=mine, reported=theirs, since=None if applied else sent))
    return tuple(found)


def _pinned_at(model: ModelState | None) -> float | None:
    decision = None if model is None else model.decision
    return decision.at if decision is not None and decision.because.code in _PINNING else None


def _unlike(wanted: Preference, reported: Preference | None) -> Iterator[tuple[str, Any, Any]]:
    """The keys in which two preferences differ. A time from now on is reported as the moment it was made into."""
    for key in Preference.__struct_fields__:
        mine = msgspec.to_builtins(getattr(wanted, key))
        theirs = None if reported is None else msgspec.to_builtins(getattr(reported, key))
        if wanted.battery_for_s is not None and key in {"battery_for_s", "battery_until"} and reported is not None:
            if key == "battery_until" and theirs is None:
                yield "battery_for_s", wanted.battery_for_s, None
            continue
        if mine != theirs:
            yield key, mine, theirs
