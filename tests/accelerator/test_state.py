"""Models that keep state from call to call: they begin afresh, and no accelerator stands between two calls of one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from accelerator_stage import request
from model_stage import stateful

from edge_sdk.delegates.findings import Findings
from edge_sdk.engine import Engine
from edge_sdk.guard import DelegateEvent, Happening
from edge_sdk.isolation import IsolatedEngine
from edge_sdk.opening import open_engine

pytestmark = pytest.mark.accelerator

X = np.array([[0.5, -1.0, 2.0, 0.25]], np.float32)


@pytest.fixture
def adds_up(tmp_path: Path) -> Path:
    """It scores the sum of all inputs so far, and counts the calls."""
    return stateful(tmp_path / "stateful.tflite", step=1.0)


def test_the_first_call_begins_afresh_although_the_engine_was_warmed(adds_up: Path) -> None:
    with Engine(adds_up, warm=False) as cold, Engine(adds_up) as warm:
        assert warm.keeps_state
        for _ in range(3):
            np.testing.assert_array_equal(warm.run([X])[0], cold.run([X])[0])


def test_in_a_worker_it_begins_afresh_too(adds_up: Path) -> None:
    with Engine(adds_up) as here, IsolatedEngine(adds_up) as there:
        for _ in range(3):
            np.testing.assert_array_equal(there.run([X])[0], here.run([X])[0])


def test_the_cpu_alone_computes_it(adds_up: Path, mock_library: Path) -> None:
    told: list[DelegateEvent] = []
    with (
        Engine(adds_up) as right,
        open_engine(adds_up, delegate=request(mock_library), report=told.append, findings=Findings(None)) as engine,
    ):
        for _ in range(3):
            np.testing.assert_array_equal(engine.run([X])[0], right.run([X])[0])
    assert [event.happening for event in told] == [Happening.FELL_BACK]
    assert "keeps state" in told[0].reason
