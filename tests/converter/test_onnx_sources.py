"""ONNX models, by onnx2tf in its environment.

The tests marked `onnx` need that environment and gigabytes of wheels; the others only what makes one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_converter import graph, imports, onnx_env
from edge_converter.errors import ImportMismatchError, OnnxEnvironmentError, SourceError, UnsupportedModelError
from edge_converter.imports import ImportProcess
from edge_converter.request import Silent
from edge_sdk.bundle import Bundle
from edge_sdk.errors import MissingExtraError, UsageError
from edge_sdk.manifest import Precision

SEARCH_S = 60.0
CONVERT_S = 300.0

# What is asked of that environment's onnx to make the sources.
SOURCES = """
import sys, pathlib
import numpy as np, onnx
from onnx import TensorProto as T, helper as h, numpy_helper
folder, rng = pathlib.Path(sys.argv[1]), np.random.default_rng(1)

def weights(**shapes):
    made = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    return [numpy_helper.from_array(values, name) for name, values in made.items()]

def save(name, nodes, inits, shape, out, opset=17, domains=()):
    value = h.make_tensor_value_info
    graph = h.make_graph(nodes, "net", [value("image", T.FLOAT, shape)], [value("scores", T.FLOAT, out)], inits)
    opsets = [h.make_opsetid("", opset), *(h.make_opsetid(domain, 1) for domain in domains)]
    onnx.save(h.make_model(graph, opset_imports=opsets, ir_version=9), folder / f"{name}.onnx")

node = h.make_node
net = [
    node("Conv", ["image", "w", "b"], ["c"], "conv", pads=[1, 1, 1, 1]), node("Relu", ["c"], ["r"]),
    node("Conv", ["r", "d"], ["e"], "depthwise", pads=[1, 1, 1, 1], group=8),
    node("GlobalAveragePool", ["e"], ["p"]), node("Flatten", ["p"], ["f"], "flatten@0"),
    node("Gemm", ["f", "g", "h"], ["scores"]),
]
inits = weights(w=(8, 3, 3, 3), b=(8,), d=(8, 1, 3, 3), g=(8, 5), h=(5,))
save("free", net, inits, ["N", 3, 12, 16], ["N", 5])
save("sizes", net, inits, ["N", 3, "H", "W"], ["N", 5])
bad = weights(w=(8, 3, 3, 3), b=(8,), d=(8, 1, 3, 3), g=(8, 5), h=(5,))
bad[0].raw_data = np.full((8, 3, 3, 3), np.nan, np.float32).tobytes()
save("nan", net, bad, ["N", 3, 12, 16], ["N", 5])
body = h.make_graph(
    [node("Identity", ["go"], ["on"]), node("Add", ["v", "v"], ["u"])], "body",
    [h.make_tensor_value_info("i", T.INT64, []), h.make_tensor_value_info("go", T.BOOL, []),
     h.make_tensor_value_info("v", T.FLOAT, [1, 4])],
    [h.make_tensor_value_info("on", T.BOOL, []), h.make_tensor_value_info("u", T.FLOAT, [1, 4])],
)
trips = numpy_helper.from_array(np.array(3, np.int64), "trips")
save("loop", [node("Loop", ["trips", "", "image"], ["scores"], "again", body=body)], [trips], [1, 4], [1, 4])
save("custom", [node("Swirl", ["image"], ["scores"], domain="somewhere")], [], [1, 4], [1, 4], domains=["somewhere"])
"""


# ------------------------------------------------------------------------------------------- making an environment


@pytest.fixture
def requirements(tmp_path: Path) -> Path:
    """A list of one small wheel made here, for an environment that needs no network."""
    wheel = tmp_path / "little-1.0-py3-none-any.whl"
    info = "little-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("little.py", "answer = 42\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: little\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    path = tmp_path / "requirements.txt"
    path.write_text(f"--no-index\nlittle @ {wheel.as_uri()}\n")
    return path


def answer(python: Path) -> str:
    done = subprocess.run(
        [python, "-c", "import little; print(little.answer)"], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


@pytest.fixture
def with_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    """uv on the path, as it comes with the tools of this project: it is faster."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize("tool", ["uv", "pip"])
def test_an_environment_is_made_once(
    requirements: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_uv: None, tool: str
) -> None:
    if tool == "pip":
        monkeypatch.setenv("PATH", "/bin")
    cache = tmp_path / "cache"
    python = onnx_env.prepare(requirements, cache, Silent(), deadline_s=120)
    assert answer(python) == "42"
    made = (python.parent.parent / "whole").stat()
    assert onnx_env.prepare(requirements, cache, Silent(), deadline_s=1) == python
    assert (python.parent.parent / "whole").stat() == made
    assert not list(cache.glob("*.log"))


