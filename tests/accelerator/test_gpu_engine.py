"""The delegate `gpu` as an app meets it: a real GPU path, on a Vulkan driver made of software."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import swiftshader

from edge_sdk.delegates.findings import Findings
from edge_sdk.engine import Engine
from edge_sdk.guard import DelegateEvent, GuardedEngine, Happening
from edge_sdk.opening import open_engine

pytestmark = pytest.mark.accelerator

DENSE = Path(__file__).parent.parent / "data" / "tiny" / "dense_fp32.tflite"
X = np.array([[0.5, -1.0, 2.0, 0.25]], np.float32)


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers started here find the driver."""
    found = swiftshader.folder()
    if found is None:
        pytest.skip("SwiftShader is not here: run tools/swiftshader.sh")
    for name, value in swiftshader.settings(found, tmp_path).items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("gpu")
def test_a_gpu_computes_in_a_worker_with_the_cpu_behind_it() -> None:
    told: list[DelegateEvent] = []
    with (
        Engine(DENSE) as right,
        open_engine(DENSE, delegate="gpu", report=told.append, findings=Findings(None)) as engine,
    ):
        assert isinstance(engine, GuardedEngine)
        assert engine.computes_on == "gpu", engine.reason
        for x in (X, -X):
            np.testing.assert_allclose(engine.run([x])[0], right.run([x])[0], atol=2e-3)
    assert not told


def test_without_a_driver_the_cpu_computes_and_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VK_ICD_FILENAMES", "/nonexistent.json")
    told: list[DelegateEvent] = []
    with (
        Engine(DENSE) as right,
        open_engine(DENSE, delegate="gpu", report=told.append, findings=Findings(None)) as engine,
    ):
        np.testing.assert_array_equal(engine.run([X])[0], right.run([X])[0])
    assert [event.happening for event in told] == [Happening.FELL_BACK]
    assert "Vulkan" in told[0].reason or "GPU" in told[0].reason
