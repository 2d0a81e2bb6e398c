"""How many threads a variant of a bundle gets: a number, or what was measured best on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edge_sdk.bundle import Bundle
from edge_sdk.errors import UnknownVariantError, UsageError
from edge_sdk.machine import machine_name
from edge_sdk.manifest import Latency, Origin
from edge_sdk.model import EdgeModel
from edge_sdk.threads import wanted

pytestmark = pytest.mark.device

TINY = Path(__file__).parent.parent / "data" / "tiny"


@pytest.fixture
def bundle(make_bundle: Callable[..., Bundle]) -> Bundle:
    contents = {name: (TINY / f"{name}.tflite").read_bytes() for name in ("dense_fp32", "dense_int8")}
    io = {
        "inputs": [{"name": "x", "shape": [-1, 4], "dtype": "float32"}],
        "outputs": [{"name": "scores", "shape": [-1, 3], "dtype": "float32"}],
    }
    return make_bundle(contents=contents, **io)


def seen(variant: str, threads: int, median_ms: float, **changes: object) -> Latency:
    plain = {"origin": Origin.MEASURED, "machine": machine_name(), "samples": 50}
    return Latency(variant=variant, threads=threads, median_ms=median_ms, **(plain | changes))  # type: ignore[arg-type]


def test_a_number_is_taken_as_it_is(bundle: Bundle) -> None:
    assert wanted(3, bundle, "dense_fp32") == 3


def test_what_was_measured_here_decides_variant_by_variant(bundle: Bundle) -> None:
    bundle.add_latencies(
        (
            seen("dense_fp32", 1, 9.0),
            seen("dense_fp32", 2, 5.0),
            seen("dense_fp32", 4, 4.9),  # not worth two more cores
            seen("dense_int8", 1, 2.0),
            seen("dense_int8", 2, 2.5),
            seen("dense_int8", 4, 0.1, machine="another board"),
            seen("dense_int8", 4, 0.1, origin=Origin.PREDICTED, samples=0),
            seen("dense_int8", 4, 0.1, delegate="gpu"),
        )
    )
    assert wanted("measured", bundle, "dense_fp32") == 2
    assert wanted("measured", bundle, "dense_int8") == 1


def test_where_nothing_was_measured_it_is_one(bundle: Bundle) -> None:
    assert wanted("measured", bundle, "dense_fp32") == 1
    with pytest.raises(UnknownVariantError):
        wanted("measured", bundle, "int4")
    with EdgeModel(bundle.path, threads="measured") as model:
        model.switch("dense_int8")
    with pytest.raises(UsageError, match="threads is 'many'"):
        EdgeModel(bundle.path, threads="many")  # type: ignore[arg-type]
