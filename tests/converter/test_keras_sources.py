"""Sources that need TensorFlow: `.keras`, `.h5` and SavedModel, pruning, and a TensorFlow process that fails.

Importing TensorFlow takes most of the time, so there are three imports for the whole file: one writes the sources, one
converts them into a bundle, one is asked for everything that must fail. The tests that kill it do so while it imports.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_converter import _keras_wire as wire
from edge_converter import graph, judge, metrics
from edge_converter.candidates import Candidate
from edge_converter.errors import KerasProcessError, SourceError, UnsupportedModelError
from edge_converter.keras_process import KerasProcess
from edge_converter.labelled import data
from edge_converter.metrics import Judged
from edge_converter.request import Silent
from edge_converter.sources import Framework
from edge_lab import digits
from edge_sdk.bundle import Bundle
from edge_sdk.manifest import Manifest, Pass, Precision, Preprocessing, TensorSpec

pytestmark = [pytest.mark.keras, pytest.mark.timeout(900)]

IMPORT_S = 240.0
CONVERT_S = 600.0
SMALL = digits.models(".keras")[0]

# What is asked of TensorFlow to make the sources: run in a process of its own.
SOURCES = """
import json, sys, pathlib, keras
given, folder = sys.argv[1], pathlib.Path(sys.argv[2])
model = keras.models.load_model(given, compile=False)
model.save(folder / "small.h5")
model.export(folder / "saved", verbose=False)

@keras.saving.register_keras_serializable(package="somewhere")
class OnlyHere(keras.layers.Layer):
    def call(self, x):
        return x * 2

image = keras.Input((8, 8, 1))
flat = keras.layers.Flatten()(image)
keras.Model(image, keras.layers.Dense(10)(OnlyHere()(flat))).save(folder / "custom.keras")
keras.Model(image, keras.layers.Dense(10)(keras.ops.erfinv(flat))).save(folder / "operator.keras")
pool = keras.layers.GlobalAveragePooling2D()(image)
keras.Model(image, keras.layers.Dense(10)(pool)).save(folder / "few.keras")

# With code of its own, with free sizes, with a recurrent layer.
keras.Model(image, keras.layers.Dense(10)(keras.layers.Lambda(lambda x: x * 2)(flat))).save(folder / "lambda.keras")
keras.Model(image, keras.layers.Dense(10)(keras.layers.Lambda(lambda x: x * 2)(flat))).save(folder / "lambda.h5")
any_size = keras.Input((None, None, 3))
seen = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2DTranspose(8, 3)(any_size))
keras.Model(any_size, keras.layers.Dense(3)(seen)).save(folder / "sizes.keras")
steps = keras.Input((6, 4))
keras.Model(steps, keras.layers.Dense(3)(keras.layers.LSTM(8)(steps))).save(folder / "recurrent.keras")

# With several signatures, and with an operator that TensorFlow Lite does not have.
import tensorflow as tf
root = tf.Module()
root.w = tf.Variable(tf.random.normal((4, 3)))
def signature(function, *shape):
    return tf.function(function).get_concrete_function(tf.TensorSpec(shape, tf.float32, name="x"))
tf.saved_model.save(root, str(folder / "several"), signatures={
    "once": signature(lambda x: {"y": x @ root.w}, None, 4),
    "mean": signature(lambda x: {"y": tf.reduce_mean(x, 1) @ root.w}, None, None, 4),
})
tf.saved_model.save(root, str(folder / "strange"), signatures={
    "serving_default": signature(lambda x: {"y": tf.math.erfinv(x) @ root.w}, None, 4),
})

# As Keras 2 wrote it, and with a setting that no Keras knows.
import h5py
mobile = keras.layers.DepthwiseConv2D(3)(image)
for name, key, value in (("depthwise.h5", "groups", 1), ("strange.h5", "flavour", "mint")):
    keras.Model(image, keras.layers.Dense(10)(keras.layers.Flatten()(mobile))).save(folder / name)
    with h5py.File(folder / name, "r+") as file:
        config = file.attrs["model_config"]
        assert '"depth_multiplier": 1' in config
        file.attrs["model_config"] = config.replace('"depth_multiplier": 1', f'"{key}": {json.dumps(value)}')
