"""A daemon offers variants for accelerators to apps that have one, and to nobody else."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("paho")

from bundle_stage import manifest_of, write_bundle
from daemon_stage import DaemonProcess, until
from msgspec import to_builtins

from edge_sdk import usage
from edge_sdk.delegates import registry
from edge_sdk.model import EdgeModel
from edge_sdk.profile import SiteDelegate

pytestmark = [pytest.mark.accelerator, pytest.mark.device, pytest.mark.timeout(90)]

TINY = Path(__file__).parent.parent / "data" / "tiny"
X = np.array([[0.5, -1.0, 2.0, 0.25]], np.float32)
IO = {
    "inputs": [{"name": "x", "shape": [-1, 4], "dtype": "float32"}],
    "outputs": [{"name": "scores", "shape": [-1, 3], "dtype": "float32"}],
}


@pytest.fixture
def board(tmp_path: Path) -> Iterator[DaemonProcess]:
    """A daemon that serves a model with two variants for the CPU and a better one for an accelerator."""
    contents = {name: (TINY / f"{name}.tflite").read_bytes() for name in ("dense_fp32", "dense_int8")}
    plain = [*to_builtins(manifest_of(contents, **IO).variants)]
    on_npu = {"id": "npu", "target": {"delegate": "armnn", "fallback": "dense_fp32"}}
    better = {"quality": plain[0]["quality"] | {"value": 99.0, "drop": -1.0}}
    bundle = write_bundle(tmp_path, contents=contents, **IO, variants=[*plain, plain[0] | on_npu | better])
    place = Path(tempfile.mkdtemp(prefix="edge-"))
    config = f'[models.m]\nbundle = "{bundle.path}"\npreference = {{ mode = "accuracy" }}\n[policy]\nuse = "static"\n'
    daemon = DaemonProcess(place / "d", config)
    daemon.start()
    yield daemon
    daemon.kill()
    shutil.rmtree(place)


def test_an_app_with_an_accelerator_is_given_its_variant_until_it_is_hot_and_one_without_never(
    board: DaemonProcess, mock_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temp, limit = tmp_path / "temp", tmp_path / "limit"
    temp.write_text("60000\n")
    limit.write_text("80000\n")
    monkeypatch.setattr(usage, "_HEAT", {"armnn": lambda *_: usage.read_millidegrees(temp, limit)})
    monkeypatch.setattr(
        registry, "_site", lambda _: {"armnn": SiteDelegate(library=str(mock_library), options={"op": "25"})}
    )
    with EdgeModel("m", socket=board.socket) as model:
        until(lambda: (model.active, model.computes_on) == ("npu", "armnn"), "the accelerator is used")
        model(X)
        told = until(lambda: (seen := board.status().apps[0].usage) and seen.temp_c and seen, "its heat is told")
        assert (told.name, told.temp_c, told.limit_c, told.restarts) == ("armnn", 60.0, 80.0, 0)
        assert board.status().apps[0].computes_on == "armnn"
        temp.write_text("81000\n")
        until(lambda: model.computes_on == "cpu", "a hot one is left")
        model(X)
    with EdgeModel("m", socket=board.socket, delegate="cpu") as other:
        assert (other.active, other.computes_on) == ("dense_fp32", "cpu")
