"""Channels of Keras models: traced through every kind of layer, removed, and what is left answers as it should.

Every model here is made in one process with TensorFlow, where the smaller model's answers are compared with those of
the original whose channels are closed; what came of each is checked one by one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, TypeAlias

import pytest

pytestmark = [pytest.mark.keras, pytest.mark.timeout(600)]

MAKE_S = 500.0

# Each function makes a model; what it is a case of is its name.
MODELS = """
import itertools, json, sys
import numpy as np, keras
from keras import layers as L
from edge_converter import _keras_graph, _keras_slim, _keras_teacher, _keras_tune, _keras_widths

keras.utils.set_random_seed(1)
image = lambda *shape: keras.Input(shape or (12, 12, 3))

def conv(x, n, k=3, s=1, **more):
    return L.ReLU()(L.BatchNormalization()(L.Conv2D(n, k, strides=s, padding="same", **more)(x)))

def residual():
    x = a = conv(i := image(), 16)
    a = L.BatchNormalization()(L.Conv2D(16, 3, padding="same")(conv(a, 16)))
    x = L.ReLU()(L.Add()([x, a]))
    return keras.Model(i, L.Dense(4, activation="softmax")(L.GlobalAveragePooling2D()(x)))

def concatenated():
    x = conv(i := image(), 16)
    x = L.Concatenate()([conv(x, 16, 1), conv(x, 8, 3), L.MaxPooling2D(1)(x)])
    x = conv(conv(x, 16), 24, 3, 2)
    return keras.Model(i, L.Dense(4)(L.GlobalMaxPooling2D()(x)))

def depthwise():
    x = conv(i := image(), 16)
    x = L.ReLU(6.0)(L.DepthwiseConv2D(3, depth_multiplier=2, padding="same")(L.ZeroPadding2D(1)(x)))
    x = L.PReLU(shared_axes=[1, 2])(L.SeparableConv2D(24, 3, padding="same", depth_multiplier=2)(conv(x, 16, 1)))
    return keras.Model(i, L.Dense(4)(L.GlobalAveragePooling2D()(L.UpSampling2D()(x))))

def flattened():
    x = L.Dropout(0.5)(L.AveragePooling2D(2)(conv(i := image(), 32)))
    x = L.Dense(32, activation="relu")(L.Flatten()(L.Conv2D(32, 3, activation="tanh")(x)))
    return keras.Model(i, L.Dense(4)(L.Dropout(0.1)(x)))

def gated():
    x = conv(i := image(), 32)
    s = L.Reshape((1, 1, 32))(L.GlobalAveragePooling2D()(x))
    x = L.Multiply()([x, L.Dense(32, activation="sigmoid")(L.Dense(8, activation="relu")(s))])
    x = x * L.Conv2D(1, 1, activation="sigmoid")(x)  # one channel, spread over all
    return keras.Model(i, L.Dense(4)(L.GlobalAveragePooling2D()(conv(x, 16))))

def nested():
    inner = keras.Sequential([keras.Input((12, 12, 16)), L.Conv2D(16, 3, name="c"), L.ReLU()], name="one")
    other = keras.Sequential([keras.Input((10, 10, 16)), L.Conv2D(24, 3, name="c"), L.ReLU()], name="two")
    return keras.Sequential([image(), L.Conv2D(16, 3, padding="same"), inner, other, L.Flatten(), L.Dense(4)])

def shared():
    twice = L.Conv2D(16, 3, padding="same", activation="relu")
    x = twice(twice(conv(i := image(), 16)))
    return keras.Model(i, L.Dense(4)(L.GlobalAveragePooling2D()(conv(x, 16))))

def transposed():
    x = L.Conv2DTranspose(16, 3, strides=2, padding="same", activation="relu")(conv(i := image(), 16))
    return keras.Model(i, L.Dense(4)(L.GlobalAveragePooling2D()(conv(x, 16))))

def one_dimensional():
    x = L.Conv1D(32, 3, padding="same", activation="relu")(i := image(40, 6))
    x = L.MaxPooling1D()(L.BatchNormalization()(L.Conv1D(32, 5)(x)))
    return keras.Model(i, L.Dense(4)(L.GlobalAveragePooling1D()(x)))

def unknown():
    x = L.LayerNormalization()(conv(conv(i := image(), 16), 16))
    return keras.Model(i, L.Dense(4)(L.GlobalAveragePooling2D()(x)))

def few():
    x = L.GlobalAveragePooling2D()(i := image())
    return keras.Model(i, L.Dense(4)(x))

