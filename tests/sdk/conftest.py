"""The fixtures of the SDK's tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from bundle_stage import write_bundle

from edge_sdk.bundle import Bundle


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Bundle]:
    """Writes a bundle of these contents below `tmp_path`."""
    return partial(write_bundle, tmp_path)
