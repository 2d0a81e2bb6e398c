"""How long the post-training set takes, beside one fp32 and one int8 conversion of TFLiteConverter in the same run.

Each of theirs is a process of its own, as a user would run it. Ours is one run: the Keras model to fp32 in a child, and
fp16, dynamic, int8, weight8, weight4 and the light int8 made of that. Nothing is evaluated in either.

Run as a program it is TensorFlow's part: `convert_time.py FORMAT KERAS ARRAYS INTO`.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_DEADLINE_S = 900.0
_MOST = 1.5
_CALIBRATING = 100
_SET = ("fp16", "dynamic", "int8", "weight8", "weight4", "clustered-int8")


def conversion_times(store: Path, folder: Path, cpu_s: Callable[[], float]) -> list[dict[str, Any]]:
    """One entry a model: ResNet8, and a MobileNetV2 of the size networks on boards have; nothing without TensorFlow."""
    if importlib.util.find_spec("tensorflow") is None:
        return []
    mobile = folder / "mobilenet_v2.keras"
    _child("mobilenet", "-", "-", str(mobile))
    random = np.random.default_rng(0)
    images = folder / "random.npz"
    x = random.normal(size=(128, 7, 7, 3)).repeat(32, axis=1).repeat(32, axis=2) + random.normal(
        size=(128, 224, 224, 3)
    )
    np.savez(images, x=x.astype(np.float32), y=np.zeros(128, np.int64))
    return [
        _compared(store / "mlperf_tiny" / "pretrainedResnet.h5", folder / "train.npz", folder, cpu_s),
        _compared(mobile, images, folder, cpu_s),
    ]


def _compared(keras: Path, arrays: Path, folder: Path, cpu_s: Callable[[], float]) -> dict[str, Any]:
    begun, spent = time.monotonic(), cpu_s()
    for kind in ("fp32", "int8"):
        _child(kind, str(keras), str(arrays), str(folder / "theirs.tflite"))
    theirs = time.monotonic() - begun, cpu_s() - spent
    begun, spent = time.monotonic(), cpu_s()
    _ours(keras, arrays, folder)
    ours = time.monotonic() - begun, cpu_s() - spent
    print(f"{keras.name}: ours {ours[0]:.1f} s, TFLiteConverter {theirs[0]:.1f} s", file=sys.stderr, flush=True)
    return {
        "model": keras.name,
        "theirs_wall_s": round(theirs[0], 1),
        "theirs_cpu_s": round(theirs[1], 1),
        "ours_wall_s": round(ours[0], 1),
        "ours_cpu_s": round(ours[1], 1),
        "ratio_wall": round(ours[0] / theirs[0], 3),
        "ratio_cpu": round(ours[1] / theirs[1], 3),
        "target": _MOST,
        "met": ours[0] <= _MOST * theirs[0],
    }


def _ours(keras: Path, arrays: Path, folder: Path) -> None:
    """The set without search, as `edge convert` makes it: float, then a recipe's variants side by side."""
    from edge_converter import candidates, crew, graph, recipe
    from edge_converter.cache import Cache
    from edge_converter.candidates import FloatFile
    from edge_converter.keras_process import KerasProcess
    from edge_converter.labelled import data
    from edge_converter.passes import Room
    from edge_converter.sources import Framework
    from edge_sdk.manifest import Preprocessing

    own = folder / f"ours-{keras.stem}"
    own.mkdir()
    source = own / "float.tflite"
    with KerasProcess(own, deadline_s=_DEADLINE_S) as process:
        process.convert(keras, Framework.KERAS, source)
    samples = data.open_samples(arrays, inputs=graph.read(source).inputs, preprocessing=Preprocessing())
    room = Room(
        samples=samples, rows=data.first_by_content(samples, data.MAX_CALIBRATION), folder=own, where=keras.name
    )
    variants = [one for one in recipe.load("default").variant if one.id in _SET and one.of == "given"]
    planned = candidates.plan([FloatFile(source="model", path=source)], variants, room)
    cache = Cache(own / "cache")
    if crew.is_worth_it(planned, room):
        crew.fill(planned, room, cache, deadline_s=_DEADLINE_S)
    _, refused = candidates.make(planned, room, cache)
    if refused:
        raise RuntimeError("; ".join(f"{one.id}: {one.reason}" for one in refused))


def _child(*words: str) -> None:
    subprocess.run(
        [sys.executable, __file__, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        timeout=_DEADLINE_S,
    )  # fmt: skip


def _tensorflow(kind: str, keras: str, arrays: str, into: str) -> None:
    """TensorFlow's part of the comparison: plain, as its documentation has it."""
    import tensorflow as tf

    if kind == "mobilenet":
        tf.keras.utils.set_random_seed(0)
        tf.keras.applications.MobileNetV2(weights=None, input_shape=(224, 224, 3)).save(into)
        return
    converter = tf.lite.TFLiteConverter.from_keras_model(tf.keras.models.load_model(keras, compile=False))
    if kind == "int8":
        with np.load(arrays) as held:
            x = held["x"][:_CALIBRATING].astype(np.float32)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([row[np.newaxis]] for row in x)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    Path(into).write_bytes(converter.convert())


if __name__ == "__main__":
    _tensorflow(*sys.argv[1:5])
