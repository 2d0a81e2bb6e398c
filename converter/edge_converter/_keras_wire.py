"""What the converter and its TensorFlow process say to each other: one JSON object a line.

Light: the process's parent imports it without TensorFlow, and the process before it.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from edge_converter._child_wire import Advance, Failed, Ready

__all__ = ["Advance", "Answer", "Ask", "Convert", "Done", "Failed", "Prune", "Ready"]


class Convert(msgspec.Struct, frozen=True, kw_only=True, tag="convert", forbid_unknown_fields=True):
    """Convert a model to a float `.tflite` file.

    Attributes:
        signature: Of a SavedModel; None for its `serving_default`, or its only one.
        shapes: Of its inputs, where more than the batch is free; none to leave them.
    """

    path: str
    framework: Literal["keras", "saved_model"]
    into: str
    signature: str | None = None
    shapes: tuple[tuple[int, ...], ...] = ()


class Prune(msgspec.Struct, frozen=True, kw_only=True, tag="prune", forbid_unknown_fields=True):
    """Prune and fine-tune a Keras model, then convert it."""

    path: str
    arrays: str
    into: str
    sparsity: float
    seed: int


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done", forbid_unknown_fields=True):
    """The file is written.

    Attributes:
        sparsity: Share of zeros among the weights that were pruned.
        layers: How many were pruned.
        steps: Of fine-tuning.
    """

    sparsity: float = 0.0
    layers: int = 0
    steps: int = 0


Ask = Convert | Prune
Answer = Ready | Advance | Done | Failed
