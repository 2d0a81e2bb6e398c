"""Train the demo family: three digit classifiers that trade accuracy for latency.

The three models answer the same question (float32 ``[batch, 8, 8, 1]`` in 0..1 in, float32 ``[batch, 10]``
probabilities out) at three prices, which is what a device needs to switch between them while it runs. What a larger one
costs more is arithmetic rather than storage: each model upsamples the image before its first convolution.

    python examples/train_digits.py --out digits

writes ``small``, ``medium`` and ``large`` as ``.keras`` and float32 ``.tflite``, and both halves of the data.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from keras import layers
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

Floats: TypeAlias = npt.NDArray[np.float32]
Labels: TypeAlias = npt.NDArray[np.int32]

CLASSES = 10
IMAGE_SIDE = 8
INK_MAX = 16.0  # load_digits counts the dark pixels of a 4x4 cell
HELD_OUT = 540  # images, about 30 %
SPLIT_SEED = 0  # apart from --seed: every training run is measured on the same images
BATCH = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """One member of the family."""

    name: str
    side: int
    """Height and width the image is upsampled to, in pixels."""
    stages: tuple[tuple[int, int], ...]
    """(channels, residual blocks) of each stage; every stage after the first halves the map."""

    phases: tuple[tuple[int, float, float], ...]
    """(side divided by, share of ``--epochs``, peak learning rate): learn on small, cheap maps first."""


FAMILY = (
    Size(name="small", side=32, stages=((8, 1), (16, 0), (24, 0)), phases=((1, 2.0, 5e-3),)),
    Size(name="medium", side=32, stages=((24, 2), (24, 0), (16, 0)), phases=((1, 0.6, 3e-3),)),
    Size(
        name="large",
        side=64,
        stages=((24, 2), (48, 2), (80, 1)),
        phases=((4, 1.5, 3e-3), (2, 0.3, 1e-3), (1, 0.2, 5e-4)),
    ),
)


class Jittered(keras.utils.PyDataset):  # type: ignore[misc]  # keras ships no types
    """Training batches, every epoch shifted, turned and scaled a little differently."""

    def __init__(self, x: Floats, y: Labels, seed: int) -> None:
        """Keep ``x`` ``[n, 8, 8, 1]`` and ``y`` ``[n]``; ``seed`` decides every later draw."""
        super().__init__()
        self._x, self._y = x, np.eye(CLASSES, dtype=np.float32)[y]
        self._rng = np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self) -> int:
        """Count the full batches of an epoch; the remainder changes with every shuffle."""
        return len(self._x) // BATCH

    def __getitem__(self, index: int) -> tuple[Floats, Floats]:
        """Return images and one-hot labels of one batch."""
        rows = self._order[index * BATCH : (index + 1) * BATCH]
        return self._jittered[rows], self._y[rows]

    def on_epoch_end(self) -> None:
        """Draw the next epoch: turns to 12 degrees, scales to 12 %, shifts to 0.8 pixel."""
        n, draw = len(self._x), self._rng.uniform
        turn = np.deg2rad(draw(-12, 12, n))
        cos, sin = np.cos(turn) * draw(0.88, 1.12, n), np.sin(turn) * draw(0.88, 1.12, n)
        shift, centre, zero = draw(-0.8, 0.8, (2, n)), (IMAGE_SIDE - 1) / 2, np.zeros(n)
        to_x = centre * (1 - cos + sin) + shift[0]  # turns about the centre of the image
        to_y = centre * (1 - cos - sin) + shift[1]
        maps = np.stack([cos, -sin, to_x, sin, cos, to_y, zero, zero], axis=1)
        moved = keras.ops.image.affine_transform(self._x, maps.astype(np.float32), data_format="channels_last")
        self._jittered: Floats = keras.ops.convert_to_numpy(moved)
        self._order = self._rng.permutation(n)


def conv(x: Any, channels: int, *, stride: int = 1, relu: bool = True) -> Any:  # a Keras tensor
    """Convolve 3x3 and normalise; ReLU6 bounds the range that int8 must cover."""
    x = layers.Conv2D(channels, 3, strides=stride, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.9)(x)
    return layers.ReLU(6.0)(x) if relu else x


def build(size: Size, *, shrink: int = 1) -> keras.Model:
    """Return an untrained model of ``size``; its weights fit any ``shrink`` of the upsampled side."""
    image = keras.Input((IMAGE_SIDE, IMAGE_SIDE, 1), name="image")
    x = image
    if scale := size.side // shrink // IMAGE_SIDE - 1:
        x = layers.UpSampling2D(scale + 1, interpolation="bilinear")(x)
    for stage, (channels, blocks) in enumerate(size.stages):
        x = conv(x, channels, stride=1 if stage == 0 else 2)
        for _ in range(blocks):
            branch = conv(conv(x, channels), channels, relu=False)
            x = layers.ReLU(6.0)(layers.Add()([x, branch]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(CLASSES, activation="softmax", name="digit")(x), name=size.name)


def train(size: Size, x: Floats, y: Labels, *, epochs: int, seed: int) -> keras.Model:
    """Return ``size`` trained on ``x`` and ``y``, uncompiled so that it saves without optimizer state."""
    keras.utils.clear_session()  # layer names count from one again
    keras.utils.set_random_seed(seed)
    batches = Jittered(x, y, seed)
    weights = build(size).get_weights()
    for shrink, share, rate in size.phases:
        model = build(size, shrink=shrink)
        model.set_weights(weights)
        rounds = max(1, round(epochs * share))
        decay = keras.optimizers.schedules.CosineDecay(
            rate / 10, rounds * len(batches), alpha=0.0, warmup_target=rate, warmup_steps=len(batches)
        )
        loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.05)
        model.compile(optimizer=keras.optimizers.AdamW(decay, weight_decay=1e-3), loss=loss, jit_compile=False)
        model.fit(batches, epochs=rounds, verbose=0)
        weights = model.get_weights()
    trained = build(size)
    trained.set_weights(weights)
    return trained


def read_digits() -> tuple[Floats, Floats, Labels, Labels]:
    """Return train images, held-out images ``[n, 8, 8, 1]``, train labels, held-out labels ``[n]``."""
    digits = load_digits()
    x: Floats = (digits.images[..., np.newaxis] / INK_MAX).astype(np.float32)
    y: Labels = digits.target.astype(np.int32)
    train_x, test_x, train_y, test_y = train_test_split(x, y, test_size=HELD_OUT, stratify=y, random_state=SPLIT_SEED)
    return train_x, test_x, train_y, test_y


def measure(tflite: bytes, x: Floats, y: Labels, *, runs: int = 200) -> tuple[float, float]:
    """Return the share of ``x`` answered right and the median latency of one image on one thread, in ms."""
    interpreter = Interpreter(model_content=tflite, num_threads=1)
    interpreter.allocate_tensors()
    image = interpreter.get_input_details()[0]["index"]
    digit = interpreter.get_output_details()[0]["index"]
    right, took_s = 0, []
    for sample, label in zip(x, y, strict=True):
        interpreter.set_tensor(image, sample[np.newaxis])
        start = time.perf_counter()
        interpreter.invoke()
        took_s.append(time.perf_counter() - start)
        right += int(interpreter.get_tensor(digit)[0].argmax() == label)
    return right / len(y), 1e3 * float(np.median(took_s[-runs:]))


def main(argv: Sequence[str] | None = None) -> None:
    """Train the family, write it with its data, and print what each member costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("digits"), help="folder to write to (default: digits)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the jitter, not of the split")
    parser.add_argument("--epochs", type=int, default=20, help="unit of each model's training phases (default: 20)")
    args = parser.parse_args(argv)
    tf.config.experimental.enable_op_determinism()

    train_x, test_x, train_y, test_y = read_digits()
    args.out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(args.out / "digits_train.npz", x=train_x, y=train_y)
    np.savez_compressed(args.out / "digits_test.npz", x=test_x, y=test_y)

    table = [f"{'model':8}{'accuracy':>10}{'.keras B':>10}{'.tflite B':>11}{'params':>9}{'latency':>12}"]
    for size in FAMILY:
        model = train(size, train_x, train_y, epochs=args.epochs, seed=args.seed)
        saved = args.out / f"{size.name}.keras"
        model.save(saved)
        tflite: bytes = tf.lite.TFLiteConverter.from_keras_model(model).convert()
        saved.with_suffix(".tflite").write_bytes(tflite)
        accuracy, latency_ms = measure(tflite, test_x, test_y)
        table.append(
            f"{size.name:8}{accuracy:10.2%}{saved.stat().st_size:10,}{len(tflite):11,}"
            f"{model.count_params():9,}{latency_ms:9.3f} ms"
        )
    sys.stdout.write("\n".join(table) + "\n")


if __name__ == "__main__":
    main()
