"""Files that real compilers made for accelerators: no CPU runs them, and the twin answers in their place."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from accelerator_stage import delegation

from edge_sdk.delegates.findings import Findings
from edge_sdk.engine import Engine
from edge_sdk.errors import ModelLoadError
from edge_sdk.guard import DelegateEvent, GuardedEngine, Happening
from edge_sdk.isolation import IsolatedEngine
from edge_sdk.opening import open_engine

pytestmark = pytest.mark.accelerator

TINY = Path(__file__).parent.parent / "data" / "tiny"


def twin_answers(model: Path, twin: Path, delegate: str) -> None:
    """Open the compiled file where there is no such accelerator."""
    told: list[DelegateEvent] = []
    with (
        Engine(twin) as right,
        open_engine(model, delegate=delegate, twin=twin, report=told.append, findings=Findings(None)) as engine,
    ):
        assert isinstance(engine, GuardedEngine)
        sample = [np.random.default_rng(0).random(spec.shape, np.float32) for spec in right.inputs]
        for mine, yours in zip(engine.run(sample), right.run(sample), strict=True):
            np.testing.assert_array_equal(mine, yours)
    assert [event.happening for event in told] == [Happening.FELL_BACK]


@pytest.mark.reference_data
def test_a_file_compiled_for_the_edge_tpu(reference_data: Path, mock_library: Path) -> None:
    folder = reference_data / "edgetpu"
    compiled = folder / "mobilenet_v1_0.25_128_quant_edgetpu.tflite"
    twin = folder / "mobilenet_v1_0.25_128_quant.tflite"
    with pytest.raises(ModelLoadError, match=r"'edgetpu-custom-op'.*Edge TPU.*CPU twin"):
        Engine(compiled)
    with pytest.raises(ModelLoadError, match="edgetpu-custom-op"):  # another's delegate does not take it either
        IsolatedEngine(compiled, delegation=delegation(mock_library))
    twin_answers(compiled, twin, "edgetpu")


def test_a_file_compiled_for_ethos_u_by_vela(tmp_path: Path) -> None:
    vela = shutil.which("vela") or str(Path(sys.executable).with_name("vela"))
    if not Path(vela).exists():
        pytest.skip("vela is not installed")
    twin = TINY / "dense_int8_io.tflite"
    command = [vela, twin, "--accelerator-config", "ethos-u65-256", "--output-dir", tmp_path]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    compiled = tmp_path / "dense_int8_io_vela.tflite"
    with pytest.raises(ModelLoadError, match=r"'ethos-u'.*Arm Ethos-U"):
        Engine(compiled)
    twin_answers(compiled, twin, "ethos-u")
