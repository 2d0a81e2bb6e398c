"""The simulated board against closed forms, and what must hold whatever a policy does."""

from __future__ import annotations

import numpy as np
import pytest
from simulated_stage import PLAIN, REMOTE, Always, scenario, world

from edge_daemon.policies import registry
from edge_daemon.policies.contract import Board
from edge_lab.simulate import trace
from edge_lab.simulate.board import Clock, Heat
from edge_lab.simulate.oracle import clairvoyant
from edge_lab.simulate.play import Run, play
from edge_lab.simulate.world import SUBSTEPS, draw

QUIET = {"quiet_per_s": 0.0, "busy_per_s": 0.0}
BOARD = Board()
R, C = BOARD.r_c_per_w, BOARD.c_j_per_c


def heated(power_w: float, seconds: int) -> list[float]:
    heat = Heat(world())
    found = []
    for _ in range(seconds):
        for _ in range(SUBSTEPS):
            heat.substep(power_w, 25.0)
        found.append(heat.die_c)
    return found


# ------------------------------------------------------------------------------------------------------------ heat


def test_an_idle_board_stays_where_it_is_in_balance() -> None:
    run = play(world(arrivals=QUIET), "idle", Always("small"))
    assert run.temp_c == pytest.approx([25.0 + BOARD.idle_w * sum(R)] * 60)


@pytest.mark.parametrize("power_w", [1.0, 5.0, 8.0])
def test_under_constant_power_the_die_settles_at_power_times_resistance(power_w: float) -> None:
    assert heated(power_w, 2500)[-1] == pytest.approx(25.0 + power_w * sum(R), abs=0.05)


def test_the_way_there_is_that_of_two_time_constants() -> None:
    # C dT/dt = G T of die and board above the air; its eigenvalues are the two time constants.
    matrix = np.array([[-1 / (R[0] * C[0]), 1 / (R[0] * C[0])], [1 / (R[0] * C[1]), -(1 / R[0] + 1 / R[1]) / C[1]]])
    values, vectors = np.linalg.eig(matrix)
    assert sorted(-1 / values) == pytest.approx([12.4, 273.0], rel=0.02)
    power_w = 6.0
    begin = BOARD.idle_w * np.array([sum(R), R[1]])
    end = power_w * np.array([sum(R), R[1]])
    weights = np.linalg.solve(vectors, begin - end)
    at_s = np.arange(1, 601)
    exact = 25.0 + end[0] + (vectors[0] * weights * np.exp(np.outer(at_s, values))).sum(axis=1)
    assert np.abs(exact - heated(power_w, 600)).max() < 0.2  # Euler, four steps a second


@pytest.mark.parametrize(("r", "c"), [((0.05, 0.05), (0.1, 0.1)), ((0.05, 7.0), (4.0, 0.1)), ((3.5, 0.05), (4.0, 0.1))])
def test_a_board_that_heats_in_no_time_settles_too(r: tuple[float, float], c: tuple[float, float]) -> None:
    quick = world(board={"r_c_per_w": r, "c_j_per_c": c}, arrivals=QUIET)
    heat = Heat(quick)
    for _ in range(400 * SUBSTEPS):
        heat.substep(6.0, 25.0)
    assert heat.die_c == pytest.approx(25.0 + 6.0 * sum(r), abs=0.3)
    assert np.isfinite(clairvoyant(quick, quick=True).run.temp_c).all()


def test_an_inference_of_no_time_at_all_is_played() -> None:
    at_once = world(variant=[{"id": "at-once", "accuracy": 70.0, "latency_ms": 1e-300}])
    assert play(at_once, "optimal", registry.find("optimal")).effective_accuracy == 70


def test_the_clock_falls_a_step_each_second_when_hot_and_at_once_when_very_hot() -> None:
    clock = Clock(world())
    seen = []
    for die_c in (79.0, 80.5, 80.5, 79.0, 77.0, 77.0, 86.0, 84.0, 77.0):
        clock.second(die_c)
        seen.append(clock.ratio)
    assert seen == [1.0, 0.667, 0.5, 0.5, 0.667, 1.0, 0.4, 0.4, 0.5]


def test_a_throttled_clock_stretches_an_inference_and_takes_less_power() -> None:
    steps = {"steps": [1.0, 0.5], "throttle_c": [40.0, 41.0, 39.0]}  # always too hot
    fast, slow = (play(world(board=b), "p", Always("large")) for b in ({}, steps))
    joules = [3600 * run.energy_wh[-1] - 60 * BOARD.idle_w for run in (fast, slow)]
    assert slow.in_time == fast.in_time
    assert joules[1] / joules[0] == pytest.approx(2 * 0.5**BOARD.clock_power, rel=0.05)  # twice the time


# ---------------------------------------------------------------------------------------------------------- energy


def test_energy_is_idle_power_and_each_inference() -> None:
    run = play(world(), "p", Always("large"))
    assert sum(run.requests) == 120
    assert 3600 * run.energy_wh[-1] == pytest.approx(60 * BOARD.idle_w + 120 * 0.120 * 3.3, rel=1e-6)