"""

IMAGES = [TensorSpec(name="x", shape=(-1, 8, 8, 1), dtype="float32")]


def prune(path: Path, folder: Path, into: Path, *, sparsity: float) -> wire.Prune:
    """What is asked to prune a model and fine-tune it on the folder's `train.npz`."""
    return wire.Prune(path=str(path), arrays=str(folder / "train.npz"), into=str(into), sparsity=sparsity, seed=3)


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `small` as `.h5` and SavedModel, and models that cannot be converted or pruned."""
    folder = tmp_path_factory.mktemp("sources")
    subprocess.run(
        [sys.executable, "-c", SOURCES, str(SMALL), str(folder)],
        check=True,
        capture_output=True,
        timeout=IMPORT_S,
        env={**os.environ, "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    return folder


@pytest.fixture(scope="module")
def converted(exports: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, str]:
    """A bundle of the same network from all three kinds of file, and what was said on stderr."""
    place = tmp_path_factory.mktemp("converted")
    folder = digits.directory()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "edge_sdk.cli", "convert", str(SMALL), str(exports / "small.h5")),
            *(str(exports / "saved"), "--data", str(folder / "digits_test.npz")),
            *("--calibration", str(folder / "digits_train.npz"), "--train", str(folder / "digits_train.npz")),
            *("--profile", "rpi4", "--prune", "0.6", "-o", str(place / "digits-1.edge")),
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=CONVERT_S,
        env={**os.environ, "TMPDIR": str(place)},
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in place.iterdir()] == ["digits-1.edge"]
    return Bundle(place / "digits-1.edge"), done.stderr


@pytest.fixture
def manifest(converted: tuple[Bundle, str]) -> Manifest:
    return converted[0].manifest


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KerasProcess]:
    """A TensorFlow process to ask."""
    with KerasProcess(tmp_path_factory.mktemp("process"), deadline_s=IMPORT_S) as running:
        yield running


def test_every_kind_of_file_gives_every_format(manifest: Manifest) -> None:
    assert [(source.name, source.framework) for source in manifest.sources] == [
        ("small", "keras"),
        ("small-2", "keras"),
        ("saved", "saved_model"),
    ]
    ids = {variant.id for variant in manifest.variants} | {one.id for one in manifest.refused}
    for source in ("small", "small-2", "saved"):
        assert {
            f"{source}-{precision}" for precision in ("fp32", "fp16", "dynamic", "int8", "int16x8", "weight8")
        } <= ids


def test_the_same_network_answers_the_same_from_every_kind_of_file(manifest: Manifest) -> None:
    found = {v.source: v for v in manifest.variants if v.id in {"small-fp32", "small-2-fp32", "saved-fp32"}}
    assert {v.quality.value for v in found.values()} == {found["small"].quality.value}
    assert found["small"].quality.value > 95
    assert {v.quality.agreement for v in found.values()} == {100.0}


def test_what_is_named_a_format_is_in_it(converted: tuple[Bundle, str]) -> None:
    bundle, _ = converted
    for variant in bundle.manifest.variants:
        found = graph.read(bundle.blob(variant))
        assert {op.precision for op in found.weighted} == {variant.precision}
        assert variant.exceptions == ()


def test_a_pruned_variant_has_the_zeros_it_claims_and_travels_lighter(converted: tuple[Bundle, str]) -> None:
    bundle, _ = converted
    pruned, plain = bundle.variant("small-pruned60-fp32"), bundle.variant("small-fp32")
    (step,) = pruned.compression
    assert step.name == "prune"
    assert float(step.parameters["sparsity"]) == pytest.approx(0.6, abs=0.01)
    assert step.parameters["samples"] == 1257
    assert pruned.transfer_bytes < 0.75 * plain.transfer_bytes
    assert pruned.quality.source_drop is not None
    assert pruned.quality.source_drop <= 2
    twin = bundle.variant("small-pruned60-int8")
    assert [step.name for step in twin.compression] == ["prune", "calibrate", "quantize", "biases"]
    assert twin.transfer_bytes < bundle.variant("small-int8").transfer_bytes


def test_a_saved_model_is_not_pruned_and_that_is_said(converted: tuple[Bundle, str]) -> None:
    bundle, said = converted
    assert not [v.id for v in bundle.manifest.variants if v.source == "saved" and "pruned" in v.id]
    assert "saved is not pruned: only .keras and .h5 models can be fine-tuned" in said


def test_pruning_beyond_what_the_network_bears_is_refused_with_its_accuracy(
    process: KerasProcess, tmp_path: Path
) -> None:
    images, labels = digits.training()
    np.savez(tmp_path / "train.npz", x=images[:300], y=labels[:300])
    percent: list[int] = []
    process.convert(SMALL, Framework.KERAS, tmp_path / "float.tflite")
    done = process.train(prune(SMALL, tmp_path, tmp_path / "pruned.tflite", sparsity=0.95), percent.append)
    assert done.sparsity == pytest.approx(0.95, abs=0.01)
    assert sum(percent) == 100
    samples = data.open_samples(digits.directory() / "digits_test.npz", inputs=IMAGES, preprocessing=Preprocessing())

    def candidate(name: str, compression: tuple[Pass, ...]) -> Candidate:
        path = tmp_path / f"{name}.tflite"
        return Candidate(
            id=name,
            source="small",
            path=path,
            origin=path,
            graph=graph.read(path),
            precision=Precision.FP32,
            compression=compression,
            exceptions=(),
            given=not compression,
        )

    rows = data.as_rows(range(len(samples.labels)))
    outputs = graph.read(tmp_path / "float.tflite").outputs
    verdict = judge.judge(
        [candidate("float", ()), candidate("pruned", (Pass(name="prune"),))],
        samples,
        rows,
        metric=metrics.choose("accuracy", Judged(samples=samples, rows=rows, outputs=outputs)),
        max_drop=1.0,
        progress=Silent(),
    )
    ((_, refused),) = verdict.refused
    assert refused.quality is not None
    assert refused.quality.value < 95
    assert f"accuracy {refused.quality.value:.2f} %" in refused.reason


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("share", [0.2, 0.95])
def test_a_truncated_keras_file(
    process: KerasProcess, exports: Path, tmp_path: Path, suffix: str, share: float
) -> None:
    whole = SMALL if suffix == ".keras" else exports / "small.h5"
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    with pytest.raises(SourceError) as caught:
        process.convert(path, Framework.KERAS, tmp_path / "out.tflite")
    assert str(caught.value).startswith(f"{path}: is damaged or no Keras model: ")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.tflite").exists()


def test_a_damaged_saved_model(process: KerasProcess, tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"\xff" * 100)
    with pytest.raises(SourceError, match="is no whole SavedModel") as caught:
        process.convert(tmp_path / "saved", Framework.SAVED_MODEL, tmp_path / "out.tflite")
    assert "\n" not in str(caught.value)


def test_a_layer_nobody_here_knows(process: KerasProcess, exports: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="OnlyHere, which Keras does not know") as caught:
        process.convert(exports / "custom.keras", Framework.KERAS, tmp_path / "out.tflite")
    assert caught.value.exit_status == 2


def test_a_depthwise_layer_as_keras_2_wrote_it(process: KerasProcess, exports: Path, tmp_path: Path) -> None:
    process.convert(exports / "depthwise.h5", Framework.KERAS, tmp_path / "out.tflite")
    assert graph.read(tmp_path / "out.tflite").operators["DEPTHWISE_CONV_2D"] == 1


def test_a_layer_whose_settings_nobody_knows(process: KerasProcess, exports: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"holds a DepthwiseConv2D layer that Keras .* cannot read"):
        process.convert(exports / "strange.h5", Framework.KERAS, tmp_path / "out.tflite")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_layer_that_brings_code_is_refused(process: KerasProcess, exports: Path, tmp_path: Path, suffix: str) -> None:
    with pytest.raises(UnsupportedModelError, match=r"holds code .a Lambda layer., which would run when it is loaded"):
        process.convert(exports / f"lambda{suffix}", Framework.KERAS, tmp_path / "out.tflite")


def test_free_sizes_are_fixed_before_a_keras_model_is_converted(
    process: KerasProcess, exports: Path, tmp_path: Path
) -> None:
    path = exports / "sizes.keras"
    process.convert(path, Framework.KERAS, tmp_path / "out.tflite", shapes=[(1, 8, 6, 3)])
    found = graph.read(tmp_path / "out.tflite")
    assert (found.inputs[0].shape, found.outputs[0].shape) == ((1, 8, 6, 3), (1, 3))
    assert {op.op for op in found.weighted} == {"TRANSPOSE_CONV", "FULLY_CONNECTED"}
    with pytest.raises(UnsupportedModelError, match=r"is \[None, None, None, 3\], not \[1, 8, 6, 4\]"):
        process.convert(path, Framework.KERAS, tmp_path / "out.tflite", shapes=[(1, 8, 6, 4)])


def test_a_recurrent_layer_is_unrolled_once_its_length_is_fixed(
    process: KerasProcess, exports: Path, tmp_path: Path
) -> None:
    path = exports / "recurrent.keras"
    with pytest.raises(UnsupportedModelError, match=r"holds a loop.*--input-shape"):
        process.convert(path, Framework.KERAS, tmp_path / "out.tflite")
    process.convert(path, Framework.KERAS, tmp_path / "out.tflite", shapes=[(1, 6, 4)])
    assert graph.read(tmp_path / "out.tflite").operators["FULLY_CONNECTED"] > 6


def test_a_signature_of_a_saved_model_is_chosen_by_name(process: KerasProcess, exports: Path, tmp_path: Path) -> None:
    def convert(signature: str | None, *shapes: tuple[int, ...]) -> graph.Graph:
        out = tmp_path / "out.tflite"
        process.convert(exports / "several", Framework.SAVED_MODEL, out, signature=signature, shapes=shapes)
        return graph.read(out)

    assert convert("once").inputs[0].shape == (-1, 4)
    assert convert("mean", (1, 5, 4)).inputs[0].shape == (1, 5, 4)
    with pytest.raises(UnsupportedModelError, match="has the signatures mean, once; choose one with --signature"):
        convert(None)
    with pytest.raises(UnsupportedModelError, match="has no signature 'serve'; it has mean, once"):
        convert("serve")


def test_an_operator_tensorflow_lite_does_not_have(process: KerasProcess, exports: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"needs operators TensorFlow Lite does not have: .*Erfinv"):
        process.convert(exports / "strange", Framework.SAVED_MODEL, tmp_path / "out.tflite")


@pytest.mark.reference_data
@pytest.mark.parametrize(
    ("name", "millions"),
    [("pretrainedResnet.h5", 12.5), ("vww_96.h5", 7.5), ("str_ww_ref_model.h5", 0.83), ("kws_ref_model", 2.7)],
)
def test_models_trained_by_others_years_ago(
    process: KerasProcess, reference_data: Path, tmp_path: Path, name: str, millions: float
) -> None:
    path = reference_data / "models_and_labels" / "mlperf_tiny" / name
    process.convert(path, Framework.SAVED_MODEL if path.is_dir() else Framework.KERAS, tmp_path / "out.tflite")
    found = graph.read(tmp_path / "out.tflite")
    assert found.precision is Precision.FP32
    assert found.cost.macs / 1e6 == pytest.approx(millions, rel=0.1)


def test_the_same_seed_prunes_to_the_same_file(process: KerasProcess, tmp_path: Path) -> None:
    images, labels = digits.training()
    np.savez(tmp_path / "train.npz", x=images[:64], y=labels[:64])
    made = [tmp_path / "one.tflite", tmp_path / "other.tflite"]
    for into in made:
        process.train(prune(SMALL, tmp_path, into, sparsity=0.5))
    assert made[0].read_bytes() == made[1].read_bytes()


def test_an_operator_tflite_does_not_have(process: KerasProcess, exports: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="Erfinv") as caught:
        process.convert(exports / "operator.keras", Framework.KERAS, tmp_path / "out.tflite")
    assert "\n" not in str(caught.value)


def test_a_model_with_nothing_to_prune(process: KerasProcess, exports: Path, tmp_path: Path) -> None:
    images, labels = digits.held_out()
    np.savez(tmp_path / "train.npz", x=images[:40], y=labels[:40])
    with pytest.raises(UnsupportedModelError, match="no convolution or dense layer with 256 weights or more"):
        process.train(prune(exports / "few.keras", tmp_path, tmp_path / "out.tflite", sparsity=0.5))


def test_after_errors_it_still_converts(process: KerasProcess, tmp_path: Path) -> None:
    process.convert(SMALL, Framework.KERAS, tmp_path / "out.tflite")
    assert graph.read(tmp_path / "out.tflite").precision is Precision.FP32


def test_a_deadline_ends_it(tmp_path: Path) -> None:
    running = KerasProcess(tmp_path, deadline_s=0.2)
    with pytest.raises(KerasProcessError, match=r"did not import TensorFlow within 0\.2 s"), running:
        pytest.fail("TensorFlow cannot have been imported")


# --------------------------------------------------------------------------------- killed, interrupted, not installed


@pytest.fixture
def begun(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], int]]]:
    """Starts a conversion in a process of its own and waits until its TensorFlow process is there."""
    started: list[subprocess.Popen[str]] = []

    def start() -> tuple[subprocess.Popen[str], int]:
        (tmp_path / "scratch").mkdir()
        words = ["convert", str(SMALL), "--data", str(digits.directory() / "digits_test.npz")]
        running = subprocess.Popen(
            [sys.executable, "-m", "edge_sdk.cli", *words, "-o", str(tmp_path / "out.edge")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(tmp_path / "scratch")},
        )
        started.append(running)
        return running, _child(running, deadline_s=60)

    yield start
    for running in started:
        if running.poll() is None:
            running.kill()
        running.communicate(timeout=30)


def _child(running: subprocess.Popen[str], *, deadline_s: float) -> int:
    """The id of its TensorFlow process, once it runs our code."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        assert running.poll() is None, running.communicate()[1]
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                line = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if parent == str(running.pid) and b"_keras_worker" in line:
                return int(folder.name)
        time.sleep(0.02)
    pytest.fail("no TensorFlow process appeared")


