"""The child process that runs TensorFlow: what it is asked.

TensorFlow stays out of this process: it takes 20 to 40 s and half a gigabyte to import, prints what nobody asked for,
leaks memory with each conversion, and can take its process down with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from edge_converter import _keras_wire as wire
from edge_converter.child import AnsweringChild, Worker
from edge_converter.errors import KerasProcessError
from edge_converter.sources import Framework

_TENSORFLOW = Worker(
    name="TensorFlow",
    module="_keras_worker",
    answers=wire.Answer,
    error=KerasProcessError,
    option="--keras-deadline",
    environment={
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_ENABLE_ONEDNN_OPTS": "1",  # trains in half the time; the process fixes the threads it sums with
        "CUDA_VISIBLE_DEVICES": "-1",
        "KERAS_BACKEND": "tensorflow",
    },
)
_DOING = {wire.Prune: "prune", wire.Slim: "remove channels", wire.Qat: "fine-tune"}


class KerasProcess(AnsweringChild):
    """A child process with TensorFlow in it, for as long as the block lasts.

    Args:
        folder: Where its messages are kept for an error's text, and what TensorFlow leaves in temporary files.
        deadline_s: For each thing it is asked.

    Raises:
        MissingExtraError: TensorFlow is not installed.
        KerasProcessError: The process died or did not answer in time.
    """

    def __init__(self, folder: Path, *, deadline_s: float) -> None:
        super().__init__(_TENSORFLOW, folder, deadline_s=deadline_s)

    def convert(
        self,
        path: Path,
        framework: Framework,
        into: Path,
        *,
        signature: str | None = None,
        shapes: Sequence[tuple[int, ...]] = (),
    ) -> None:
        """Write the model as a float `.tflite` file.

        Args:
            path: A `.keras` or `.h5` file, or a SavedModel directory.
            framework: Which of them.
            into: The file to write.
            signature: Of a SavedModel; None for its `serving_default`, or its only one.
            shapes: Of its inputs, where more than the batch is free.

        Raises:
            SourceError: The file cannot be read.
            UnsupportedModelError: It has a layer or an operator that cannot be converted.
            KerasProcessError: The process died or took too long.
        """
        kind = "saved_model" if framework is Framework.SAVED_MODEL else "keras"
        question = wire.Convert(
            path=str(path.absolute()),
            framework=kind,  # type: ignore[arg-type]
            into=str(into),
            signature=signature,
            shapes=tuple(shapes),
        )
        self._ask(question)
        self._await("convert", str(path), lambda _: None, wire.Done)

    def train(
        self, question: wire.Prune | wire.Slim | wire.Qat, advance: Callable[[int], None] = lambda _: None
    ) -> wire.Done:
        """Change the model, fine-tune it, and write it as a float `.tflite` file.

        Args:
            question: What to do to which `.keras` or `.h5` file.
            advance: Told how many more percent are done.

        Raises:
            SourceError: The file cannot be read.
            UnsupportedModelError: It has nothing to prune, or cannot be trained.
            KerasProcessError: The process died or took too long.
        """
        self._ask(question)
        return self._await(_DOING[type(question)], question.path, advance, wire.Done)
