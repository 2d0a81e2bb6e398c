"""What is asked of the converter, what it answers, and how it says how far it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from edge_sdk.manifest import Latency, Manifest, Precision, Preprocessing

DEFAULT_MAX_DROP = 2.0
DEFAULT_SPARSITY = 0.5
# EfficientNet-Lite0's int8 travels in 4.4 MB, with 49 levels in 3.1 MB.
DEFAULT_CLUSTERS = 49
# What is made where nothing is said: all that needs no search.
DEFAULT_PRECISIONS = (
    Precision.FP32,
    Precision.FP16,
    Precision.DYNAMIC,
    Precision.INT8,
    Precision.INT16X8,
    Precision.WEIGHT8,
    Precision.WEIGHT4,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertRequest:
    """One conversion.

    Attributes:
        models: `.keras`, `.h5`, `.tflite` files or SavedModel directories with the same inputs and outputs.
        data: Labelled data: an `.npz` file or a folder of images.
        output: The bundle's directory; a bundle that stands there is replaced.
        profiles: Ids of the boards to choose variants for.
        name: The model's name; None takes it from `output` (`digits-1.edge` is digits, version 1).
        version: Likewise.
        max_drop: A variant that loses more points of accuracy against its own float file is refused.
        max_size: Bytes that a variant made here may have; what was given may be larger. None allows any size.
        calibration: Samples that give activation ranges and fine-tune; None takes them out of `data`.
        train: Labelled data to fine-tune models on; None takes the calibration and steering samples.
        prune: Share of the weights to remove from Keras sources; 0 for none.
        slim: How many times as fast Keras sources are to become by removing channels; 0 for none.
        qat: Fine-tune Keras sources for int8.
        clusters: Distinct weights a channel in the clustered twin of int8, which travels lighter; 0 for none.
        precisions: Number formats to make; fp32 is always made, as the reference.
        preprocessing: Applied to every sample before it reaches the model.
        seed: For everything random.
        threads: Of the interpreters that calibrate and whose latencies are measured.
        keras_deadline_s: One conversion or fine-tuning in the TensorFlow process may take this long.
    """

    models: tuple[Path, ...]
    data: Path
    output: Path
    profiles: tuple[str, ...] = ()
    name: str | None = None
    version: str | None = None
    max_drop: float = DEFAULT_MAX_DROP
    max_size: int | None = None
    calibration: Path | None = None
    train: Path | None = None
    prune: float = DEFAULT_SPARSITY
    slim: float = 0.0
    qat: bool = False
    clusters: int = DEFAULT_CLUSTERS
    precisions: tuple[Precision, ...] = DEFAULT_PRECISIONS
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    seed: int = 0
    threads: int = 1
    keras_deadline_s: float = 1800.0

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
        notes: What a reader should know, in sentences.
        seconds: How long it took.
    """

    bundle: Path
    manifest: Manifest
    latencies: tuple[Latency, ...]
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
