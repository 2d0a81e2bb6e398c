"""A scenario made whole: what its profile says of the board, and what its bundle says of the variants, filled in.

What the scenario says itself counts before the profile, and the profile before the defaults. The simulator knows three
temperatures of a throttle: of a profile's ladder with a band for each step, those of the first step are taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from edge_daemon.catalogue import can_run, latencies_of
from edge_daemon.policies.contract import Board
from edge_daemon.policy.setting import board_of
from edge_lab.errors import ScenarioError
from edge_lab.simulate.scenario import Scenario, VariantSection
from edge_sdk import physics, profile
from edge_sdk.bundle import Bundle
from edge_sdk.manifest import Variant

_NEVER_C = 250.0  # a throttle without a lowest step at once
_MS_PER_MAC = 1e-6  # of a variant nobody timed: only the order means anything


class Whole(msgspec.Struct, frozen=True, kw_only=True):
    """A scenario to play.

    Attributes:
        board: The profile's physics, below what the scenario says itself.
        notes: What is assumed, and which limits contradict each other.
    """

    scenario: Scenario
    board: Board
    notes: tuple[str, ...]


def whole(scenario: Scenario, folder: Path) -> Whole:
    """Fill in profile and bundle.

    Args:
        scenario: As it was read.
        folder: Which a bundle's path is relative to.

    Raises:
        UnknownProfileError: There is no such profile.
        BundleError: The bundle cannot be read.
        ScenarioError: None of its variants runs on a CPU.
    """
    known = None if scenario.profile is None else profile.load(scenario.profile)
    model = physics.of(known)
    notes: list[str] = []
    if scenario.bundle is not None:
        variants, untimed = _variants(scenario, folder / scenario.bundle)
        scenario = msgspec.structs.replace(scenario, variant=variants, bundle=None)
        if untimed:
            notes.append(f"nobody timed or predicted {', '.join(untimed)} here: taken by their operations")
    if known is not None and known.board is not None:
        scenario = _filled(scenario, model)
    board = board_of(model)
    if known is None or known.board is None:
        board = Board()
        if _assumes(scenario):
            notes.append("the board's physics are those of a bare Raspberry Pi 4")
    notes += _contradictions(scenario, board)
    return Whole(scenario=scenario, board=board, notes=tuple(notes))


def _filled(scenario: Scenario, model: physics.BoardModel) -> Scenario:
    own, ladder = scenario.board, model.throttle
    steps: tuple[float, ...] = (1.0,)
    throttle_c = None
    if ladder is not None:
        steps = ladder.clocks
        throttle_c = ladder.down_c[0], _NEVER_C if ladder.lowest_c is None else ladder.lowest_c, ladder.up_c[0]
    return msgspec.structs.replace(
        scenario,
        board=msgspec.structs.replace(
            own,
            steps=own.steps or steps,
            throttle_c=own.throttle_c or throttle_c,
            radio_w=model.radio_w if own.radio_w is None else own.radio_w,
            switch_j=model.switch_j if own.switch_j is None else own.switch_j,
        ),
        variant=tuple(
            msgspec.structs.replace(v, power_w=model.cpu_w) if v.power_w is None and not v.remote else v
            for v in scenario.variant
        ),
    )


def _assumes(scenario: Scenario) -> bool:
    own = scenario.board
    return own.r_c_per_w is None or own.c_j_per_c is None or own.idle_w is None


def _variants(scenario: Scenario, path: Path) -> tuple[tuple[VariantSection, ...], list[str]]:
    """Those of the bundle that run on a CPU, and which of them were never timed."""
    bundle = Bundle(path)
    running = [variant for variant in bundle.manifest.variants if can_run(variant, None)]
    if not running:
        raise ScenarioError("none of its variants runs on a CPU", where=str(path))
    known = latencies_of(running, bundle.latencies(), machine="", profile=scenario.profile)
    found = [_section(variant, None if (of := known.get(variant.id)) is None else of.median_ms) for variant in running]
    return tuple(found), [variant.id for variant in running if variant.id not in known]


def _section(variant: Variant, latency_ms: float | None) -> VariantSection:
    return VariantSection(
        id=variant.id,
        accuracy=min(max(variant.quality.value, 0.0), 100.0),
        latency_ms=max(variant.cost.macs * _MS_PER_MAC, 0.01) if latency_ms is None else max(latency_ms, 1e-3),
        size_bytes=variant.size_bytes,
    )


def _contradictions(scenario: Scenario, base: Board) -> Iterator[str]:
    """Limits that nothing can hold, as far as that can be told without playing."""
    limits, own = scenario.limits, scenario.board
    here = [v for v in scenario.variant if not v.remote]
    if len(here) == 1:
        yield "one variant runs here, so there is nothing to choose but when to ask a server"
    fastest = min(v.latency_ms or 0.0 for v in here)
    if fastest > limits.latency_ms:
        yield f"latency_ms = {limits.latency_ms:g} is less than the fastest variant takes ({fastest:g} ms)"
    best = max(v.accuracy for v in scenario.variant)
    if limits.min_accuracy is not None and best < limits.min_accuracy:
        yield f"min_accuracy = {limits.min_accuracy:g} is more than any variant has ({best:g})"
    idle_w = base.idle_w if own.idle_w is None else own.idle_w
    idle_c = scenario.ambient.start_c + idle_w * sum(own.r_c_per_w or base.r_c_per_w)
    if limits.temp_c is not None and idle_c > limits.temp_c:
        yield f"temp_c = {limits.temp_c:g} is less than the idle board comes to ({idle_c:.1f} C)"
    if limits.max_power_w is not None and idle_w >= limits.max_power_w:
        yield f"max_power_w = {limits.max_power_w:g} is no more than the idle board draws ({idle_w:g} W)"
    if limits.battery_wh is not None:
        until_s = min(limits.battery_until_s or scenario.duration_s, scenario.duration_s)
        idle_wh = idle_w * until_s / 3600
        if idle_wh > limits.battery_wh:
            yield f"battery_wh = {limits.battery_wh:g} is less than the idle board takes until then ({idle_wh:.2f} Wh)"
