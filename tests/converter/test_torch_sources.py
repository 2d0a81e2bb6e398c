"""PyTorch models, by litert-torch: run by `make test-torch`, in an environment of gigabytes."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_converter import graph
from edge_converter.errors import SourceError, TorchProcessError, UnsupportedModelError
from edge_converter.imports import TORCH, ImportProcess
from edge_sdk.bundle import Bundle
from edge_sdk.engine import Engine

pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]

CONVERT_S = 300.0
NETS = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(8)
        self.depthwise = torch.nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.drop = torch.nn.Dropout(0.5)
        self.dense = torch.nn.Linear(8, 5)

    def forward(self, image):
        seen = torch.relu(self.depthwise(torch.relu(self.norm(self.conv(image)))))
        return self.dense(self.drop(seen.mean((2, 3))))

def net():
    return Net(), (torch.zeros(2, 3, 12, 16),)

class Maps(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, image, scale):
        return self.conv(image) * scale[:, :, None, None], scale + 1

def maps():
    return Maps(), (torch.zeros(1, 3, 12, 16), torch.zeros(1, 2))

def nothing():
    return None

def failing():
    raise RuntimeError("no weights here")

def broken():
    made = Net()
    made.conv.weight.data[0, 0, 0, 0] = float("nan")
    return made, (torch.zeros(1, 3, 12, 16),)

def write():
    model, (image,) = net()
    export, save, dim = torch.export.export, torch.export.save, torch.export.Dim
    model.eval()
    save(export(model, (image[:1],)), "fixed.pt2")
    save(export(model, (image,)), "two.pt2")
    batch, high = dim("batch", max=64), dim("high", min=4, max=64)
    save(export(model, (image,), dynamic_shapes={"image": {0: batch}}), "free.pt2")
    save(export(model, (image,), dynamic_shapes={"image": {0: batch, 2: high}}), "sizes.pt2")
    torch.save(model, "pickled.pt")
    with torch.no_grad():
        x = torch.randn(40, 3, 12, 16)
        import numpy
        numpy.savez("images.npz", x=x.movedim(1, -1).numpy(), y=model(x).argmax(1).numpy())

if __name__ == "__main__":
    write()
"""


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `nets.py`, what it exports, and images labelled by what it answers."""
    folder = tmp_path_factory.mktemp("nets")
    (folder / "nets.py").write_text(NETS)
    subprocess.run([sys.executable, "nets.py"], cwd=folder, check=True, capture_output=True, timeout=CONVERT_S)
    return folder


@pytest.fixture(scope="module")
def process(nets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImportProcess]:
    before = Path.cwd()
    os.chdir(nets)
    try:
        with ImportProcess(TORCH, tmp_path_factory.mktemp("process"), deadline_s=CONVERT_S) as running:
            yield running
    finally:
        os.chdir(before)


@pytest.mark.parametrize("source", ["fixed.pt2", "torch:nets:net"])
def test_a_network_becomes_a_bundle_that_answers_as_it_did(
    edge: Callable[..., Any], nets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.chdir(nets)
    out = tmp_path / "a.edge"
    done = edge("convert", source, "--data", "images.npz", "--precision", "int8", "--max-drop", "50", "-o", out)
    assert done.status == 0, done.err
    manifest = Bundle(out).manifest
    assert manifest.sources[0].framework == "torch"
    assert manifest.sources[0].name == ("fixed" if source == "fixed.pt2" else "net")
    assert manifest.inputs[0].shape == (-1, 12, 16, 3)
    variants = {variant.id: variant for variant in manifest.variants}
    assert variants["fp32"].quality.value == 100
    (step,) = variants["fp32"].compression
    assert (step.name, step.parameters["from"], step.parameters["channels_last"]) == ("import", "torch", "args_0")
    assert 0 <= float(step.evidence["largest_difference"]) < 1e-5


def test_a_free_batch_is_one_sample(process: ImportProcess, nets: Path, tmp_path: Path) -> None:
    process.convert(str(nets / "free.pt2"), tmp_path / "free.tflite")
    found = graph.read(tmp_path / "free.tflite")
    assert [spec.shape for spec in (*found.inputs, *found.outputs)] == [(1, 12, 16, 3), (1, 5)]


def test_several_inputs_and_feature_maps_are_turned_where_they_are_images(
    process: ImportProcess, tmp_path: Path
) -> None:
    imported = process.convert("torch:nets:maps", tmp_path / "maps.tflite")
    assert imported.turned == ("args_0",)
    assert imported.difference < 1e-5
    with Engine(tmp_path / "maps.tflite") as engine:
        assert {spec.shape for spec in engine.outputs} == {(1, 12, 16, 2), (1, 2)}


def test_free_sizes_are_refused_unless_they_are_fixed(process: ImportProcess, nets: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"more than the batch is free; --input-shape 1,3,N,16 fixes it"):
        process.convert(str(nets / "sizes.pt2"), tmp_path / "sizes.tflite")
    process.convert(str(nets / "sizes.pt2"), tmp_path / "fixed.tflite", shapes=[(1, 3, 20, 16)])
    assert graph.read(tmp_path / "fixed.tflite").inputs[0].shape == (1, 20, 16, 3)
    with pytest.raises(UnsupportedModelError, match=r"is \[-1, 3, -1, 16\], not \[1, 3, 20, 17\]"):
        process.convert(str(nets / "sizes.pt2"), tmp_path / "other.tflite", shapes=[(1, 3, 20, 17)])


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nothing", "returned NoneType, not .module, example inputs."),
        ("failing", "failed with RuntimeError: no weights here"),
        ("absent", "failed with AttributeError"),
    ],
)
def test_a_function_that_builds_no_network(process: ImportProcess, tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        process.convert(f"torch:nets:{name}", tmp_path / f"{name}.tflite")


def test_weights_that_are_no_numbers_are_named_by_their_layer(process: ImportProcess, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"torch:nets:broken: has NaN or infinity in .* weights of CONV_2D"):
        process.convert("torch:nets:broken", tmp_path / "broken.tflite")


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_program(process: ImportProcess, nets: Path, tmp_path: Path, share: float) -> None:
    content = (nets / "fixed.pt2").read_bytes()
    path = tmp_path / "cut.pt2"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(SourceError, match=r"is damaged or no \.pt2 file"):
        process.convert(str(path), tmp_path / "out.tflite")


class _Sets:
    """Pickled, it writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_program_with_code_in_its_example_inputs_does_not_run_it(
    process: ImportProcess, nets: Path, tmp_path: Path
) -> None:
    harm, evil = tmp_path / "harm", tmp_path / "evil.pt2"
    with zipfile.ZipFile(nets / "fixed.pt2") as good, zipfile.ZipFile(evil, "w") as archive:
        for name in good.namelist():
            content = good.read(name)
            if name.endswith("sample_inputs/model.pt"):
                (tmp_path / "inner.pt").write_bytes(content)
                content = _with_pickle(tmp_path / "inner.pt", pickle.dumps(_Sets(harm), protocol=2))
            archive.writestr(name, content)
    with pytest.raises(SourceError, match="cannot be read"):
        process.convert(str(evil), tmp_path / "out.tflite")
    assert not harm.exists()


