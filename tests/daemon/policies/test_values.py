"""What each decision does many times gives what the plain way gives."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from edge_daemon.policies.values import clamped, put

ANY = st.floats()
ORDINARY = st.floats(allow_nan=False)


@given(ANY, st.tuples(ORDINARY, ORDINARY).map(sorted))
def test_a_number_is_held_within_its_bounds_as_by_min_and_max(value: float, bounds: list[float]) -> None:
    least, most = bounds
    told, plain = clamped(value, least, most), min(max(value, least), most)
    assert told == plain or (math.isnan(told) and math.isnan(plain))
    assert math.copysign(1, told) == math.copysign(1, plain)


@given(st.data())
def test_one_value_changes_and_the_others_stay(data: st.DataObject) -> None:
    values = data.draw(st.lists(ANY, min_size=1).map(tuple))
    at = data.draw(st.integers(0, len(values) - 1))
    assert repr(put(values, at, 0.5)) == repr((*values[:at], 0.5, *values[at + 1 :]))
