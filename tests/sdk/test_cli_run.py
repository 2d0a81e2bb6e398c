"""`edge run`: what comes of labelled data, and what is said of data that cannot be run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_sdk.bundle import Bundle
from edge_sdk.cli import main

pytestmark = pytest.mark.device

TINY = Path(__file__).parent.parent / "data" / "tiny"


@pytest.fixture
def dense(make_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    monkeypatch.setenv("EDGE_DAEMON_SOCKET", str(tmp_path / "no.sock"))
    shapes: dict[str, Any] = {
        "inputs": [{"name": "x", "shape": [1, 4], "dtype": "float32"}],
        "outputs": [{"name": "scores", "shape": [1, 3], "dtype": "float32"}],
    }
    contents = {name: (TINY / f"{name}.tflite").read_bytes() for name in ("dense_fp32", "dense_int8")}
    return str(make_bundle(contents=contents, **shapes).path)


def data(path: Path, **arrays: Any) -> str:
    np.savez(path, **arrays)
    return str(path)


X = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
Y = np.zeros(20, np.int64)


def test_accuracy_and_latency_of_one_variant(dense: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = data(tmp_path / "d.npz", x=X, y=Y)
    assert main(["run", dense, "--data", file, "--variant", "dense_int8", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["samples"] == {"dense_int8": 20}
    assert 0 <= told["accuracy"] <= 100
    assert 0 < told["median_ms"] <= told["p95_ms"]


def test_a_limit_and_no_labels(dense: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = data(tmp_path / "d.npz", x=X)
    assert main(["run", dense, "--data", file, "--limit", "7", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert sum(told["samples"].values()) == 7
    assert told["accuracy"] is None


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"z": X}, "no array named x"),
        ({"x": X[:0]}, "no sample"),
        ({"x": X, "y": Y[:3]}, "arrays of unequal lengths [3, 20]"),
        ({"x": X, "y": Y.astype(np.float32)}, "whole numbers"),
        ({"x": X.reshape(20, 2, 2)}, "shape"),
        ({"x": np.array(["a"])}, "x"),
    ],
)
def test_data_that_cannot_be_run_is_one_line(
    dense: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], arrays: dict[str, Any], words: str
) -> None:
    assert main(["run", dense, "--data", data(tmp_path / "d.npz", **arrays)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    (line,) = [line for line in told.err.splitlines() if line.startswith("edge: ")]
    assert words in line


@pytest.mark.parametrize("content", [b"", b"PK\3\4 torn", b"\x93NUMPY"])
def test_a_file_that_is_no_npz_is_one_line(
    dense: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (tmp_path / "d.npz").write_bytes(content)
    assert main(["run", dense, "--data", str(tmp_path / "d.npz")]) == 2
    assert "is no .npz file" in capsys.readouterr().err


def test_an_unknown_variant_is_named(dense: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", dense, "--data", data(tmp_path / "d.npz", x=X), "--variant", "int4"]) == 2
    assert "dense_int8" in capsys.readouterr().err


def test_several_inputs_and_outputs_are_run_and_the_first_scores_are_counted(
    make_bundle: Callable[..., Bundle], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes: dict[str, Any] = {
        "inputs": [{"name": name, "shape": [1, 2], "dtype": "float32"} for name in "ab"],
        "outputs": [{"name": name, "shape": [1, 2], "dtype": "float32"} for name in ("total", "product")],
    }
    bundle = make_bundle(contents={"only": (TINY / "two_by_two.tflite").read_bytes()}, **shapes)
    a, b = np.random.default_rng(0).normal(size=(2, 12, 2)).astype(np.float32)
    file = data(tmp_path / "d.npz", x0=a, x1=b, y=(a + b).argmax(axis=1))
    assert main(["run", str(bundle.path), "--data", file, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == 100
    assert main(["run", str(bundle.path), "--data", data(tmp_path / "e.npz", x=a)]) == 2
    assert "holds no arrays named x0, x1" in capsys.readouterr().err


def test_what_is_no_classifier_is_timed_and_says_why_it_is_not_scored(
    make_bundle: Callable[..., Bundle], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes: dict[str, Any] = {
        "inputs": [{"name": "x", "shape": [1, 4], "dtype": "float32"}],
        "outputs": [{"name": "scores", "shape": [1, 3], "dtype": "float32"}],
        "metric": "r2",
    }
    bundle = make_bundle(contents={"dense_fp32": (TINY / "dense_fp32.tflite").read_bytes()}, **shapes)
    assert main(["run", str(bundle.path), "--data", data(tmp_path / "d.npz", x=X, y=np.zeros((20, 3)))]) == 0
    told = capsys.readouterr().out
    assert "not scored: the bundle is judged by r2, and edge run counts right classes" in told
    assert "median" in told
