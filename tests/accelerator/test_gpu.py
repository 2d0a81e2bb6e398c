"""The GPU path, on a GPU in software: the same numbers as on the CPU, and a reason where there is none."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gpu_child
import model_stage
import numpy as np
import pytest

from edge_converter.labelled import data
from edge_converter.quantization import quantize
from edge_lab import digits
from edge_sdk.engine import Engine
from edge_sdk.manifest import Precision, Preprocessing, TensorSpec

pytestmark = pytest.mark.accelerator

TESTS = Path(__file__).resolve().parents[1]
TINY = TESTS / "data" / "tiny"
FORMATS = (Precision.FP16, Precision.DYNAMIC, Precision.INT8)
LIMIT_S = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What a child process computed and said."""

    told: dict[str, dict[str, Any]]
    answers: dict[str, np.ndarray[Any, Any]]


def ran(jobs: list[dict[str, Any]], folder: Path, settings: dict[str, str]) -> Ran:
    (folder / "jobs.json").write_text(json.dumps(jobs, default=str))
    into = folder / "answers.npz"
    command = [sys.executable, str(TESTS / "gpu_child.py"), str(folder / "jobs.json"), str(into)]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(into) as answers:
        return Ran(told=json.loads(done.stdout.splitlines()[-1]), answers=dict(answers))


