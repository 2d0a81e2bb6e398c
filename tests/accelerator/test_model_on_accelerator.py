"""A model of a bundle on an accelerator: switched, watched, and answered by the CPU where the accelerator fails."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from accelerator_stage import request
from bundle_stage import manifest_of, write_bundle
from msgspec import to_builtins

from edge_sdk import usage
from edge_sdk.bundle import Bundle
from edge_sdk.delegates import registry
from edge_sdk.model import EdgeModel
from edge_sdk.preference import Mode, Preference
from edge_sdk.profile import SiteDelegate

pytestmark = [pytest.mark.accelerator, pytest.mark.device]

TINY = Path(__file__).parent.parent / "data" / "tiny"
X = np.array([[0.5, -1.0, 2.0, 0.25]], np.float32)
IO = {
    "inputs": [{"name": "x", "shape": [-1, 4], "dtype": "float32"}],
    "outputs": [{"name": "scores", "shape": [-1, 3], "dtype": "float32"}],
}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    contents = {name: (TINY / f"{name}.tflite").read_bytes() for name in ("dense_fp32", "dense_int8")}
    return write_bundle(tmp_path, contents=contents, **IO)


def test_every_variant_is_computed_on_the_delegate_that_is_asked_for(bundle: Bundle, mock_library: Path) -> None:
    with (
        EdgeModel(bundle.path, delegate=request(mock_library)) as model,
        EdgeModel(bundle.path, delegate="cpu") as plain,
    ):
        for variant in ("dense_fp32", "dense_int8", "dense_fp32"):
            model.switch(variant)
            plain.switch(variant)
            assert model.computes_on.endswith("libmock_delegate.so")
            assert plain.computes_on == "cpu"
            np.testing.assert_allclose(model(X), plain(X), atol=1e-6)
        usage = model.usage()
        assert usage is not None
        assert usage.memory_bytes is None or usage.memory_bytes > 1_000_000
        assert plain.usage() is None


def test_a_crash_under_the_model_loses_no_call(bundle: Bundle, mock_library: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    mock = request(mock_library, fail="crash", gate=gate)
    with EdgeModel(bundle.path, variant="dense_fp32", delegate=mock) as model:
        before = model(X)
        gate.touch()
        np.testing.assert_allclose(model(X), before, atol=1e-6)
        assert model.computes_on == "cpu"
        usage = model.usage()
        assert usage is not None
        assert usage.busy is None


def test_a_switch_that_is_called_off_ends_the_worker_that_loads(
    bundle: Bundle, mock_library: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    mock = request(mock_library, fail="hang-create", gate=gate)
    with EdgeModel(bundle.path, variant="dense_fp32", delegate=mock) as model:
        gate.touch()
        switch = model.begin_switch("dense_int8")
        assert not switch.wait(0.05)
        assert switch.cancel()
        assert switch.wait(60)
        assert model.active == "dense_fp32"
        gate.unlink()
        model.switch("dense_int8", deadline_s=60)
        assert model.computes_on.endswith("libmock_delegate.so")


def test_the_policy_of_the_process_leaves_an_accelerator_that_is_hot(
    tmp_path: Path, mock_library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = {name: (TINY / f"{name}.tflite").read_bytes() for name in ("dense_fp32", "dense_int8")}
    plain = [*to_builtins(manifest_of(contents, **IO).variants)]
    on_npu = {"id": "npu", "target": {"delegate": "armnn", "fallback": "dense_fp32"}}
    better = {"quality": plain[0]["quality"] | {"value": 99.0, "drop": -1.0}}
    bundle = write_bundle(tmp_path, contents=contents, **IO, variants=[*plain, plain[0] | on_npu | better])
    temp = tmp_path / "temp"
    temp.write_text("60000\n")
    limit = tmp_path / "limit"
    limit.write_text("80000\n")
    monkeypatch.setattr(usage, "_HEAT", {"armnn": lambda *_: usage.read_millidegrees(temp, limit)})
    monkeypatch.setattr(
        registry, "_site", lambda _: {"armnn": SiteDelegate(library=str(mock_library), options={"op": "25"})}
    )
    with EdgeModel(bundle.path, preference=Preference(mode=Mode.ACCURACY)) as model:
        assert (model.active, model.computes_on) == ("npu", "armnn")
        temp.write_text("81000\n")
        until(lambda: model.active == "dense_fp32")
        assert model.computes_on == "cpu"
        model(X)


def until(holds: Callable[[], bool]) -> None:
    """The policy looks once a second."""
    end_s = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.02)
