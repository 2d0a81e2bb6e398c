"""Run as a child process: the only code of this product that imports TensorFlow while converting.

Reads one question a line on stdin and answers on stdout (`edge_converter._keras_wire`); whatever TensorFlow prints
goes to stderr. It ends, wherever it is, when stdin closes: then nobody wants its answer any more.
"""

from __future__ import annotations

import importlib.util
import os
import queue
import re
import sys
import threading
import traceback
from typing import IO, Any

import msgspec

from edge_converter import _keras_wire as wire

# The converter names what it cannot do in a paragraph; these find the sentence.
_FLEX = re.compile(r"^(?:TF Select ops|Flex ops):\s*([^\n]+)", re.MULTILINE)
_CUSTOM = re.compile(r"^Custom ops:\s*([^\n]+)", re.MULTILINE)
_UNKNOWN_LAYER = re.compile(r"[Cc]ould not locate (?:class|function) '([^']+)'|Unknown (?:layer|object)[:'\s]+(\w+)")
_UNREADABLE_LAYER = re.compile(r"Error when deserializing class '([^']+)'")
_REASON_CHARS = 300
_THREADS = 4


def main() -> int:
    """Answer until stdin closes; returns the exit status."""
    # Answers keep the stdout the parent reads; everything else that believes it prints there goes to stderr.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    questions: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, questions), daemon=True).start()
    if importlib.util.find_spec("tensorflow") is None:
        hint = "pip install 'adaptive-edge-sdk[keras]', or give .tflite files"
        _answer(answers, wire.Failed(kind="missing", what="needs TensorFlow, which is not installed", hint=hint))
        return 0
    import tensorflow as tf

    # Sums depend on how many threads share them: always so many, whatever the machine has.
    tf.config.threading.set_intra_op_parallelism_threads(_THREADS)
    _answer(answers, wire.Ready(version=tf.__version__))
    while True:
        question = msgspec.json.decode(questions.get(), type=wire.Ask)
        _answer(answers, _handle(question, answers))


def _handle(question: wire.Ask, answers: IO[bytes]) -> wire.Done | wire.Failed:
    try:
        if isinstance(question, wire.Convert):
            return _convert(question)
        return _train(question, answers)
    except _RefusedError as error:
        return error.answer


class _RefusedError(Exception):
    def __init__(self, answer: wire.Failed) -> None:
        super().__init__(answer.what)
        self.answer = answer


def _convert(question: wire.Convert) -> wire.Done:
    import tensorflow as tf

    if question.framework == "keras":
        converter = tf.lite.TFLiteConverter.from_keras_model(_load(question.path))
    else:
        converter = _saved_model(question.path)
    _write(converter, question.into)
    return wire.Done()


def _train(question: wire.Prune | wire.Slim | wire.Qat, answers: IO[bytes]) -> wire.Done:
    import numpy as np
    import tensorflow as tf

    from edge_converter import _keras_graph, _keras_prune, _keras_slim, _keras_tune

    # Before the model is loaded, so that its dropout layers are seeded too.
    tf.keras.utils.set_random_seed(question.seed)
    tf.config.experimental.enable_op_determinism()
    with np.load(question.arrays) as arrays:
        lesson = _keras_tune.Lesson(
            x=arrays["x"],
            y=arrays["y"] if "y" in arrays.files else None,
            seed=question.seed,
            advance=lambda percent: _answer(answers, wire.Advance(percent=percent)),
        )
    try:
        model, done = _trained(question, lesson)
    except (_keras_prune.NothingToPruneError, _keras_slim.CannotSlimError, _keras_graph.NoGraphError) as error:
        raise _refused("unsupported", str(error)) from error
    except _RefusedError:
        raise
    except Exception as error:  # a layer's own code runs here
        traceback.print_exc()
        hint = "--prune 0, and neither --slim nor --qat, leaves it out"
        raise _refused("unsupported", f"cannot be fine-tuned: {_first_line(error)}", hint) from error
    _write(tf.lite.TFLiteConverter.from_keras_model(model), question.into)
    return done