def on_cpu(path: Path, count: int = 1) -> list[np.ndarray[Any, Any]]:
    with Engine(path) as engine:
        return engine.run(gpu_child.samples(engine, count))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A classifier of digits in four number formats, and graphs of other kinds."""
    folder = tmp_path_factory.mktemp("models")
    images, labels = digits.held_out()
    np.savez(folder / "digits.npz", x=images[:64], y=labels[:64])
    inputs = (TensorSpec(name="x", shape=(-1, 8, 8, 1), dtype="float32"),)
    samples = data.open_samples(folder / "digits.npz", inputs=inputs, preprocessing=Preprocessing())
    source = digits.models()[0]
    ranges = quantize.calibrate(source, samples, data.first_by_content(samples, 16), threads=1)
    made = {
        each.value: quantize.quantize(source, each, folder / f"{each.value}.tflite", ranges=ranges).path
        for each in FORMATS
    }
    names = ("dense_free_batch", "dense_int8_io", "two_by_two", "tokens", "custom_op", "newer_op", "image")
    cut = folder / "cut.tflite"
    cut.write_bytes(source.read_bytes()[:4000])
    return (
        {"fp32": source, "larger": digits.models()[-1], "cut": cut, **made}
        | {name: TINY / f"{name}.tflite" for name in names}
        | {"signatures": model_stage.several(folder / "signatures.tflite"), "partly": _partly(folder / "partly.tflite")}
        | {"any_size": model_stage.free_sizes(folder / "any_size.tflite")}
    )


def _partly(path: Path) -> Path:
    """A diagonal matrix, which no GPU delegate makes, of a scaled vector."""
    stage = model_stage.Stage()
    graph = stage.graph("main")
    x = stage.tensor(graph, "x", [1, 4])
    two = stage.tensor(graph, "two", [1], data=np.array([2], np.float32))
    scaled, made = stage.tensor(graph, "scaled", [1, 4]), stage.tensor(graph, "diagonal", [1, 4, 4])
    stage.op(graph, "MUL", [x, two], [scaled])
    stage.op(graph, "MATRIX_DIAG", [scaled], [made])
    graph.inputs, graph.outputs = [x], [made]
    stage.signature("serving_default", 0)
    return stage.write(path)


@pytest.fixture(scope="module")
def gpu(models: dict[str, Path], software_gpu: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """All of it in one process: a second to compile for each shape, then nothing."""
    jobs: list[dict[str, Any]] = [{"name": name, "path": path, "counts": [1]} for name, path in models.items()]
    jobs += [
        {"name": "fp32 enforced", "path": models["fp32"], "enforce_f32": True},
        {"name": "fp32 of bytes", "path": models["fp32"], "bytes": True},
        {"name": "any batch", "path": models["dense_free_batch"], "counts": [3, 1, 5]},
        {"name": "any size", "path": models["any_size"], "counts": [3, 5]},
        {"name": "cpu", "path": models["fp32"], "accelerator": "cpu"},
        {"name": "npu", "path": models["fp32"], "accelerator": "npu"},
    ]
    return ran(jobs, tmp_path_factory.mktemp("gpu"), software_gpu)


# How far probabilities may be from the CPU's. An int8 answer may be one step of 1/256 apart. A GPU unpacks the weights
# of `dynamic` and computes in floats, while the CPU rounds what goes into each layer to 8 bits.
@pytest.mark.parametrize(
    ("name", "apart"), [("fp32", 1e-6), ("fp16", 1e-6), ("larger", 1e-6), ("int8", 1.01 / 256), ("dynamic", 0.02)]
)
def test_every_number_format_computes_what_the_cpu_computes(
    gpu: Ran, models: dict[str, Path], name: str, apart: float
) -> None:
    np.testing.assert_allclose(gpu.answers[f"{name}/1/0"], on_cpu(models[name])[0], rtol=0, atol=apart)
    told = gpu.told[name]
    assert told["whole"]
    assert told["accelerated"]
    assert told["delegated"] == told["total"] > 5


def test_32_bit_floats_can_be_asked_for(gpu: Ran, models: dict[str, Path]) -> None:
    """SwiftShader has no 16-bit floats, so what differs elsewhere is the same here."""
    np.testing.assert_allclose(gpu.answers["fp32 enforced/1/0"], on_cpu(models["fp32"])[0], rtol=0, atol=1e-6)


def test_bytes_are_taken_as_a_file_is(gpu: Ran) -> None:
    np.testing.assert_array_equal(gpu.answers["fp32 of bytes/1/0"], gpu.answers["fp32/1/0"])


@pytest.mark.parametrize("name", ["two_by_two", "tokens", "dense_int8_io", "image", "signatures"])
def test_inputs_and_outputs_of_every_kind_reach_their_tensors(gpu: Ran, models: dict[str, Path], name: str) -> None:
    expected = on_cpu(models[name])
    for number, each in enumerate(expected):
        answer = gpu.answers[f"{name}/1/{number}"]
        np.testing.assert_allclose(answer, each, rtol=1e-5)
        assert answer.dtype == each.dtype
    with Engine(models[name]) as engine:
        names = [[spec.name for spec in side] for side in (engine.inputs, engine.outputs)]
    assert gpu.told[name]["names"] == names


def test_a_free_batch_takes_the_size_of_the_call(gpu: Ran, models: dict[str, Path]) -> None:
    for count in (3, 1, 5):
        expected = on_cpu(models["dense_free_batch"], count)[0]
        np.testing.assert_allclose(gpu.answers[f"any batch/{count}/0"], expected, rtol=0, atol=1e-6)


def test_an_image_of_any_size_is_compiled_anew_for_it(gpu: Ran, models: dict[str, Path]) -> None:
    for count in (3, 5):
        expected = on_cpu(models["any_size"], count)[0]
        np.testing.assert_allclose(gpu.answers[f"any size/{count}/0"], expected, rtol=0, atol=1e-5)


def test_what_the_gpu_leaves_to_the_cpu_is_said(gpu: Ran, models: dict[str, Path]) -> None:
    np.testing.assert_allclose(gpu.answers["partly/1/0"], on_cpu(models["partly"])[0], rtol=1e-6)
    told = gpu.told["partly"]
    assert (told["delegated"], told["total"], told["whole"], told["accelerated"]) == (1, 2, False, False)
    assert told["why"] == ["MATRIX_DIAG: Operation is not supported."]


def test_a_model_that_is_refused_says_why_and_the_process_lives(gpu: Ran) -> None:
    for name, words in {"custom_op": "ethos-u", "newer_op": "ADD version 99", "cut": "damaged"}.items():
        assert gpu.told[name]["error"] == "ModelLoadError"
        assert words in gpu.told[name]["text"]


def test_a_forked_process_is_told_and_does_not_wait_for_ever(gpu: Ran) -> None:
    assert "forked" in gpu.told["forked"]["text"]


def test_without_an_npu_there_is_a_reason(gpu: Ran) -> None:
    assert gpu.told["npu"]["error"] == "DelegateUnavailableError"
    assert "no NPU" in gpu.told["npu"]["text"]


def test_the_cpu_is_an_accelerator_too(gpu: Ran, models: dict[str, Path]) -> None:
    np.testing.assert_array_equal(gpu.answers["cpu/1/0"], on_cpu(models["fp32"])[0])


def _no_driver(settings: dict[str, str]) -> dict[str, str]:
    return settings | {"VK_ICD_FILENAMES": "/nonexistent.json"}


def _no_loader(settings: dict[str, str]) -> dict[str, str]:
    return settings | {"LD_LIBRARY_PATH": str(TESTS)}


@pytest.mark.parametrize(
    ("without", "words"), [(_no_driver, "vkCreateInstance failed with VK_ERROR"), (_no_loader, "")]
)
def test_without_a_driver_or_a_loader_there_is_a_reason(
    software_gpu: dict[str, str],
    models: dict[str, Path],
    tmp_path: Path,
    without: Callable[[dict[str, str]], dict[str, str]],
    words: str,
) -> None:
    told = ran([{"name": "fp32", "path": models["fp32"]}], tmp_path, without(software_gpu)).told["fp32"]
    if not words and "error" not in told:
        return  # this machine has a Vulkan loader of its own, which cannot be hidden
    assert told["error"] == "DelegateUnavailableError"
    assert (words or "libvulkan.so.1") in told["text"]
