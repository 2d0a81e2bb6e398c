"""How a model travels: what is never chosen, what a smaller file or a faster link can't make worse, and who waits."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edge_daemon.transfer.plan import HOT_C, LOW_PCT, jitter, plan
from edge_daemon.transfer.pricing import chunk_bytes, price_s_per_j, priced, unfit
from edge_daemon.transfer.throughput import Throughput, seen
from edge_daemon.transfer.types import Bound, Device, Encoding, File, Kind, Link, Order, Plan, Terms

pytestmark = pytest.mark.device

OLD = "a" * 64
MB = 1_000_000


def carrying(mbit: float, sd: float = 0.2, outage: float = 0.0) -> Throughput:
    return Throughput(log_bytes_per_s=math.log(mbit * MB / 8), sd=sd, outage=outage, windows=10)


# The shares of a file that were measured for a gentle fine-tune of an int8 file: facts of docs/explanation/transfer.md.
INT8 = File(
    variant="large-int8",
    size_bytes=20 * MB,
    encodings=(
        Encoding(id="full", kind=Kind.FULL, size_bytes=20 * MB),
        Encoding(id="zstd", kind=Kind.ZSTD, size_bytes=17 * MB, apply_s=0.4, apply_mb=8),
        Encoding(id="delta", kind=Kind.TENSOR_DELTA, size_bytes=2_500_000, base=OLD, apply_s=9.0, apply_mb=45),
    ),
)
SMALL = File(variant="small-int8", size_bytes=MB, encodings=(Encoding(id="full", kind=Kind.FULL, size_bytes=MB),))
HERE = Device(id="acme/board-1", has=frozenset({OLD}))
ORDER = Order(wanted=INT8)

encodings = st.builds(
    Encoding,
    id=st.sampled_from("abcdefgh"),
    kind=st.sampled_from(Kind),
    size_bytes=st.integers(0, 500 * MB),
    base=st.none() | st.sampled_from([OLD, "b" * 64]),
    apply_s=st.sampled_from([0.0, 0.1, 5.0, 600.0]),
    apply_mb=st.sampled_from([0.0, 10.0, 500.0]),
)
files = st.builds(
    File,
    variant=st.sampled_from(["x", "y"]),
    size_bytes=st.integers(0, 500 * MB),
    encodings=st.lists(encodings, max_size=6, unique_by=lambda e: e.id).map(tuple),
)
throughputs = st.builds(
    Throughput,
    log_bytes_per_s=st.floats(0, 20),
    sd=st.floats(0.05, 1.5),
    outage=st.floats(0, 0.95),
    windows=st.integers(0, 100),
)
links = st.builds(
    Link,
    up=st.booleans(),
    now=throughputs,
    usual=st.none() | throughputs,
    rtt_ms=st.floats(0, 2000),
    between_drops_s=st.sampled_from([math.inf, 1.0, 60.0, 3600.0]),
    metered=st.booleans(),
    price_s_per_mb=st.sampled_from([0.0, 1.0, 60.0]),
)
devices = st.builds(
    Device,
    id=st.sampled_from(["a/1", "a/2", "ü/\udcff"]),
    has=st.sets(st.sampled_from([OLD, "c" * 64])).map(frozenset),
    free_bytes=st.sampled_from([math.inf, 0.0, 1e8, 1e9]),
    free_mb=st.sampled_from([math.inf, 0.0, 64.0, 1000.0]),
    charging=st.booleans(),
    battery_pct=st.none() | st.floats(0, 100),
    spare_j=st.none() | st.sampled_from([0.0, 10.0, 1e5]),
    price_s_per_j=st.sampled_from([0.0, 0.1, 10.0]),
    headroom_c=st.none() | st.floats(-20, 60),
)
orders = st.builds(
    Order,
    wanted=files,
    first=st.none() | files,
    serves=st.booleans(),
    deadline_s=st.none() | st.floats(0, 100_000),
    waited_s=st.sampled_from([0.0, 100.0, 1e6]),
)
terms = st.builds(
    Terms,
    windows=st.sampled_from(
        [(), ((-10.0, 50.0),), ((600.0, 7200.0),), ((-100.0, -50.0), (3600.0, 3601.0)), ((5.0, 5.0),)]
    ),
    unmetered_within_s=st.sampled_from([0.0, 500.0, 86_400.0]),
)


def at_once(found: Plan) -> str:
    assert found.again_s is None
    return "+".join(step.encoding.id for step in found.steps)


# ------------------------------------------------------------------------------------------------- what never happens


@settings(max_examples=50)
@given(orders, devices, links, terms)
def test_nothing_is_chosen_that_cannot_be_used_and_every_plan_says_why(
    order: Order, device: Device, link: Link, owner: Terms
) -> None:
    found = plan(order, device, link, owner)
    assert (found.again_s is None) == bool(found.steps)
    assert len(found.steps) <= 2
    assert found.why.text
    assert "\n" not in found.why.text
    assert len(found.why.text) < 500
    for step, file in zip(reversed(found.steps), (order.wanted, order.first), strict=False):
        assert file is not None
        assert step.encoding in file.encodings
        assert step.encoding.base is None or step.encoding.base in device.has
        assert unfit(file, step.encoding, device) is None
        assert 0 <= step.time_s <= step.late_s
        assert step.joules >= 0
        assert 64 * 1024 <= step.chunk_bytes <= 8 * 1024 * 1024
    if found.again_s is not None:
        assert 0 < found.again_s < math.inf
        assert found.why.bound not in {Bound.COST, Bound.ONLY, Bound.DEADLINE}
    else:
        assert link.up
    assert plan(order, device, link, owner) == found


@settings(max_examples=50)
@given(orders, devices, links, st.integers(0, 100 * MB), st.floats(0, 3))
def test_what_it_costs_grows_with_the_bytes_and_falls_with_the_rate(
    order: Order, device: Device, link: Link, more: int, faster: float
) -> None:
    assume(order.wanted.encodings)
    one = order.wanted.encodings[0]
    base = priced(order.wanted, one, device, link)
    larger = priced(order.wanted, replace(one, size_bytes=one.size_bytes + more), device, link)
    quick = replace(link, now=replace(link.now, log_bytes_per_s=link.now.log_bytes_per_s + faster))
    sooner = priced(order.wanted, one, device, quick)
    for smaller_one, larger_one in ((base, larger), (sooner, base)):
        assert smaller_one.cost_s <= larger_one.cost_s * (1 + 1e-12)
        assert smaller_one.time_s <= larger_one.time_s * (1 + 1e-12)
        assert smaller_one.late_s <= larger_one.late_s * (1 + 1e-12)
        assert smaller_one.joules <= larger_one.joules * (1 + 1e-12)


@settings(max_examples=50)
@given(orders, devices, links, terms)
def test_on_a_metered_link_nothing_larger_than_the_smallest_that_is_in_time_travels(
    order: Order, device: Device, link: Link, owner: Terms
) -> None:
    link = replace(link, metered=True, price_s_per_mb=max(link.price_s_per_mb, 0.1))
    found = plan(replace(order, first=None), device, link, owner)
    if not found.steps:
        return
    (step,) = found.steps
    usable = [
        priced(order.wanted, e, device, link) for e in order.wanted.encodings if unfit(order.wanted, e, device) is None
    ]
    kept = [one for one in usable if order.deadline_s is None or one.late_s <= order.deadline_s]
    if kept:
        assert step.encoding.size_bytes == min(one.encoding.size_bytes for one in kept)
    else:
        assert step.late_s == min(one.late_s for one in usable)


@settings(max_examples=50)
@given(orders, devices, links, terms)
def test_who_waits_can_still_keep_the_deadline(order: Order, device: Device, link: Link, owner: Terms) -> None:
    deadline_s = 100.0 if order.deadline_s is None else order.deadline_s
    order = replace(order, deadline_s=deadline_s)
    found = plan(order, device, link, owner)
    usable = [
        priced(order.wanted, e, device, link) for e in order.wanted.encodings if unfit(order.wanted, e, device) is None
    ]
    if found.again_s is None or found.why.bound is Bound.DOWN or not usable:
        return
    kept = [one.late_s for one in usable if one.late_s <= deadline_s]
    assert kept, "what cannot be in time is begun at once"
    assert found.again_s + min(kept) <= deadline_s + 1e-6


@settings(max_examples=50)
@given(orders, devices, links, terms)
def test_with_no_deadline_and_nothing_in_the_way_the_cheapest_is_taken(
    order: Order, device: Device, link: Link, owner: Terms
) -> None:
    order = replace(order, deadline_s=None, first=None)
    link = replace(link, up=True, metered=False, usual=None)
    device = replace(device, charging=True, headroom_c=None)
    found = plan(order, device, link, replace(owner, windows=()))
    usable = [
        priced(order.wanted, e, device, link) for e in order.wanted.encodings if unfit(order.wanted, e, device) is None
    ]
    assert bool(found.steps) == bool(usable)
    if usable:
        assert found.steps[0].cost_s == min(one.cost_s for one in usable)


# ------------------------------------------------------------------------------------------------------- the table


def test_on_a_fast_link_the_file_travels_as_it_is_and_on_a_slow_one_as_a_delta() -> None:
    lan = Link(now=carrying(400.0), rtt_ms=2.0)
    assert at_once(plan(ORDER, HERE, lan)) == "full"
    slow = Link(now=carrying(2.0), rtt_ms=80.0)
    found = plan(ORDER, HERE, slow)
    assert at_once(found) == "delta"
    assert (found.why.bound, found.why.runner_up) == (Bound.COST, "zstd")
    assert found.why.margin_s == pytest.approx(50, rel=0.2)
    assert "the least expected cost; zstd would cost" in found.why.text
    assert at_once(plan(ORDER, replace(HERE, has=frozenset()), slow)) == "zstd"


def test_little_memory_or_disk_rules_out_what_needs_more() -> None:
    slow = Link(now=carrying(2.0))
    assert at_once(plan(ORDER, replace(HERE, free_mb=60.0), slow)) == "zstd"
    assert at_once(plan(ORDER, replace(HERE, free_mb=0.0), slow)) == "full"
    assert at_once(plan(ORDER, replace(HERE, free_bytes=37.0 * MB), slow)) == "full"
    found = plan(ORDER, replace(HERE, free_bytes=30.0 * MB), slow)
    assert (found.why.bound, found.steps) == (Bound.DISK, ())
    assert "the disk has no room" in found.why.text
    deltas = Order(wanted=replace(INT8, encodings=INT8.encodings[2:]))
    assert plan(deltas, replace(HERE, has=frozenset()), slow).why.bound is Bound.BASE
    assert plan(Order(wanted=replace(INT8, encodings=())), HERE, slow).why.bound is Bound.BASE


def test_a_metered_link_takes_the_smallest_and_waits_for_another_as_long_as_the_owner_says() -> None:
    fast = Link(now=carrying(400.0), metered=True)
    found = plan(ORDER, HERE, fast)
    assert (at_once(found), found.why.bound) == ("delta", Bound.METERED)
    assert at_once(plan(ORDER, HERE, replace(fast, price_s_per_mb=0.0))) == "full"
    patient = Terms(unmetered_within_s=3600.0)
    assert plan(ORDER, HERE, fast, patient).why.bound is Bound.METERED
    assert plan(replace(ORDER, waited_s=139.0), HERE, fast, patient).again_s == pytest.approx(11.0)
    assert plan(replace(ORDER, waited_s=151.0), HERE, fast, patient).steps  # 2.5 MB are worth 150 s of waiting
    assert plan(replace(ORDER, waited_s=61.0), HERE, fast, Terms(unmetered_within_s=60.0)).steps
    assert plan(replace(ORDER, deadline_s=15.0), HERE, fast, patient).steps


@pytest.mark.parametrize(
    ("device", "bound"),
    [
        ({"headroom_c": HOT_C}, Bound.HOT),
        ({"charging": False, "battery_pct": LOW_PCT - 1}, Bound.BATTERY),
        ({"charging": False, "spare_j": 1.0}, Bound.BATTERY),
    ],
)
def test_a_board_in_need_waits_unless_the_deadline_comes_first(device: dict[str, float], bound: Bound) -> None:
    link = Link(now=carrying(8.0))
    needy = replace(HERE, **device)
    found = plan(ORDER, needy, link)
    assert (found.why.bound, found.steps) == (bound, ())
    assert found.again_s is not None
    hurried = plan(replace(ORDER, deadline_s=15.0), needy, link)
    assert (hurried.why.bound, len(hurried.steps)) == (Bound.DEADLINE, 1)
    assert plan(ORDER, replace(HERE, headroom_c=20.0, battery_pct=5.0), link).steps


def test_outside_the_windows_each_device_waits_for_its_own_moment_inside_the_next() -> None:
    link, night = Link(now=carrying(20.0)), Terms(windows=((3600.0, 3600.0 + 7200.0),))
    moments = []
    for number in range(200):
        found = plan(ORDER, replace(HERE, id=f"acme/{number}"), link, night)
        assert found.why.bound is Bound.WINDOW
        assert found.again_s is not None
        moments.append(found.again_s)
    assert 3600.0 <= min(moments) < 4200.0
    assert 9600.0 < max(moments) < 3600.0 + 7200.0
    assert len(set(moments)) == 200
    assert plan(ORDER, HERE, link, Terms(windows=((-60.0, 60.0),))).steps


def test_an_unusually_slow_link_is_waited_out_on_battery_if_much_is_to_come() -> None:
    slow = Link(now=carrying(0.5), usual=carrying(20.0))
    fresh = replace(HERE, has=frozenset(), charging=False)
    assert plan(ORDER, fresh, slow).why.bound is Bound.SLOW
    assert plan(Order(wanted=SMALL), fresh, slow).steps
    assert plan(ORDER, fresh, replace(slow, usual=carrying(0.6))).steps
    assert plan(ORDER, replace(fresh, charging=True), slow).steps


def test_a_deadline_buys_a_dearer_encoding_and_where_none_keeps_it_the_fastest_is_taken() -> None:
    link = Link(now=carrying(200.0, sd=0.1), metered=True, rtt_ms=5.0)
    assert at_once(plan(ORDER, HERE, link)) == "delta"
    found = plan(replace(ORDER, deadline_s=2.0), HERE, link)
    assert (at_once(found), found.why.bound) == ("zstd", Bound.DEADLINE)
    assert at_once(plan(replace(ORDER, deadline_s=0.01), HERE, link)) == "full"


def test_a_small_variant_comes_first_where_the_large_one_takes_long() -> None:
    fresh = replace(HERE, has=frozenset())
    order = replace(ORDER, first=SMALL, serves=False)
    slow = Link(now=carrying(2.0))
    found = plan(order, fresh, slow)
    assert [(step.variant, step.encoding.id) for step in found.steps] == [
        ("small-int8", "full"),
        ("large-int8", "zstd"),
    ]
    assert found.why.text.startswith("small-int8 first")
    assert len(plan(order, fresh, Link(now=carrying(200.0))).steps) == 1
    paid = replace(slow, metered=True)
    assert len(plan(order, fresh, paid).steps) == 2
    assert len(plan(replace(order, serves=True), fresh, paid).steps) == 1


def test_a_joule_is_dearer_the_less_the_new_file_gains() -> None:
    assert price_s_per_j(2.0, gain_points=1.5, requests_per_s=4.0) == pytest.approx(1 / 3)
    assert price_s_per_j(0.0, gain_points=1.5, requests_per_s=4.0) == 0
    prices = [price_s_per_j(2.0, gain_points=gain, requests_per_s=1.0) for gain in (5.0, 1.0, 0.1, 0.0, -3.0)]
    assert prices == sorted(prices)
    assert price_s_per_j(1e9, gain_points=0.0, requests_per_s=0.0) == 3600.0


def test_pieces_are_smaller_where_connections_are_lost_more_often() -> None:
    sizes = [chunk_bytes(Link(now=carrying(8.0), between_drops_s=s)) for s in (math.inf, 3600.0, 60.0, 5.0, 0.0)]
    assert sizes[0] == 1024 * 1024
    assert sizes[1:] == sorted(sizes[1:], reverse=True)
    assert sizes[-1] == 64 * 1024
    assert all(size & (size - 1) == 0 for size in sizes)
    often = Link(now=carrying(8.0), between_drops_s=3600.0)
    assert chunk_bytes(replace(often, metered=True)) < chunk_bytes(often)


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_devices_moment_is_its_own_and_always_the_same(device: str, what: str) -> None:
    assert 0 <= jitter(device, what) < 1
    assert jitter(device, what) == jitter(device, what)


# ------------------------------------------------------------------------------------------------ what a link carries


def test_the_rate_is_learned_in_a_few_windows_and_one_absurd_window_moves_it_little() -> None:
    link = Throughput()
    for _ in range(5):
        link = seen(link, 600_000, 1.0)
    assert link.bytes_per_s == pytest.approx(600_000, rel=0.05)
    after = seen(link, 1e12, 0.1)
    assert after.bytes_per_s < 1.5 * link.bytes_per_s
    for _ in range(30):
        link = seen(link, 60_000, 1.0)
    assert link.bytes_per_s == pytest.approx(60_000, rel=0.3)


def test_seconds_without_a_byte_are_outages_and_no_rate() -> None:
    link = seen(Throughput(), 600_000, 1.0)
    for _ in range(600):
        link = seen(seen(link, 600_000, 0.9), 0, 0.1)
    assert link.bytes_per_s == pytest.approx(600_000 / 0.9, rel=0.02)
    assert link.outage == pytest.approx(0.1, abs=0.03)


@given(st.lists(st.tuples(st.floats(allow_nan=True), st.floats(allow_nan=True)), max_size=30))
def test_whatever_is_seen_the_estimate_stays_sane(windows: list[tuple[float, float]]) -> None:
    link = Throughput()
    for size, seconds in windows:
        link = seen(link, size, seconds)
        assert 1.0 <= link.bytes_per_s <= 1e10 * (1 + 1e-9)
        assert 0.05 <= link.sd <= 1.5
        assert 0 <= link.outage <= 0.95
        assert 0 < link.seconds(1e6) < math.inf
        assert link.seconds(1e6, 1.645) >= link.seconds(1e6, 0.0)


def test_the_expected_time_is_that_of_a_log_normal_rate() -> None:
    link = carrying(8.0, sd=0.5)
    rates = [link.bytes_per_s * math.exp(0.5 * z / 100) for z in range(-400, 401)]
    weights = [math.exp(-((z / 100) ** 2) / 2) for z in range(-400, 401)]
    mean_s = sum(w / r for w, r in zip(weights, rates, strict=True)) / sum(weights) * 1e6
    assert link.seconds(1e6) == pytest.approx(mean_s, rel=0.01)
