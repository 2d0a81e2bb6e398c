"""Any value at any place of a JSON document: what a stranger may send instead of what we wrote."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS, lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=8), part, max_size=3)
)
Place = tuple[Any, ...]


def places(value: Any, at: Place = ()) -> list[Place]:
    """The way to each part of a document, its root left out."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at] * bool(at) + [place for key, part in inside for place in places(part, (*at, key))]


def replaced(document: Any, place: Place, value: Any) -> Any:
    """A copy of the document with another value at this place."""
    changed = part = copy.deepcopy(document)
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    return changed