def _with_pickle(path: Path, pickled: bytes) -> bytes:
    """A file as `torch.save` writes it, with another pickle in it."""
    other = path.with_suffix(".other")
    with zipfile.ZipFile(path) as good, zipfile.ZipFile(other, "w") as archive:
        for name in good.namelist():
            archive.writestr(name, pickled if name.endswith("data.pkl") else good.read(name))
    return other.read_bytes()


def test_a_program_with_pickled_objects_is_refused(process: ImportProcess, nets: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(nets / "fixed.pt2", tmp_path / "objects.pt2"))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("fixed/data/constants/opaque_obj_0", pickle.dumps({}))
    with pytest.raises(UnsupportedModelError, match="holds a pickled object"):
        process.convert(str(path), tmp_path / "out.tflite")


def test_a_batch_of_two_is_refused(
    process: ImportProcess, nets: Path, edge: Callable[..., Any], tmp_path: Path
) -> None:
    done = edge("convert", nets / "two.pt2", "--data", nets / "images.npz", "-o", tmp_path / "a.edge")
    assert done.status == 2
    assert "[2, " in done.line


def test_a_deadline_ends_it(tmp_path: Path) -> None:
    running = ImportProcess(TORCH, tmp_path, deadline_s=0.2)
    with pytest.raises(TorchProcessError, match=r"did not import PyTorch within 0\.2 s"), running:
        pytest.fail("PyTorch cannot have been imported")
