"""What the converter and its TensorFlow process say to each other: one JSON object a line.

Light: the process's parent imports it without TensorFlow, and the process before it.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class Convert(msgspec.Struct, frozen=True, kw_only=True, tag="convert", forbid_unknown_fields=True):
    """Convert a model to a float `.tflite` file."""

    path: str
    framework: Literal["keras", "saved_model"]
    into: str


class Prune(msgspec.Struct, frozen=True, kw_only=True, tag="prune", forbid_unknown_fields=True):
    """Prune and fine-tune a Keras model, then convert it."""

    path: str
    arrays: str
    into: str
    sparsity: float
    seed: int


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready", forbid_unknown_fields=True):
    """TensorFlow is imported."""

    version: str


class Advance(msgspec.Struct, frozen=True, kw_only=True, tag="advance", forbid_unknown_fields=True):
    """This many more percent are done."""

    percent: int


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


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed", forbid_unknown_fields=True):
    """It could not be done.

    Attributes:
        kind: `missing`: TensorFlow is not installed; `source`: the file cannot be read; `unsupported`: it holds
            something that cannot be converted or pruned.
        what: One clause.
        hint: What to try.
    """

    kind: Literal["missing", "source", "unsupported"]
    what: str
    hint: str = ""


Ask = Convert | Prune
Answer = Ready | Advance | Done | Failed
