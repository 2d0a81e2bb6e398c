"""What runs come to: means of seeds that can be held, regret of the same seed; and what profile and bundle fill in."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from bundle_stage import write_bundle
from simulated_stage import scenario

from edge_daemon.policies.contract import Board
from edge_lab.simulate import profiled, score, table, world
from edge_lab.simulate.play import Run
from edge_lab.simulate.scenario import BoardSection
from edge_lab.simulate.trial import Bound, Played
from edge_sdk import profile
from edge_sdk.errors import BundleError, UnknownProfileError


def run(seed: int, quality: float, policy: str = "made", **fields: float) -> Run:
    """A minute of one request a second, each of this quality."""
    made = Run(policy=policy, seed=seed, switches=int(fields.get("switches", 0)))
    made.requests, made.in_time, made.late = [1] * 60, [1] * 60, [0] * 60
    made.quality, made.temp_c = [quality] * 60, [fields.get("temp_c", 50.0)] * 60
    made.energy_wh, made.decision_us = [0.5] * 60, [float(us) for us in range(1, 61)]
    return made


def played(seed: int, quality: float, best: float, broken: tuple[str, ...] = (), **fields: float) -> Played:
    oracle = Bound(run=run(seed, best, "oracle"), gap_pct=0.1 * seed, took_s=seed)
    floor = Bound(run=run(seed, best - 1, "floor"))
    return Played(seed=seed, broken=broken, runs=(run(seed, quality, **fields),), oracle=oracle, floor=floor)


def result_of(*seeds: Played) -> score.Result:
    made = scenario(limits={"latency_ms": 250.0, "temp_c": 75.0})
    return score.result(made, [score.tried(made, one) for one in seeds])


def test_regret_is_taken_seed_by_seed_and_then_averaged() -> None:
    found = result_of(played(1, 75.0, 80.0, switches=2), played(2, 80.0, 100.0, temp_c=76.0))
    (policy,) = found.policies
    assert policy.regret_pct == pytest.approx((6.25 + 20.0) / 2)
    assert policy.effective_accuracy == pytest.approx(77.5)
    assert policy.spread.regret_pct == pytest.approx((6.25, 20.0))
    assert (policy.hot_pct, policy.switches, policy.switches_per_h) == (50.0, 1.0, 60.0)
    assert found.floor is not None
    assert found.floor.regret_pct == pytest.approx((100 / 80 + 1.0) / 2)
    assert found.oracle is not None
    assert found.oracle.gap_pct == pytest.approx(0.15)
    assert (found.oracle.gap_pct_worst, found.oracle.took_s) == (pytest.approx(0.2), 2.0)


def test_decision_times_are_quantiles_of_all_decisions() -> None:
    (policy,) = result_of(played(1, 75.0, 80.0), played(2, 75.0, 80.0)).policies
    assert (policy.decision_us_p50, policy.decision_us_p99) == (30.0, 59.0)


def test_a_seed_that_nothing_can_hold_is_counted_and_left_out() -> None:
    found = result_of(played(1, 75.0, 80.0), played(2, 10.0, 80.0, broken=("temp", "battery")))
    (policy,) = found.policies
    assert found.infeasible == (2,)
    assert policy.effective_accuracy == 75.0
    assert [one.effective_accuracy for one in policy.seeds] == [75.0, 10.0]
    (note,) = found.notes
    assert note.endswith("temp in seed 2; battery in seed 2")
    assert "1 of 2 seeds" in table.shown([found])


# ---------------------------------------------------------------------------------------------- profile and bundle


def test_the_profile_of_a_raspberry_pi_4_is_what_is_assumed_without_one() -> None:
    made = profiled.whole(scenario(profile="rpi4"), Path())
    assert made.board == Board()
    assert made.scenario.board.steps == world.DEFAULT_STEPS
    assert made.scenario.board.throttle_c == world.DEFAULT_THROTTLE_C
    assert made.scenario.board.radio_w == world.DEFAULT_RADIO_W
    assert made.notes == ()
    assert profiled.whole(scenario(), Path()).notes == ("the board's physics are those of a bare Raspberry Pi 4",)


@pytest.mark.parametrize("id_", profile.ids())
def test_every_profile_can_be_played(id_: str) -> None:
    made = profiled.whole(scenario(profile=id_, limits={"latency_ms": 250.0}), Path())
    drawn = world.draw(made.scenario, 1, base=made.board)
    assert drawn.steps[0] == 1.0
    assert drawn.throttle_c[2] <= drawn.throttle_c[0] <= drawn.throttle_c[1]


def test_what_the_scenario_says_counts_before_the_profile() -> None:
    own = BoardSection(steps=(1.0, 0.5), throttle_c=(60.0, 70.0, 55.0), r_c_per_w=(1.0, 2.0), switch_j=0.0)
    made = profiled.whole(msgspec.structs.replace(scenario(profile="rpi4"), board=own), Path())
    assert made.scenario.board.steps == (1.0, 0.5)
    assert made.scenario.board.switch_j == 0.0
    assert world.board_of(made.scenario, made.board).r_c_per_w == (1.0, 2.0)


def test_a_variant_without_power_takes_what_the_profile_says_of_a_busy_processor() -> None:
    variants = ({"id": "a", "accuracy": 70.0, "latency_ms": 30.0}, {"id": "b", "accuracy": 71.0, "latency_ms": 40.0,
                                                                    "power_w": 1.0})  # fmt: skip
    made = profiled.whole(scenario(profile="rpi4", variant=variants), Path())
    assert [variant.power_w for variant in made.scenario.variant] == [3.3, 1.0]


def test_a_bundle_brings_quality_and_the_evidence_for_the_profile(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    bundled = scenario(profile="rpi4", variant=(), bundle="digits-1.edge")
    made = profiled.whole(bundled, tmp_path)
    assert [(v.id, v.accuracy) for v in made.scenario.variant] == [("float", 98.0), ("int8", 97.0)]
    assert made.scenario.variant[1].latency_ms == 1.5
    assert made.scenario.bundle is None
    with pytest.raises(BundleError):
        profiled.whole(bundled, tmp_path / "elsewhere")


def test_a_profile_that_is_not_there_is_an_error() -> None:
    with pytest.raises(UnknownProfileError):
        profiled.whole(scenario(profile="abacus"), Path())