def _trained(question: wire.Prune | wire.Slim | wire.Qat, lesson: Any) -> tuple[Any, wire.Done]:
    """The model that was asked for, and what was done to it."""
    from edge_converter import _keras_prune, _keras_qat, _keras_slim, _keras_tune

    if isinstance(question, wire.Slim):
        slimmer = _slimmer(question, lesson)
        slimmer.descend(question.rung)
        model, steps = slimmer.build(heal=question.tune), 0
        if question.tune:
            _keras_tune.recalibrate(model, lesson.x, seed=lesson.seed)
            steps = _keras_tune.tune(
                model, slimmer.model, lesson, epochs=_keras_slim.EPOCHS, rate=_keras_slim.LEARNING_RATE
            )
            _keras_tune.recalibrate(model, lesson.x, seed=lesson.seed)
        return model, wire.Done(steps=steps, macs=slimmer.macs, channels=slimmer.removed)
    model = _load(question.path)
    if isinstance(question, wire.Prune):
        pruned = _keras_prune.prune(model, lesson, sparsity=question.sparsity)
        return model, wire.Done(sparsity=pruned.sparsity, layers=pruned.layers, steps=pruned.steps)
    learned = _keras_qat.learn(model, lesson)
    return model, wire.Done(layers=learned.layers, steps=learned.steps)


# The last model whose channels were given up, so that the next rung does not begin at the top again.
_last: dict[tuple[str, str, int], Any] = {}


def _slimmer(question: wire.Slim, lesson: Any) -> Any:
    from edge_converter import _keras_slim, _keras_tune

    key = question.path, question.arrays, question.seed
    if key not in _last or _last[key].rung > question.rung:
        _last.clear()
        model = _keras_tune.adapted(_load(question.path), lesson)
        _last[key] = _keras_slim.Slimmer(model, lesson.x, seed=question.seed)
    return _last[key]


def _saved_model(path: str) -> Any:
    """A converter of a SavedModel directory.

    Beside the network one may hold the optimizer it was trained with, and one of Keras 2 cannot be loaded where only
    Keras 3 is ("_UserObject has no attribute add_slot"). The older loader reads the network alone.
    """
    import tensorflow as tf

    try:
        return tf.lite.TFLiteConverter.from_saved_model(path)
    except Exception as error:  # noqa: BLE001 - the loaders raise whatever the protobuf and the file system raise
        traceback.print_exc()
        try:
            return tf.compat.v1.lite.TFLiteConverter.from_saved_model(path, signature_key="serving_default")
        except Exception:  # noqa: BLE001 - the same loader's, and the first error says more
            raise _refused("source", f"is no whole SavedModel: {_first_line(error)}") from error


def _load(path: str) -> Any:
    import keras

    class DepthwiseConv2D(keras.layers.DepthwiseConv2D):  # type: ignore[misc]  # Keras has no types
        """Keras 2 wrote `groups` into every file with such a layer, always 1, and Keras 3 stumbles over it."""

        def __init__(self, *args: Any, groups: int = 1, **keywords: Any) -> None:
            del groups
            super().__init__(*args, **keywords)

    known = {} if path.endswith(".keras") else {"DepthwiseConv2D": DepthwiseConv2D}
    try:
        return keras.models.load_model(path, compile=False, custom_objects=known)
    except Exception as error:  # a zip, an HDF5 file, JSON and every layer's own code are read here
        traceback.print_exc()
        unknown = _UNKNOWN_LAYER.search(str(error))
        if unknown:
            name = next(group for group in unknown.groups() if group)
            hint = "export it as a SavedModel or .tflite, where the layer's class is not needed"
            raise _refused("unsupported", f"holds {name}, which Keras does not know", hint) from error
        unreadable = _UNREADABLE_LAYER.search(str(error))
        if unreadable:
            what = f"holds a {unreadable[1]} layer that Keras {keras.__version__} cannot read"
            raise _refused("unsupported", what, "export it as a SavedModel or .tflite where it was trained") from error
        hint = "save it again with model.save()"
        raise _refused("source", f"is damaged or no Keras model: {_first_line(error)}", hint) from error


def _write(converter: Any, into: str) -> None:
    try:
        content = converter.convert()
    except Exception as error:  # the MLIR converter raises several kinds, and Keras traces the model's own code
        traceback.print_exc()
        for pattern in (_FLEX, _CUSTOM):
            if found := pattern.search(str(error)):
                what = f"needs operators TensorFlow Lite does not have: {found[1].strip()[:_REASON_CHARS]}"
                raise _refused("unsupported", what, "replace the layers they come from") from error
        raise _refused("unsupported", f"cannot be converted: {_first_line(error)}") from error
    with open(into, "wb") as file:  # noqa: PTH123 - a path as it was given
        file.write(content)


def _refused(kind: Any, what: str, hint: str = "") -> _RefusedError:
    return _RefusedError(wire.Failed(kind=kind, what=what, hint=hint))


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:_REASON_CHARS]


def _answer(answers: IO[bytes], answer: wire.Answer) -> None:
    answers.write(msgspec.json.encode(answer) + b"\n")
    answers.flush()


def _read(stdin: IO[bytes], questions: queue.SimpleQueue[bytes]) -> None:
    for line in stdin:
        questions.put(line)
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
