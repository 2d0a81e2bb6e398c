"""Small classifiers, labelled data for them, and the program run as a user runs it.

With the device install alone there is no converter to test, and these files could not even be imported.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edge_lab import digits
from edge_sdk.cli import main
from edge_sdk.engine import Engine

collect_ignore_glob = ["test_*.py"] if importlib.util.find_spec("litert_quantizer") is None else []
TINY = Path(__file__).resolve().parents[1] / "data" / "tiny"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the program did."""

    status: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line it says of an error."""
        return self.err.strip().splitlines()[-1]


@pytest.fixture
def edge(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs `edge` in this process."""

    def run(*words: object) -> Outcome:
        capsys.readouterr()
        try:
            status = main([str(word) for word in words])
        except SystemExit as leaving:
            status = int(leaving.code or 0)
        found = capsys.readouterr()
        return Outcome(status=status, out=found.out, err=found.err)

    return run


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A classifier: softmax of one dense layer, 4 numbers in, 3 scores out."""
    return Path(shutil.copy(TINY / "dense_fp32.tflite", tmp_path / "tiny.tflite"))


@pytest.fixture
def dense(tmp_path: Path) -> Callable[..., Path]:
    """Writes that classifier with other weights, `[3, 4]`."""

    from edge_converter import flatbuffer

    def write(name: str, weights: object) -> Path:
        model = flatbuffer.read(TINY / "dense_fp32.tflite")
        for tensor in model.subgraphs[0].tensors:
            new = {b"w": np.array(weights, np.float32), b"b": np.zeros(3, np.float32)}.get(bytes(tensor.name))
            if new is not None:
                model.buffers[tensor.buffer].data = np.frombuffer(new.tobytes(), np.uint8)
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(flatbuffer.serialize(model))
        return path

    return write


@pytest.fixture
def answered(tmp_path: Path) -> Callable[..., Path]:
    """Writes points labelled by what a model answers, so that it answers all of them right."""

    def write(model: Path, *, name: str = "points", points: object = None, count: int = 60, seed: int = 1) -> Path:
        x = np.random.default_rng(seed).normal(0, 1, (count, 4)) if points is None else points
        x = np.asarray(x, np.float32)
        with Engine(model) as engine:
            y = np.concatenate([engine.run([row[np.newaxis]])[0] for row in x]).argmax(axis=1)
        path = tmp_path / f"{name}.npz"
        np.savez(path, x=x, y=y)
        return path

    return write


@pytest.fixture
def points(tiny: Path, answered: Callable[..., Path]) -> Path:
    """Labelled data the tiny classifier answers right."""
    return answered(tiny)


@pytest.fixture(scope="session")
def convolutions() -> Path:
    """The smallest of the digit classifiers: convolutions, depthwise convolutions and a dense layer."""
    return digits.models()[0]


@pytest.fixture(scope="session")
def few_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every fourth of the held-out digits."""
    images, labels = digits.held_out()
    path = tmp_path_factory.mktemp("digits") / "few.npz"
    np.savez(path, x=images[::4], y=labels[::4])
    return path
