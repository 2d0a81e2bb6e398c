"""The real loop, a short one: daemon, app and a board heated by what the app burns, with a kill -9 in the middle.

`python benchmarks/real_loop.py` is the long one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_daemon.policies import registry
from edge_lab.loop import Outcome, RealLoop

pytestmark = pytest.mark.timeout(120)

SECONDS = 10.0
FASTER = 25.0  # the die's 14 s become half a second


@pytest.fixture(scope="module")
def outcome() -> Iterator[Outcome]:
    with (
        tempfile.TemporaryDirectory(prefix="edge-", dir="/tmp") as work,
        RealLoop(Path(work), policy=registry.DEFAULT, faster=FASTER) as loop,
    ):
        yield loop.run(SECONDS)


def test_the_limit_of_heat_is_held_where_the_largest_variant_would_break_it(outcome: Outcome) -> None:
    assert outcome.highest_c <= outcome.limit_c + 2.5  # what the frame lets no policy pass, and a step of the model
    assert sum(outcome.calls.values()) > 0
    assert outcome.failed == 0


def test_replaying_what_the_daemon_recorded_gives_every_decision_again(outcome: Outcome) -> None:
    assert outcome.events > SECONDS
    assert outcome.decisions >= 1
    assert outcome.replayed == outcome.decisions


def test_what_was_learned_outlives_a_kill(outcome: Outcome) -> None:
    assert outcome.kept
