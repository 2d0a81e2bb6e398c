"""One sentence from a reason in data: what bound, the runner-up and the margin, and numbers with their units."""

from __future__ import annotations

import math

import pytest

from edge_daemon.policies.contract import Action, Board, Setting, Task, Why
from edge_daemon.policies.explain import ESTIMATED, MAX_CHARS, sentence

pytestmark = pytest.mark.device

LARGE = Action(id="large", quality=80.2, latency_ms=150.0, power_w=3.3)
SMALL = Action(id="small", quality=74.4, latency_ms=32.5, power_w=3.0)
REMOTE = Action(id="remote", quality=84.0, latency_ms=25.0, power_w=1.1, remote=True)
SETTING = Setting(
    board=Board(),
    tasks=(Task(name="m", actions=(LARGE, SMALL, REMOTE), limit_ms=250.0, min_quality=70.0),),
    temp_c=75.0,
    max_power_w=5.0,
)


@pytest.mark.parametrize(
    ("code", "begins"),
    [
        ("latency", "answers have to come within 250 ms: "),
        ("thermal", "heat binds (limit 75 °C): "),
        ("power", "at most 5 W may be drawn: "),
        ("accuracy", "quality is to be at least 70 points: "),
        ("battery", "the charge has to last: "),
        ("network", "the network has changed: "),
        ("of-a-stranger", "of-a-stranger: "),
    ],
)
def test_it_begins_with_what_bound(code: str, begins: str) -> None:
    text = sentence(Why(code=code), SETTING, LARGE, SMALL)
    assert text == f"{begins}small (74.4 points in 32.5 ms) instead of large (80.2 points in 150 ms)"


def test_it_ends_with_the_runner_up_the_margin_and_the_numbers() -> None:
    numbers = (("cap_w", 1.4249), ("price_per_j", 13.8), ("die_c", 69.1), ("slowdown_x", 1.26), ("left_s", 1800.0))
    why = Why(code="thermal", runner_up="remote", margin=1.94, numbers=numbers)
    assert sentence(why, SETTING, None, LARGE).endswith(
        "large (80.2 points in 150 ms); next is remote, 1.94 points a request behind; cap 1.42 W (estimated), "
        "price 13.8 points/J (estimated), die 69.1 °C, slowdown 1.26 times, left 1800 s"
    )


def test_energy_is_an_estimate_unless_it_is_metered() -> None:
    why = Why(code="power", numbers=(("cap_w", 1.0), ("drawn_j", 2.0), ("left_wh", 3.0), ("wait_ms", 4.0)))
    assert sentence(why, SETTING, None, SMALL).count(ESTIMATED) == 3
    assert ESTIMATED not in sentence(why, SETTING, None, SMALL, metered=True)


def test_a_margin_that_says_nothing_is_left_out_and_nothing_grows_without_bound() -> None:
    for margin in (None, math.nan, -2.0):
        text = sentence(Why(code="gain", runner_up="large", margin=margin), SETTING, SMALL, SMALL)
        assert text == "it is worth more as things are: small (74.4 points in 32.5 ms); next is large"
    many = tuple((f"number_{index}", float(index)) for index in range(100))
    assert "number 5 5" in sentence(Why(code="gain", numbers=many), None, None, REMOTE)
    assert "number 6" not in sentence(Why(code="gain", numbers=many), None, None, REMOTE)
    assert len(sentence(Why(code="gain"), None, None, SMALL, cause="x" * 5000)) == MAX_CHARS


def test_a_server_has_its_own_words() -> None:
    assert "remote (84 points in 25 ms on the server)" in sentence(Why(code="network"), SETTING, SMALL, REMOTE)
