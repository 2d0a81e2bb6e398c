"""The policy inside the process: starts from evidence, learns from calls, and does not flutter."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk import deciding
from edge_sdk.deciding import DWELL_S, FEWEST_CALLS, LATE_WINDOWS, Chooser, Window
from edge_sdk.manifest import Cost, Latency, Origin, Precision, Quality, Target, Variant
from edge_sdk.preference import Mode, Preference

pytestmark = pytest.mark.device

HERE = "this machine"


def variant(id_: str, quality: float, macs: int) -> Variant:
    return Variant(
        id=id_,
        source="digits",
        blob=f"{macs:064x}",
        size_bytes=macs,
        transfer_bytes=macs,
        precision=Precision.FP32,
        target=Target(),
        quality=Quality(metric="accuracy", value=quality, drop=0, interval=0.5, agreement=100, samples=500),
        cost=Cost(macs=macs, parameters=macs),
    )


def timed(id_: str, ms: float, machine: str = HERE, origin: Origin = Origin.MEASURED) -> Latency:
    return Latency(variant=id_, origin=origin, machine=machine, median_ms=ms)


LARGE, MEDIUM, SMALL = (
    variant("large", 99.0, 200_000_000),
    variant("medium", 97.5, 20_000_000),
    variant("small", 96, 10),
)
FAMILY = (LARGE, MEDIUM, SMALL)
EVIDENCE = (timed("large", 40.0), timed("medium", 8.0), timed("small", 1.0))


def begin(preference: Preference) -> Chooser:
    return deciding.first(FAMILY, EVIDENCE, HERE, preference, 1000.0)


def slow(p50_ms: float) -> Window:
    return Window(calls=50, p50_ms=p50_ms, p95_ms=p50_ms * 1.1)


@pytest.mark.parametrize(
    ("preference", "expected"),
    [
        (Preference(mode=Mode.ACCURACY), "large"),
        (Preference(mode=Mode.SPEED), "small"),
        (Preference(mode=Mode.ACCURACY, max_latency_ms=20.0), "medium"),
        (Preference(mode=Mode.SPEED, min_accuracy=97.0), "medium"),
        (Preference(mode=Mode.ACCURACY, max_latency_ms=0.1), "small"),
        (Preference(mode=Mode.SPEED, max_latency_ms=0.1, min_accuracy=98.0), "large"),
    ],
)
def test_begins_with_what_the_evidence_says(preference: Preference, expected: str) -> None:
    assert begin(preference).active == expected


def test_evidence_of_this_machine_beats_that_of_others() -> None:
    other = (timed("large", 1.0, "other"), timed("medium", 2.0, "other"), timed("small", 3.0, "other"))
    assert deciding.expected_ms(FAMILY, (*other, *EVIDENCE), HERE)["large"] == 40.0


def test_evidence_of_different_machines_is_never_mixed() -> None:
    partly = (timed("large", 1.0), timed("medium", 5.0, "other"), timed("small", 5.0, "other"))
    expected = deciding.expected_ms(FAMILY, partly, HERE)
    assert expected["large"] > expected["medium"] > expected["small"]  # the number of operations is left


def test_a_limit_that_is_broken_here_moves_to_a_faster_variant() -> None:
    chooser = begin(Preference(mode=Mode.ACCURACY, max_latency_ms=50.0))
    assert chooser.active == "large"
    for second in range(LATE_WINDOWS):
        assert chooser.active == "large"
        chooser = chooser.step(1100.0 + second, slow(80.0))  # twice as slow as measured
    assert chooser.active == "medium"


def test_one_slow_second_changes_nothing() -> None:
    chooser = begin(Preference(mode=Mode.ACCURACY, max_latency_ms=50.0)).step(1100.0, slow(300.0))
    assert chooser.active == "large"


def test_a_machine_that_becomes_fast_again_gets_its_accuracy_back() -> None:
    chooser = begin(Preference(mode=Mode.ACCURACY, max_latency_ms=50.0))
    for second in range(5):
        chooser = chooser.step(1100.0 + second, slow(90.0))
    assert chooser.active == "medium"
    for second in range(30):
        chooser = chooser.step(1110.0 + second, slow(8.0))
    assert chooser.active == "large"


def test_too_few_calls_teach_nothing() -> None:
    chooser = begin(Preference(mode=Mode.ACCURACY, max_latency_ms=50.0))
    few = replace(slow(1e6), calls=FEWEST_CALLS - 1)
    assert chooser.step(1100.0, few) == chooser.step(1100.0, None) == chooser


def test_a_variant_that_cannot_be_loaded_is_chosen_no_more() -> None:
    assert begin(Preference(mode=Mode.ACCURACY)).without("large").step(2000.0, None).active == "medium"


@given(
    st.lists(st.tuples(st.floats(0.1, 3.0), st.floats(0.001, 1e5), st.floats(1.0, 10.0)), max_size=60),
    st.sampled_from(list(Mode)),
    st.none() | st.floats(0.5, 500.0),
)
def test_never_changes_twice_within_the_dwell(
    windows: list[tuple[float, float, float]], mode: Mode, limit: float | None
) -> None:
    chooser = begin(Preference(mode=mode, max_latency_ms=limit))
    now_s, changed_s = 1000.0, None
    for pause_s, p50_ms, tail in windows:
        now_s += pause_s
        before = chooser.active
        chooser = chooser.step(now_s, Window(calls=20, p50_ms=p50_ms, p95_ms=p50_ms * tail))
        if chooser.active != before:
            assert changed_s is None or now_s - changed_s >= DWELL_S
            changed_s = now_s


@given(st.floats(0.1, 20.0), st.sampled_from(list(Mode)))
def test_a_steady_machine_settles(factor: float, mode: Mode) -> None:
    chooser = begin(Preference(mode=mode))
    seen = []
    for second in range(120):
        latency = chooser.expected_ms[chooser.active] * factor
        chooser = chooser.step(1000.0 + second, slow(latency))
        seen.append(chooser.active)
    assert len(set(seen[60:])) == 1


def test_a_hot_accelerator_is_left_at_once_and_taken_again_once_it_is_cool() -> None:
    chooser = begin(Preference(mode=Mode.ACCURACY))
    assert chooser.active == "large"
    spared = chooser.step(chooser.changed_s + 0.1, None, frozenset({"large"}))  # long before the dwell is over
    assert spared.active == "medium"
    still = spared.step(spared.changed_s + 2 * DWELL_S, None, frozenset({"large"}))
    assert still.active == "medium"
    assert still.step(still.changed_s + 4 * DWELL_S, None).active == "large"


def test_where_every_variant_is_hot_one_goes_on() -> None:
    chooser = begin(Preference(mode=Mode.ACCURACY))
    everything = frozenset(each.id for each in FAMILY)
    assert chooser.step(chooser.changed_s + 2 * DWELL_S, None, everything).active == "large"
