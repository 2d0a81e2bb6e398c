"""The fixtures of the tests on accelerators."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from accelerator_stage import compiled

# They build models or compute with what ai-edge-litert brings, and the device tests also run without it.
collect_ignore = [] if find_spec("ai_edge_litert") else ["test_gpu.py", "test_state.py"]

TINY = Path(__file__).parent.parent / "data" / "tiny"


@pytest.fixture(scope="session")
def mock_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mock accelerator's library."""
    return compiled(tmp_path_factory.mktemp("mock"))


@pytest.fixture
def dense() -> Path:
    """A dense layer and a softmax, the operator that the mock takes."""
    return TINY / "dense_fp32.tflite"