def _gone(pid: int, *, deadline_s: float) -> bool:
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_a_killed_tensorflow_process_is_named(
    begun: Callable[..., tuple[subprocess.Popen[str], int]], tmp_path: Path
) -> None:
    running, child = begun()
    os.kill(child, signal.SIGKILL)
    out, said = running.communicate(timeout=60)
    assert running.returncode == 1
    assert out == ""
    line = said.strip().splitlines()[-1]
    assert "the TensorFlow process was killed by SIGKILL while asked to import TensorFlow" in line
    assert line.endswith("[keras-process]")
    assert not (tmp_path / "out.edge").exists()
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_an_interrupt_leaves_no_process_and_no_file(
    begun: Callable[..., tuple[subprocess.Popen[str], int]], tmp_path: Path, number: signal.Signals, status: int
) -> None:
    running, child = begun()
    running.send_signal(number)
    _, said = running.communicate(timeout=60)
    assert running.returncode == status, said
    assert "Traceback" not in said
    # A signal in the moment of its start leaves it to see, once TensorFlow is imported, that nobody asks any more.
    assert _gone(child, deadline_s=120)
    assert not (tmp_path / "out.edge").exists()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_not_even_a_hard_kill_leaves_a_tensorflow_process(
    begun: Callable[..., tuple[subprocess.Popen[str], int]], tmp_path: Path
) -> None:
    running, child = begun()
    running.kill()
    running.wait(30)
    assert _gone(child, deadline_s=120)
    assert not (tmp_path / "out.edge").exists()


def test_where_tensorflow_is_not_installed_the_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['tensorflow'] = None\n")
    words = ["convert", str(SMALL), "--data", str(digits.directory() / "digits_test.npz")]
    done = subprocess.run(
        [sys.executable, "-m", "edge_sdk.cli", *words, "-o", str(tmp_path / "out.edge")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1] == (
        "edge: the TensorFlow process: needs TensorFlow, which is not installed; "
        "pip install 'adaptive-edge-sdk[keras]', or give .tflite files [missing-extra]"
    )
