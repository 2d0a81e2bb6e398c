"""A board without an accelerator uses another board's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from remote_stage import served

from edge_sdk import Engine, RemoteEngine

pytest.importorskip("starlette", reason="the serve extra is not installed")
pytestmark = pytest.mark.accelerator

X = np.array([[0.5, -1.0, 2.0, 0.25]], np.float32)


def test_an_accelerator_of_another_host_computes(
    mock_library: Path, dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path / "cache"))
    with served(tmp_path, dense, "--delegate", str(mock_library)) as server:
        with RemoteEngine(server.url, model="dense_fp32") as remote, Engine(dense) as here:
            for scale in (1, 2, 3):
                (far,), (near,) = remote.run([X * scale]), here.run([X * scale])
                assert np.allclose(far, near, atol=1e-6)
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
        assert children.split(), "the accelerator's worker process"
        assert server.end() == 0, server.log.read_text()
