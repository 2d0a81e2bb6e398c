"""The fixtures of the tests on accelerators."""

from __future__ import annotations

from pathlib import Path

import pytest
from accelerator_stage import compiled

TINY = Path(__file__).parent.parent / "data" / "tiny"


@pytest.fixture(scope="session")
def mock_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mock accelerator's library."""
    return compiled(tmp_path_factory.mktemp("mock"))


@pytest.fixture
def dense() -> Path:
    """A dense layer and a softmax, the operator that the mock takes."""
    return TINY / "dense_fp32.tflite"
