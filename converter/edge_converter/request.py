"""What is asked of the converter, what it answers, and how it says how far it is."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from edge_sdk.manifest import Latency, Manifest, Objective, Precision, Preprocessing

DEFAULT_MAX_DROP = 2.0
DEFAULT_SPARSITY = 0.5


class Bound(enum.Enum):
    """What of a drop `max_drop` bounds: the drop as measured, or the upper end of its 95 % interval."""

    POINT = "point"
    INTERVAL = "interval"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertRequest:
    """One conversion.

    Attributes:
        models: `.keras`, `.h5`, `.tflite`, `.pt2`, `.onnx` files, SavedModel directories or `torch:module:function`,
            with the same inputs and outputs.
        data: Labelled data: an `.npz` file, a folder of images or sounds, or `module:function`.
        output: The bundle's directory; a bundle that stands there is replaced.
        profiles: Ids of the boards to choose variants for.
        name: The model's name; None takes it from `output` (`digits-1.edge` is digits, version 1).
        version: Likewise.
        max_drop: A variant that loses more points of its metric against its own float file is refused.
        bound: What of the drop that bounds.
        metric: What variants are worth, such as `accuracy`, or `module:function`; None guesses by the labels.
        rate_hz: Of the sounds in a folder; None takes that of the first.
        max_size: Bytes that a variant made here may have; what was given may be larger. None allows any size.
        max_latency_ms: What one inference may take on each board; what surely takes longer is left out of its front.
        objective: What the variants recommended for a board are ordered by.
        evidence: `evidence.json` files of devices, whose measurements decide for their boards.
        calibration: Samples that give activation ranges and fine-tune; None takes them out of `data`.
        train: Labelled data to fine-tune models on; None takes the calibration and steering samples.
        prune: Share of the weights to remove from Keras sources; 0 for none.
        slim: How many times as fast Keras sources are to become by removing channels; 0 for none.
        qat: Fine-tune Keras sources for int8.
        train_steps: Batches of 64 samples to fine-tune on; 0 for as many as the samples ask for.
        recipe: Name of a recipe or path of its file; None takes those of the profiles.
        settings: Options to change in it, each as `VARIANT.PASS.OPTION=VALUE`.
        precisions: Number formats to make, searched or not; none leaves it to the recipe. fp32 is always there, as the
            reference.
        preprocessing: Applied to every sample before it reaches the model.
        seed: For everything random.
        threads: Of the interpreters that calibrate and whose latencies are measured.
        cache: Directory of results that are not computed again; None keeps none.
        resume: Say how much of an earlier conversion, which may have been killed, is known.
        variant_deadline_s: One variant may take this long to make, where it is made in a process of its own.
        compiler_deadline_s: An accelerator's compiler may take this long for one file.
        keras_deadline_s: One conversion or fine-tuning in a process of TensorFlow, PyTorch or onnx2tf may take this
            long.
        signature: Of SavedModel and `.tflite` sources that have several; None for `serving_default`, or the only one.
        input_shapes: One for each input, in the source's own layout, where more than the batch is free.
        onnx_python: An interpreter that has onnx2tf; None makes an environment for it.
    """

    models: tuple[Path, ...]
    data: Path
    output: Path
    profiles: tuple[str, ...] = ()
    name: str | None = None
    version: str | None = None
    max_drop: float = DEFAULT_MAX_DROP
    bound: Bound = Bound.POINT
    metric: str | None = None
    rate_hz: int | None = None
    max_size: int | None = None
    max_latency_ms: float | None = None
    objective: Objective = Objective.ACCURACY
    evidence: tuple[Path, ...] = ()
    calibration: Path | None = None
    train: Path | None = None
    prune: float = DEFAULT_SPARSITY
    slim: float = 0.0
    qat: bool = False
    train_steps: int = 0
    recipe: str | None = None
    settings: tuple[str, ...] = ()
    precisions: tuple[Precision, ...] = ()
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    seed: int = 0
    threads: int = 1
    cache: Path | None = None
    resume: bool = False
    variant_deadline_s: float = 3600.0
    keras_deadline_s: float = 1800.0
    compiler_deadline_s: float = 600.0
    signature: str | None = None
    input_shapes: tuple[tuple[int, ...], ...] = ()
    onnx_python: Path | None = None

    @property
    def trains(self) -> bool:
        """Something is to be made that needs training."""
        return bool(self.prune or self.slim or self.qat)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertResult:
    """What came of it.

    Attributes:
        bundle: Where the bundle lies.
        manifest: What is in it.
        latencies: Measured here, and predicted for the boards.
        by_class: The metric's value of each class, by variant and class number; empty where it knows no classes.
        notes: What a reader should know, in sentences.
        seconds: How long it took.
    """

    bundle: Path
    manifest: Manifest
    latencies: tuple[Latency, ...]
    by_class: Mapping[str, Mapping[int, float]]
    notes: tuple[str, ...]
    seconds: float


class Progress(Protocol):
    """Told how far a conversion is; called from the converting thread only."""

    def stage(self, what: str, total: int) -> None:
        """A stage begins; it has `total` steps, 0 where that is not known."""

    def advance(self, steps: int) -> None:
        """The stage has come this many steps further."""

    def note(self, text: str) -> None:
        """Something a reader should know."""


class Silent:
    """Progress nobody watches."""

    def stage(self, what: str, total: int) -> None:
        """Say nothing."""

    def advance(self, steps: int) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""