def test_one_that_was_left_half_made_is_made_anew(requirements: Path, tmp_path: Path, with_uv: None) -> None:
    python = onnx_env.prepare(requirements, tmp_path, Silent(), deadline_s=120)
    (python.parent.parent / "whole").unlink()
    next(python.parent.parent.rglob("little.py")).unlink()
    assert onnx_env.prepare(requirements, tmp_path, Silent(), deadline_s=120) == python
    assert answer(python) == "42"


def test_two_that_want_it_at_once_get_the_same(requirements: Path, tmp_path: Path, with_uv: None) -> None:
    found: list[Path] = []

    def want() -> None:
        found.append(onnx_env.prepare(requirements, tmp_path, Silent(), deadline_s=120))

    threads = [threading.Thread(target=want) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(set(found)) == 1
    assert answer(found[0]) == "42"


def test_what_cannot_be_installed_is_named_and_nothing_is_left(
    requirements: Path, tmp_path: Path, with_uv: None
) -> None:
    requirements.write_text("--no-index\nnobody-has-this==1.0\n")
    with pytest.raises(OnnxEnvironmentError, match=r"could not be made: .*; --onnx-python names") as caught:
        onnx_env.prepare(requirements, tmp_path / "cache", Silent(), deadline_s=120)
    assert "\n" not in str(caught.value)
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_a_deadline_ends_the_making(requirements: Path, tmp_path: Path, with_uv: None) -> None:
    with pytest.raises(OnnxEnvironmentError, match="was not made in time"):
        onnx_env.prepare(requirements, tmp_path / "cache", Silent(), deadline_s=0.0)
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_the_list_that_ships_is_pinned_and_names_no_address() -> None:
    lines = [line for line in onnx_env.REQUIREMENTS.read_text().splitlines() if not line.startswith("#")]
    assert all("==" in line and "://" not in line and "--" not in line for line in lines)
    assert any(line.startswith("onnx2tf==") for line in lines)


def test_an_onnx_python_that_is_no_program(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no program; --onnx-python names a Python that has onnx2tf"):
        onnx_env.python(tmp_path / "absent", Silent())


def test_an_onnx_python_without_onnx2tf_is_told_so(tmp_path: Path) -> None:
    worker = imports.onnx(onnx_env.python(Path(sys.executable), Silent()), tmp_path)
    running = ImportProcess(worker, tmp_path, deadline_s=SEARCH_S)
    with pytest.raises(MissingExtraError, match="has no onnx2tf, onnx"), running:
        pytest.fail("onnx2tf cannot be here: it pins another runtime")


# --------------------------------------------------------------------------------------------------- for real


@pytest.fixture(scope="module")
def python() -> Path:
    """The interpreter of the environment that ships, made now where it is not there."""
    return onnx_env.python(None, Silent())


@pytest.fixture(scope="module")
def exports(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx")
    subprocess.run([python, "-c", SOURCES, folder], check=True, capture_output=True, timeout=SEARCH_S)
    return folder


@pytest.fixture(scope="module")
def process(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImportProcess]:
    folder = tmp_path_factory.mktemp("process")
    with ImportProcess(imports.onnx(python, folder), folder, deadline_s=CONVERT_S) as running:
        yield running


@pytest.mark.onnx
def test_an_onnx_network_becomes_a_bundle_and_says_how_far_it_is_from_its_original(
    edge: Callable[..., Any], exports: Path, tmp_path: Path
) -> None:
    x = np.random.default_rng(2).normal(0, 1, (40, 12, 16, 3)).astype(np.float32)
    np.savez(tmp_path / "images.npz", x=x, y=np.arange(40) % 5)
    before = (exports / "free.onnx").read_bytes()
    out = tmp_path / "a.edge"
    done = edge("convert", exports / "free.onnx", "--data", tmp_path / "images.npz", "--max-drop", "50", "-o", out)
    assert done.status == 0, done.err
    assert (exports / "free.onnx").read_bytes() == before
    manifest = Bundle(out).manifest
    assert manifest.sources[0].framework == "onnx"
    assert manifest.inputs[0].shape == (-1, 12, 16, 3)
    variants = {variant.id: variant for variant in manifest.variants}
    (step,) = variants["fp32"].compression
    assert (step.name, step.parameters["channels_last"]) == ("import", "image")
    assert 0 <= float(step.evidence["largest_difference"]) < 1e-5
    assert [step.name for step in variants["int8"].compression] == ["import", "quantize"]


@pytest.mark.onnx
def test_free_sizes_of_an_onnx_network_are_refused_unless_they_are_fixed(
    process: ImportProcess, exports: Path, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedModelError, match=r"--input-shape 1,3,N,N fixes it"):
        process.convert(str(exports / "sizes.onnx"), tmp_path / "free-sizes.tflite")
    process.convert(str(exports / "sizes.onnx"), tmp_path / "fixed.tflite", shapes=[(1, 3, 8, 10)])
    found = graph.read(tmp_path / "fixed.tflite")
    assert (found.inputs[0].shape, found.precision) == ((1, 8, 10, 3), Precision.FP32)


@pytest.mark.onnx
@pytest.mark.parametrize(
    ("name", "says"),
    [("loop", "has control flow: Loop again"), ("custom", "has the operator Swirl of somewhere, which is custom")],
)
def test_what_an_onnx_network_may_not_have(
    process: ImportProcess, exports: Path, tmp_path: Path, name: str, says: str
) -> None:
    with pytest.raises(UnsupportedModelError, match=says):
        process.convert(str(exports / f"{name}.onnx"), tmp_path / f"{name}.tflite")


@pytest.mark.onnx
def test_a_truncated_onnx_file(process: ImportProcess, exports: Path, tmp_path: Path) -> None:
    content = (exports / "free.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(content[: len(content) // 2])
    with pytest.raises(SourceError, match="is damaged or no ONNX model"):
        process.convert(str(tmp_path / "cut.onnx"), tmp_path / "cut.tflite")


@pytest.mark.onnx
def test_weights_that_are_no_numbers_in_an_onnx_network(
    edge: Callable[..., Any], exports: Path, tmp_path: Path
) -> None:
    np.savez(tmp_path / "images.npz", x=np.ones((40, 12, 16, 3), np.float32), y=np.arange(40) % 5)
    done = edge("convert", exports / "nan.onnx", "--data", tmp_path / "images.npz", "-o", tmp_path / "a.edge")
    assert done.status == 2
    assert "nan.onnx: has NaN or infinity in " in done.line
    assert "of CONV_2D" in done.line


def test_a_file_that_answers_otherwise_is_refused_and_removed(tmp_path: Path, tiny: Path) -> None:
    # The worker's answer is played: no importer that is wrong on purpose is at hand.
    (tmp_path / "edge_converter").mkdir()
    (tmp_path / "edge_converter" / "__init__.py").touch()
    (tmp_path / "edge_converter" / "_onnx_worker.py").write_text(
        "import json, sys\n"
        "print(json.dumps({'type': 'ready', 'version': '0'}), flush=True)\n"
        "asked = json.loads(sys.stdin.readline())\n"
        f"import shutil; shutil.copy({str(tiny)!r}, asked['into'])\n"
        "print(json.dumps({'type': 'imported', 'difference': 0.5, 'samples': 4, 'turned': []}), flush=True)\n"
        "sys.stdin.read()\n"
    )
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "edge_converter").symlink_to(tmp_path / "edge_converter")
    running = ImportProcess(imports.onnx(Path(sys.executable), tmp_path), tmp_path, deadline_s=SEARCH_S)
    with running, pytest.raises(ImportMismatchError, match=r"answers otherwise: 0\.5 of its largest answer away"):
        running.convert("net.onnx", tmp_path / "out.tflite")
    assert not (tmp_path / "out.tflite").exists()