def test_the_radio_is_on_while_a_request_is_sent() -> None:
    steady = {"rtt_ms": (20.0, 20.0), "up_mbps": (8.0, 8.0), "spike_rate": 0.0}
    run = play(world(variant=[{"id": "small", "accuracy": 70.0, "latency_ms": 30.0}, REMOTE], network=steady), "p",
               Always("server"))  # fmt: skip
    assert sum(run.in_time) == 120
    assert run.effective_accuracy == pytest.approx(84.0)
    assert 3600 * run.energy_wh[-1] == pytest.approx(60 * BOARD.idle_w + 120 * 0.030 * 1.1, rel=1e-6)


def test_a_battery_that_is_empty_ends_everything() -> None:
    limits = {"latency_ms": 250.0, "battery_wh": 30 * BOARD.idle_w / 3600, "battery_until_s": 50.0}
    run = play(world(arrivals={"quiet_per_s": 1.0, "busy_per_s": 1.0}, limits=limits), "p", Always("small"))
    assert run.dead_s is not None
    assert 28 <= run.dead_s <= 30
    assert run.alive_pct(50.0) == pytest.approx(2 * run.dead_s)
    dead = int(run.dead_s)
    assert sum(run.in_time[dead:]) == sum(run.late[dead:]) == 0
    assert sum(run.requests[dead:]) == 60 - dead
    assert run.effective_accuracy == pytest.approx(70.0 * dead / 60)


def test_what_flows_out_of_the_battery_besides_counts() -> None:
    limits = {"latency_ms": 250.0, "battery_wh": 60 * BOARD.idle_w / 3600, "battery_until_s": 60.0}
    drained = trace.Recorded(time_s=np.arange(60.0), columns={"battery_w": np.full(60, BOARD.idle_w)})
    charged = trace.Recorded(time_s=np.arange(60.0), columns={"battery_w": np.full(60, -BOARD.idle_w)})
    for recorded, alive_pct in ((drained, 50.0), (charged, 100.0)):
        played = draw(scenario(arrivals=QUIET, limits=limits), 1, base=BOARD, trace=recorded)
        assert play(played, "p", Always("small")).alive_pct(60.0) == pytest.approx(alive_pct, abs=2.0)


# ------------------------------------------------------------------------------------------- what always must hold


@pytest.fixture(scope="module", params=["static-fast", "static", "rules", "alert"])
def rough(request: pytest.FixtureRequest) -> Run:
    """Each baseline in two minutes with everything hidden, a network, and a battery that some empty."""
    hidden = PLAIN | {"latency_scale": 1.2, "latency_sigma": 0.2, "jitter_sigma": 0.1, "spike_rate": 0.05,
                      "burst_rate": 8.0, "gauge_pct": 0.1}  # fmt: skip
    limits = {"latency_ms": 150.0, "temp_c": 60.0, "battery_wh": 120 * 3.4 / 3600, "battery_until_s": 120.0}
    rates = {"quiet_per_s": 3.0, "busy_per_s": 12.0, "quiet_s": 10.0, "busy_s": 10.0, "spacing": "poisson"}
    made = world(
        duration_s=120, hidden=hidden, limits=limits, arrivals=rates, network={}, variant=[*scenario().variant, REMOTE]
    )
    return play(made, request.param, registry.find(request.param))


def test_each_request_is_in_time_or_late_while_there_is_power(rough: Run) -> None:
    alive = len(rough.requests) if rough.dead_s is None else int(rough.dead_s)
    assert [a + b for a, b in zip(rough.in_time[:alive], rough.late[:alive], strict=True)] == rough.requests[:alive]
    assert sum(rough.in_time) > 0


def test_energy_never_falls_and_is_at_least_the_idle_boards(rough: Run) -> None:
    drawn = np.diff([0.0, *rough.energy_wh]) * 3600
    alive = len(drawn) if rough.dead_s is None else int(rough.dead_s)
    assert (drawn[:alive] >= BOARD.idle_w - 1e-9).all()
    assert (drawn[alive:] == 0).all()


def test_a_change_is_told_with_what_was_left(rough: Run) -> None:
    taken = [new for _, _, new, _ in rough.reasons]
    assert [old for _, old, _, _ in rough.reasons] == ["", *taken[:-1]]
    assert len(rough.reasons) - 1 == rough.switches + rough.toggles


def test_the_same_seed_is_the_same_world_whatever_was_drawn_before() -> None:
    one, again, other = world(3, network={}), world(3, network={}), world(4, network={})
    for name in ("ambient_c", "rtt_ms", "up_mbps", "arrive_s", "jitter", "remote_jitter"):
        assert np.array_equal(getattr(one, name), getattr(again, name)), name
    assert not np.array_equal(one.rtt_ms, other.rtt_ms)


def test_one_more_source_of_chance_leaves_the_others_as_they_were() -> None:
    calm, rough = world(2), world(2, hidden=PLAIN | {"burst_rate": 20.0, "spike_rate": 0.3}, network={})
    assert rough.slowdown.max() > 1.4
    assert np.array_equal(calm.arrive_s, rough.arrive_s)
    assert np.array_equal(calm.ambient_c, rough.ambient_c)
    assert np.array_equal(calm.temp_noise_c, rough.temp_noise_c)


def test_what_a_policy_does_changes_no_chance() -> None:
    made = world(hidden=PLAIN | {"jitter_sigma": 0.3})
    first = play(made, "one", Always("small"))
    play(made, "other", Always("large"))
    assert play(made, "one", Always("small")).energy_wh == first.energy_wh
