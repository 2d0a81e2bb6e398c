"""A board as figures: they are the profile's, each says whether it is an estimate, and what cannot be is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk import physics
from edge_sdk import profile as profiles
from edge_sdk.errors import ImpossibleProfileError, ProfileError
from edge_sdk.facts import Basis, Fact, Profile
from edge_sdk.physics import STANDARD, BoardModel, Cell, Ladder

pytestmark = pytest.mark.device

ALL = profiles.load_all()
MODELLED = [profile for profile in ALL if profile.board is not None and profile.board.r_c_per_w is not None]
PI4 = physics.of(profiles.load("rpi4"))
# What the measured prototype of the policy was simulated with (facts of its benchmark).
LADDER = Ladder(clocks=(1.0, 0.667, 0.5, 0.4), down_c=(80, 80, 80), up_c=(78, 78, 78), lowest_c=85)


# ------------------------------------------------------------------------------------------------- what is shipped


def test_the_pi_4_is_the_board_that_the_policy_was_measured_on() -> None:
    assert (PI4.idle_w, PI4.r_c_per_w, PI4.c_j_per_c) == (2.7, (3.5, 7.0), (4.0, 35.0))
    assert (PI4.clock_power, PI4.radio_w, PI4.switch_j) == (2.2, 1.1, 0.6)
    assert PI4.throttle == LADDER
    assert (PI4.max_temp_c, PI4.critical_c) == (75, 110)


@pytest.mark.parametrize("profile", MODELLED, ids=lambda p: p.id)
class TestModelledBoard:
    def test_its_idle_die_is_below_the_limit_in_a_warm_room(self, profile: Profile) -> None:
        model = physics.of(profile)
        assert model.idle_c(35.0) < model.max_temp_c

    def test_idle_and_busy_make_about_what_is_said_of_the_whole_board(self, profile: Profile) -> None:
        model, active = physics.of(profile), profile.power.active_w
        if active is not None and "bare board" not in active.source:  # which is typical use, not all cores busy
            most_w = model.idle_w + model.cpu_w + sum(model.accelerator_w.values())
            assert 0.7 * active.value <= most_w <= 1.45 * active.value

    def test_the_die_is_quicker_than_the_board(self, profile: Profile) -> None:
        model = physics.of(profile)
        die_s, board_s = (r * c for r, c in zip(model.r_c_per_w, model.c_j_per_c, strict=True))
        assert 0.5 <= die_s < board_s <= 3600

    def test_it_throttles_between_the_limit_and_the_shutdown(self, profile: Profile) -> None:
        model = physics.of(profile)
        if model.throttle is not None and profile.id != "rpi3":  # whose soft limit of 60 C costs little
            assert model.max_temp_c <= model.throttle.down_c[0]
            assert model.critical_c is None or model.throttle.down_c[-1] < model.critical_c


@pytest.mark.parametrize(
    ("board", "watts", "rise_c"),
    [
        ("rpi4", 2.7, 27.3),  # pi-plates.com: bare and idle, at the surface of the package
        ("rpi3", 1.9, 22.1),  # martinrowan.co.uk 2019-07: bare and idle
        ("rpi-zero2w", 1.8, 32.0),  # picockpit.com: from idle to all cores busy
        ("rpi5", 7.0, 59.0),  # phoronix.com: 81 C on average under load, without a heat sink
        ("jetson-orin-nx", 29.0, 74.0),  # ARK-Electronics/ark_jetson_kernel pull request 116: below 99 C
    ],
)
def test_a_board_heats_about_as_was_published(board: str, watts: float, rise_c: float) -> None:
    model = physics.of(profiles.load(board))
    assert model.idle_c(0) / model.idle_w * watts == pytest.approx(rise_c, rel=0.1)


def test_only_a_board_with_an_accelerator_has_power_for_one() -> None:
    drawing = [profile for profile in ALL if profile.board is not None and profile.board.accelerator_w]
    assert {"coral-usb", "coral-dev", "coral-mini", "jetson-orin-nano"} <= {profile.id for profile in drawing}
    assert all(profile.compute.accelerator for profile in drawing)


def test_what_no_profile_says_is_the_standard_board_and_all_of_it_an_estimate() -> None:
    assert physics.of(None) is STANDARD
    told = {field.name for field in fields(STANDARD)} - {"throttle", "battery", "critical_c", "estimated"}
    assert told == STANDARD.estimated


def test_the_standard_board_sustains_a_smaller_share_of_its_load_than_any_that_is_known() -> None:
    def share(model: BoardModel) -> float:
        return model.sustained_w(25) / model.cpu_w

    assert all(share(STANDARD) <= share(physics.of(profile)) for profile in MODELLED)
    assert STANDARD.max_temp_c <= min(profile.thermal.max_temp_c.value for profile in ALL)


def test_a_board_of_unknown_heat_keeps_its_own_limits_and_what_else_is_known() -> None:
    unknown = [profile for profile in ALL if profile not in MODELLED]
    assert {"x86-64", "coral-dev"} <= {profile.id for profile in unknown}
    for profile in unknown:
        model = physics.of(profile)
        assert model.max_temp_c == profile.thermal.max_temp_c.value
        assert (model.idle_w, model.r_c_per_w, model.cpu_w) == (STANDARD.idle_w, STANDARD.r_c_per_w, STANDARD.cpu_w)
        assert {"idle_w", "r_c_per_w", "cpu_w"} <= model.estimated
    assert physics.of(profiles.load("coral-dev")).busy_w("edgetpu") == 2.0
    assert "accelerator_w" not in physics.of(profiles.load("coral-dev")).estimated


def test_what_was_published_is_no_estimate() -> None:
    profile = profiles.load("rpi4")
    assert "idle_w" in PI4.estimated
    sure = Fact(value=3.0, basis=Basis.PUBLISHED)
    assert "cpu_w" not in physics.of(_with(profile, cpu_w=sure)).estimated
    assert {"throttle", "idle_w"} <= physics.of(_with(profile, cpu_w=sure)).estimated


def _with(profile: Profile, **changed: object) -> Profile:
    import msgspec

    assert profile.board is not None
    return msgspec.structs.replace(profile, board=msgspec.structs.replace(profile.board, **changed))


# ------------------------------------------------------------------------------------------------- calculated with


def test_idle_and_sustained_power_follow_from_the_resistance() -> None:
    assert PI4.idle_c(25) == pytest.approx(53.35)
    assert PI4.sustained_w(25) == pytest.approx(50 / 10.5 - 2.7)
    assert PI4.sustained_w(25, limit_c=60) == pytest.approx(35 / 10.5 - 2.7)
    assert PI4.sustained_w(60) == 0
    die_c = 25 + (PI4.idle_w + PI4.sustained_w(25)) * PI4.resistance_c_per_w
    assert die_c == pytest.approx(PI4.max_temp_c)


def test_an_accelerator_that_nobody_knows_is_taken_to_draw_as_much_as_the_cpu() -> None:
    usb = replace(PI4, accelerator_w={"edgetpu": 2.0})
    assert [usb.busy_w(), usb.busy_w("edgetpu"), usb.busy_w("vx")] == [PI4.cpu_w, 2.0, PI4.cpu_w]


def test_a_hot_board_steps_down_one_clock_at_a_time_and_back_below_its_band() -> None:
    assert [LADDER.after(0, t) for t in (70, 80, 80.1, 85, 85.1)] == [0, 0, 1, 1, 3]
    assert [LADDER.after(1, t) for t in (77.9, 78, 79, 81)] == [0, 1, 1, 2]
    assert [LADDER.after(3, t) for t in (100, 79, 20)] == [3, 3, 2]


@given(st.lists(st.floats(-20, 120), max_size=200))
def test_the_clock_never_jumps_but_to_the_lowest(temperatures: list[float]) -> None:
    step = 0
    for die_c in temperatures:
        after = LADDER.after(step, die_c)
        assert 0 <= after < len(LADDER.clocks)
        assert abs(after - step) <= 1 or after == len(LADDER.clocks) - 1
        step = after


def test_a_battery_tells_its_charge_by_the_curve() -> None:
    # PiSugar's curve (PiSugar/pisugar-power-manager-rs ip5209.rs), shortened.
    cell = Cell(capacity_wh=18.5, gauge=((4.16, 100), (3.92, 65), (3.66, 10), (3.1, 0)))
    assert [cell.percent(volts) for volts in (5.0, 4.16, 3.92, 3.1, 1.0)] == [100, 100, 65, 0, 0]
    assert cell.percent(3.79) == pytest.approx(37.5)
    assert Cell(capacity_wh=18.5).percent(3.9) is None


@given(st.floats(3.0, 4.3), st.floats(3.0, 4.3))
def test_a_higher_voltage_is_never_less_charge(one: float, other: float) -> None:
    cell = Cell(capacity_wh=5, gauge=((4.16, 100), (4.05, 95), (3.92, 65), (3.79, 25.5), (3.66, 10), (3.1, 0)))
    low, high = (cell.percent(volts) or 0 for volts in sorted((one, other)))
    assert 0 <= low <= high <= 100


# ------------------------------------------------------------------------------------------------- what cannot be


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"idle_w": 0.0}, "board.idle_w"),
        ({"idle_w": float("nan")}, "board.idle_w"),
        ({"cpu_w": float("inf")}, "board.cpu_w"),
        ({"r_c_per_w": (3.5, -7.0)}, "board.r_c_per_w: -7 is not above 0"),
        ({"c_j_per_c": (0.0, 35.0)}, "board.c_j_per_c"),
        ({"clock_power": -1.0}, "board.clock_power"),
        ({"radio_w": -1.0}, "board.radio_w: -1 is not at least 0"),
        ({"accelerator_w": {"edgetpu": 0.0}}, "board.accelerator_w.edgetpu"),
        ({"max_temp_c": 24.0}, "thermal.max_temp_c: 24 C is not above a room's 25 C"),
        ({"max_temp_c": float("nan")}, "thermal.max_temp_c"),
        ({"critical_c": 75.0}, "thermal.max_temp_c: 75 C is not below thermal.critical_c"),
    ],
)
def test_a_model_with_an_impossible_figure_is_not_made(change: dict[str, object], key: str) -> None:
    with pytest.raises(ImpossibleProfileError, match=key):
        replace(PI4, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"clocks": (0.9, 0.5, 0.4, 0.3)}, "clocks: 0.9, 0.5, 0.4, 0.3 do not descend from 1"),
        ({"clocks": (1.0, 0.5, 0.5, 0.4)}, "clocks"),
        ({"clocks": (1.0, 0.4, 0.5, 0.6)}, "clocks"),
        ({"clocks": (1.0, 0.5)}, "one fewer than clocks"),
        ({"down_c": (80, 70, 85)}, "down_c"),
        ({"up_c": (80, 78, 78)}, "up_c"),
        ({"lowest_c": 79}, "lowest_c"),
        ({"step_s": 0}, "step_s"),
    ],
)
def test_a_throttle_that_does_not_step_down_is_not_made(change: dict[str, object], key: str) -> None:
    with pytest.raises(ImpossibleProfileError, match=key):
        replace(LADDER, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("gauge", [((3.1, 0), (4.1, 100)), ((4.1, 0), (3.1, 100)), ((4.1, 100), (4.1, 50))])
def test_a_curve_that_does_not_fall_is_no_battery(gauge: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(ImpossibleProfileError, match="gauge"):
        Cell(capacity_wh=1, gauge=gauge)


IMPOSSIBLE: list[tuple[Callable[[str], str], str]] = [
    (lambda s: s.replace("max_temp_c = { value = 75", "max_temp_c = { value = 50"), "the idle board settles at 53.4 C"),
    (lambda s: s.replace("max_temp_c = { value = 75", "max_temp_c = { value = 20"), "thermal.max_temp_c: 20 C"),
    (lambda s: s.replace("max_temp_c = { value = 75", "max_temp_c = { value = 110"), "not below thermal.critical_c"),
    (lambda s: s.replace("[80, 85]", "[85, 80]"), "thermal.throttle_c"),
    (lambda s: s.replace("[80, 85]", "[80, 120]"), "thermal.throttle_c"),
    (lambda s: s.replace("[3.5, 7.0]", "[3.5, 700.0]"), "thermal.max_temp_c"),
    (lambda s: s.replace("[3.5, 7.0]", "[3.5, -7.0]"), "board.r_c_per_w"),
    (lambda s: s.replace("[3.5, 7.0]", "[3.5]"), "board.r_c_per_w"),
    (lambda s: s.replace("[3.5, 7.0]", "[nan, 7.0]"), "board.r_c_per_w"),
    (lambda s: s.replace("clocks = [1.0, 0.667,", "clocks = [1.0, 0.4,"), "board.throttle.clocks"),
    (lambda s: s.replace("lowest_c = 85", "lowest_c = 60"), "board.throttle.lowest_c"),
    (lambda s: s.replace("down_c = [80, 80, 80]", "down_c = [80, 80, 120]").replace("lowest_c = 85", ""), "down_c"),
    (lambda s: s.replace("r_c_per_w = {", "accelerator_w = {} #"), "board.r_c_per_w: missing"),
    (lambda s: s.replace("idle_w = { value = 3.06", "idle_w = { value = 30.6"), "power.idle_w"),
]


@pytest.mark.parametrize(("edit", "named"), IMPOSSIBLE)
def test_a_file_that_says_what_cannot_be_is_refused_by_file_and_key_in_one_line(
    tmp_path: Path, edit: Callable[[str], str], named: str
) -> None:
    path = tmp_path / "rpi4.toml"
    shipped = (profiles.directories()[-1] / "rpi4.toml").read_text("utf-8")
    path.write_text(edit(shipped), "utf-8")
    assert path.read_text("utf-8") != shipped
    with pytest.raises(ProfileError) as caught:
        profiles.read(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert named in text
    assert "\n" not in text
    assert caught.value.exit_status == 2
    assert caught.value.code in {"profile", "profile-impossible"}


def test_a_model_of_nothing_but_numbers_is_enough_for_a_scenario() -> None:
    model = BoardModel(idle_w=1, r_c_per_w=(1, 2), c_j_per_c=(1, 10), cpu_w=2, max_temp_c=60)
    assert model.idle_c(20) == 23
