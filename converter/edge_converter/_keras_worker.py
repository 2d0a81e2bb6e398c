"""Run as a child process: the only code of this product that imports TensorFlow while converting.

Reads one question a line on stdin and answers on stdout (`edge_converter._keras_wire`); whatever TensorFlow prints
goes to stderr. It ends, wherever it is, when stdin closes: then nobody wants its answer any more.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import IO, Any

import msgspec

from edge_converter import _keras_wire as wire
from edge_converter import _serve

# The converter names what it cannot do in a paragraph; these find the sentence.
_FLEX = re.compile(r"^(?:TF Select ops|Flex ops):\s*([^\n]+)", re.MULTILINE)
_CUSTOM = re.compile(r"^Custom ops:\s*([^\n]+)", re.MULTILINE)
_UNKNOWN_LAYER = re.compile(r"[Cc]ould not locate (?:class|function) '([^']+)'|Unknown (?:layer|object)[:'\s]+(\w+)")
_UNREADABLE_LAYER = re.compile(r"Error when deserializing class '([^']+)'")
_REASON_CHARS = 300
_THREADS = 4


def main() -> int:
    """Answer until stdin closes; returns the exit status."""
    answers, questions = _serve.answers(), _serve.questions()
    if importlib.util.find_spec("tensorflow") is None:
        hint = "pip install 'adaptive-edge-sdk[keras]', or give .tflite files"
        _answer(answers, wire.Failed(kind="missing", what="needs TensorFlow, which is not installed", hint=hint))
        return 0
    import tensorflow as tf

    # Sums depend on how many threads share them: always so many, whatever the machine has.
    tf.config.threading.set_intra_op_parallelism_threads(_THREADS)
    _answer(answers, wire.Ready(version=tf.__version__))
    for line in questions:
        _answer(answers, _handle(msgspec.json.decode(line, type=wire.Ask), answers))
    return 0


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

    if question.framework == "saved_model":
        converter = _saved_model(question.path, question.signature, question.shapes)
    elif question.shapes:
        converter = tf.lite.TFLiteConverter.from_keras_model(_fixed(_load(question.path), question.shapes))
    else:
        converter = tf.lite.TFLiteConverter.from_keras_model(_load(question.path))
    _write(converter, question.into)
    return wire.Done()


def _fixed(model: Any, shapes: Sequence[tuple[int, ...]]) -> Any:
    """The same Keras model, taking inputs of these shapes and no others; recurrent layers are unrolled."""
    import keras

    _check_shapes({one.name: tuple(one.shape) for one in model.inputs}, shapes)
    for layer in _layers(model):
        if isinstance(layer, keras.layers.RNN):
            layer.unroll = True  # a loop stays a loop in the file, and nothing here or on most delegates runs one
    inputs = [
        keras.Input(batch_shape=shape, dtype=one.dtype, name=one.name)
        for one, shape in zip(model.inputs, shapes, strict=True)
    ]
    try:
        return keras.Model(inputs, model(inputs if len(inputs) > 1 else inputs[0]))
    except Exception as error:  # every layer's own code runs here
        traceback.print_exc()
        raise _refused("unsupported", f"cannot compute with that --input-shape: {_first_line(error)}") from error


def _layers(model: Any) -> Iterator[Any]:
    for layer in model.layers:
        yield layer
        yield from _layers(layer) if hasattr(layer, "layers") else ()


def _check_shapes(takes: dict[str, tuple[int | None, ...]], shapes: Sequence[tuple[int, ...]]) -> None:
    if len(takes) != len(shapes):
        raise _refused("unsupported", f"has {len(takes)} inputs, and --input-shape is given {len(shapes)} times")
    for (name, sizes), shape in zip(takes.items(), shapes, strict=True):
        fits = len(sizes) == len(shape) and all(size in {None, want} for size, want in zip(sizes, shape, strict=True))
        if not fits:
            raise _refused("unsupported", f"its input {name} is {list(sizes)}, not {list(shape)}")


def _train(question: wire.Prune | wire.Slim | wire.Qat, answers: IO[bytes]) -> wire.Done:
    import numpy as np
    import tensorflow as tf

    from edge_converter import _keras_graph, _keras_prune, _keras_slim, _keras_tune

    # Before the model is loaded, so that its dropout layers are seeded too.
    tf.keras.utils.set_random_seed(question.seed)
    tf.config.experimental.enable_op_determinism()
    with np.load(question.arrays) as arrays:
        # Samples of a folder come class by class, and parts of them have to stand for all.
        order = np.random.default_rng(question.seed).permutation(len(arrays["x"]))
        lesson = _keras_tune.Lesson(
            x=arrays["x"][order],
            y=arrays["y"][order] if "y" in arrays.files else None,
            asked=question.steps,
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
                model,
                slimmer.model,
                lesson,
                epochs=_keras_slim.EPOCHS,
                rate=_keras_slim.LEARNING_RATE,
                mixed=_keras_slim.MIXED,
                labels=_keras_slim.LABELS,
                least=_keras_slim.LEAST_STEPS,
            )
            _keras_tune.recalibrate(model, lesson.x, seed=lesson.seed)
        return model, wire.Done(steps=steps, taught=slimmer.taught, macs=slimmer.macs, channels=slimmer.removed)
    model = _load(question.path)
    if isinstance(question, wire.Prune):
        pruned = _keras_prune.prune(model, lesson, sparsity=question.sparsity)
        return model, wire.Done(sparsity=pruned.sparsity, layers=pruned.layers, steps=pruned.steps)
    learned = _keras_qat.learn(model, lesson)
    return model, wire.Done(layers=learned.layers, steps=learned.steps)


# The last model whose channels were given up: what losing them costs is measured once for all rungs.
_last: dict[tuple[str, str, int, int], Any] = {}


def _slimmer(question: wire.Slim, lesson: Any) -> Any:
    from edge_converter import _keras_slim, _keras_teacher

    key = question.path, question.arrays, question.seed, question.steps
    if key not in _last:
        _last.clear()
        model = _keras_teacher.adapted(_load(question.path), lesson)
        slimmer = _keras_slim.Slimmer(model, lesson.x, seed=question.seed, classes=lesson.classes(model))
        slimmer.taught = _keras_teacher.teach(model, lesson)
        _last[key] = slimmer
    return _last[key]


def _saved_model(path: str, wanted: str | None, shapes: Sequence[tuple[int, ...]]) -> Any:
    """A converter of one signature of a SavedModel directory.

    Beside the network one may hold the optimizer it was trained with, and one of Keras 2 cannot be loaded where only
    Keras 3 is ("_UserObject has no attribute add_slot"). The older loader reads the network alone.
    """
    import tensorflow as tf

    key = _signature(path, wanted)
    try:
        if shapes:
            loaded = tf.saved_model.load(path)
            return _traced(loaded, loaded.signatures[key], shapes)
        return tf.lite.TFLiteConverter.from_saved_model(path, signature_keys=[key])
    except _RefusedError:
        raise
    except Exception as error:  # noqa: BLE001 - the loaders raise whatever the protobuf and the file system raise
        traceback.print_exc()
        try:
            return tf.compat.v1.lite.TFLiteConverter.from_saved_model(path, signature_key=key)
        except Exception:  # noqa: BLE001 - the same loader's, and the first error says more
            raise _refused("source", f"is no whole SavedModel: {_first_line(error)}") from error


def _traced(loaded: Any, signature: Any, shapes: Sequence[tuple[int, ...]]) -> Any:
    """A converter of a signature, taking inputs of these shapes and no others."""
    import tensorflow as tf

    takes = signature.structured_input_signature[1]
    _check_shapes({name: tuple(spec.shape) for name, spec in takes.items()}, shapes)
    specs = {
        name: tf.TensorSpec(shape, spec.dtype, name=name)
        for (name, spec), shape in zip(takes.items(), shapes, strict=True)
    }
    computed = tf.function(lambda *values: signature(**dict(zip(specs, values, strict=True))))
    return tf.lite.TFLiteConverter.from_concrete_functions([computed.get_concrete_function(*specs.values())], loaded)


def _signature(path: str, wanted: str | None) -> str:
    """The signature to convert: the one named, else `serving_default`, else the only one."""
    from tensorflow.python.tools import saved_model_utils

    try:
        found = [
            name
            for name in saved_model_utils.get_meta_graph_def(path, "serve").signature_def
            if not name.startswith("__")
        ]
    except Exception as error:  # a protobuf is parsed here
        traceback.print_exc()
        raise _refused("source", f"is no whole SavedModel: {_first_line(error)}") from error
    names = ", ".join(sorted(found)) or "none"
    if wanted is not None and wanted not in found:
        raise _refused("unsupported", f"has no signature {wanted!r}", f"it has {names}")
    if wanted is None and "serving_default" not in found and len(found) != 1:
        raise _refused("unsupported", f"has the signatures {names}", "choose one with --signature")
    return wanted or ("serving_default" if "serving_default" in found else found[0])


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
        if "safe_mode" in str(error) or "unsafe" in str(error).lower():
            what = "holds code (a Lambda layer), which would run when it is loaded"
            raise _refused(
                "unsupported", what, "use a layer of Keras for it, or export a SavedModel or .tflite"
            ) from error
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
        if "TensorList" in str(error):
            hint = "--input-shape with batch and length fixed unrolls it, such as 1,28,28"
            raise _refused("unsupported", "holds a loop, of a recurrent layer most often", hint) from error
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


if __name__ == "__main__":
    sys.exit(main())
