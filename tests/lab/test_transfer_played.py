"""A transfer plan played over a link: what arrives, what is lost and paid, and how near the best in hindsight it is."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_daemon.transfer.types import Device, Encoding, File, Kind, Order, Terms
from edge_lab.simulate.transfer import (
    Case,
    Trace,
    always_full,
    always_smallest,
    best,
    from_lines,
    joined,
    made,
    picker,
    played,
)

OLD = "a" * 64
MB = 1_000_000
HERE = Device(id="acme/1", has=frozenset({OLD}))


def order(size: int = 5 * MB, delta: float | None = 0.12, **fields: object) -> Order:
    encodings = [
        Encoding(id="full", kind=Kind.FULL, size_bytes=size),
        Encoding(id="zstd", kind=Kind.ZSTD, size_bytes=int(size * 0.84), apply_s=0.05),
    ]
    if delta is not None:
        small = int(size * delta)
        encodings.append(Encoding(id="delta", kind=Kind.TENSOR_DELTA, size_bytes=small, base=OLD, apply_s=2.0))
    return Order(wanted=File(variant="large", size_bytes=size, encodings=tuple(encodings)), **fields)


def steady(mbit: float, seconds: int = 2000) -> Trace:
    return Trace(name="steady", bytes_per_s=(mbit * MB / 8,) * seconds)


def test_on_a_steady_link_it_takes_as_long_as_the_bytes_do() -> None:
    found = played(Case(order=order(), device=HERE, trace=steady(8.0)), always_full)
    assert found.done_s == pytest.approx(5.0, abs=0.6)
    assert (found.received, found.paid, found.lost, found.looks) == (pytest.approx(5 * MB), 0, 0, 1)
    assert found.joules == pytest.approx(1.1 * found.done_s, rel=0.01)
    assert found.cost_s == found.done_s


def test_a_lost_connection_costs_a_part_of_a_piece_and_the_transfer_goes_on() -> None:
    rates = ([MB] * 2 + [0.0] * 5) * 20
    trace = Trace(name="drops", bytes_per_s=tuple(rates), seen_s=7)
    found = played(Case(order=order(), device=HERE, trace=trace), always_full)
    assert found.done_s is not None
    assert found.lost >= 2
    assert 5 * MB < found.received <= 5 * MB + found.lost * 2 * MB
    assert found.done_s < 60


def test_a_link_that_never_carries_anything_is_given_up() -> None:
    found = played(Case(order=order(), device=HERE, trace=steady(0.0), most_s=100), picker)
    assert (found.done_s, found.received) == (None, 0)
    assert found.cost_s == 100


def test_what_is_metered_is_paid_until_it_is_not() -> None:
    case = Case(order=order(), device=HERE, trace=steady(8.0), metered_until_s=2.0, price_s_per_mb=10.0)
    found = played(case, always_full)
    assert found.paid == pytest.approx(2 * MB, rel=0.3)
    assert found.cost_s == pytest.approx((found.done_s or 0) + found.paid / MB * 10)


def test_a_patient_owner_pays_nothing_where_home_is_near() -> None:
    trace = joined(steady(6.0), steady(50.0), 100)
    near = Case(
        order=order(delta=None), device=HERE, trace=trace, metered_until_s=100.0, terms=Terms(unmetered_within_s=3600)
    )
    found = played(near, picker)
    assert found.paid == 0
    assert found.cost_s < played(near, always_smallest).cost_s
    far = replace(near, metered_until_s=math.inf)
    assert played(far, picker).cost_s < 2.1 * best(far).cost_s  # who cannot know pays at most twice


def test_a_night_window_is_kept_and_a_small_variant_comes_first() -> None:
    night = Case(order=order(), device=HERE, trace=steady(8.0), terms=Terms(windows=((600.0, 1200.0),)))
    found = played(night, picker)
    assert found.done_s is not None
    assert 600 <= found.done_s <= 1200
    first = File(
        variant="small", size_bytes=MB // 10, encodings=(Encoding(id="full", kind=Kind.FULL, size_bytes=MB // 10),)
    )
    fresh = Case(order=order(first=first, serves=False), device=replace(HERE, has=frozenset()), trace=steady(0.5))
    found = played(fresh, picker)
    assert found.first_s is not None
    assert found.done_s is not None
    assert found.first_s < 0.1 * found.done_s


@settings(max_examples=25)
@given(
    mbit=st.floats(0.2, 100),
    sd=st.floats(0.05, 0.8),
    outage=st.sampled_from([0.0, 0.05]),
    seed=st.integers(0, 10_000),
    delta=st.sampled_from([0.005, 0.12, 0.55, None]),
    metered_until_s=st.sampled_from([0.0, math.inf]),
)
def test_the_picker_is_near_the_best_in_hindsight_on_made_links(
    *, mbit: float, sd: float, outage: float, seed: int, delta: float | None, metered_until_s: float
) -> None:
    trace = made("link", mbit, sd=sd, seed=seed, outage=outage, seconds=1800)
    case = Case(order=order(delta=delta), device=HERE, trace=trace, metered_until_s=metered_until_s, most_s=7200)
    found, least = played(case, picker), best(case, waits_s=(0,))
    assert found.done_s is not None
    assert found.cost_s >= least.cost_s * (1 - 1e-9)
    # A wrong guess of the rate costs little where it is close; what a link does within seconds is nobody's guess.
    assert found.cost_s <= 2.5 * least.cost_s + 10


def test_made_links_are_as_they_are_asked_for_and_the_same_again() -> None:
    one = made("lte", 6.0, sd=0.5, seed=3, outage=0.05, seconds=20_000)
    assert one == made("lte", 6.0, sd=0.5, seed=3, outage=0.05, seconds=20_000)
    assert one != made("lte", 6.0, sd=0.5, seed=4, outage=0.05, seconds=20_000)
    rates = sorted(rate for rate in one.bytes_per_s if rate)
    assert rates[len(rates) // 2] == pytest.approx(6 * MB / 8, rel=0.15)
    assert 1 - len(rates) / 20_000 == pytest.approx(0.05, abs=0.02)


def test_a_recorded_link_holds_each_rate_until_the_next() -> None:
    trace = from_lines("r", "10.0\t8\n10.6\t16\n13.0\t0.0\n\n15.0\t4\n")
    assert trace.bytes_per_s == (1e6, 2e6, 2e6, 0.0, 0.0)
    for wrong in ("", "1 2", "1 2\n1 3", "a b\nc d", "1\n2"):
        with pytest.raises(ValueError, match=r".*"):
            from_lines("r", wrong)
