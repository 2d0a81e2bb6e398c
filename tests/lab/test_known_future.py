"""What could have been known: the clairvoyant's plan, its bound, the causal floor and what is feasible at all."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edge_daemon.policies.contract import Board, Event, Second
from edge_lab.simulate.board import App
from edge_lab.simulate.floor import Floor, causal_floor
from edge_lab.simulate.oracle import Oracle, Replay, clairvoyant, feasible
from edge_lab.simulate.play import Run, play
from edge_lab.simulate.scenario import Ambient, Arrivals, Hidden, Limits, Network, Scenario, VariantSection
from edge_lab.simulate.world import World, draw

SMALL = VariantSection(id="small", accuracy=70, latency_ms=40, power_w=3.0)
MIDDLE = VariantSection(id="middle", accuracy=76, latency_ms=90, power_w=3.2)
LARGE = VariantSection(id="large", accuracy=80, latency_ms=150, power_w=3.4)
SERVER = VariantSection(id="server", accuracy=84, remote=True, payload_kb=30, server_ms=25)
LADDER = (SMALL, MIDDLE, LARGE)

PLAIN = Scenario(
    name="plain", duration_s=90, limits=Limits(temp_c=75), arrivals=Arrivals(quiet_s=20, busy_s=20), variant=LADDER
)
WARM = Scenario(
    name="warm",
    duration_s=90,
    limits=Limits(temp_c=64),
    ambient=Ambient(start_c=30),
    arrivals=Arrivals(quiet_per_s=5),
    variant=LADDER,
)
THRIFTY = Scenario(name="thrifty", duration_s=90, limits=Limits(battery_wh=0.088, battery_until_s=90), variant=LADDER)
LINKED = Scenario(
    name="linked",
    duration_s=60,
    limits=Limits(temp_c=75, battery_wh=0.06),
    network=Network(up_mbps=(0.4, 2.0), outage_rate=0.02),
    hidden=Hidden(burst_rate=2.0),
    variant=(*LADDER, SERVER),
)
ALL = (PLAIN, WARM, THRIFTY, LINKED)


def world_of(scenario: Scenario, seed: int = 3) -> World:
    return draw(scenario, seed, base=Board())


@pytest.fixture(scope="module", params=ALL, ids=lambda scenario: scenario.name)
def known(request: pytest.FixtureRequest) -> tuple[World, Oracle]:
    world = world_of(request.param)
    return world, clairvoyant(world)


def always(world: World, action: str) -> Run:
    return play(world, action, Replay([action] * world.seconds), replies=False)


def obeys(world: World, run: Run) -> bool:
    return run.dead_s is None and run.hot_pct(world.setting.temp_c) == 0


def test_each_scenario_here_is_feasible_and_binds(known: tuple[World, Oracle]) -> None:
    world, _ = known

    assert feasible(world).all
    if world.scenario in {WARM, THRIFTY}:
        assert not obeys(world, always(world, "large"))


def test_no_action_kept_all_the_time_that_obeys_the_limits_is_better_than_the_oracle(
    known: tuple[World, Oracle],
) -> None:
    world, oracle = known

    for action in world.setting.tasks[0].actions:
        run = always(world, action.id)
        if obeys(world, run):
            assert oracle.run.effective_accuracy >= run.effective_accuracy - 0.02


@pytest.mark.parametrize("known", [WARM, LINKED], indirect=True, ids=["warm", "linked"])
def test_the_floor_is_behind_the_oracle(known: tuple[World, Oracle]) -> None:
    world, oracle = known

    assert causal_floor(world).effective_accuracy <= oracle.run.effective_accuracy + 0.1


def test_the_floor_is_before_every_action_kept_all_the_time() -> None:
    world = world_of(replace_duration(PLAIN, 150))

    floor = causal_floor(world)

    assert all(
        floor.effective_accuracy >= always(world, action.id).effective_accuracy - 0.3
        for action in world.setting.tasks[0].actions
    )


def test_what_the_oracle_achieves_is_close_below_its_bound(known: tuple[World, Oracle]) -> None:
    _, oracle = known

    assert oracle.gap_pct is not None
    assert -0.15 <= oracle.gap_pct <= 1.5  # in a minute and a half one choice is much: an hour's gap is a tenth of that


def test_the_oracle_is_never_above_the_temperature_limit_nor_out_of_energy(known: tuple[World, Oracle]) -> None:
    world, oracle = known

    assert oracle.run.hot_pct(world.setting.temp_c) == 0
    assert oracle.run.dead_s is None


def test_a_clairvoyant_lives_on_after_the_target_where_that_is_better() -> None:
    thirsty = Limits(battery_wh=0.05, battery_until_s=40)
    world = world_of(
        Scenario(name="early", duration_s=90, limits=thirsty, arrivals=Arrivals(quiet_per_s=5), variant=LADDER)
    )

    oracle = clairvoyant(world, quick=True)

    assert oracle.gap_pct is None
    assert all(
        oracle.run.effective_accuracy >= always(world, one).effective_accuracy - 0.02 for one in ("small", "large")
    )


@pytest.mark.parametrize(
    "fields", [{}, {"arrivals": Arrivals(quiet_per_s=30, busy_per_s=90), "hidden": Hidden(burst_rate=4.0)}]
)
def test_a_planner_serves_as_an_app_does(fields: dict[str, Any]) -> None:
    world = world_of(Scenario(name="served", duration_s=20, variant=LADDER, **fields))

    for action in world.setting.tasks[0].actions:
        one, all_at_once = App(world), App(world)
        qualities = [one.serve(index, action, 0.667).quality for index in range(len(world.arrive_s))]
        assert all_at_once.serve_all(0, len(world.arrive_s), action, 0.667) == pytest.approx(sum(qualities))
        assert all_at_once.joules == pytest.approx(one.joules)
        assert all_at_once.free_s == one.free_s


def test_the_mean_power_is_kept() -> None:
    world = world_of(
        Scenario(
            name="capped",
            duration_s=90,
            limits=Limits(max_power_w=3.4),
            arrivals=Arrivals(quiet_per_s=5),
            variant=LADDER,
        )
    )

    run = clairvoyant(world, quick=True).run

    assert run.energy_wh[-1] * 3600 / 90 <= 3.4
    assert always(world, "large").energy_wh[-1] * 3600 / 90 > 3.4


def test_oracle_and_floor_do_the_same_when_asked_again() -> None:
    world = world_of(replace_duration(LINKED, 25, limits=Limits()))

    assert clairvoyant(world, quick=True).run.action == clairvoyant(world, quick=True).run.action
    assert causal_floor(world).action == causal_floor(world).action


def test_no_sequence_of_ten_seconds_is_better_than_the_oracle_s() -> None:
    world = world_of(
        Scenario(
            name="tiny",
            duration_s=10,
            limits=Limits(temp_c=57.9, latency_ms=200),
            ambient=Ambient(start_c=25, drift_c=0),
            arrivals=Arrivals(quiet_per_s=6),
            hidden=Hidden(spike_rate=0.15),
            variant=(SMALL, LARGE),
        )
    )
    plans = itertools.product(("small", "large"), repeat=world.seconds)
    runs = [play(world, "plan", Replay(list(plan)), replies=False) for plan in plans]

    best = max(run.effective_accuracy for run in runs if obeys(world, run))
    oracle = clairvoyant(world)

    assert len({round(run.effective_accuracy, 6) for run in runs if obeys(world, run)}) > 50
    assert oracle.run.effective_accuracy == pytest.approx(best, rel=0.002)
    assert oracle.bound >= best * 0.998


def test_the_floor_decides_by_nothing_that_is_yet_to_come() -> None:
    """The same run up to a second, and another after it: the same decisions up to that second."""
    short = replace_duration(LINKED, 30)
    world, other = world_of(short, 5), world_of(short, 6)
    until = 15
    steps, arrived = until * 4, int(world.first[until])
    later = int(other.first[until])

    def joined(name: str, begin: int, rest: int) -> np.ndarray:
        return np.concatenate([getattr(world, name)[:begin], getattr(other, name)[rest:]])

    changed = replace(
        world,
        ambient_c=joined("ambient_c", until, until),
        slowdown=joined("slowdown", steps, steps),
        extra_w=joined("extra_w", steps, steps),
        rtt_ms=joined("rtt_ms", until, until),
        up_mbps=joined("up_mbps", until, until),
        arrive_s=joined("arrive_s", arrived, later),
        jitter=joined("jitter", arrived, later),
        remote_jitter=joined("remote_jitter", arrived, later),
        first=np.concatenate([world.first[:until], other.first[until:] + arrived - later]),
    )

    assert causal_floor(changed).action[:until] == causal_floor(world).action[:until]


def test_a_floor_takes_the_server_where_it_answers_and_a_variant_where_it_does_not() -> None:
    good = replace_duration(LINKED, 30, network=Network(up_mbps=(20.0, 30.0)), hidden=Hidden())
    bad = replace_duration(LINKED, 30, network=Network(up_mbps=(0.01, 0.02)), hidden=Hidden())

    assert causal_floor(world_of(good)).action.count("server+hedge") > 25
    assert causal_floor(world_of(bad)).action.count("server+hedge") < 5


def test_a_seed_is_infeasible_where_even_the_smallest_variant_is_too_hot_or_empties_the_battery() -> None:
    hot = feasible(world_of(replace_limits(PLAIN, Limits(temp_c=50))))
    empty = feasible(world_of(replace_limits(PLAIN, Limits(battery_wh=0.05))))
    drawing = feasible(world_of(replace_limits(PLAIN, Limits(max_power_w=2.0))))

    assert (hot.temp, hot.battery, hot.all) == (False, True, False)
    assert (empty.temp, empty.battery, empty.all) == (True, False, False)
    assert (drawing.power, drawing.all) == (False, False)


def test_even_where_nothing_is_feasible_there_is_a_plan() -> None:
    for limits in (Limits(temp_c=45), Limits(battery_wh=0.03), Limits(battery_wh=0.039, battery_until_s=25)):
        world = world_of(replace_duration(PLAIN, 50, limits=limits))

        assert len(clairvoyant(world, quick=True).run.action) == 50
        assert len(causal_floor(world).action) == 50


def test_a_run_without_requests_is_worth_nothing_to_anybody() -> None:
    world = world_of(replace_duration(PLAIN, 20, arrivals=Arrivals(quiet_per_s=0, busy_per_s=0)))

    assert clairvoyant(world, quick=True).run.effective_accuracy == 0
    assert causal_floor(world).effective_accuracy == 0


def test_the_floor_keeps_what_was_chosen_when_an_old_reply_comes() -> None:
    world = world_of(PLAIN)
    floor = Floor(world)
    seen: list[Event] = []

    class Listening:
        def __call__(self, _setting: object) -> Listening:
            return self

        def initial(self) -> None:
            floor.initial()

        def step(self, state: None, event: Event) -> object:
            seen.append(event)
            return floor.step(state, event)

    play(world, "floor", Listening())  # type: ignore[arg-type]
    old = next(event for event in seen if not isinstance(event, Second))

    assert floor.step(None, old) == (None, ())


def replace_duration(scenario: Scenario, seconds: int, **changes: object) -> Scenario:
    fields = {name: getattr(scenario, name) for name in scenario.__struct_fields__}
    return Scenario(**(fields | {"duration_s": seconds} | changes))


def replace_limits(scenario: Scenario, limits: Limits) -> Scenario:
    return replace_duration(scenario, scenario.duration_s, limits=limits)
