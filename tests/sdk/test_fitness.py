"""Why a variant cannot run here is told from the manifest, before anything of it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec import to_builtins

from edge_sdk import EdgeModel
from edge_sdk.bundle import Bundle
from edge_sdk.fitness import speaks, unfit
from edge_sdk.manifest import Delegate, Target, Variant
from edge_sdk.runtime import Runtime, choose, onnx_reason

pytestmark = pytest.mark.device

TINY = Path(__file__).parent.parent / "data" / "tiny"
IO = {
    "inputs": [{"name": "x", "shape": [-1, 4], "dtype": "float32"}],
    "outputs": [{"name": "scores", "shape": [-1, 3], "dtype": "float32"}],
}


def knows(*version: int, name: str = "tflite-runtime", release: str = "2.14.0") -> Runtime:
    return cast("Runtime", SimpleNamespace(name=name, version=release, speaks=version))


@pytest.fixture
def for_target(make_bundle: Callable[..., Bundle]) -> Callable[..., Variant]:
    """A variant with this target."""

    def made(**target: Any) -> Variant:
        variant = make_bundle().manifest.variants[0]
        return Variant(
            **{name: getattr(variant, name) for name in Variant.__struct_fields__} | {"target": Target(**target)}
        )

    return made


@pytest.mark.parametrize(
    ("runtime", "needed", "known"),
    [
        (knows(2, 14, 0), None, True),
        (knows(2, 14, 0), "2.14.0", True),
        (knows(2, 14, 0), "1.14.0", True),
        (knows(2, 13, 0), "2.14.0", False),
        (knows(2, 14, 0), "2.17.0", False),  # a dense layer of 8-bit weights with a scale a channel
        (knows(2, 18), "2.18.0", True),
        (knows(2, 18), "2.18.1", True),
        (knows(2, 18), "2.19.0", False),
        (knows(2, 21), "2.21.0", True),
        (knows(2, 9), "2.10.0", False),
        (knows(2, 21, 0), "unknown", True),
    ],
)
def test_a_runtime_knows_the_operators_of_its_own_and_earlier_versions(
    runtime: Runtime, needed: str | None, known: bool
) -> None:
    assert speaks(runtime, needed) is known


def test_newer_operators_are_refused_with_both_versions(for_target: Callable[..., Variant]) -> None:
    reason = unfit(for_target(min_runtime="2.17.0"), knows(2, 14, 0))
    assert reason == "its operators need TensorFlow Lite 2.17.0, and tflite-runtime 2.14.0 knows those of 2.14.0"
    assert unfit(for_target(min_runtime="2.17.0"), knows(2, 21)) is None


def test_a_feature_the_cpu_lacks_is_named(for_target: Callable[..., Variant]) -> None:
    assert unfit(for_target(isa=("no-such-feature",)), choose()) == "this CPU has no no-such-feature"


def test_a_file_for_an_unknown_runtime_is_not_tried(for_target: Callable[..., Variant]) -> None:
    assert "'hailort'" in (unfit(for_target(runtime="hailort"), choose()) or "")


def test_an_onnx_file_for_a_gpu_needs_a_build_that_has_one(for_target: Callable[..., Variant]) -> None:
    reason = unfit(for_target(runtime="onnxruntime", delegate=Delegate.GPU, fallback="int8"), choose())
    assert reason is not None
    assert "not installed" in reason or "without TensorRT and CUDA" in reason
    on_cpu = unfit(for_target(runtime="onnxruntime"), choose())
    assert (on_cpu is None) == (onnx_reason() is None)


def test_an_accelerator_that_is_not_here_or_not_asked_for_is_named(for_target: Callable[..., Variant]) -> None:
    variant = for_target(delegate=Delegate.NNAPI, fallback="int8")
    assert "Android" in (unfit(variant, choose()) or "")
    assert "'cpu' is asked for" in (unfit(variant, choose(), delegate="cpu") or "")


def test_a_model_leaves_out_what_the_runtime_would_refuse(
    make_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGE_DAEMON_SOCKET", str(tmp_path / "no.sock"))
    contents = {name: (TINY / f"{name}.tflite").read_bytes() for name in ("dense_fp32", "dense_int8")}
    plain = make_bundle(contents=contents, **IO).manifest
    variants = to_builtins(plain.variants)
    variants[0]["target"]["min_runtime"] = "99.0.0"
    bundle = make_bundle("newer.edge", contents=contents, variants=variants, **IO)
    with EdgeModel(bundle.path) as model:
        assert model.variants == ("dense_int8",)
        assert model.active == "dense_int8"