def plain():
    class Plain(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = L.Dense(4)
        def call(self, x):
            return self.dense(keras.ops.mean(x, axis=(1, 2)))
    model = Plain()
    model(np.zeros((1, 12, 12, 3), np.float32))
    return model

def numbers():
    x = conv(i := image(), 16)
    return keras.Model(i, L.Dense(3)(L.GlobalAveragePooling2D()(conv(conv(x, 16), 16))))

found = {}
for make in (residual, concatenated, depthwise, flattened, gated, nested, shared, transposed, one_dimensional, unknown,
             few, plain, numbers):
    model = make()
    rng = np.random.default_rng(0)
    model.set_weights([w + rng.uniform(0.0, 0.3, w.shape).astype("f") for w in model.get_weights()])
    x = rng.normal(size=(64, *(model.input_shape if make is not plain else (0, 12, 12, 3))[1:])).astype("f")
    try:
        slimmer = _keras_slim.Slimmer(model, x, seed=0, classes=make is not numbers)
        slimmer.descend(8)
        smaller = slimmer.build(heal=False)
        healed = slimmer.build(heal=True)
    except (_keras_slim.CannotSlimError, _keras_graph.NoGraphError) as error:
        found[make.__name__] = {"refused": str(error)}
        continue
    wanted = model(x, training=False).numpy()
    off = [float(np.square(each(x, training=False).numpy() - wanted).mean()) for each in (smaller, healed)]
    found[make.__name__] = {
        "macs": slimmer.macs, "removed": slimmer.removed, "off": off,
        "same": smaller.output_shape == model.output_shape,
        "weights": [model.count_params(), smaller.count_params()],
    }
    if make is residual:
        was = slimmer.keep
        slimmer.descend(3)
        slimmer.descend(8)
        found["again"] = bool((slimmer.keep == was).all())
        most = slimmer.channels.cost(slimmer.channels.all_kept()) / 2
        spaces = [
            _keras_widths.space(units, [(4, one), (8, two)])
            for units, (one, two) in zip(slimmer.channels.spaces, [(0.9, 0.5), (0.2, 0.1)], strict=True)
        ]
        every = []
        for widths in itertools.product(*(_keras_widths.choices(len(each.units)) for each in spaces)):
            keep = slimmer.channels.all_kept()
            for each, width in zip(spaces, widths):
                keep[each.units[: len(each.units) - width]] = False
            if slimmer.channels.cost(keep) <= most:
                every.append(sum(each.loss(width) for each, width in zip(spaces, widths)))
        chosen = _keras_widths.choose(slimmer.channels, spaces, most)
        found["chosen"] = sum(each.loss(int(chosen[each.units].sum())) for each in spaces)
        found["least"] = min(every)

def taught(labels):
    # A model that knows nothing yet is taught twice.
    model = keras.Sequential([keras.Input((64,)), L.Dense(4, kernel_initializer="zeros")])
    asked = {"seed": 0, "advance": lambda _: None, "asked": 800}
    lesson = _keras_tune.Lesson(x=points, y=labels, **asked)
    steps = [_keras_teacher.teach(model, lesson), _keras_teacher.teach(model, lesson)]
    return steps, [float(np.abs(w).max()) for w in model.get_weights()]

points = np.random.default_rng(0).normal(size=(512, 64)).astype("f")
easy = (points[:, 0] > 0).astype(int) + 2 * (points[:, 1] > 0).astype(int)
found["taught"] = taught(easy)
found["noise"] = taught(np.random.default_rng(1).integers(0, 4, 512))

class Value:
    # Stands for a tensor on a walk; how many there are at once is counted.
    alive = most = 0
    def __init__(self):
        Value.alive += 1
        Value.most = max(Value.most, Value.alive)
    def __del__(self):
        Value.alive -= 1

deep = keras.Sequential([keras.Input((6, 6, 3)), *(L.Conv2D(4, 3, padding="same") for _ in range(20))])
_keras_graph.walk(deep, [Value()], lambda node, args, keywords: Value())
found["held"] = Value.most
around = keras.Sequential([image(6, 6, 3), deep])
found["bytes"] = [_keras_graph.activation_bytes(each) for each in (deep, around)]
sys.stdout.write(json.dumps(found))
"""

Found: TypeAlias = dict[str, Any]


@pytest.fixture(scope="module")
def found() -> Found:
    """What became of every model."""
    done = subprocess.run(
        [sys.executable, "-c", MODELS],
        check=False,
        capture_output=True,
        text=True,
        timeout=MAKE_S,
        env={**os.environ, "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr
    result: Found = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.parametrize(
    "name",
    [
        *("residual", "concatenated", "depthwise", "flattened", "gated", "nested", "shared", "transposed"),
        *("one_dimensional", "unknown", "numbers"),
    ],
)
def test_what_is_left_answers_as_the_original_does_with_the_removed_channels_closed(found: Found, name: str) -> None:
    outcome = found[name]
    assert "refused" not in outcome, outcome
    before, after = outcome["macs"]
    assert after < 0.8 * before
    before, after = outcome["weights"]
    assert after < before
    assert outcome["removed"][0] > 0
    assert outcome["same"] is True


def test_solving_the_layers_anew_brings_the_answers_nearer(found: Found) -> None:
    for name in ("residual", "concatenated", "flattened", "nested"):
        plain, healed = found[name]["off"]
        assert healed < plain, name


def test_a_model_without_channels_to_remove_is_refused(found: Found) -> None:
    assert found["few"] == {"refused": "has no layer whose channels can be removed"}


def test_a_model_without_a_graph_is_refused(found: Found) -> None:
    assert found["plain"] == {"refused": "computes by code of its own instead of a graph of layers"}


def test_no_other_choice_of_so_low_a_cost_loses_less(found: Found) -> None:
    assert found["chosen"] == pytest.approx(found["least"])


def test_what_a_rung_leaves_does_not_depend_on_where_one_stopped_before(found: Found) -> None:
    assert found["again"] is True


def test_the_original_learns_the_samples_first_where_that_is_of_use(found: Found) -> None:
    steps, weights = found["taught"]
    assert steps[0] == 400
    assert max(weights) > 0


def test_the_original_stays_as_it_is_where_it_learns_nothing_that_holds(found: Found) -> None:
    assert found["noise"] == [[0, 0], [0.0, 0.0]]


def test_a_walk_holds_what_is_still_to_be_read_alone(found: Found) -> None:
    assert found["held"] <= 3


def test_the_activations_of_nested_models_are_counted_too(found: Found) -> None:
    one = 6 * 6 * 4 * 4
    assert found["bytes"] == [[one, 20 * one]] * 2
