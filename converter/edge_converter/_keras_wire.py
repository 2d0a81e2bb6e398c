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


# What a rung of channel pruning leaves of the time of an inference, by the cost its channels are chosen by.
RUNG = 0.93


class Prune(msgspec.Struct, frozen=True, kw_only=True, tag="prune", forbid_unknown_fields=True):
    """Prune and fine-tune a Keras model, then convert it.

    Attributes:
        arrays: An `.npz` file of samples `x` and, where they are known, their classes `y`.
    """

    path: str
    arrays: str
    into: str
    sparsity: float
    seed: int


class Slim(msgspec.Struct, frozen=True, kw_only=True, tag="slim", forbid_unknown_fields=True):
    """Remove channels of a Keras model, fine-tune it if asked to, and convert it.

    Attributes:
        arrays: An `.npz` file of samples `x` and, where they are known, their classes `y`.
        rung: How far down the ladder whose rungs each leave `RUNG` of the one above.
        tune: Fine-tune; the file of a model that is not has the right shape and time, and no more.
    """

    path: str
    arrays: str
    into: str
    rung: int
    tune: bool
    seed: int


class Qat(msgspec.Struct, frozen=True, kw_only=True, tag="qat", forbid_unknown_fields=True):
    """Fine-tune a Keras model as it will be once quantized, and convert it, still in floats.

    Attributes:
        arrays: An `.npz` file of samples `x` and, where they are known, their classes `y`.
    """

    path: str
    arrays: str
    into: str
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
        layers: How many were pruned, or learned to be quantized.
        steps: Of fine-tuning.
        macs: Multiply-accumulates of the original, and of what is left of it.
        channels: How many were removed, and how many could have been.
    """

    sparsity: float = 0.0
    layers: int = 0
    steps: int = 0
    macs: tuple[int, int] = (0, 0)
    channels: tuple[int, int] = (0, 0)


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


Ask = Convert | Prune | Slim | Qat
Answer = Ready | Advance | Done | Failed
